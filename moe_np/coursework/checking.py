"""`check`: a student's own look at the visible checks, by the names under which the notebook is
graded.
"""

import pathlib
from typing import NamedTuple

from moe_np.base.checks import InputError
from moe_np.coursework import grading, percent
from moe_np.coursework.process import ChildError
from moe_np.coursework.sandbox import Sandbox

SECONDS = 60.0  # for the visible checks of one question


class Checked(NamedTuple):
    name: str
    points: float
    passed: bool | None  # None: marked by hand
    message: str


class Notebook(NamedTuple):
    """What is to be known of a released notebook: a stand-in for the assignment, which students do
    not have.
    """

    name: str
    allowed: tuple
    libraries: tuple
    questions: tuple
    cells: tuple


def read(path):
    """The Notebook of a file that `release` made."""
    path = pathlib.Path(path)
    try:
        cells, metadata = percent.read_notebook(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: wanted a notebook, got {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    about = metadata.get("moe_np")
    if not isinstance(about, dict) or not isinstance(about.get("questions"), list):
        raise InputError(
            f"{path}: wanted a notebook made by `moe-np coursework release`, got another"
        )
    try:
        given = {str(k): str(v) for k, v in dict(about.get("given", {})).items()}
        cells = [c._replace(source=given.get(c.grade_id, c.source)) for c in cells]
        questions = tuple(
            (str(q["name"]), float(q["points"]), q["function"]) for q in about["questions"]
        )
        return Notebook(
            about["assignment"],
            tuple(about["allowed"]),
            tuple(about["libraries"]),
            questions,
            tuple(cells),
        )
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: its metadata about the assignment is damaged") from None


def check(notebook, mode=None):
    """Run the notebook's cells as in grading, then each question's visible checks. Yields a Checked
    each.
    """
    tests = {c.grade_id: c.source for c in notebook.cells if c.nbgrader.get("grade")}
    run = grading.runnable(notebook, notebook.cells)
    with Sandbox(notebook.allowed, notebook.libraries, mode=mode) as sandbox:
        session = grading.Session(sandbox, run)
        try:
            for number, (name, points, function) in enumerate(
                notebook.questions, start=len(notebook.cells) + 1
            ):
                if function is None:
                    yield Checked(name, points, None, "marked by hand")
                    continue
                passed, message = _one(session, number, tests.get(name))
                yield Checked(name, points, passed, grading.plain(grading.about(message, notebook)))
        finally:
            session.close()


def _one(session, number, source):
    if source is None:
        return False, "its cell of checks is not in the notebook any more"
    try:
        session.start()
        session.child.cell(number, source, SECONDS, apart=True)
    except ChildError as error:
        session.close()
        return False, session.explained(str(error))
    return True, ""
