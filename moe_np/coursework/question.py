"""A question: what is asked for, on which inputs it is tried, and what counts as right.

The same `examine` marks a learner's function at the end of a lesson (`self_check`, in the learner's
own process) and a student's answer in coursework (where `answer` is a proxy that runs it in a
sandbox and hands back arrays only).
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Verdict(NamedTuple):
    passed: bool
    message: str  # "" if passed, otherwise what came and what was wanted, without the hidden input

    def __bool__(self):
        return self.passed

    def _ipython_display_(self):
        """Nothing: a notebook's cell that ends in `self_check(...)` shows the line that was printed
        and no more.
        """


class Said(Exception):
    """What an answer in a sandbox has to report: the message is ready for the learner."""


class InputsChanged(Exception):
    """An answer in a sandbox, which works on copies, has changed them."""


CHANGED = "the inputs were changed: wanted them as they were"


def close(rtol=1e-6, atol=1e-8):
    """A comparison `(wanted, got, inputs) -> message or ""`: same structure, shapes and, within
    tolerance, values.

    A value is an array, a number, or a tuple or dict of them. Any real or boolean dtype will do;
    nan is never right.
    """

    def compare(wanted, got, inputs=None):
        return _differ(wanted, got, "the result", rtol, atol)

    return compare


def _differ(wanted, got, where, rtol, atol):
    if isinstance(wanted, dict):
        if not isinstance(got, dict) or set(got) != set(wanted):
            keys = sorted(map(str, got)) if isinstance(got, dict) else type(got).__name__
            return f"{where}: wanted a dict with the keys {sorted(map(str, wanted))}, got {keys}"
        pairs = [(wanted[k], got[k], f"{where}[{k!r}]") for k in wanted]
    elif isinstance(wanted, (tuple, list)):
        if not isinstance(got, (tuple, list)) or len(got) != len(wanted):
            what = f"{len(got)} values" if isinstance(got, (tuple, list)) else type(got).__name__
            return f"{where}: wanted {len(wanted)} values, got {what}"
        pairs = [(w, g, f"{where}[{i}]") for i, (w, g) in enumerate(zip(wanted, got, strict=True))]
    else:
        return _differ_array(np.asarray(wanted), got, where, rtol, atol)
    return next((m for m in (_differ(w, g, name, rtol, atol) for w, g, name in pairs) if m), "")


def _differ_array(wanted, got, where, rtol, atol):
    try:
        got = np.asarray(got)
    except ValueError:
        return f"{where}: wanted an array, got {type(got).__name__}"
    if got.dtype.kind not in "fiub":
        return f"{where}: wanted real numbers, got {type(got.item()).__name__ if got.shape == () else got.dtype}"
    if got.shape != wanted.shape:
        return f"{where}: wanted the shape {wanted.shape}, got {got.shape}"
    off = ~np.isclose(got.astype(float), wanted.astype(float), rtol, atol)
    if not off.any():
        return ""
    worst = np.unravel_index(np.argmax(off), off.shape)
    at = f" at {tuple(int(i) for i in worst)}" if off.ndim else ""
    return f"{where}{at}: wanted {wanted[worst]:.6g}, got {got[worst]:.6g} ({off.sum()} of {off.size} values differ)"


CLOSE = close()


@dataclasses.dataclass(frozen=True)
class Question:
    """What a student is to write: a function, tried on inputs drawn afresh from a seed."""

    name: str  # "q1_softmax": the same in the notebook, in `check` and in the gradebook
    # the name of the student's function; None: the answer is text, marked by hand
    function: str | None
    points: float
    cases: Callable | None = None  # rng -> list of tuples of inputs
    reference: Callable | None = None  # the same signature as the function
    compare: Callable = CLOSE  # (wanted, got, inputs) -> "" or what is wrong
    seconds: float = 10.0  # for all cases together; enforced where the answer runs in a sandbox
    baseline: Callable | None = None  # a slow way to the answer, the same signature
    faster: float = (
        1.0  # how many times faster than `baseline` the answer must be, on the last case
    )


class Case(NamedTuple):
    inputs: tuple
    wanted: object
    timed: bool = False


ROUNDS, TRIES = (
    3,
    2,
)  # of a race; of a time as short as the answer's own another program's moment takes a larger part


def draw(question, seed):
    """The cases of a seed with the reference's answers: a list of Case, to examine any number of
    answers with.

    Each try of a race has inputs of its own: an answer that remembers what it saw is no faster.
    """
    rng = np.random.default_rng(seed)
    cases = [(inputs, False) for inputs in question.cases(rng)]
    if question.baseline is not None:
        cases += [(question.cases(rng)[-1], True) for _ in range(ROUNDS * TRIES)]
    return [
        Case(tuple(inputs), question.reference(*_copies(tuple(inputs))), timed)
        for inputs, timed in cases
    ]


def examine(question, answer, seed, *, drawn=None):
    """Try `answer(*inputs)` on all cases from `seed`. The Verdict on the first case that fails, or
    passed.

    The inputs that reach the answer are copies: what it does to them is seen by the comparison, not by the reference.
    An answer that changes its inputs is wrong, whatever it returns. With a `baseline` it must be fast as well.
    drawn   what `draw(question, seed)` gave, where several answers are examined on the same cases
    """
    drawn = draw(question, seed) if drawn is None else drawn
    for case in drawn:
        if not case.timed and (message := _tried(question, answer, case)[0]):
            return Verdict(False, message)
    return (
        Verdict(True, "")
        if question.baseline is None
        else _raced(question, answer, [c for c in drawn if c.timed])
    )


def _tried(question, answer, case):
    """(what is wrong with the answer to one case, seconds that it took)."""
    own = _copies(case.inputs)
    start = time.perf_counter()
    try:
        got = answer(*own)
    except InputsChanged:
        return CHANGED, 0.0
    except Exception as error:  # whatever the answer raises is the learner's to see
        return str(error) if isinstance(error, Said) else f"{type(error).__name__}: {error}", 0.0
    seconds = time.perf_counter() - start
    return CHANGED if not same(case.inputs, own) else _compared(
        question, case.wanted, got, case.inputs
    ), seconds


def _compared(question, wanted, got, inputs):
    """The comparison's message. One that stumbles over what it got has found it wrong, not the
    program.
    """
    try:
        with np.errstate(all="ignore"):
            return question.compare(wanted, got, inputs)
    except Exception as error:
        return f"the result cannot be compared ({type(error).__name__}: {error})"


# of the students graded side by side; a baseline in Python would hold the others up
_ONE_RACE = threading.Lock()


def _raced(question, answer, cases):
    """Is the answer `faster` times as fast as the baseline? In turns; the least times count.

    What the answer may have left running stands still while the baseline is timed, or it could be
    made slow.
    """
    still = getattr(answer, "still", contextlib.nullcontext)
    own, theirs = [], []
    with _ONE_RACE:
        for number, case in enumerate(cases):
            message, seconds = _tried(question, answer, case)
            if message:
                return Verdict(False, message)
            own.append(seconds)
            if number % TRIES == 0:
                with still():
                    inputs, start = _copies(case.inputs), time.perf_counter()
                    question.baseline(*inputs)
                    theirs.append(time.perf_counter() - start)
    ratio = min(theirs) / min(own)
    if ratio >= question.faster:
        return Verdict(True, "")
    return Verdict(
        False,
        f"right, but {ratio:.1f} times as fast as the baseline: wanted {question.faster:g} times",
    )


def _copies(value):
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {k: _copies(v) for k, v in value.items()}
    return type(value)(map(_copies, value)) if isinstance(value, (tuple, list)) else value


def same(a, b):
    """Equal structure and values; b may be anything."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and np.array_equal(
            a, b, equal_nan=a.dtype.kind in "fc" and b.dtype.kind in "fc"
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and set(a) == set(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (tuple, list)):
        return isinstance(b, (tuple, list)) and len(a) == len(b) and all(map(same, a, b))
    return True  # numbers and text cannot be changed in place


def self_check(answer, reference, cases, *, name=None, compare=None, seed=0):
    """Try one's own function against a reference, as at the end of a lesson: prints one line,
    returns the Verdict.

    cases    rng -> list of tuples of inputs
    """
    name = name or answer.__name__
    verdict = examine(Question(name, name, 1, cases, reference, compare or CLOSE), answer, seed)
    print(f"{name}: right" if verdict.passed else f"{name}: not yet. {verdict.message}")
    return verdict
