"""Values as bytes on the channel between grader and child.

Values are arrays, numbers, text, None, and tuples, lists and dicts of them. A frame is a magic
word, its length, and the body: JSON that says what is where, then the arrays' own bytes. Reading a
frame makes plain values only (no pickle, no objects, no code); whatever is not well formed is a
WireError. Standard library and NumPy only: the same file runs on both sides.
"""

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

MAGIC = b"moe\x01"
HEAD = struct.Struct("<4sQ")
DTYPES = {
    np.dtype(code).str
    for code in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
}
MOST_DEPTH = 12  # of nesting
MOST_VALUES = 100_000
MOST_JSON = 4_000_000  # bytes
MOST_AXES = 16
LONGEST_TEXT = 10_000  # characters of a text in a reply
LARGEST_INTEGER = 4000  # bits


class WireError(ValueError):
    """Not a frame, or a value that cannot be sent."""


# --- To bytes -------------------------------------------------------------------------------------


def frame(value: Any) -> bytes:
    """The bytes of a value. WireError for a value of another kind, or nested too deep."""
    blobs = []
    tree = json.dumps(_tree(value, blobs, 0)).encode()
    body = struct.pack("<Q", len(tree)) + tree + b"".join(blobs)
    return HEAD.pack(MAGIC, len(body)) + body


def _tree(value, blobs, depth):
    """What JSON says of a value; the bytes of its arrays are appended to `blobs`."""
    if depth > MOST_DEPTH:
        raise WireError(f"the value is nested more than {MOST_DEPTH} deep")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return {"int": str(value)} if value.bit_length() < LARGEST_INTEGER else {"int": "0"}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, (tuple, list)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_tree(item, blobs, depth + 1) for item in value]}
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise WireError("the keys of a dict have to be text")
        return {"dict": [[key, _tree(item, blobs, depth + 1)] for key, item in value.items()]}
    if isinstance(value, (np.ndarray, np.generic)):
        return _array_tree(value, blobs)
    raise WireError(f"the result holds a {type(value).__name__}: wanted arrays and numbers")


def _array_tree(value, blobs):
    array = np.asarray(value)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype.str not in DTYPES:
        raise WireError(f"the result holds an array of dtype {array.dtype}: wanted numbers")
    blobs.append(array.tobytes())
    kind = "array" if isinstance(value, np.ndarray) else "number"
    return {kind: [array.dtype.str, list(array.shape)]}


# --- From bytes -----------------------------------------------------------------------------------


def unframe(body: bytes, longest_text: int | None = None) -> Any:
    """The value of a frame's body. WireError if it is not well formed, or holds longer text."""
    try:
        (length,) = struct.unpack_from("<Q", body)
        if length > min(len(body) - 8, MOST_JSON):
            raise WireError("cut short, or too large")
        text = bytes(body[8 : 8 + length])
        # no value has more than three: nothing larger is parsed
        if longest_text is not None and text.count(b"[") + text.count(b"{") > 3 * MOST_VALUES:
            raise WireError("too large")
        return _Reader(body, 8 + length, longest_text).value(json.loads(text), 0)
    except Exception as error:  # whatever hostile bytes lead to
        raise WireError(f"not a frame ({type(error).__name__})") from None


class _Reader:
    """Makes values of JSON; the bytes of arrays follow each other from `position` on."""

    def __init__(self, body, position, longest_text):
        self.body = body
        self.position = position
        self.longest_text = longest_text
        self.values_left = MOST_VALUES

    def value(self, tree, depth):
        self.values_left -= 1
        if depth > MOST_DEPTH + 1 or self.values_left < 0:
            raise WireError("too large")
        if isinstance(tree, str):
            return self.text(tree)
        if tree is None or isinstance(tree, bool):
            return tree
        ((kind, content),) = tree.items()
        if kind == "int":
            return int(content)
        if kind == "float":
            return float.fromhex(content)
        if kind in ("tuple", "list"):
            items = (self.value(item, depth + 1) for item in content)
            return tuple(items) if kind == "tuple" else list(items)
        if kind == "dict":
            return {self.text(key): self.value(item, depth + 1) for key, item in content}
        if kind not in ("array", "number"):
            raise WireError("unknown kind")
        return self.array(*content, scalar=kind == "number")

    def text(self, text):
        if type(text) is not str:
            raise WireError("not a text")
        if self.longest_text is not None and len(text) > self.longest_text:
            raise WireError("too large")
        return text

    def array(self, dtype, shape, scalar):
        if dtype not in DTYPES or len(shape) > MOST_AXES:
            raise WireError("not an array")
        count = 1
        for length in shape:
            if type(length) is not int or not 0 <= length < 2**40:
                raise WireError("not an array")
            count *= length
        size = count * np.dtype(dtype).itemsize
        if size > len(self.body) - self.position:
            raise WireError("cut short")
        if count:
            array = np.frombuffer(self.body, dtype, count, self.position).reshape(shape).copy()
        else:
            array = np.empty(shape, dtype)
        self.position += size
        return array[()] if scalar and array.ndim == 0 else array


def read_frame(read: Callable[[int], bytes], largest: int) -> bytes:
    """The body of the next frame from `read(n) -> bytes`, b"" at the end of the channel.

    Raises WireError if it is no frame or larger than `largest` bytes.
    """
    head = _read_exactly(read, HEAD.size)
    if not head:
        return b""
    magic, length = HEAD.unpack(head)
    if magic != MAGIC or length > largest:
        raise WireError("too large" if magic == MAGIC else "not a frame")
    return _read_exactly(read, length)


def _read_exactly(read, n):
    parts = []
    while n:
        part = read(min(n, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        n -= len(part)
    return b"".join(parts)
