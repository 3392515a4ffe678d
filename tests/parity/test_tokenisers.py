"""Byte-pair encoding here and in the library `tokenizers` of Hugging Face: the same merges in the
same order, and the same ids, on the whole of both shipped texts, and its tokenizer.json read.

Both train on the text as one string, with the 256 bytes as alphabet, for pairs that occur twice.
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_np.base.checks import InputError
from moe_np.data.text import bible, byte_pairs, hugging_face, pieces

tokenizers = pytest.importorskip("tokenizers", "0.20")
pytestmark = pytest.mark.parity


def trained(text, size, special=()):
    """A byte-level BPE of the library."""
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def merges(tokenizer):
    """Its merges as pairs of ids."""
    vocabulary = tokenizer.get_vocab()
    rows = json.loads(tokenizer.to_str())["model"]["merges"]
    rows = [row.split(" ") if isinstance(row, str) else row for row in rows]
    return [(vocabulary[left], vocabulary[right]) for left, right in rows]


@pytest.mark.parametrize("language", bible.LANGUAGES)
def test_merges_and_ids_on_the_shipped_texts(language):
    text = bible.running_text(bible.verses(), language)
    library = trained(text, 4096)
    ours = byte_pairs.train(text, 4096)
    assert ours.merges == merges(library) and ours.size == library.get_vocab_size() == 4096
    assert ours.encode(text).tolist() == library.encode(text).ids


# the library's tables of Unicode may be younger or older than Python's
ASSIGNED = st.characters(exclude_categories=("Cs", "Cn"), max_codepoint=0x2FFFF)
SMALL = bible.running_text(bible.of_books(["Ruth"]), "spanish") * 2
LIBRARY = trained(SMALL, 700, ("<end>",))
OURS = byte_pairs.train(SMALL, 701, ("<end>",))


@settings(max_examples=500)
@given(st.text(ASSIGNED) | st.text(" a1'.s_é\n\t½\x1cR"))
def test_ids_of_any_text(text):
    assert OURS.encode(text).tolist() == LIBRARY.encode(text).ids


@pytest.mark.parametrize("text", ["aaaaaaa aaaa aa", "ababab abab", "x" * 1000, "a b c", ""])
def test_merges_of_texts_with_runs(text):
    assert byte_pairs.train(text, 300).merges == merges(trained(text, 300))


@settings(max_examples=200)
@given(st.text(ASSIGNED) | st.text(" a1'.s_é\n\t½²Ⅳ\x1c\u2028日"))
def test_pieces_are_those_of_the_library(text):
    splitter = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    spans = [span for _, span in splitter.pre_tokenize_str(text)]
    assert pieces.pieces(text) == [text[start:end] for start, end in spans]


def test_a_tokenizer_json_is_read(tmp_path):
    LIBRARY.save(str(tmp_path / "tokenizer.json"))
    tokeniser = hugging_face.load(tmp_path)
    assert tokeniser.size == OURS.size and tokeniser.special == OURS.special == {"<end>": 700}
    text = SMALL[:2000] + " 日本語 \U0001f600"
    ids = tokeniser.encode(text)
    assert ids.tolist() == OURS.encode(text).tolist()
    assert tokeniser.decode(ids) == text and tokeniser.decode([700, *ids]) == text
    parts = list(tokeniser.stream(ids))
    assert "".join(parts) == text and len(parts) == len(ids) + 1
    again = hugging_face.from_text(tokeniser.to_dict()["tokenizer"])
    assert again.encode(text).tolist() == ids.tolist()


def test_a_prefix_space_is_not_lost_in_a_stream():
    """Tokenisers in the way of SentencePiece drop the space at the beginning of a decoded text."""
    from tokenizers import decoders, models, pre_tokenizers

    vocabulary = {"▁In": 0, "▁the": 1, "re": 2, "?": 3}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokeniser = hugging_face.HuggingFace(tokenizer)
    assert list(tokeniser.stream([0, 1, 2])) == ["In", " the", "re", ""]
    assert "".join(tokeniser.stream([0, 1] * 20)) == tokeniser.decode([0, 1] * 20)


@pytest.mark.parametrize("bad", ["{}", "[", ""])
def test_another_json_is_refused(tmp_path, bad):
    path = tmp_path / "other.json"
    path.write_text(bad, encoding="utf-8")
    with pytest.raises(InputError, match=r"other\.json: wanted a tokenizer\.json, got"):
        hugging_face.load(path)


def test_bad_input_of_the_adapter():
    tokeniser = hugging_face.HuggingFace(LIBRARY)
    with pytest.raises(InputError, match="lone surrogate"):
        tokeniser.encode("\ud800")
    with pytest.raises(InputError, match="ids: wanted"):
        tokeniser.decode([701])
