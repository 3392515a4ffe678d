"""Words: which parts have ids, which gaps need no token, and the token for the unknown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_np.base.checks import InputError
from moe_np.data.text import bible, words

KNOWN = words.Words(["God", "said", ",", ".", "(", ")", "\n", "it’s", "En-gedi"])
PAPER = words.Words(KNOWN.words, "<unk>")


def tokens(tokeniser, text):
    """The ids of a text, each with its name."""
    names = {i + tokeniser.first: word for i, word in enumerate(tokeniser.words)}
    names |= {words.JOIN: "+", words.UNKNOWN: "<unk>"}
    return [names[i] if i in names else chr(i - 2) for i in tokeniser.encode(text).tolist()]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("God said, (it’s God).", ["God", "said", ",", "(", "it’s", "God", ")", "."]),
        ("God ,said", ["God", " ", ",", "+", "said"]),
        ("God\nsaid\n", ["God", "\n", "said", "\n"]),
        (" God  said", [" ", "God", " ", " ", "said"]),
        ("God xy said", ["God", "x", "y", "said"]),
        ("x y", ["x", " ", "y"]),
        ("x\nGod", ["x", "\n", "God"]),
        ("x;God", ["x", ";", "+", "God"]),
        ("En-gedi God-", ["En-gedi", "God", "+", "-"]),
        ("", []),
    ],
)
def test_tokens(text, wanted):
    assert tokens(KNOWN, text) == wanted
    assert KNOWN.decode(KNOWN.encode(text)) == text


def test_the_unknown_is_one_token_as_in_the_paper():
    assert tokens(PAPER, "God xyz said, abc") == ["God", "<unk>", "said", ",", "<unk>"]
    assert PAPER.decode(PAPER.encode("God xyz said.")) == "God <unk> said."
    assert PAPER.size == 11 and KNOWN.size == 267


@given(st.lists(st.sampled_from([*KNOWN.words, "God", "said"])).map("".join))
def test_text_of_known_parts_comes_back_without_bytes(text):
    parts = set(words.PARTS.findall(text))
    if parts <= set(PAPER.words):
        assert PAPER.decode(PAPER.encode(text)) == text


def test_the_most_frequent_words_have_ids():
    text = bible.running_text(bible.of_books(["Gen"]))
    tokeniser = words.train(text, 500, ("<end>",), unknown="<unk>")
    assert tokeniser.size == 500 and tokeniser.words[:4] == [",", "and", "the", "\n"]
    unknown = (tokeniser.encode(text) == words.UNKNOWN).mean()
    assert 0.05 < unknown < 0.2
    assert words.train("b a b a c", 300).words == ["a", "b", "c"]  # ties in the order of Unicode


def test_words_must_be_parts():
    for bad in (["a b"], [""], ["a,"]):
        with pytest.raises(InputError, match="words: wanted words or marks"):
            words.Words(bad)
    with pytest.raises(InputError, match="unknown: wanted one of"):
        words.Words([], "drop")
