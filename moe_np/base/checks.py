"""The public door: one check of what comes in, one sentence about what is wrong."""

import math
import numbers

import numpy as np


class InputError(ValueError):
    """Bad input. The message names the argument, what came and what was wanted, in one line."""


def _shape_text(shape):
    return "(" + ", ".join(str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def array(name, value, shape, *, finite=True, kind="f"):
    """Return `value` as an array after checking it.

    shape   a tuple of numbers and names, e.g. ("N", 2): a name stands for any size from zero up
    kind    "f" floating point (integers are converted to float64), "i" integers

    Raises InputError for a wrong number of axes, a wrong size, a wrong type, NaN or infinity.
    """
    try:
        out = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{name}: wanted an array of shape {_shape_text(shape)}, got {type(value).__name__} ({error})"
        ) from None
    if out.dtype.kind not in ("fiub" if kind == "f" else "iu"):
        wanted = "floating point" if kind == "f" else "integer"
        raise InputError(f"{name}: wanted {wanted} numbers, got an array of dtype {out.dtype}")
    if out.ndim != len(shape) or any(
        isinstance(w, int) and w != n for w, n in zip(shape, out.shape, strict=False)
    ):
        raise InputError(f"{name}: wanted shape {_shape_text(shape)}, got {_shape_text(out.shape)}")
    if kind == "f" and out.dtype.kind != "f":
        out = out.astype(np.float64)
    if finite and kind == "f" and not np.isfinite(out).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(out))[0])
        raise InputError(f"{name}: wanted finite numbers, got {out[bad]} at index {bad}")
    return out


def integer(name, value, *, minimum=1, maximum=None):
    """Return `value` as an int after checking that it is a whole number within the bounds."""
    wanted = f"a whole number of at least {minimum}" + (
        "" if maximum is None else f" and at most {maximum}"
    )
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InputError(f"{name}: wanted {wanted}, got {value!r}")
    if value < minimum or (maximum is not None and value > maximum):
        raise InputError(f"{name}: wanted {wanted}, got {value}")
    return int(value)


def number(name, value, *, minimum=None, above=None, maximum=None):
    """Return `value` as a float after checking that it is a finite number and within the bounds."""
    wanted = "a finite number"
    wanted += "" if minimum is None else f" of at least {minimum:g}"
    wanted += "" if above is None else f" above {above:g}"
    wanted += "" if maximum is None else f" and at most {maximum:g}"
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    fits = fits and (minimum is None or value >= minimum) and (above is None or value > above)
    fits = fits and (maximum is None or value <= maximum)
    if not fits:
        raise InputError(f"{name}: wanted {wanted}, got {value!r}")
    return float(value)


def generator(name, value):
    """Return `value` after checking that it is a numpy.random.Generator."""
    if not isinstance(value, np.random.Generator):
        raise InputError(f"{name}: wanted a numpy.random.Generator, got {value!r}")
    return value


def choice(name, value, options):
    """Return `value` after checking that it is one of `options`."""
    if value not in options:
        raise InputError(f"{name}: wanted one of {', '.join(map(str, options))}; got {value!r}")
    return value
