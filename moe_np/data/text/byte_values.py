"""The tokeniser without a vocabulary: one id per byte of UTF-8, 256 in all."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from moe_np.base.checks import InputError, integer
from moe_np.base.types import ArrayN
from moe_np.data.text import entrance


class ByteValues:
    """Id = byte. Every text without lone surrogates comes back exactly.

    special    {name: id} of the special tokens, 256 and up, which `encode` never gives and which
               decode to ""
    size       of the vocabulary
    """

    kind = "bytes"

    def __init__(self, special: Sequence[str] = ()) -> None:
        self.special = entrance.special("special", special, 256)
        self.size = 256 + len(self.special)
        self._tokens = [bytes([byte]) for byte in range(256)] + [b""] * len(self.special)

    def encode(self, text: str) -> ArrayN:
        """`text` -> ids. Raises InputError for what is no text, and for a lone surrogate."""
        raw = entrance.text("text", text).encode("utf-8")
        return np.frombuffer(raw, np.uint8).astype(np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text. Bytes that are no UTF-8 become U+FFFD. Raises InputError for a wrong id."""
        ids = entrance.ids("ids", ids, self.size)
        return bytes(number for number in ids if number < 256).decode("utf-8", "replace")

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of `decode` in parts, one per id as it comes, and a last one for what is left.

        A part is empty while a character lacks bytes. Raises InputError for a wrong id.
        """
        return entrance.stream_of_bytes(ids, self._tokens)

    def to_dict(self) -> dict[str, Any]:
        """All that makes this tokeniser, for JSON."""
        return {"kind": self.kind, "special": list(self.special)}


def train(text: str, size: int = 256, special: Sequence[str] = ()) -> ByteValues:
    """The byte tokeniser. There is nothing to learn: `text` is checked only, and `size` must be 256
    and the number of special tokens. Raises InputError otherwise.
    """
    entrance.text("text", text)
    tokeniser = ByteValues(special)
    if integer("size", size) != tokeniser.size:
        wanted = f"{tokeniser.size}, the bytes and the special tokens"
        raise InputError(f"size: wanted {wanted}, got {size}")
    return tokeniser
