"""All tokenisers: every text comes back, ids fit, JSON keeps them, bad input is refused."""

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moe_np.base.checks import InputError
from moe_np.data.text import bible, tokenisers

TEXT = bible.running_text(bible.of_books(["Ruth", "Jonah"])) + "¿Quién? (él) — ¡sí! don't\t12 ½\n"
SPECIAL = ("<pad>", "<end>")
MADE = {
    "bytes": tokenisers.train("bytes", TEXT, 258, SPECIAL),
    "words": tokenisers.train("words", TEXT, 600, SPECIAL),
    "byte_pairs": tokenisers.train("byte_pairs", TEXT, 600, SPECIAL),
}
every_kind = pytest.mark.parametrize("kind", MADE)
# any text, and text of the pieces that tokenisers treat in a way of their own
TEXTS = st.text() | st.lists(
    st.sampled_from([*" \n\t.,(¿'’-_½", "  ", "the", "God", "Boaz", "’s", "\x1c", "\u2028", "word"])
).map("".join)


@pytest.mark.seconds
@every_kind
@settings(max_examples=300)
@given(text=TEXTS)
@example(text="")
@example(text="The  LORD , said( unto\n\nher:don't\r\n\x00 ")
@example(text="<end><unk>")
@example(text="日本語 \U0001f600 e\u0301")
def test_every_text_comes_back(kind, text):
    tokeniser = MADE[kind]
    ids = tokeniser.encode(text)
    assert ids.dtype == np.int64 and ids.ndim == 1
    assert ids.size == 0 or (ids.min() >= 0 and ids.max() < tokeniser.special["<pad>"])
    assert tokeniser.decode(ids) == tokeniser.decode(ids.tolist()) == text
    parts = list(tokeniser.stream(ids))
    assert "".join(parts) == text and len(parts) == len(ids) + 1


@every_kind
@given(data=st.data())
def test_any_ids_are_decoded_in_both_ways(kind, data):
    """What a model writes need not be UTF-8."""
    tokeniser = MADE[kind]
    ids = data.draw(st.lists(st.integers(0, tokeniser.size - 1)))
    text = tokeniser.decode(np.array(ids, np.int32))
    assert "".join(tokeniser.stream(iter(ids))) == text
    assert tokeniser.decode(tokeniser.encode(text)) == text


@every_kind
def test_parts_come_with_their_ids(kind):
    """A stream waits for no later id."""
    seen = []

    def ids():
        for number in MADE[kind].encode("And Boaz said").tolist():
            seen.append(number)
            yield number

    for count, _ in enumerate(MADE[kind].stream(ids()), start=1):
        assert len(seen) == min(count, len(MADE[kind].encode("And Boaz said")))


@every_kind
def test_special_tokens(kind):
    tokeniser = MADE[kind]
    assert tokeniser.special == {"<pad>": tokeniser.size - 2, "<end>": tokeniser.size - 1}
    ids = [tokeniser.size - 1, *tokeniser.encode("Ruth").tolist(), tokeniser.size - 2]
    assert tokeniser.decode(ids) == "Ruth"


@every_kind
def test_json_keeps_a_tokeniser(kind, tmp_path):
    path = tmp_path / "new" / "tokeniser.json"
    tokenisers.save(path, MADE[kind])
    loaded = tokenisers.load(path)
    assert loaded.size == MADE[kind].size and loaded.special == MADE[kind].special
    np.testing.assert_array_equal(loaded.encode(TEXT), MADE[kind].encode(TEXT))
    assert loaded.to_dict() == json.loads(path.read_text(encoding="utf-8"))


@every_kind
def test_training_is_deterministic(kind):
    again = tokenisers.train(kind, TEXT, MADE[kind].size, SPECIAL)
    assert again.to_dict() == MADE[kind].to_dict()


@every_kind
@pytest.mark.parametrize("bad", ["a\ud800b", "\udfff"])
def test_a_lone_surrogate_is_refused_with_its_place(kind, bad):
    message = rf"text: .* the lone surrogate U\+D[8F][0F][0F] at place {bad.index(bad.strip('ab'))}"
    with pytest.raises(InputError, match=message):
        MADE[kind].encode(bad)
    with pytest.raises(InputError, match=message):
        tokenisers.train(kind, bad, 600)


