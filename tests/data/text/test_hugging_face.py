"""A tokenizer.json is read by the library `tokenizers`; where it is missing, the error says so.

With the library: parity/test_tokenisers.py.
"""

import sys

import pytest

from moe_np.base.checks import InputError
from moe_np.data.text import hugging_face


def test_without_the_library_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer\.json: .* pip install tokenizers"):
        hugging_face.load(tmp_path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_missing_or_damaged_file_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.json: wanted a tokenizer\.json, got"):
        hugging_face.load(tmp_path)
