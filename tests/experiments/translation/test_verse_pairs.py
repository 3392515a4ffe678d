"""Pairs of verses: what is left out, held-out books, padding, minibatches of similar length."""

import numpy as np
import pytest

from moe_np.data.text import bible
from moe_np.experiments.translation import verse_pairs


@pytest.fixture(scope="module")
def corpus():
    return verse_pairs.corpus(("Jonah", "Jude"), vocabulary=500, longest=60, held_out=20)


def test_a_verse_comes_back_from_its_tokens(corpus):
    end = corpus.tokeniser.special[verse_pairs.END]
    for pair in (*corpus.train, *corpus.test):
        assert corpus.tokeniser.decode(pair.source) == pair.verse.english
        assert pair.target[-1] == end
        assert corpus.tokeniser.decode(pair.target) == pair.verse.spanish
        assert max(len(pair.source), len(pair.target) - 1) <= 60


def test_long_verses_are_left_out_and_whole_books_held_out(corpus):
    verses = bible.of_books(("Jonah", "Jude"))
    assert corpus.kept == len(corpus.train) / len(verses) < 1
    assert {pair.verse.book for pair in corpus.train} == {"Jonah", "Jude"}
    assert {pair.verse.book for pair in corpus.validation} <= set(bible.VALIDATION)
    assert {pair.verse.book for pair in corpus.test} <= set(bible.TEST)
    lengths = [len(pair.source) + len(pair.target) for pair in corpus.train]
    assert lengths == sorted(lengths)


def test_the_verses_that_are_shown_come_first():
    whole = verse_pairs.corpus(("Jonah",), vocabulary=500, longest=500, held_out=6)
    assert [pair.verse[:3] for pair in whole.test[:4]] == list(verse_pairs.SHOWN)
    assert {book for book, _, _ in verse_pairs.SHOWN} == set(bible.TEST)


def test_padding_comes_last_and_is_no_target(corpus):
    pairs = corpus.train[:1] + corpus.train[-1:]
    source, valid, targets = verse_pairs.minibatch(pairs)
    short, long = pairs
    assert source.shape == valid.shape == (2, len(long.source))
    np.testing.assert_array_equal(source[0, : len(short.source)], short.source)
    assert valid.sum() == len(short.source) + len(long.source)
    assert not source[~valid].any()
    assert (targets[0, len(short.target) :] == verse_pairs.IGNORED).all()
    np.testing.assert_array_equal(targets[1], long.target)


def test_every_pair_is_drawn_and_minibatches_hold_different_ones(corpus):
    rng = np.random.default_rng(0)
    drawn = set()
    for _ in range(150):
        source, valid, targets = verse_pairs.random_minibatch(corpus.train, rng, batch=4)
        rows = [tuple(row[mask]) for row, mask in zip(source, valid, strict=True)]
        assert len(set(rows)) == len(targets) == 4
        drawn |= set(rows)
    assert drawn == {tuple(pair.source) for pair in corpus.train}
    few = verse_pairs.random_minibatch(corpus.train[:2], rng, batch=4)
    assert len(few.source) == 2
