"""What a feedback page shows of a failure: the student's own lines, and what the inputs were like.

The hidden inputs themselves are not shown: their shapes, and what is special about the numbers.
"""

import ast
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
    number, node, source = last_definition(name, cells)
    if answer is not None and (node is None or f"def {name}(" not in answer.source):
        numbers = {source: number for number, source in cells}
        return numbers.get(answer.source, 0), 1, answer.source.splitlines()
    if node is None:
        return None
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return number, first, source.splitlines()[first - 1 : node.end_lineno]


def last_definition(
    name: str, cells: Sequence[tuple[int, str]]
) -> tuple[int, ast.FunctionDef | None, str]:
    """(number, node, source) of the last cell that defines a function; (0, None, "") without."""
    for number, source in reversed(cells):
        if f"def {name}" not in source:
            continue
        try:
            body = ast.parse(source).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in reversed(body):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return number, node, source
    return 0, None, ""


# --- The inputs -----------------------------------------------------------------------------------


def argument_names(function: str, cells: Sequence[tuple[int, str]], count: int) -> list[str]:
    """The names of the arguments of a student's function; "argument 1" where it has others."""
    _, node, _ = last_definition(function, cells)
    names = [] if node is None else [argument.arg for argument in node.args.args]
    if len(names) == count:
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
