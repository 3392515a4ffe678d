"""The text of a run: whole books or the end of a file are held out."""

import pytest

from moe_np.data.text import bible
from moe_np.language import corpus


def test_whole_books_of_the_shipped_text_are_held_out():
    text = corpus.shipped()
    assert text.train.startswith("In the beginning God created")
    esther = bible.of_books(["Esth"])
    assert text.validation.startswith(esther[0].english)
    assert not any(verse.english in text.train for verse in esther[:20])


def test_the_end_of_a_file_is_held_out_from_the_beginning_of_a_line(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"line {n}\n" for n in range(100)), encoding="utf-8")
    text = corpus.of_file(path)
    assert text.name == "lines.txt"
    assert text.train.endswith("line 89\n")
    assert text.validation.startswith("line 90\n")
    assert text.train + text.validation == path.read_text(encoding="utf-8")


def test_a_text_of_one_line_is_cut_within_it(tmp_path):
    path = tmp_path / "line.txt"
    path.write_text("0123456789", encoding="utf-8")
    text = corpus.of_file(path)
    assert (text.train, text.validation) == ("012345678", "9")


def test_the_digest_tells_texts_and_their_division_apart():
    texts = [("ab", "c"), ("a", "bc"), ("ab", "d"), ("", "abc")]
    digests = {corpus.Corpus("x", train, held_out).digest() for train, held_out in texts}
    assert len(digests) == 4
    assert corpus.Corpus("y", "ab", "c").digest() in digests


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "wanted a text file, got .*No such file"),
        (b"", "wanted a text to divide in two, got 0 characters"),
        (b"a", "wanted a text to divide in two, got 1 characters"),
        (b"abc\xff", "wanted UTF-8, got .*byte 3 is none"),
    ],
)
def test_a_file_that_is_no_text_is_named(tmp_path, content, message):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"--text: {message}"):
        corpus.of_file(path)