@every_kind
@pytest.mark.parametrize("bad", [None, b"text", 3, ["text"]])
def test_what_is_no_text_is_refused(kind, bad):
    with pytest.raises(InputError, match="text: wanted a text"):
        MADE[kind].encode(bad)


@every_kind
@pytest.mark.parametrize(
    "bad",
    [
        [-1],
        [10_000],
        [1.0],
        [True],
        ["a"],
        np.array([5, -1]),
        np.array([10_000]),
        np.array([0.5]),
        np.array([[1]]),
        "12",
        b"12",
        7,
        None,
    ],
)
def test_wrong_ids_are_refused(kind, bad):
    with pytest.raises(InputError, match="ids: wanted"):
        MADE[kind].decode(bad)
    if isinstance(bad, list):
        with pytest.raises(InputError, match="ids: wanted"):
            list(MADE[kind].stream(bad))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("letters", "", 300), "kind: wanted one of bytes, words, byte_pairs"),
        (("bytes", "", 300), "size: wanted 256, the bytes and the special tokens, got 300"),
        (("words", "", 258), "size: wanted a whole number of at least 259, got 258"),
        (("byte_pairs", "", 256, ("<end>",)), "size: wanted a whole number of at least 257"),
        (("byte_pairs", "", 300.0), "size: wanted a whole number"),
        (("byte_pairs", "", 300, "<end>"), "special: wanted a list of names, got '<end>'"),
        (("byte_pairs", "", 300, ("a", "a")), "special: wanted different names, got 'a' twice"),
        (("words", "", 300, (3,)), "special: wanted a text"),
    ],
)
def test_bad_training_arguments(arguments, message):
    with pytest.raises(InputError) as caught:
        tokenisers.train(*arguments)
    assert message in str(caught.value)


def test_unknown_options_are_refused():
    with pytest.raises(InputError, match="options: bytes has no option unknown"):
        tokenisers.train("bytes", "", 256, unknown="bytes")
    with pytest.raises(InputError, match="unknown: wanted one of bytes, <unk>"):
        tokenisers.train("words", "", 600, unknown="nothing")


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ("[]", "saved: wanted a tokeniser's dict"),
        ("{}", "saved['kind']: wanted one of"),
        ('{"kind": ["bytes"], "special": []}', "saved['kind']: wanted one of"),
        ('{"kind": "bytes"}', "saved: wanted the keys kind, special; got kind"),
        ('{"kind": "bytes", "special": [], "x": 1}', "saved: wanted the keys"),
        ('{"kind": "bytes", "special": 3}', "special: wanted a list of names"),
        ('{"kind": "byte_pairs", "merges": [[0, 256]], "special": []}', "merges[0]: wanted"),
        ('{"kind": "byte_pairs", "merges": [[0, 1], [0, 1]], "special": []}', "merges[1]: wanted"),
        ('{"kind": "byte_pairs", "merges": [[0]], "special": []}', "merges[0]: wanted a pair"),
        ('{"kind": "byte_pairs", "merges": 3, "special": []}', "merges: wanted a list of pairs"),
        ('{"kind": "words", "words": ["a b"], "unknown": "bytes", "special": []}', "words: wanted"),
        ('{"kind": "words", "words": ["a", "a"], "unknown": "bytes", "special": []}', "twice"),
        ("{", "wanted a tokeniser as JSON"),
    ],
)
def test_a_file_that_is_no_tokeniser(tmp_path, saved, message):
    path = tmp_path / "tokeniser.json"
    path.write_text(saved, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        tokenisers.load(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no\.json: wanted a tokeniser as JSON"):
        tokenisers.load(tmp_path / "no.json")


def test_bits_per_byte():
    """A byte model that knows nothing needs eight bits."""
    assert tokenisers.bits_per_byte(100 * math.log(256), 100) == pytest.approx(8)
    with pytest.raises(InputError, match="n_bytes"):
        tokenisers.bits_per_byte(1.0, 0)
