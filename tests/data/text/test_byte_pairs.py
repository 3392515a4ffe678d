"""Byte-pair encoding: the rules of GPT-2 on texts that one can follow by hand, and naive twins."""

import collections
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_np.data.text import bible, byte_pairs, pieces

WORDS = st.lists(st.text("abc", min_size=1, max_size=12), max_size=12)


def ids_of(text):
    """The ids of a text's bytes."""
    return [byte_pairs.BYTES.index(byte) for byte in text.encode()]


def naive_merges(words, number):
    """Sennrich et al. 2016, as written: count all pairs anew for every merge."""
    merges = []
    words = [list(word) for word in words]
    while len(merges) < number:
        counts = collections.Counter(p for word in words for p in itertools.pairwise(word))
        pair = min(counts, key=lambda p: (-counts[p], p), default=None)
        if pair is None or counts[pair] < 2:
            break
        merges.append(pair)
        words = [naive_merge(word, pair, 255 + len(merges)) for word in words]
    return merges


def naive_merge(word, pair, token):
    merged = []
    while word:
        length = 2 if tuple(word[:2]) == pair else 1
        merged.append(token if length == 2 else word[0])
        word = word[length:]
    return merged


@settings(max_examples=200)
@given(WORDS, st.integers(0, 20))
def test_training_and_encoding_are_the_naive_ones(words, number):
    words = [ids_of(word) for word in words]
    merges = naive_merges(words, number)
    lists = [list(word) for word in words]
    assert byte_pairs.learnt_merges(lists, [1] * len(words), number) == merges
    rank = {pair: i for i, pair in enumerate(merges)}
    for word, trained in zip(words, lists, strict=True):
        for i, pair in enumerate(merges):
            word = naive_merge(word, pair, 256 + i)
        assert trained == word
    for word in words:
        naive = word
        for i, pair in enumerate(merges):
            naive = naive_merge(naive, pair, 256 + i)
        assert byte_pairs.merged(word, rank) == naive


def test_ids_of_bytes_are_those_of_gpt2():
    assert ids_of("!A~") == [0, 32, 93] and ids_of(" ") == [220]
    assert sorted(byte_pairs.BYTES) == list(range(256))


def test_the_most_frequent_pair_first_and_ties_by_ids():
    tokeniser = byte_pairs.train("ab ab ab cd cd", 260)
    a, b, c, d, space = ids_of("abcd ")
    # "ab" three times; then " c", "cd" and " "+"ab" twice: the smallest pair of ids is "cd"
    assert tokeniser.merges == [(a, b), (c, d), (space, 256), (space, 257)]
    assert tokeniser.encode("ab cd abcd").tolist() == [256, 259, 258, 257]


def test_a_pair_must_occur_twice():
    tokeniser = byte_pairs.train("abc", 300, ("<end>",))
    assert tokeniser.merges == [] and tokeniser.size == 257


def test_the_space_belongs_to_the_word_that_follows():
    words = pieces.pieces("In the beginning, God's  3 days\n\nwere ")
    wanted = ["In", " the", " beginning", ",", " God", "'s", " ", " 3", " days", "\n", "\n", "were"]
    assert words == [*wanted, " "]


@settings(max_examples=100)
@given(st.text() | st.text(" a1'.s_é\n\t½"))
def test_both_patterns_agree(text):
    assert "".join(pieces.pieces(text)) == text
    exact = pieces.exact_pattern().findall(text)
    if pieces.exceptions().isdisjoint(text):
        assert pieces.USUAL.findall(text) == exact
    assert pieces.pieces(text) == exact


def test_the_pieces_are_those_of_the_published_pattern():
    module = pytest.importorskip("regex")  # a module that knows \p
    pattern = module.compile(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    )
    text = "I'll go — ½ Ⅳ ² ²x _a_ 日本3\x1c \x85\u2028 e\u0301'M'm"
    assert pieces.pieces(text) == pattern.findall(text)


def test_numbers_without_digits_are_numbers():
    assert pieces.pieces("x½Ⅳ3y") == ["x", "½Ⅳ3", "y"]
    assert pieces.pieces(" \x1c!") == [" \x1c!"]  # no space for the pattern of GPT-2


def test_a_long_piece_is_encoded_in_reasonable_time():
    tokeniser = byte_pairs.train("ab ab ab abab abab", 260)
    text = "ab" * 100_000
    assert tokeniser.decode(tokeniser.encode(text)) == text
    assert len(tokeniser._memory) < 10  # long pieces are not remembered


@pytest.mark.seconds
def test_a_chapter_has_a_quarter_as_many_tokens_as_bytes():
    text = bible.running_text(bible.split().train[:8000])
    tokeniser = byte_pairs.train(text, 2048)
    held_out = bible.running_text(bible.of_books(["Ruth"]))
    ratio = len(held_out.encode()) / len(tokeniser.encode(held_out))
    assert 3 < ratio < 4.5
    assert re.search(r"\bBoaz\b", tokeniser.decode(tokeniser.encode(held_out)))
