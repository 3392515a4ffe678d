"""What a feedback page shows of a failure: the student's own lines, and what the inputs were like.

The hidden inputs themselves are not shown: their shapes, and what is special about the numbers.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from moe_np.coursework.notebook import Cell
from moe_np.coursework.question import Question

MOST_LINES = 60  # of an answer
LONGEST_LINE = 120
MOST_PARTS = 6  # arrays of a list or a dict that are described
LARGE = 100.0  # numbers of this size, and those below SMALL, are said to be so
SMALL = 1e-2
LONGEST_TEXT = 30  # characters of a text among the inputs


# --- The lines ------------------------------------------------------------------------------------


def own_lines(
    question: Question, cells: Sequence[tuple[int, str]], answer: Cell | None, message: str
) -> str:
    """The student's function, the line of an error marked with an arrow; "" if there is none.

    cells     [(number, source)] that were run, given ones among them
    answer    the cell of the answer, for a question whose function is in a given cell
    message   says "(cell 4, line 2)" where an error was raised
    """
    definition = _definition(question.function or "", cells, answer)
    if definition is None:
        return ""
    number, first, lines = definition
    place = re.search(r"\(cell (\d+), line (\d+)\)", message)
    marked = int(place[2]) - first if place and int(place[1]) == number else -1
    shown = [
        f"{'->' if i == marked else '  '} {line[:LONGEST_LINE]}" for i, line in enumerate(lines)
    ]
    if len(shown) > MOST_LINES:
        start = max(0, min(marked - MOST_LINES // 2, len(shown) - MOST_LINES))
        shown = ["   ...", *shown[start : start + MOST_LINES], "   ..."]
    return "\n".join(shown)


def _definition(name, cells, answer):
    """(number of the cell, number of the first line, lines) of the last definition of a name.

    The whole cell of the answer where that is elsewhere, such as in a given cell.
    """
    definition = last_definition(name, cells)
    if answer is not None and (definition is None or f"def {name}(" not in answer.source):
        numbers = {source: number for number, source in cells}
        return numbers.get(answer.source, 0), 1, answer.source.splitlines()
    return definition


def last_definition(
    name: str, cells: Sequence[tuple[int, str]]
) -> tuple[int, int, list[str]] | None:
    """(number of the cell, number of the first line, lines) of the last definition of a function.

    It is found by its lines: a student's source is not parsed here, since Python's parser can be
    made to take much memory.
    """
    start = f"def {name}("
    for number, source in reversed(cells):
        if start not in source:
            continue
        lines = source.splitlines()
        places = [i for i, line in enumerate(lines) if line.startswith(start)]
        if not places:
            continue
        first = places[-1]
        end = first + 1
        while end < len(lines) and lines[end][:1] in ("", " ", "\t", ")", "#"):
            end += 1
        while first and lines[first - 1].startswith("@"):
            first -= 1
        return number, first + 1, "\n".join(lines[first:end]).rstrip().splitlines()
    return None


# --- The inputs -----------------------------------------------------------------------------------


def argument_names(function: str, cells: Sequence[tuple[int, str]], count: int) -> list[str]:
    """The names of the arguments of a student's function; "argument 1" where it has others."""
    definition = last_definition(function, cells)
    head = "\n".join(definition[2][:MOST_LINES]) if definition else ""
    head = head[head.find(f"def {function}(") :]
    match = re.match(r"def \w+\(([^()]*)\)", head)
    names = (
        [text.split(":")[0].split("=")[0].strip() for text in match[1].split(",")] if match else []
    )
    names = [name for name in names if name]
    if len(names) == count and all(name.isidentifier() for name in names):
        return names
    return [f"argument {number}" for number in range(1, count + 1)]


def inputs_in_words(names: Iterable[str], inputs: tuple) -> str:
    """Shapes, and what is special: "x (5, 3), up to 902 in size; valid (5,), 2 of 5 True".

    Nothing is said of long texts.
    """
    words = (_words(name, value) for name, value in zip(names, inputs, strict=True))
    return "; ".join(filter(None, words))


def _words(name, value):
    if isinstance(value, np.ndarray):
        return f"{name} {value.shape}{_about(value)}"
    if isinstance(value, dict):
        return f"{name} with {_some(_words(key, part) for key, part in value.items())}"
    nested = (np.ndarray, tuple, list, dict)
    if isinstance(value, (tuple, list)) and any(isinstance(part, nested) for part in value):
        return f"{name}, a list of {len(value)}: {_some(_part(part) for part in value)}"
    if isinstance(value, str):
        return "" if len(value) > LONGEST_TEXT else f"{name} = {value!r}"
    if isinstance(value, float):
        return f"{name} = {value:.4g}"
    text = str(value)
    return f"{name} = {text}" if len(text) <= LONGEST_TEXT else f"{name}, {len(value)} values"


def _part(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.shape}{_about(value)}"
    return _words("", value).strip(" =,").removeprefix("with ")


def _some(texts: Iterable[str]) -> str:
    texts = list(texts)
    rest = [f"{len(texts) - MOST_PARTS} more"] if len(texts) > MOST_PARTS else []
    return ", ".join([*texts[:MOST_PARTS], *rest])


def _about(array):
    """What is special about the numbers, after the shape."""
    if array.size == 0:
        return ", empty"
    if array.dtype == bool:
        return f", {np.count_nonzero(array)} of {array.size} True"
    if array.dtype.kind in "iu":
        return f", from {array.min()} to {array.max()}"
    special = [", with nan"] if np.isnan(array).any() else []
    special += [", with infinity"] if np.isinf(array).any() else []
    size = np.abs(array[np.isfinite(array)])
    if size.size and not size.any():
        return "".join([*special, ", all 0"])
    if size.size and size.max() >= LARGE:
        special.append(f", up to {_short(size.max())} in size")
    elif size.size and size.max() <= SMALL:
        special.append(f", at most {_short(size.max())} in size")
    return "".join(special)


def _short(size):
    """A number with two digits that count: 900, 1e+300, 0.0007."""
    return f"{size:,.0f}" if LARGE <= size < 1e6 else f"{size:.2g}"
