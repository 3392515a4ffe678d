"""A question: what is asked for, on which inputs an answer is tried, and what counts as right.

The same `examine` marks a learner's function at the end of a lesson (`self_checking.py`, in the
learner's own process) and a student's answer in coursework (there `answer` is a proxy that calls
the function in a sandbox and returns plain values).
"""

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

INPUTS_CHANGED = "the inputs were changed: wanted them as they were"
# In each round of a race the baseline is timed once and the answer TRIES times, on new inputs each
# time. The answer gets more tries because a disturbance is a larger part of a shorter time.
ROUNDS = 3
TRIES = 2


class Verdict(NamedTuple):
    """Whether an answer is right."""

    passed: bool
    message: str  # "" if passed, otherwise what came and what was wanted, without the hidden input
    too_slow: bool = False  # right, but slow: load on the machine can be the cause

    def __bool__(self):
        return self.passed

    def _ipython_display_(self):
        """Show nothing: a cell that ends in `self_check(...)` shows the line that was printed."""


class AnswerError(Exception):
    """What an answer in a sandbox reports: the message is ready for the learner."""


class InputsChanged(Exception):
    """An answer in a sandbox, which works on copies, has changed them."""


# --- Comparisons ----------------------------------------------------------------------------------


def close(rtol: float = 1e-6, atol: float = 1e-8) -> Callable[..., str]:
    """A comparison `(wanted, got, inputs) -> message or ""` within tolerances.

    Structure and shapes must be equal, and values within rtol·|wanted| + atol. A value is an array,
    a number, or a tuple or dict of them, of any real or boolean dtype; NaN is never right.
    """

    def compare(wanted, got, inputs=None):
        return _difference(wanted, got, "the result", rtol, atol)

    return compare


def _difference(wanted, got, name, rtol, atol):
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
    differences = (_difference(w, g, part, rtol, atol) for w, g, part in pairs)
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
    got, other = as_numbers(got, wanted.shape)
    if other:
        return f"{name}: {other}"
    differs = ~np.isclose(got.astype(float), wanted.astype(float), rtol, atol)
    if not differs.any():
        return ""
    first = np.unravel_index(np.argmax(differs), differs.shape)
    place = f" at {tuple(int(i) for i in first)}" if differs.ndim else ""
    count = f"{differs.sum()} of {differs.size} values differ"
    return f"{name}{place}: wanted {wanted[first]:.6g}, got {got[first]:.6g} ({count})"


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


# --- Questions and their cases --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Question:
    """What a student is to write: a function, tried on inputs drawn anew from a seed."""

    name: str  # "q1_softmax": the same in the notebook, in `check` and in the gradebook
    function: str | None  # of the student; None: the answer is text, marked by hand
    points: float
    cases: Callable | None = None  # rng -> list of tuples of inputs
    reference: Callable | None = None  # the same signature as the function
    compare: Callable = CLOSE  # (wanted, got, inputs) -> "" or what is wrong
    seconds: float = 10.0  # for all cases together; enforced where the answer runs in a sandbox
    baseline: Callable | None = None  # a slow way to the answer, the same signature
    faster: float = 1.0  # how many times as fast as `baseline` the answer must be, on the last case

    def facts(self) -> dict[str, Any]:
        """What students may know of it, as JSON holds it."""
        return {"name": self.name, "points": self.points, "function": self.function}


class Case(NamedTuple):
    """Inputs, and what the reference returns for them."""

    inputs: tuple
    wanted: Any
    timed: bool = False


def draw(question: Question, seed: int | Sequence[int]) -> list[Case]:
    """The cases of a seed with the reference's results, for any number of answers.

    Each try of a race has inputs of its own: an answer that remembers earlier inputs gains nothing.
    """
    rng = np.random.default_rng(seed)
    cases = [(inputs, False) for inputs in question.cases(rng)]
    if question.baseline is not None:
        cases += [(question.cases(rng)[-1], True) for _ in range(ROUNDS * TRIES)]
    return [
        Case(tuple(inputs), question.reference(*_copy(tuple(inputs))), timed)
        for inputs, timed in cases
    ]


