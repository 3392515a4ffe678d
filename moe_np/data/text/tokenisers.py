"""What all tokenisers have in common: made by name, and written to and read from JSON.

    tokeniser = tokenisers.train("byte_pairs", text, 4096, special=("<end>",))
    ids = tokeniser.encode(text)             (T,) int64
    text = tokeniser.decode(ids)             exactly the text again
    tokeniser.special["<end>"]               the id of a special token
    tokenisers.save(path, tokeniser)         and tokenisers.load(path)

`encode` adds nothing: a token of the beginning or the end is put in by the caller, once.
Perplexities of different tokenisers cannot be compared; `bits_per_byte` can.
"""

import inspect
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from moe_np.base import checks
from moe_np.base.checks import InputError, choice, integer, number
from moe_np.base.files import write_atomically
from moe_np.base.types import ArrayN
from moe_np.data.text import byte_pairs, byte_values, words


class Tokeniser(Protocol):
    """Text to ids and back."""

    size: int  # of the vocabulary
    special: dict[str, int]  # {name: id} of the special tokens

    def encode(self, text: str) -> ArrayN:
        """`text` -> ids."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text."""
        ...

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of `decode` in parts, one per id as it comes, and a last one."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """All that makes the tokeniser, for JSON."""
        ...


TRAIN = {"bytes": byte_values.train, "words": words.train, "byte_pairs": byte_pairs.train}
CLASSES = {
    "bytes": byte_values.ByteValues,
    "words": words.Words,
    "byte_pairs": byte_pairs.BytePairs,
}


def train(
    kind: str, text: str, size: int, special: Sequence[str] = (), **options: Any
) -> Tokeniser:
    """A tokeniser of a kind ("bytes", "words", "byte_pairs") with a vocabulary of at most `size`.

    `options` are those of the kind, such as `unknown` of "words". Raises InputError for an unknown
    kind or option, for a size that does not fit, and for a lone surrogate.
    """
    choice("kind", kind, TRAIN)
    if options and (kind != "words" or set(options) != {"unknown"}):
        raise InputError(f"options: {kind} has no option {', '.join(sorted(options))}")
    return TRAIN[kind](text, size, special, **options)


def from_dict(saved: Mapping[str, Any]) -> Tokeniser:
    """The tokeniser that `to_dict` wrote. Raises InputError for entries that make none."""
    if not isinstance(saved, Mapping):
        raise InputError(f"saved: wanted a tokeniser's dict, got {checks.text(saved)}")
    kind = choice("saved['kind']", saved.get("kind", ""), CLASSES)
    wanted = ["kind", *inspect.signature(CLASSES[kind]).parameters]
    if set(saved) != set(wanted):
        got = ", ".join(sorted(map(str, saved)))
        raise InputError(f"saved: wanted the keys {', '.join(wanted)}; got {got}")
    return CLASSES[kind](**{name: saved[name] for name in wanted[1:]})


def save(path: str | os.PathLike, tokeniser: Tokeniser) -> None:
    """Write a tokeniser as JSON. A reader sees the old file or the whole new one."""
    write_atomically(path, json.dumps(tokeniser.to_dict(), ensure_ascii=False) + "\n")


def load(path: str | os.PathLike) -> Tokeniser:
    """Read the tokeniser that `save` wrote. Raises InputError that names the file."""
    try:
        saved = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        return from_dict(saved)
    except (OSError, ValueError, RecursionError) as error:  # an InputError is a ValueError
        got = " ".join(str(error).split())
        raise InputError(f"{os.fspath(path)}: wanted a tokeniser as JSON, got {got}") from None


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """The loss of a text per byte: nats / (n_bytes · ln 2).

    nats       the sum of −ln p over the tokens of the text
    n_bytes    of the text in UTF-8
    """
    return number("nats", nats) / (integer("n_bytes", n_bytes) * math.log(2))
