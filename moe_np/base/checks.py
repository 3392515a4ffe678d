"""Input validation: one check per argument, one sentence per error.

Every public function of the package checks its arguments here, at its entrance. An error is an
InputError that names the argument, what was wanted and what came, in one line.
"""

import math
import numbers
from collections.abc import Collection
from typing import Any, TypeVar

import numpy as np

from moe_np.base.types import Array, Rng

T = TypeVar("T")


class InputError(ValueError):
    """Bad input. The message names the argument, what was wanted and what came, in one line."""


def _shape_text(shape):
    return "(" + ", ".join(str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def array(
    name: str, value: Any, shape: tuple[int | str, ...], *, finite: bool = True, kind: str = "f"
) -> Array:
    """Return `value` as an array after checking it; the same object if it is one already.

    name    of the argument, for the message
    shape   a tuple of numbers and letters, for example ("N", 2): a letter stands for any size
    finite  whether NaN and infinity are refused
    kind    of dtype, as in NumPy: "f" floating point (integers become float64), "i" integers

    Raises InputError for a wrong number of axes, a wrong size, a wrong dtype, NaN or infinity.
    """
    try:
        out = np.asarray(value)
    except (ValueError, TypeError) as error:
        wanted = f"an array of shape {_shape_text(shape)}"
        got = f"{type(value).__name__} ({error})"
        raise InputError(f"{name}: wanted {wanted}, got {got}") from None
    if out.dtype.kind not in ("fiub" if kind == "f" else "iu"):
        wanted = "floating point" if kind == "f" else "integer"
        raise InputError(f"{name}: wanted {wanted} numbers, got an array of dtype {out.dtype}")
    sizes = zip(shape, out.shape, strict=False)
    if out.ndim != len(shape) or any(isinstance(w, int) and w != n for w, n in sizes):
        raise InputError(f"{name}: wanted shape {_shape_text(shape)}, got {_shape_text(out.shape)}")
    if kind == "f" and out.dtype.kind != "f":
        out = out.astype(np.float64)
    if finite and kind == "f" and not np.isfinite(out).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(out))[0])
        raise InputError(f"{name}: wanted finite numbers, got {out[bad]} at index {bad}")
    return out


def integer(name: str, value: Any, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Return `value` as an int. Raises InputError unless it is a whole number within the bounds."""
    wanted = f"a whole number of at least {minimum}"
    wanted += "" if maximum is None else f" and at most {maximum}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InputError(f"{name}: wanted {wanted}, got {value!r}")
    if value < minimum or (maximum is not None and value > maximum):
        raise InputError(f"{name}: wanted {wanted}, got {value}")
    return int(value)


def number(
    name: str,
    value: Any,
    *,
    minimum: float | None = None,
    greater_than: float | None = None,
    maximum: float | None = None,
) -> float:
    """Return `value` as a float. Raises InputError unless it is finite and within the bounds.

    The bounds are minimum ≤ value ≤ maximum and greater_than < value.
    """
    wanted = "a finite number"
    wanted += "" if minimum is None else f" of at least {minimum:g}"
    wanted += "" if greater_than is None else f" above {greater_than:g}"
    wanted += "" if maximum is None else f" and at most {maximum:g}"
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    fits = fits and (minimum is None or value >= minimum)
    fits = fits and (greater_than is None or value > greater_than)
    fits = fits and (maximum is None or value <= maximum)
    if not fits:
        raise InputError(f"{name}: wanted {wanted}, got {value!r}")
    return float(value)


def generator(name: str, value: Any) -> Rng:
    """Return `value`. Raises InputError unless it is a numpy.random.Generator."""
    if not isinstance(value, np.random.Generator):
        raise InputError(f"{name}: wanted a numpy.random.Generator, got {value!r}")
    return value


def choice(name: str, value: T, options: Collection[T]) -> T:
    """Return `value`. Raises InputError unless it is one of `options`."""
    if value not in options:
        raise InputError(f"{name}: wanted one of {', '.join(map(str, options))}; got {value!r}")
    return value
