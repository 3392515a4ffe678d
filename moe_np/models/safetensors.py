"""The file format safetensors: arrays by name in one file, which is read array by array.

    bytes 0 to 7         the length n of the header, unsigned, little-endian
    bytes 8 to 8 + n     the header, JSON: {name: {"dtype", "shape", "data_offsets": [start, end]}};
                         "__metadata__" is a dict of texts
    the rest             the numbers of the arrays, little-endian, in C order, without a gap

`Reader` opens a file and reads single arrays, or single entries along axis 0 of one, when they are
asked for; a file may be larger than memory. `write` writes a file atomically.

bfloat16 is the upper half of a float32, which NumPy does not have: it is read as float32, exactly,
and written with rounding to the nearest, ties to even.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks, files
from moe_np.base.checks import InputError
from moe_np.base.types import Array, DType

DTYPES = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # the bits; see from_bfloat16
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
}  # in the order in which a file has them: by width, as the format's own library writes
LONGEST_HEADER = 100_000_000  # bytes; the limit of the format's own library


class Entry(NamedTuple):
    """What the header says of one array."""

    dtype: str  # a key of DTYPES
    shape: tuple[int, ...]
    start: int  # of its bytes in the file
    end: int


class Reader(Mapping):
    """The arrays of a safetensors file by name: `reader[name]` reads one of them, and no other.

    entries    {name: Entry}, what the header says; nothing is read for it
    metadata   the dict of texts in the header; empty if it has none

    Opening raises InputError for a file that cannot be read, is no safetensors file, or is damaged
    or truncated: every byte of its data must belong to exactly one array.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                self.entries, self.metadata = _header(self.path, file, size)
        except OSError as error:
            raise InputError(
                f"path: wanted a safetensors file, got {self.path} ({error.strerror})"
            ) from None

    def __getitem__(self, name: str) -> Array:
        return self.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def place(self, name: str, index: int | None = None) -> tuple[str, tuple[int, ...], int]:
        """Where an array is, or its entry `index` along axis 0: its type (a key of DTYPES), its
        shape and its first byte. Raises KeyError for another name.
        """
        entry = self.entries[name]
        if index is None:
            return entry.dtype, entry.shape, entry.start
        index = checks.integer("index", index, minimum=0, maximum=(entry.shape or (0,))[0] - 1)
        size = math.prod(entry.shape[1:]) * DTYPES[entry.dtype].itemsize
        return entry.dtype, entry.shape[1:], entry.start + index * size

    def read(self, name: str, index: int | None = None) -> Array:
        """The array of this name, or its entry `index` along axis 0: only that is read.

        bfloat16 becomes float32; the other types stay. Raises KeyError for another name, and
        InputError where the file has become shorter or cannot be read.
        """
        kind, shape, start = self.place(name, index)
        dtype = DTYPES[kind]
        count = math.prod(shape)
        try:
            numbers = np.fromfile(self.path, dtype, count, offset=start)
        except OSError as error:
            raise InputError(f"path: {self.path} cannot be read ({error.strerror})") from None
        if len(numbers) != count:
            raise InputError(f"path: wanted {count} numbers of {name!r} in {self.path}, it is cut")
        numbers = from_bfloat16(numbers) if kind == "BF16" else numbers
        return numbers.astype(numbers.dtype.newbyteorder("="), copy=False).reshape(shape)


