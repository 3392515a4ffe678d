"""Where the assignments are, and what is in one: questions, cells, what may be imported.

They are no part of the package: solutions must not be importable. They stand in
`lessons/assignments` of the checkout, beside the package, or wherever `--assignments DIR` or
MOE_NP_ASSIGNMENTS says.
"""

import functools
import hashlib
import importlib.util
import os
import pathlib
import secrets
import sys
import zlib
from typing import NamedTuple

import moe_np
from moe_np.base.checks import InputError, choice
from moe_np.coursework import percent
from moe_np.coursework.question import draw, examine

ENVIRONMENT = "MOE_NP_ASSIGNMENTS"
LIBRARIES = ("numpy", "matplotlib")


class Assignment(NamedTuple):
    name: str  # "1_mixture"
    folder: pathlib.Path
    title: str
    after: str  # the lesson it follows
    hours: str
    questions: tuple
    allowed: tuple  # modules of moe_np that student code may import
    libraries: tuple  # other libraries it sees
    cells: tuple  # of the source, with solutions

    @property
    def points(self):
        return sum(q.points for q in self.questions)

    @property
    def fingerprint(self):
        """A hash of its files: grades made with other questions are made again."""
        digest = hashlib.sha256()
        for name in ("assignment.py", "questions.py"):
            digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()[:16]


def folder(given=None):
    """The folder of all assignments: `given`, the environment's, or the checkout's. InputError if
    there is none.
    """
    given = given or os.environ.get(ENVIRONMENT)
    path = (
        pathlib.Path(given)
        if given
        else pathlib.Path(moe_np.__file__).resolve().parents[1] / "lessons/assignments"
    )
    if not path.is_dir():
        raise InputError(
            f"assignments: wanted a folder, got {path}: they come with a checkout of the project, not with the "
            f"installed package; say where with --assignments DIR or {ENVIRONMENT}"
        )
    return path


def names(given=None):
    """All assignments, in the order of their numbers."""
    where = folder(given)
    found = [
        p.parent.name for p in where.glob("*/questions.py") if (p.parent / "assignment.py").exists()
    ]
    if not found:
        raise InputError(
            f"assignments: wanted folders with assignment.py and questions.py, got none in {where}"
        )
    return sorted(found, key=lambda name: (len(name.split("_")[0]), name))


def load(name, given=None):
    """The Assignment of that name. InputError if there is none, or if its files contradict each
    other.
    """
    base = folder(given)
    choice("assignment", name, names(given))
    module = _module(base / name / "questions.py", name)
    cells = tuple(percent.parse((base / name / "assignment.py").read_text(encoding="utf-8")))
    found = Assignment(
        name,
        base / name,
        module.TITLE,
        getattr(module, "AFTER", ""),
        getattr(module, "HOURS", ""),
        tuple(module.QUESTIONS),
        tuple(module.ALLOWED),
        tuple(getattr(module, "LIBRARIES", LIBRARIES)),
        cells,
    )
    _agree(found)
    return found


def _agree(assignment):
    """Every question has its cell with the same points, and every graded cell its question."""
    graded = {
        c.grade_id: c.nbgrader.get("points") for c in assignment.cells if c.nbgrader.get("grade")
    }
    asked = {q.name: q.points for q in assignment.questions}
    if graded != asked:
        raise InputError(
            f"{assignment.name}: questions.py has {asked}, the graded cells of assignment.py {graded}"
        )


@functools.cache
def _module(path, name):
    """A file of an assignment as a module of a name that nobody imports."""
    label = f"_moe_np_assignment_{name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(label, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[label] = module
    spec.loader.exec_module(module)
    return module


def bank(name, given=None):
    """Right and wrong answers of an assignment: {question: {"right": [...], "wrong": {...}}}."""
    return _module(folder(given) / choice("assignment", name, names(given)) / "bank.py", name).BANK


def seed_of(seed, assignment, question):
    """The seed of one question's hidden inputs in a grading: other questions, other numbers."""
    return [int(seed), zlib.crc32(f"{assignment}/{question}".encode())]


def draw_all(assignment, seed):
    """{question name: its cases with the reference's answers}, drawn once for a whole class."""
    return {
        q.name: draw(q, seed_of(seed, assignment.name, q.name))
        for q in assignment.questions
        if q.function
    }


def hidden_test(assignment, question, answer, seed=None):
    """Examine `answer` in this very process: for nbgrader's hidden tests and for the teacher's own
    notebook.
    """
    found = load(assignment)
    asked = {q.name: q for q in found.questions}[
        choice("question", question, [q.name for q in found.questions])
    ]
    seed = secrets.randbits(32) if seed is None else seed
    verdict = examine(asked, answer, seed_of(seed, assignment, question))
    if not verdict.passed:
        raise AssertionError(f"{question}: {verdict.message}")
