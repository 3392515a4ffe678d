"""The check at the end of a lesson: a learner's own function against a reference.

It runs in the learner's process, and says in which case a function is not right, what the inputs of
this case were, what was wanted and what came.
"""

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from moe_np.coursework import lesson_progress
from moe_np.coursework.comparison import CLOSE
from moe_np.coursework.question import Question, Verdict, draw, examine

LONGEST_VALUE = 600  # characters of one input


def self_check(
    answer: Callable,
    reference: Callable,
    cases: Callable,
    *,
    name: str | None = None,
    compare: Callable | None = None,
    seed: int = 0,
) -> Verdict:
    """Compare a learner's own function with a reference, as at the end of a lesson.

    Prints one line if all cases are right, otherwise the first case that is not, with its inputs,
    and returns the Verdict. The try is kept in progress.json where `run.py lab` has put this file.

    cases    rng -> list of tuples of inputs
    """
    name = name or answer.__name__
    question = Question(name, name, 1, cases, reference, compare or CLOSE)
    drawn = draw(question, seed)
    verdict = Verdict(True, "")
    for number, case in enumerate(drawn, 1):
        verdict = examine(question, answer, seed, drawn=[case])
        if not verdict.passed:
            place = f"Case {number} of {len(drawn)}: " if len(drawn) > 1 else ""
            print(f"{name}: not yet. {place}{verdict.message}")
            print(described_inputs(answer, case.inputs))
            break
    else:
        print(f"{name}: right")
    lesson_progress.keep_check(name, verdict.passed)
    return verdict


def described_inputs(function: Callable, inputs: tuple) -> str:
    """The inputs of a case, a line or a few per argument, under the names of the function."""
    lines = ["    The inputs of this case:"]
    for name, value in zip(_names(function, len(inputs)), inputs, strict=True):
        text = f"{name} = {described(value)}"
        lines.append(textwrap.indent(text, " " * 6))
    return "\n".join(lines)


def _names(function, count):
    """The names of the arguments; numbers where the function has others."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    return names if len(names) == count else [f"argument {i}" for i in range(count)]


def described(value: Any) -> str:
    """A value in short: the beginning of an array with its shape, the source of a function."""
    if isinstance(value, np.ndarray):
        with np.printoptions(precision=4, suppress=True, threshold=60, edgeitems=3):
            shown = np.array2string(value, separator=", ", max_line_width=90)
        lines = shown.splitlines()
        return f"array {value.shape}\n{textwrap.indent(shown, '  ')}" if len(lines) > 1 else shown
    if callable(value):
        return _source(value)
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} ..."


def _source(function):
    """The lines of a function, if they can be read and are few; otherwise its name."""
    name = getattr(function, "__name__", repr(function))
    try:
        text = textwrap.dedent(inspect.getsource(function)).strip().rstrip(",")
    except (OSError, TypeError, IndentationError):
        return name
    return text if len(text) <= LONGEST_VALUE else name
