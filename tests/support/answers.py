"""Answers to questions of an assignment, run in this process: fast, for trusted sources."""

import contextlib
import dataclasses
import signal
import warnings
from collections.abc import Iterator, Sequence

from moe_np.coursework.assignments import Assignment
from moe_np.coursework.notebook import Cell
from moe_np.coursework.question import Case, Question, Verdict, examine

SECONDS = 10.0  # for one answer


class TooSlow(BaseException):
    """An answer did not end. No answer can catch it with `except Exception`."""


@contextlib.contextmanager
def time_limit(seconds: float = SECONDS) -> Iterator[None]:
    """Raise TooSlow in the block after so many seconds. For the main thread only."""

    def stop(*_):
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def cell(assignment: Assignment, grade_id: str) -> Cell:
    """The cell of that name. Raises StopIteration if there is none."""
    return next(c for c in assignment.cells if c.grade_id == grade_id)


def solution(assignment: Assignment, question: str) -> str:
    """The source of the solution of a question, without its markers."""
    lines = cell(assignment, f"{question}_answer").source.splitlines()
    return "\n".join(line for line in lines if "### " not in line) + "\n"


def visible_checks(assignment: Assignment, question: str) -> str:
    """The source of the visible checks of a question."""
    return cell(assignment, question).source.split("### BEGIN HIDDEN TESTS")[0]


def namespace(assignment: Assignment, source: str) -> dict[str, object]:
    """The names that the given cells and the source of one answer define."""
    names = {"__name__": "answer"}
    for given in assignment.cells:
        locked = given.nbgrader.get("locked") and not given.nbgrader.get("grade")
        if given.kind == "code" and locked:
            exec(compile(given.source, f"<{given.grade_id}>", "exec"), names)
    exec(compile(source, "<answer>", "exec"), names)
    return names


def question_of(assignment: Assignment, name: str) -> Question:
    """A question without its race."""
    question = next(q for q in assignment.questions if q.name == name)
    return dataclasses.replace(question, baseline=None)


def grade(
    assignment: Assignment,
    question: str,
    source: str,
    drawn: Sequence[Case],
    seconds=SECONDS,
    *,
    count=False,
) -> Verdict:
    """The Verdict on a source, on cases that were drawn, without a race. count as in `examine`."""
    asked = question_of(assignment, question)
    try:
        with time_limit(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = namespace(assignment, source)[asked.function]
            cases = [case for case in drawn if not case.timed]
            return examine(asked, answer, None, drawn=cases, count=count)
    except TooSlow:
        return Verdict(False, "does not end")
    except Exception as error:
        return Verdict(False, f"{type(error).__name__}: {error}")


def check(assignment: Assignment, question: str, source: str, seconds=60.0) -> str:
    """The message of the visible checks of a source, "" if they pass."""
    try:
        with time_limit(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names = namespace(assignment, source)
            exec(compile(visible_checks(assignment, question), "<checks>", "exec"), names)
    except TooSlow:
        return "does not end"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
