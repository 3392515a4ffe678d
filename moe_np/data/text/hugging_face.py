"""The tokeniser of a Hugging Face checkpoint (`tokenizer.json`), through the library `tokenizers`.

It has the methods of the tokenisers here. The library is not a dependency: `pip install
tokenizers`.
"""

import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import ArrayN
from moe_np.data.text import entrance

CONTEXT = 8  # tokens before a new one that its text can depend on
NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # what incomplete UTF-8 is decoded to


class HuggingFace:
    """A tokeniser of the library.

    special    {name: id} of its special tokens. `encode` adds none of them, but the text of one
               ("</s>") becomes its id, as in the library; they decode to ""
    size       one more than the largest id
    """

    kind = "hugging_face"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        added = tokenizer.get_added_tokens_decoder().items()
        self.special = {token.content: number for number, token in added if token.special}
        self.size = max(vocabulary.values(), default=-1) + 1

    def encode(self, text: str) -> ArrayN:
        """`text` -> ids, without special tokens at its ends. Raises InputError for a lone
        surrogate, and for what is no text.
        """
        text = entrance.text("text", text)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return np.array(encoding.ids, np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text, without special tokens. Raises InputError for a wrong id."""
        numbers = entrance.ids("ids", ids, self.size)
        return self._tokenizer.decode(numbers, skip_special_tokens=True)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of `decode` in parts, one per id as it comes, and a last one for what is left.

        A part is empty while a character lacks bytes. Raises InputError for a wrong id.
        """
        done: list[int] = []  # the last tokens that were written
        waiting: list[int] = []
        for number in ids:
            waiting.append(entrance.token_id("ids", number, self.size))
            written = self._after(done, waiting)
            if written.endswith(NO_CHARACTER):
                yield ""
                continue
            yield written
            done = (done + waiting)[-CONTEXT:]
            waiting = []
        yield self._after(done, waiting)

    def to_dict(self) -> dict[str, Any]:
        """The text of its `tokenizer.json`, for JSON."""
        return {"kind": self.kind, "tokenizer": self._tokenizer.to_str()}

    def _after(self, done, waiting):
        """The text that tokens add to those before them."""
        return self.decode(done + waiting)[len(self.decode(done)) :] if waiting else ""


def load(path: str | os.PathLike) -> HuggingFace:
    """Read a `tokenizer.json`, or the one of a folder.

    Raises InputError that names the file, and one that says what to install.
    """
    path = pathlib.Path(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: wanted a tokenizer.json, got {error}") from None
    return from_text(text, str(file))


def from_text(text: str, name: str = "text") -> HuggingFace:
    """The tokeniser of the text of a `tokenizer.json`. `name` is for messages.

    Raises InputError for another text, and where the library is missing.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        needed = "needs the library tokenizers, which is not installed: pip install tokenizers"
        raise InputError(f"{name}: a Hugging Face tokeniser {needed}") from None
    try:
        return HuggingFace(Tokenizer.from_str(text))
    except Exception as error:  # the library has no class of its own for it
        got = " ".join(str(error).split())
        raise InputError(f"{name}: wanted a tokenizer.json, got {got}") from None
