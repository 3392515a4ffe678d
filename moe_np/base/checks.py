"""Input validation: one check per argument, one sentence per error.

Every public function of the package checks its arguments here, at its entrance. An error is an
InputError that names the argument, what was wanted and what came, in one line.

What the checked arrays have in common: no entry is masked (the mask of a `numpy.ma` array would be
lost and its hidden values used), the byte order is the machine's own (other arrays are converted),
and integers are int64 (in a smaller or unsigned type, counts and differences would overflow).
"""

import math
import numbers
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import numpy as np

from moe_np.base.types import Array, Rng

T = TypeVar("T")
LARGEST_SIZE = 2**31 - 1


class InputError(ValueError):
    """Bad input. The message names the argument, what was wanted and what came, in one line."""


def text(value: Any) -> str:
    """`value` for a message: one line of at most 80 characters."""
    try:
        line = " ".join(repr(value).split())
    except Exception:
        line = type(value).__name__
    return line if len(line) <= 80 else line[:77] + "..."


def _shape_text(shape):
    return "(" + ", ".join(str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def array(
    name: str,
    value: Any,
    shape: tuple[int | str, ...] | None,
    *,
    finite: bool = True,
    kind: str = "f",
) -> Array:
    """Return `value` as an array after checking it; the same object if it fits already.

    name    of the argument, for the message
    shape   a tuple of numbers and letters, for example ("N", 2): a letter stands for any size.
            None: any shape
    finite  whether NaN and infinity are refused
    kind    of dtype, as in NumPy: "f" floating point (integers become float64), "i" integers
            (all become int64)

    Raises InputError for a wrong number of axes, a wrong size, a wrong dtype, NaN or infinity, and
    a masked entry.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        n_masked = int(np.ma.count_masked(value))
        raise InputError(
            f"{name}: wanted an array without masked entries, got {n_masked} of {value.size} "
            "masked; leave these cases out first"
        )
    try:
        out = np.asarray(value)
    except Exception as error:
        wanted = "an array" + (f" of shape {_shape_text(shape)}" if shape is not None else "")
        got = f"{type(value).__name__} ({text(str(error))[1:-1]})"
        raise InputError(f"{name}: wanted {wanted}, got {got}") from None
    if out.dtype.kind not in ("fiub" if kind == "f" else "iu"):
        wanted = "floating point" if kind == "f" else "integer"
        raise InputError(f"{name}: wanted {wanted} numbers, got an array of dtype {out.dtype}")
    if shape is not None and not _fits(shape, out.shape):
        raise InputError(f"{name}: wanted shape {_shape_text(shape)}, got {_shape_text(out.shape)}")
    if kind == "i":
        return _int64(name, out)
    if out.dtype.kind != "f":
        out = out.astype(np.float64)
    if not out.dtype.isnative:
        out = out.astype(out.dtype.newbyteorder("="))
    if finite and not np.isfinite(out).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(out))[0])
        raise InputError(f"{name}: wanted finite numbers, got {out[bad]} at index {bad}")
    return out


def _fits(wanted, shape):
    if len(wanted) != len(shape):
        return False
    for size, got in zip(wanted, shape, strict=True):
        if size != got and not isinstance(size, str):
            return False
    return True


def _int64(name, value):
    """Integers of any type as int64."""
    largest = np.iinfo(np.int64).max
    if value.dtype.kind == "u" and value.size and value.max() > largest:
        raise InputError(f"{name}: wanted whole numbers of at most {largest}, got {value.max()}")
    return value.astype(np.int64, copy=False)


def not_long_double(name: str, x: Array) -> None:
    """Check that SciPy's special functions, which have no long double, know the type of x."""
    if x.dtype.itemsize > 8:
        raise InputError(f"{name}: wanted float64 or a shorter type here, got {x.dtype}")


def mapping(name: str, value: Any, keys: Collection[str] = ()) -> Mapping[str, Any]:
    """Return `value`. Raises InputError unless it is a dict that has all of `keys`."""
    if not isinstance(value, Mapping):
        raise InputError(f"{name}: wanted a dict of arrays, got {text(type(value).__name__)}")
    if not all(key in value for key in keys):
        got = text(", ".join(map(str, value)))[1:-1] or "none"
        raise InputError(f"{name}: wanted the keys {', '.join(keys)}; got {got}")
    return value


def params(
    name: str,
    value: Any,
    axes: Mapping[str, tuple[int | str, ...]],
    *,
    finite: bool = True,
) -> dict[str, Array]:
    """Return the arrays of the dict `value` that `axes` names, after checking them together.

    axes    {key: shape}, the shapes as in `array`. A letter has the same length in all of them:
            with {"w": ("D", "E"), "bias": ("E",)} w has as many columns as bias has entries

    Raises InputError for what is not a dict, a missing key, arrays whose shapes or types do not fit
    together, and NaN or infinity.
    """
    mapping(name, value, tuple(axes))
    lengths: dict[int | str, int] = {}
    arrays: dict[str, Array] = {}
    for key, shape in axes.items():
        wanted = tuple(lengths.get(axis, axis) for axis in shape)
        out = array(f"{name}[{key!r}]", value[key], wanted, finite=finite)
        lengths |= dict(zip(shape, out.shape, strict=True))
        first = next(iter(arrays.values()), out)
        if out.dtype != first.dtype:
            wanted = f"{first.dtype}, the type of {name}[{next(iter(arrays))!r}]"
            raise InputError(f"{name}[{key!r}]: wanted {wanted}, got {out.dtype}")
        arrays[key] = out
    return arrays


def mask(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Return `value` as an array of bool of this shape. Raises InputError for any other."""
    try:
        out = np.asarray(value)
    except Exception:
        out = np.asarray(None)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(f"{name}: wanted an array without masked entries")
    if out.dtype != bool or out.shape != shape:
        got = f"{out.dtype} of shape {_shape_text(out.shape)}"
        raise InputError(f"{name}: wanted bool of shape {_shape_text(shape)}, got {got}")
    return out


def boolean(name: str, value: Any) -> bool:
    """Return `value` as a bool. Raises InputError unless it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name}: wanted True or False, got {text(value)}")
    return bool(value)


def float_type(name: str, value: Any) -> np.dtype:
    """Return `value` as a dtype. Raises InputError unless it is one of floating point numbers."""
    try:
        dtype = np.dtype(value)
    except Exception:
        dtype = None
    if value is None or dtype is None or dtype.kind != "f":
        raise InputError(f"{name}: wanted a type of floating point numbers, got {text(value)}")
    return dtype


def integer(name: str, value: Any, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Return `value` as an int. Raises InputError unless it is a whole number within the bounds."""
    wanted = f"a whole number of at least {minimum}"
    wanted += "" if maximum is None else f" and at most {maximum}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InputError(f"{name}: wanted {wanted}, got {text(value)}")
    if value < minimum or (maximum is not None and value > maximum):
        raise InputError(f"{name}: wanted {wanted}, got {text(int(value))}")
    return int(value)


def size(name: str, value: Any) -> int:
    """Return `value` as the length of an axis: a whole number from 1 to 2³¹ − 1."""
    value = integer(name, value)
    return integer(name, value, maximum=LARGEST_SIZE) if value > LARGEST_SIZE else value


def number(
    name: str,
    value: Any,
    *,
    minimum: float | None = None,
    greater_than: float | None = None,
    maximum: float | None = None,
    less_than: float | None = None,
) -> float:
    """Return `value` as a float. Raises InputError unless it is finite and within the bounds.

    The bounds are minimum ≤ value ≤ maximum and greater_than < value < less_than. NumPy's numbers
    are numbers like Python's.
    """
    wanted = "a finite number"
    wanted += "" if minimum is None else f" of at least {minimum:g}"
    wanted += "" if greater_than is None else f" above {greater_than:g}"
    wanted += "" if maximum is None else f" and at most {maximum:g}"
    wanted += "" if less_than is None else f" and below {less_than:g}"
    fits = _is_finite_real(value)
    fits = fits and (minimum is None or value >= minimum)
    fits = fits and (greater_than is None or value > greater_than)
    fits = fits and (maximum is None or value <= maximum)
    fits = fits and (less_than is None or value < less_than)
    if not fits:
        raise InputError(f"{name}: wanted {wanted}, got {text(value)}")
    return float(value)


def _is_finite_real(value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that is too large for a float
        return False


def generator(name: str, value: Any) -> Rng:
    """Return `value`. Raises InputError unless it is a numpy.random.Generator."""
    if not isinstance(value, np.random.Generator):
        raise InputError(f"{name}: wanted a numpy.random.Generator, got {text(value)}")
    return value


def choice(name: str, value: T, options: Collection[T]) -> T:
    """Return `value`. Raises InputError unless it is one of `options`."""
    try:
        is_option = value in options
    except Exception:  # an array is not equal to a word, nor a dict a key
        is_option = False
    if not is_option:
        wanted = ", ".join(map(str, options))
        raise InputError(f"{name}: wanted one of {wanted}; got {text(value)}")
    return value
