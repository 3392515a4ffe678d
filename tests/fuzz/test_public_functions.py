"""A fuzzer over the public functions: random calls with one or two arguments changed.

A call gives a right result, the same with compiled and with NumPy kernels, or an InputError of one
line. It never crashes, hangs, raises something else, warns, or gives NaN for finite input.

The calls are seeded, so a failure names what to repeat. MOE_NP_FUZZ=20 makes 20 times as many.
"""

import copy
import os
import signal
import warnings

import numpy as np
import pytest

from moe_np.base.checks import InputError
from tests.fuzz.targets import TARGETS

CALLS = 12 * int(os.environ.get("MOE_NP_FUZZ", "1"))  # of each target
SECONDS = 120  # after which a call never ends; Numba may have to compile for a new type

SCALARS = (
    None, "2", "no", "", 0, 1, -1, 2, 3, 1.5, 0.0, -0.5, 1j, np.nan, np.inf, -np.inf, 1e308, 1e-320,
    10**400, 2**62, 2**63, True, False, [], [1], {}, (), object(), int, np.float32(0.5), np.int8(2),
    np.uint64(2**63), np.ones(3), np.random.RandomState(0), b"2",
)  # fmt: skip
# What takes checked numbers and says so by NumPy's own warnings: gradients and the experts alone
# overflow from 1e30 on, and gradient descent diverges for large inputs.
MODERATE = {"backward": 1e30, "experts": 1e30, "train": 1e3}
DTYPES = ("f2", "f4", "f8", ">f4", ">f8", "g", "i1", "u1", "i8", ">i8", "u8", "?", "c16", "O", "U3")
NUMBERS = (np.nan, np.inf, -np.inf, 0, -1, 1e6, -1e30, 1e60, 1e160, -1e300, 1e-200, 2**40, -(2**63))


def changed_array(a, rng):
    """The array with another shape, type, layout or other values."""
    how = rng.integers(9)
    if how == 0 and a.ndim:
        axis = rng.integers(a.ndim)
        return np.delete(a, 0, axis) if a.shape[axis] else a[None]
    if how == 1:
        return a[..., None] if rng.random() < 0.5 else a[None]
    if how == 2 and a.ndim:
        return np.concatenate([a, a], axis=rng.integers(a.ndim))
    if how == 3:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return a.astype(DTYPES[rng.integers(len(DTYPES))])
    if how == 4 and a.size:
        with np.errstate(all="ignore"):
            out = a.copy()
            value = NUMBERS[rng.integers(len(NUMBERS))]
            if a.dtype.kind == "f":
                out.flat[rng.integers(a.size)] = value
            elif a.dtype.kind == "i" and np.isfinite(value):
                out.flat[rng.integers(a.size)] = int(max(min(value, 2**62), -(2**63)))
            return out
    if how == 5 and a.dtype.kind == "f":
        with np.errstate(all="ignore"):
            return a * a.dtype.type(NUMBERS[rng.integers(5, len(NUMBERS))])
    if how == 6:
        masked = np.ma.array(a)
        if a.size and rng.random() < 0.7:
            masked[(0,) * a.ndim] = np.ma.masked
        return masked
    if how == 7:
        return a.tolist()
    return np.asfortranarray(a) if rng.random() < 0.5 else a.T


def changed(value, rng):
    """The value of an argument with something wrong, or only unusual, about it."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        out = dict(value)
        name = str(rng.choice(list(value)))
        if rng.random() < 0.1:
            del out[name]
        else:
            out[name] = changed(value[name], rng)
        return out
    if isinstance(value, np.ndarray) and rng.random() < 0.85:
        return changed_array(value, rng)
    return SCALARS[rng.integers(len(SCALARS))]


def numbers_of(value):
    """All arrays and numbers in a result."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from numbers_of(part)
    elif isinstance(value, (np.ndarray, np.generic, float)):
        yield np.asarray(value)


def is_finite(value):
    return all(a.dtype.kind not in "fc" or np.isfinite(a).all() for a in numbers_of(value))


def coarsest_type(value):
    """The rounding of the least precise type among the arrays."""
    arrays = (a for a in numbers_of(value) if a.dtype.kind == "f" and a.ndim)
    return max((float(np.finfo(a.dtype).eps) for a in arrays), default=0.0)


def are_moderate(value, largest):
    """Whether no number is so large that the results may overflow."""
    if largest == np.inf:
        return True
    arrays = (a for a in numbers_of(value) if a.ndim and a.dtype.kind == "f")
    return all((np.abs(a.astype(np.longdouble)) < largest).all() for a in arrays)


def too_long(*_):
    raise TimeoutError(f"no answer within {SECONDS} s")


def outcome(function, arguments):
    """("result", arrays) or ("refused", message); anything else is raised."""
    arguments = copy.deepcopy(arguments)
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        return "result", list(numbers_of(function(**arguments)))
    except InputError as error:
        return "refused", str(error)
    finally:
        signal.alarm(0)


def described(arguments):
    def text(value):
        if isinstance(value, np.ndarray):
            return f"{type(value).__name__} {value.dtype} {value.shape} {value.ravel()[:6]}"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k}: {text(v)}" for k, v in value.items()) + "}"
        return repr(value)[:80]

    return "; ".join(f"{name} = {text(value)}" for name, value in arguments.items())


def check(target, seed, monkeypatch):
    rng = np.random.default_rng([seed, *target.encode()])
    function, arguments = TARGETS[target](rng)
    given = dict(arguments)
    for name in rng.choice(list(given), min(int(rng.integers(0, 3)), len(given)), replace=False):
        given[name] = changed(given[name], rng)
    if not are_moderate(given, next((n for word, n in MODERATE.items() if word in target), np.inf)):
        return
    try:
        results = []
        for kernels in ("", "numpy"):
            monkeypatch.setenv("MOE_NP_KERNELS", kernels)
            results.append(outcome(function, given))
        (kind, value), (kind_numpy, value_numpy) = results
        assert kind == kind_numpy, f"compiled: {kind} {value}; NumPy: {kind_numpy} {value_numpy}"
        if kind == "refused":
            assert "\n" not in value and len(value) < 400, value
            return
        assert is_finite(value) or not is_finite(given), "a result that is not finite"
        coarsest = coarsest_type(given)
        if not is_finite(value):
            return
        for a, b in zip(value, value_numpy, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype
            if a.dtype.kind == "f" and a.size:
                tol = 1e4 * max(float(np.finfo(a.dtype).eps), coarsest)
                tol *= 1e3 if "train" in target else 1  # rounding grows from step to step
                np.testing.assert_allclose(a, b, rtol=tol, atol=tol * float(np.abs(b).max()))
            elif a.dtype.kind != "O":
                np.testing.assert_array_equal(a, b)
    except Exception as error:
        error.add_note(f"call {seed} of {target}: {described(given)}")
        raise


@pytest.mark.filterwarnings("ignore::moe_np.mixtures.em.ConvergenceWarning")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("target", TARGETS)
def test_random_calls(target, monkeypatch):
    for seed in range(CALLS):
        check(target, seed, monkeypatch)
