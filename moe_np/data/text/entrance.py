"""Checks that all tokenisers share, and decoding byte by byte."""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError


def text(name: str, value: Any) -> str:
    """Return `value`. Raises InputError for what is no str, or has a lone surrogate.

    A lone surrogate is half of a character, which UTF-8 cannot write.
    """
    if not isinstance(value, str):
        raise InputError(f"{name}: wanted a text (str), got {checks.text(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        got = f"the lone surrogate U+{ord(value[error.start]):04X} at place {error.start}"
        raise InputError(f"{name}: wanted text that UTF-8 can write, got {got}") from None
    return value


def ids(name: str, value: Any, size: int) -> list[int]:
    """`value` as a list of ids. Raises InputError unless each is a whole number below `size`."""
    if isinstance(value, np.ndarray):
        value = checks.array(name, value if value.size else value.astype(int), ("T",), kind="i")
        bounds = (int(value.min()), int(value.max())) if value.size else ()
        value = value.tolist()
    elif isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise InputError(f"{name}: wanted token ids, got {checks.text(value)}")
    else:
        value = [token_id(name, number, size) for number in value]
        bounds = ()
    for number in bounds:
        token_id(name, number, size)
    return value


def token_id(name: str, value: Any, size: int) -> int:
    """`value` as an int. Raises InputError unless it is a whole number from 0 to size − 1."""
    return checks.integer(name, value, minimum=0, maximum=size - 1)


def special(name: str, value: Any, first: int) -> dict[str, int]:
    """{name of a special token: its id}, from `first` on. Raises InputError for a name twice."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"{name}: wanted a list of names, got {checks.text(value)}")
    numbers: dict[str, int] = {}
    for entry in value:
        if text(name, entry) in numbers:
            raise InputError(f"{name}: wanted different names, got {checks.text(entry)} twice")
        numbers[entry] = first + len(numbers)
    return numbers


def merges(name: str, value: Any) -> list[tuple[int, int]]:
    """Merges of a byte-pair encoding. Raises InputError for a token that does not exist yet, and
    for the same merge twice.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"{name}: wanted a list of pairs of ids, got {checks.text(value)}")
    pairs: dict[tuple[int, int], int] = {}
    for i, entry in enumerate(value):
        where = f"{name}[{i}]"
        if not isinstance(entry, Sequence) or isinstance(entry, str) or len(entry) != 2:
            raise InputError(f"{where}: wanted a pair of ids, got {checks.text(entry)}")
        left, right = (token_id(where, number, 256 + i) for number in entry)
        if (left, right) in pairs:
            raise InputError(
                f"{where}: wanted a new pair, got that of {name}[{pairs[left, right]}]"
            )
        pairs[left, right] = i
    return list(pairs)


def stream_of_bytes(numbers: Iterable[int], tokens: Sequence[bytes]) -> Iterator[str]:
    """The text of tokens, one part per id as it comes, and one for the bytes that are left."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for number in numbers:
        yield decoder.decode(tokens[token_id("ids", number, len(tokens))])
    yield decoder.decode(b"", final=True)
