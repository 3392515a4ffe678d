"""A question: what is asked for, on which inputs an answer is tried, and what counts as right.

The same `examine` marks a learner's function at the end of a lesson (`self_checking.py`, in the
learner's own process) and a student's answer in coursework (there `answer` is a proxy that calls
the function in a sandbox and returns plain values).
"""

import contextlib
import dataclasses
import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from moe_np.coursework.comparison import CLOSE, difference, equal_values

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
    right: int = 0  # cases that are right, of those that count
    counted: int = 0
    first_wrong: int | None = None  # the number of the case that the message is about, from 0

    def __bool__(self):
        return self.passed

    def _ipython_display_(self):
        """Show nothing: a cell that ends in `self_check(...)` shows the line that was printed."""


class AnswerError(Exception):
    """What an answer in a sandbox reports: the message is ready for the learner."""

    ends = True  # no other case is tried; False where the answer can be called again


class InputsChanged(Exception):
    """An answer in a sandbox, which works on copies, has changed them."""


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
    outputs: tuple[str, ...] = ()  # names for messages, where the answer is a tuple of several
    kinds: tuple[str, ...] = ()  # what kind of input each case is, in the order of the cases
    lesson: str = ""  # the lesson to read again, "17_block"
    by_case: bool = True  # points by the share of cases that are right; False: all or none
    searched: bool = False  # graded on faults that no visible check shows: no check says "right"

    def facts(self) -> dict[str, Any]:
        """What students may know of it, as JSON holds it."""
        facts = {"name": self.name, "points": self.points, "function": self.function}
        return facts | ({"searched": True} if self.searched else {})

    def earned(self, verdict: Verdict) -> float:
        """The points for an answer, in proportion to the cases that are right, in half points.

        Rounded down. None if fewer than half of the cases are right, and none for an answer that
        did not end or was too slow, which has no count.
        """
        if verdict.passed:
            return self.points
        if not self.by_case or 2 * verdict.right < verdict.counted or not verdict.counted:
            return 0
        return math.floor(2 * self.points * verdict.right / verdict.counted) / 2


class Case(NamedTuple):
    """Inputs, and what the reference returns for them."""

    inputs: tuple
    wanted: Any
    timed: bool = False
    kind: str = ""  # of input, in words


def draw(question: Question, seed: int | Sequence[int]) -> list[Case]:
    """The cases of a seed with the reference's results, for any number of answers.

    Each try of a race has inputs of its own: an answer that remembers earlier inputs gains nothing.
    """
    rng = np.random.default_rng(seed)
    cases = [(inputs, False) for inputs in question.cases(rng)]
    kinds = question.kinds or ("",) * len(cases)
    if len(kinds) != len(cases):
        raise ValueError(f"{question.name}: wanted {len(cases)} kinds, got {len(kinds)}")
    if question.baseline is not None:
        cases += [(question.cases(rng)[-1], True) for _ in range(ROUNDS * TRIES)]
    kinds = (*kinds, *("a large one, for speed",) * (len(cases) - len(kinds)))
    return [
        Case(tuple(inputs), question.reference(*_copy(tuple(inputs))), timed, kind)
        for (inputs, timed), kind in zip(cases, kinds, strict=True)
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
    count: bool = False,
) -> Verdict:
    """Try `answer(*inputs)` on the cases from `seed`: the Verdict on the first failure, or passed.

    The answer gets copies of the inputs; if it changes them it is wrong, whatever it returns. With
    a `baseline` it must be fast as well.

    drawn   what `draw(question, seed)` returned, if several answers are examined on the same cases
    count   go on after a failure, and count the cases that are right; otherwise stop there
    """
    drawn = draw(question, seed) if drawn is None else drawn
    right = 0
    failed = None
    for number, case in enumerate(drawn):
        if case.timed:
            continue
        message, _, ends = _try_case(question, answer, case)
        if message and (ends or not count):
            return failed or Verdict(False, message, first_wrong=number)
        if not message:
            right += 1
        elif failed is None:
            failed = Verdict(False, message, first_wrong=number)
    if failed is not None:
        return failed._replace(right=right, counted=sum(not case.timed for case in drawn))
    if question.baseline is None:
        return Verdict(True, "")
    return _race(question, answer, [case for case in drawn if case.timed])


def _try_case(question, answer, case):
    """(what is wrong with the answer to a case, its seconds, whether it cannot be called again)."""
    inputs = _copy(case.inputs)
    start = time.perf_counter()
    try:
        got = answer(*inputs)
    except InputsChanged:
        return INPUTS_CHANGED, 0.0, False
    except AnswerError as error:
        return str(error), 0.0, error.ends
    except Exception as error:  # whatever the answer raises is shown to the learner
        return f"{type(error).__name__}: {error}", 0.0, False
    seconds = time.perf_counter() - start
    if not equal_values(case.inputs, inputs):
        return INPUTS_CHANGED, seconds, False
    return compare_result(question, case.wanted, got, case.inputs), seconds, False


def compare_result(question: Question, wanted: Any, got: Any, inputs: tuple) -> str:
    """The comparison's message. If the comparison itself fails, the result is wrong.

    A result that is much larger than the wanted one, or text, does not get to the comparison.
    """
    if _is_oversized(wanted, got):
        other = difference(wanted, got, "the result", 0, 0)
        return _with_name(other, question) or "the result: wanted fewer values, and no text"
    try:
        with np.errstate(all="ignore"):
            return _with_name(question.compare(wanted, got, inputs), question)
    except Exception as error:
        return f"the result cannot be compared ({type(error).__name__}: {error})"


def _with_name(message, question):
    """A message about "the result[1]" with the name of this output, where it has one."""
    match = re.match(r"the result\[(\d+)\]", message)
    if match is None or int(match[1]) >= len(question.outputs):
        return message
    return question.outputs[int(match[1])] + message[match.end() :]


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
            message, seconds, _ = _try_case(question, answer, case)
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
