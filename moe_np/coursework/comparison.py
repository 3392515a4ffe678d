"""Comparisons of an answer with what is wanted: within tolerances, of any type and shape.

Nothing of an answer becomes an array before it is known to be of the wanted size.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def close(rtol: float = 1e-6, atol: float = 1e-8) -> Callable[..., str]:
    """A comparison `(wanted, got, inputs) -> message or ""` within tolerances.

    Structure and shapes must be equal, and values within rtol·|wanted| + atol. A value is an array,
    a number, or a tuple or dict of them, of any real or boolean dtype; NaN is never right.
    """

    def compare(wanted, got, inputs=None):
        return difference(wanted, got, "the result", rtol, atol)

    return compare


def difference(wanted: Any, got: Any, name: str, rtol: float, atol: float) -> str:
    """What is different, in a sentence that calls the value `name`; "" if nothing is."""
    if isinstance(wanted, dict):
        if not isinstance(got, dict) or set(got) != set(wanted):
            keys = sorted(map(str, got)) if isinstance(got, dict) else type(got).__name__
            return f"{name}: wanted a dict with the keys {sorted(map(str, wanted))}, got {keys}"
        pairs = [(wanted[key], got[key], f"{name}[{key!r}]") for key in wanted]
    elif isinstance(wanted, (tuple, list)):
        if not isinstance(got, (tuple, list)) or len(got) != len(wanted):
            what = f"{len(got)} values" if isinstance(got, (tuple, list)) else type(got).__name__
            return f"{name}: wanted {len(wanted)} values, got {what}"
        pairs = [(w, g, f"{name}[{i}]") for i, (w, g) in enumerate(zip(wanted, got, strict=True))]
    else:
        return _array_difference(np.asarray(wanted), got, name, rtol, atol)
    differences = (difference(w, g, part, rtol, atol) for w, g, part in pairs)
    return next((message for message in differences if message), "")


def as_numbers(value: Any, shape: tuple[int, ...]) -> tuple[np.ndarray | None, str]:
    """(the array of real numbers of this shape that a value is, ""), or (None, what it is).

    The value is an array or a number, or lists of them. Lengths and types are compared first, so
    that nothing becomes an array that is not of the wanted size, and no text does.
    """
    if other := _other_shape(value, shape):
        return None, other
    try:
        array = np.asarray(value)
    except ValueError:
        return None, f"wanted an array, got {type(value).__name__}"
    if array.dtype.kind not in "fiub":
        what = type(array.item()).__name__ if array.shape == () else array.dtype
        return None, f"wanted real numbers, got {what}"
    if array.shape != shape:
        if array.size or 0 not in shape:
            return None, f"wanted the shape {shape}, got {array.shape}"
        array = array.reshape(shape)  # lists without any number: they have no other axes
    return array, ""


def _other_shape(value, shape, wanted=None):
    """Why a value is no array of this shape, part of the shape `wanted`; "" if it may be one."""
    wanted = shape if wanted is None else wanted
    if isinstance(value, (tuple, list, range)):
        if shape and len(value) == shape[0]:
            parts = (_other_shape(item, shape[1:], wanted) for item in value)
            return next(filter(None, parts), "")
        return f"wanted the shape {wanted}, got {_nested(value, len(wanted) - len(shape))}"
    if isinstance(value, (str, bytes, dict, set, type(None))):
        return f"wanted real numbers, got {type(value).__name__}"
    got = getattr(value, "shape", ())
    if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
        return f"wanted real numbers, got {value.dtype}"
    if got == shape:
        return ""
    if len(wanted) == len(shape):
        return f"wanted the shape {wanted}, got {got}"
    return f"wanted the shape {wanted}, got rows of the shape {got}"


def _nested(value, depth):
    """In words: lists whose lengths are wrong, `depth` levels below the result."""
    if depth:
        return f"a row of {len(value)} values"
    lengths = []
    while isinstance(value, (tuple, list, range)) and len(lengths) < 9:
        lengths.append(len(value))
        value = value[0] if len(value) else None
    return f"{(*lengths, *getattr(value, 'shape', ()))}"


def _array_difference(wanted, got, name, rtol, atol):
    array, other = as_numbers(got, wanted.shape)
    if array is None:
        return f"{name}: {other}"
    differs = ~np.isclose(array.astype(float), wanted.astype(float), rtol, atol)
    if not differs.any():
        return ""
    first = np.unravel_index(np.argmax(differs), differs.shape)
    place = f" at {tuple(int(i) for i in first)}" if differs.ndim else ""
    count = f"{differs.sum()} of {differs.size} values differ"
    texts = [f"{value[first]:.6g}" for value in (wanted, array)]
    if texts[0] == texts[1]:  # they differ in later digits
        texts = [f"{value[first]:.17g}" for value in (wanted, array)]
    return f"{name}{place}: wanted {texts[0]}, got {texts[1]} ({count})"


CLOSE = close()


def equal_values(a: Any, b: Any) -> bool:
    """Equal structure, and equal values of arrays; b may be anything."""
    if isinstance(a, np.ndarray):
        floats = a.dtype.kind in "fc" and isinstance(b, np.ndarray) and b.dtype.kind in "fc"
        return isinstance(b, np.ndarray) and np.array_equal(a, b, equal_nan=floats)
    if isinstance(a, dict):
        if not isinstance(b, dict) or set(a) != set(b):
            return False
        return all(equal_values(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return isinstance(b, (tuple, list)) and len(a) == len(b) and all(map(equal_values, a, b))
    return True  # numbers and text cannot be changed in place
