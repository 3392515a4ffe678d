"""Messages to students: which cell, what may be imported, no control characters."""

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from moe_np.coursework.notebook import Cell

LONGEST_MESSAGE = 500  # characters
LONGEST_TEXT = 20_000
LONGEST_LINE = 40  # of a cell, in its name
GIVEN = "it is in a given cell, and these are run as they were handed out: put it in a new cell"


class Allowed(Protocol):
    """What may be imported: of moe_np, and of other libraries."""

    allowed: tuple[str, ...]
    libraries: tuple[str, ...]


def cell_name(number: int, cells: Sequence[tuple[int, str]]) -> str:
    """A cell's number with its first line of code, since Jupyter shows no such number.

    cells   [(number, source)]
    """
    lines = [line.strip() for n, source in cells if n == number for line in source.split("\n")]
    line = next((line for line in lines if line and not line.startswith("#")), "")
    line = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."
    return f"cell {number} ({line})" if line else f"cell {number}"


def words_of_changed_given(handed_out: Iterable[Cell], cells: Iterable[Cell]) -> set[str]:
    """The names that a student wrote into given cells, where they are not run."""
    original = {cell.grade_id: cell.source for cell in handed_out if cell.nbgrader.get("locked")}
    words = set()
    for cell in cells:
        if cell.grade_id in original and cell.source != original[cell.grade_id]:
            words |= set(re.findall(r"\w+", cell.source))
            words -= set(re.findall(r"\w+", original[cell.grade_id]))
    return words


def explain_given(message: str, words: Iterable[str]) -> str:
    """A message about a name that was written into a given cell, with that; others as they are."""
    match = re.search(r"name '(\w+)' is not defined|there is no function (\w+)", message)
    if match and (match[1] or match[2]) in words:
        return f"{message}; {GIVEN}"
    return message


def explain_import(message: str, assignment: Allowed) -> str:
    """A message about a module that is not there, with what is allowed; others as they are."""
    if "No module named 'moe_np" in message:
        return f"{message}; of moe_np this assignment allows {', '.join(assignment.allowed)}"
    if "No module named" in message:
        libraries = ", ".join(assignment.libraries)
        return f"{message}; besides Python's own this assignment allows {libraries}"
    return message


def clean_text(text: str, longest: int = LONGEST_MESSAGE, kept: str = "") -> str:
    """A student's text, fit for a file and a terminal: no control characters, not too long.

    kept   control characters that stay; without "\\n" the text becomes one line
    """
    text = text[: longest + 1].encode("utf-8", "replace").decode()
    text = "".join(c if c.isprintable() or c in kept else " " for c in text)
    return text if len(text) <= longest else text[:longest] + " ..."
