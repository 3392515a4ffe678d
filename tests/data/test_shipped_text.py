"""Texts that are shipped compressed: read whole, and refused where they are not what they were."""

import hashlib
import lzma

import pytest

from moe_np.base.checks import InputError
from moe_np.data import shipped_text

TEXT = "¿Dónde? A line\nand another\n"
SHA256 = hashlib.sha256(TEXT.encode()).hexdigest()


def test_the_text_comes_as_it_was_written(tmp_path):
    file = tmp_path / "a.xz"
    file.write_bytes(lzma.compress(TEXT.encode()))
    assert shipped_text.read(file, SHA256, "two lines") == TEXT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"a\.xz: wanted two lines in an xz file, got .*No such file"),
        (b"no xz file", r"a\.xz: wanted two lines in an xz file, got "),
        (lzma.compress(TEXT.encode())[:-9], r"a\.xz: wanted two lines in an xz file, got "),
        (
            lzma.compress(b"other"),
            rf"a\.xz: wanted the text with the SHA-256 {SHA256}, got [0-9a-f]+",
        ),
    ],
)
def test_a_file_that_is_missing_damaged_or_changed(tmp_path, content, message):
    file = tmp_path / "a.xz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        shipped_text.read(file, SHA256, "two lines")
