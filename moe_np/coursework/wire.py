"""Values as bytes between the grader and the sandbox: arrays, numbers, text, and tuples, lists and
dicts of them.

A frame is a magic word, its length, and the body: JSON that says what is where, then the arrays'
own bytes. Reading one makes nothing but plain values (no pickle, no objects, no code); whatever is
not well formed is a WireError. Standard library and NumPy only: the same file runs on both sides.
"""

import json
import struct

import numpy as np

MAGIC = b"moe\x01"
HEAD = struct.Struct("<4sQ")
DTYPES = {
    np.dtype(t).str
    for t in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
}
DEPTH, VALUES, TREE = 12, 100_000, 4_000_000  # of nesting, of values, of bytes of JSON


class WireError(ValueError):
    """Not a frame, or a value that cannot be sent."""


def frame(value):
    """The bytes of a value. WireError for what is neither array, number, text nor a tuple, list or
    dict of these.
    """
    blobs = []
    tree = json.dumps(_tree(value, blobs, 0)).encode()
    body = struct.pack("<Q", len(tree)) + tree + b"".join(blobs)
    return HEAD.pack(MAGIC, len(body)) + body


def _tree(value, blobs, depth):
    if depth > DEPTH:
        raise WireError(f"the value is nested more than {DEPTH} deep")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return {"int": str(value)} if value.bit_length() < 4000 else {"int": "0"}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, (tuple, list)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_tree(v, blobs, depth + 1) for v in value]}
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise WireError("the keys of a dict have to be text")
        return {"dict": [[k, _tree(v, blobs, depth + 1)] for k, v in value.items()]}
    if not isinstance(value, (np.ndarray, np.generic)):
        raise WireError(f"the result holds a {type(value).__name__}: wanted arrays and numbers")
    array = np.asarray(value)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype.str not in DTYPES:
        raise WireError(f"the result holds an array of dtype {array.dtype}: wanted numbers")
    blobs.append(array.tobytes())
    return {
        "array" if isinstance(value, np.ndarray) else "number": [array.dtype.str, list(array.shape)]
    }


def unframe(body):
    """The value of a frame's body."""
    try:
        (length,) = struct.unpack_from("<Q", body)
        if length > min(len(body) - 8, TREE):
            raise WireError("cut short, or too much of it")
        reader = _Reader(body, 8 + length)
        value = reader.value(json.loads(bytes(body[8 : 8 + length])), 0)
    except Exception as error:  # whatever hostile bytes lead to
        raise WireError(f"not a frame ({type(error).__name__})") from None
    return value


class _Reader:
    def __init__(self, body, at):
        self.body, self.at, self.left = body, at, VALUES

    def value(self, tree, depth):
        self.left -= 1
        if depth > DEPTH + 1 or self.left < 0:
            raise WireError("too much of it")
        if tree is None or isinstance(tree, (bool, str)):
            return tree
        ((kind, what),) = tree.items()
        if kind == "int":
            return int(what)
        if kind == "float":
            return float.fromhex(what)
        if kind in ("tuple", "list"):
            return (tuple if kind == "tuple" else list)(self.value(v, depth + 1) for v in what)
        if kind == "dict":
            return {str(k): self.value(v, depth + 1) for k, v in what}
        if kind not in ("array", "number"):
            raise WireError("unknown kind")
        return self.array(*what, scalar=kind == "number")

    def array(self, dtype, shape, scalar):
        if (
            dtype not in DTYPES
            or len(shape) > 16
            or not all(type(n) is int and 0 <= n < 2**40 for n in shape)
        ):
            raise WireError("not an array")
        count = 1
        for n in shape:
            count *= n
        size = count * np.dtype(dtype).itemsize
        if size > len(self.body) - self.at:
            raise WireError("cut short")
        out = (
            np.frombuffer(self.body, dtype, count, self.at).reshape(shape).copy()
            if count
            else np.empty(shape, dtype)
        )
        self.at += size
        return out[()] if scalar and out.ndim == 0 else out


def read_frame(read, largest):
    """The body of the next frame from `read(n) -> bytes`, b"" at the end. WireError if it is none
    or too large.
    """
    head = _exactly(read, HEAD.size)
    if not head:
        return b""
    magic, length = HEAD.unpack(head)
    if magic != MAGIC or length > largest:
        raise WireError("too large" if magic == MAGIC else "not a frame")
    return _exactly(read, length)


def _exactly(read, n):
    parts = []
    while n:
        part = read(min(n, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        n -= len(part)
    return b"".join(parts)