def _copy(value):
    """Copies of all arrays in a value."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return type(value)(map(_copy, value)) if isinstance(value, (tuple, list)) else value


# --- Examining an answer --------------------------------------------------------------------------


def examine(
    question: Question,
    answer: Callable,
    seed: int | Sequence[int] | None,
    *,
    drawn: Sequence[Case] | None = None,
) -> Verdict:
    """Try `answer(*inputs)` on all cases from `seed`. The Verdict on the first failure, or passed.

    The answer gets copies of the inputs; if it changes them it is wrong, whatever it returns. With
    a `baseline` it must be fast as well.

    drawn   what `draw(question, seed)` returned, if several answers are examined on the same cases
    """
    drawn = draw(question, seed) if drawn is None else drawn
    for case in drawn:
        if not case.timed and (message := _try_case(question, answer, case)[0]):
            return Verdict(False, message)
    if question.baseline is None:
        return Verdict(True, "")
    return _race(question, answer, [case for case in drawn if case.timed])


def _try_case(question, answer, case):
    """(what is wrong with the answer to one case, seconds that it took)."""
    inputs = _copy(case.inputs)
    start = time.perf_counter()
    try:
        got = answer(*inputs)
    except InputsChanged:
        return INPUTS_CHANGED, 0.0
    except AnswerError as error:
        return str(error), 0.0
    except Exception as error:  # whatever the answer raises is shown to the learner
        return f"{type(error).__name__}: {error}", 0.0
    seconds = time.perf_counter() - start
    if not equal_values(case.inputs, inputs):
        return INPUTS_CHANGED, seconds
    return compare_result(question, case.wanted, got, case.inputs), seconds


def compare_result(question: Question, wanted: Any, got: Any, inputs: tuple) -> str:
    """The comparison's message. If the comparison itself fails, the result is wrong.

    A result that is much larger than the wanted one, or text, does not get to the comparison.
    """
    if _is_oversized(wanted, got):
        other = _difference(wanted, got, "the result", 0, 0)
        return other or "the result: wanted fewer values, and no text"
    try:
        with np.errstate(all="ignore"):
            return question.compare(wanted, got, inputs)
    except Exception as error:
        return f"the result cannot be compared ({type(error).__name__}: {error})"


def _is_oversized(wanted, got):
    """Is there text where only numbers are wanted, or several times as many values?"""
    numbers, text = _count(wanted, math.inf)
    most = 4 * numbers + 1000
    got_numbers, got_text = _count(got, most)
    return got_numbers > most or (got_text and not text)


def _count(value, most):
    """(how many values and lists, counted until there are more than `most`; whether text is one)"""
    count = 0
    text = False
    left = [value]
    while left and count <= most:
        item = left.pop()
        count += max((1, item.size, *item.shape)) if isinstance(item, np.ndarray) else 1
        if isinstance(item, dict):
            left += item.values()
        elif isinstance(item, (tuple, list)):
            left += item
        text |= isinstance(item, (str, bytes))
    return count, text


# One race at a time: a baseline in Python would hold up students who are graded side by side.
_RACE_LOCK = threading.Lock()


def _race(question, answer, cases):
    """Is the answer `faster` times as fast as the baseline? They take turns; least times count.

    What the answer may have left running is stopped while the baseline is timed; it could make the
    baseline slow.
    """
    paused = getattr(answer, "paused", contextlib.nullcontext)
    answer_seconds = []
    baseline_seconds = []
    with _RACE_LOCK:
        for number, case in enumerate(cases):
            message, seconds = _try_case(question, answer, case)
            if message:
                return Verdict(False, message)
            answer_seconds.append(seconds)
            if number % TRIES == 0:
                with paused():
                    inputs = _copy(case.inputs)
                    start = time.perf_counter()
                    question.baseline(*inputs)
                    baseline_seconds.append(time.perf_counter() - start)
    ratio = min(baseline_seconds) / min(answer_seconds)
    if ratio >= question.faster:
        return Verdict(True, "")
    wanted = f"wanted {question.faster:g} times"
    message = f"right, but {ratio:.1f} times as fast as the baseline: {wanted}"
    return Verdict(False, message, too_slow=True)
