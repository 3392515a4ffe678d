"""The visible checks of a notebook, run for its student under the names of the gradebook."""

import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from moe_np.base.checks import InputError
from moe_np.coursework import grading, messages, notebook
from moe_np.coursework.notebook import Cell
from moe_np.coursework.sandbox import ChildError, Sandbox

SECONDS = 60.0  # for the visible checks of one question
LONGEST_LINE = 40  # of a cell, where it is named


class Checked(NamedTuple):
    """The visible checks of one question."""

    name: str
    points: float
    passed: bool | None  # None: marked by hand
    message: str
    searched: bool = False  # graded on faults that no visible check shows


class ReleasedQuestion(NamedTuple):
    """What a released notebook tells of a question."""

    name: str
    points: float
    function: str | None
    searched: bool = False


class Notebook(NamedTuple):
    """A released notebook: it takes the place of the assignment, which students do not have."""

    name: str
    allowed: tuple[str, ...]
    libraries: tuple[str, ...]
    questions: tuple[ReleasedQuestion, ...]
    cells: tuple[Cell, ...]


def read(path: str | os.PathLike) -> Notebook:
    """The Notebook of a file that `release` made. Raises InputError if it is none."""
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            cells, metadata = notebook.read(file.read(notebook.LARGEST + 1))
    except OSError as error:
        raise InputError(f"{path}: wanted a notebook, got {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    facts = metadata.get("moe_np")
    if not isinstance(facts, dict) or not isinstance(facts.get("questions"), list):
        wanted = "a notebook made by `moe-np coursework release`"
        raise InputError(f"{path}: wanted {wanted}, got another")
    try:
        return _notebook(cells, facts)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: its metadata about the assignment is damaged") from None


def _notebook(cells, facts):
    given = {str(name): str(source) for name, source in dict(facts.get("given", {})).items()}
    questions = (
        ReleasedQuestion(
            str(q["name"]), float(q["points"]), q["function"], q.get("searched") is True
        )
        for q in facts["questions"]
    )
    return Notebook(
        name=facts["assignment"],
        allowed=tuple(map(str, facts["allowed"])),
        libraries=tuple(map(str, facts["libraries"])),
        questions=tuple(questions),
        cells=tuple(c._replace(source=given.get(c.grade_id, c.source)) for c in cells),
    )


def check(released: Notebook, mode: str | None = None) -> Iterator[Checked]:
    """Run the notebook's cells as in grading, then each question's visible checks.

    mode   of the sandbox; None takes the strongest that works
    """
    numbered = enumerate(released.cells, start=1)
    tests = {c.grade_id: (number, c.source) for number, c in numbered if c.nbgrader.get("grade")}
    cells = grading.runnable_cells(released, released.cells)
    with Sandbox(released.allowed, released.libraries, mode=mode) as sandbox:
        session = grading.Session(sandbox, cells)
        try:
            for name, points, function, searched in released.questions:
                if function is None:
                    yield Checked(name, points, None, "marked by hand")
                    continue
                passed, message = _run_checks(session, tests.get(name))
                message = name_cells(message, cells)
                message = messages.clean_text(messages.explain_import(message, released))
                yield Checked(name, points, passed, message, searched)
        finally:
            session.close()


def name_cells(message: str, cells: Iterable[tuple[int, str]]) -> str:
    """The message with "(cell 4, line 2)" in words, since Jupyter shows no such numbers.

    cells   [(number, source)] that were run before the checks; any other cell is that of the checks
    """
    sources = dict(cells)

    def words(match):
        if int(match[1]) not in sources:
            return f"(line {match[2]} of its checks)"
        lines = [line.strip() for line in sources[int(match[1])].splitlines()]
        first = next((line for line in lines if line and not line.startswith("#")), "")
        return f"(line {match[2]} of the cell that begins with {first[:LONGEST_LINE]!r})"

    return re.sub(r"\(cell (\d+), line (\d+)\)", words, message)


def _run_checks(session, test):
    """(passed, message) of the cell of checks of one question."""
    if test is None:
        return False, "its cell of checks is not in the notebook any more"
    number, source = test
    try:
        session.start()
        session.child.cell(number, source, SECONDS, apart=True)
    except ChildError as error:
        session.close()
        return False, session.explain(str(error))
    return True, ""
