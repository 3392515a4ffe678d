"""The visible checks of a notebook, run for its student under the names of the gradebook."""

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from moe_np.base.checks import InputError
from moe_np.coursework import grading, notebook
from moe_np.coursework.notebook import Cell
from moe_np.coursework.sandbox import ChildError, Sandbox

SECONDS = 60.0  # for the visible checks of one question


class Checked(NamedTuple):
    """The visible checks of one question."""

    name: str
    points: float
    passed: bool | None  # None: marked by hand
    message: str


class ReleasedQuestion(NamedTuple):
    """What a released notebook tells of a question."""

    name: str
    points: float
    function: str | None


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
        cells, metadata = notebook.read(path.read_bytes())
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
        ReleasedQuestion(str(q["name"]), float(q["points"]), q["function"])
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
    tests = {cell.grade_id: cell.source for cell in released.cells if cell.nbgrader.get("grade")}
    cells = grading.runnable_cells(released, released.cells)
    first_number = len(released.cells) + 1  # of the cells of checks, in error messages
    with Sandbox(released.allowed, released.libraries, mode=mode) as sandbox:
        session = grading.Session(sandbox, cells)
        try:
            for number, question in enumerate(released.questions, start=first_number):
                name, points, function = question
                if function is None:
                    yield Checked(name, points, None, "marked by hand")
                    continue
                passed, message = _run_checks(session, number, tests.get(name))
                message = grading.clean_text(grading.explain_import(message, released))
                yield Checked(name, points, passed, message)
        finally:
            session.close()


def _run_checks(session, number, source):
    """(passed, message) of the cell of checks of one question."""
    if source is None:
        return False, "its cell of checks is not in the notebook any more"
    try:
        session.start()
        session.child.cell(number, source, SECONDS, apart=True)
    except ChildError as error:
        session.close()
        return False, session.explain(str(error))
    return True, ""