def from_bfloat16(bits: Annotated[np.ndarray, "..."]) -> Annotated[np.ndarray, "..."]:
    """The numbers (float32) of the bits (uint16) of bfloat16; exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(x: Annotated[np.ndarray, "..."]) -> Annotated[np.ndarray, "..."]:
    """The bits (uint16) of the bfloat16 next to each number; ties to even, NaN stays NaN."""
    x = np.ascontiguousarray(x, np.float32)
    bits = x.view(np.uint32)
    # adding half of the last place that stays, or a little less where that place is even
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x0040, rounded).astype(np.uint16)


# --- the header -----------------------------------------------------------------------------------


def _header(path, file, size):
    """-> ({name: Entry}, metadata) of an open file of `size` bytes."""
    first = file.read(8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > min(size - 8, LONGEST_HEADER):
        raise _damaged(path, f"a header of {length} bytes does not fit into {size} bytes")
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"the header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise _damaged(path, "the header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _damaged(path, "__metadata__ is no dict of texts")
    first_byte = 8 + length
    entries = {name: _entry(path, name, facts, first_byte) for name, facts in header.items()}
    _check_places(path, entries, first_byte, size)
    return entries, metadata


def _without_repeats(pairs):
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a name occurs twice")
    return names


def _entry(path, name, facts, first_byte):
    """The entry of one array, checked."""
    facts = facts if isinstance(facts, dict) else {}
    dtype = facts.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        known = ", ".join(DTYPES)
        raise _damaged(path, f"{name!r} has the type {checks.text(dtype)}, not one of {known}")
    shape = _sizes(facts.get("shape"))
    place = _sizes(facts.get("data_offsets"))
    if shape is None or place is None or len(place) != 2:
        raise _damaged(path, f"{name!r} has no shape or no place: {checks.text(facts)}")
    start, end = place
    if end - start != math.prod(shape) * DTYPES[dtype].itemsize:
        raise _damaged(path, f"{name!r} has {end - start} bytes, not those of {dtype} {shape}")
    return Entry(dtype, shape, first_byte + start, first_byte + end)


def _sizes(value):
    """The whole numbers of a list as a tuple; None for anything else."""
    fits = isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
    return tuple(value) if fits else None


def _check_places(path, entries, first_byte, size):
    """Every byte after the header belongs to exactly one array."""
    place = first_byte
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.start != place:
            raise _damaged(path, f"the bytes of {name!r} do not follow those before it")
        place = entry.end
    if place != size:
        raise _damaged(path, f"it has {size} bytes and the header names {place}")


def _damaged(path, why):
    return InputError(f"path: {path} is damaged or no safetensors file: {checks.text(why)[1:-1]}")


# --- writing --------------------------------------------------------------------------------------


def write(
    path: str | os.PathLike,
    arrays: Mapping[str, Any],
    *,
    dtype: DType | str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays to a safetensors file. A reader sees the old file or the whole new one.

    arrays     {name: array}
    dtype      of the file for what is floating point: "float32", "float16", "float64", "bfloat16";
               None: each array's own
    metadata   {name: text} for the header

    Raises InputError for a type that the format does not have, and for a place that cannot be
    written, or a full disk: the old file is then as it was.
    """
    kinds = {name: _kind(name, array, dtype) for name, array in arrays.items()}
    order = sorted(kinds, key=lambda name: (-list(DTYPES).index(kinds[name]), name))
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    place = 0
    for name in order:
        shape = list(np.shape(arrays[name]))
        end = place + math.prod(shape) * DTYPES[kinds[name]].itemsize
        header[name] = {"dtype": kinds[name], "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    try:
        with files.atomic_file(path) as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                file.write(_bytes(name, arrays[name], kinds[name]))
    except OSError as error:
        raise InputError(
            f"path: wanted a place for {place} bytes, got {os.fspath(path)} ({error.strerror})"
        ) from None


def _kind(name, array, dtype):
    """The key of DTYPES under which an array is stored."""
    stored = np.asarray(array).dtype
    if dtype is not None and stored.kind == "f":
        if isinstance(dtype, str) and dtype == "bfloat16":
            return "BF16"
        stored = checks.float_type("dtype", dtype)
    for kind, known in DTYPES.items():
        if kind != "BF16" and stored.newbyteorder("<") == known:
            return kind
    raise InputError(f"arrays[{name!r}]: wanted a type that the format has, got {stored}")


def _bytes(name, array, kind):
    """The numbers as they stand in the file."""
    try:
        with np.errstate(over="raise"):
            numbers = to_bfloat16(array) if kind == "BF16" else np.asarray(array, DTYPES[kind])
    except FloatingPointError:
        largest = np.finfo(DTYPES[kind]).max
        raise InputError(f"arrays[{name!r}]: wanted numbers up to {largest} for {kind}") from None
    return np.ascontiguousarray(numbers).reshape(-1).view(np.uint8).data
