"""Where the assignments are, and what is in one: questions, cells, what may be imported.

They are no part of the package, since solutions must not be importable. They stand in
`lessons/assignments` of the checkout, beside the package, or where `--assignments DIR` or the
variable MOE_NP_ASSIGNMENTS says.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import os
import pathlib
import secrets
import sys
import tomllib
import types
import zlib
from collections.abc import Callable
from typing import NamedTuple

import moe_np
from moe_np.base.checks import InputError, choice
from moe_np.coursework import notebook
from moe_np.coursework.notebook import Cell
from moe_np.coursework.question import Case, Question, draw, examine

ENVIRONMENT = "MOE_NP_ASSIGNMENTS"
LIBRARIES = ("numpy", "matplotlib")
FEEDBACK = "feedback.toml"  # beside questions.py; it need not be there
Path = str | os.PathLike | None


class Assignment(NamedTuple):
    """One assignment with its solutions."""

    name: str  # "1_mixture"
    folder: pathlib.Path
    title: str
    after: str  # the lesson it follows
    hours: str
    questions: tuple[Question, ...]
    allowed: tuple[str, ...]  # modules of moe_np that student code may import
    libraries: tuple[str, ...]  # other libraries that it may import
    cells: tuple[Cell, ...]  # of the source, with solutions

    @property
    def points(self) -> float:
        """The points of all questions."""
        return sum(question.points for question in self.questions)

    @property
    def time(self) -> str:
        """How long it takes, in words: "one hour", "three hours"."""
        return f"{self.hours} hour" + ("" if self.hours in ("one", "1") else "s")

    @property
    def fingerprint(self) -> str:
        """A hash of its files: marks that were given for other questions are given anew."""
        digest = hashlib.sha256()
        for name in ("assignment.py", "questions.py"):
            digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()[:16]


# --- Finding and loading them ---------------------------------------------------------------------


def folder(given: Path = None) -> pathlib.Path:
    """The folder of all assignments: `given`, the environment's, or the checkout's.

    Raises InputError if there is none.
    """
    given = given or os.environ.get(ENVIRONMENT)
    checkout = pathlib.Path(moe_np.__file__).resolve().parents[1]
    path = pathlib.Path(given) if given else checkout / "lessons" / "assignments"
    if not path.is_dir():
        raise InputError(
            f"assignments: wanted a folder, got {path}: assignments come with a checkout of the "
            f"project, not with the installed package; say where they are with --assignments DIR "
            f"or {ENVIRONMENT}"
        )
    return path


def names(given: Path = None) -> list[str]:
    """All assignments, in the order of their numbers. Raises InputError if there are none."""
    path = folder(given)
    wanted = ("assignment.py", "questions.py")
    folders = [p.name for p in path.iterdir() if all((p / name).is_file() for name in wanted)]
    if not folders:
        raise InputError(
            f"assignments: wanted folders with {' and '.join(wanted)}, got none in {path}"
        )
    return sorted(folders, key=lambda name: (len(name.split("_")[0]), name))


def load(name: str, given: Path = None) -> Assignment:
    """The Assignment of that name.

    Raises InputError if there is none, or if its files contradict each other.
    """
    choice("assignment", name, names(given))
    path = folder(given) / name
    module = load_module(path / "questions.py", name)
    points = {question.name: question.points for question in module.QUESTIONS}
    try:
        text = (path / "assignment.py").read_text(encoding="utf-8")
        cells = notebook.with_roles(notebook.parse(text), points)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    graded = {c.grade_id: c.nbgrader.get("points") for c in cells if c.nbgrader.get("grade")}
    questions = _with_feedback(module.QUESTIONS, path / FEEDBACK)
    if graded != points:
        raise InputError(
            f"{name}: questions.py has {points}, the graded cells of assignment.py {graded}"
        )
    return Assignment(
        name=name,
        folder=path,
        title=module.TITLE,
        after=getattr(module, "AFTER", ""),
        hours=getattr(module, "HOURS", ""),
        questions=questions,
        allowed=tuple(module.ALLOWED),
        libraries=tuple(getattr(module, "LIBRARIES", LIBRARIES)),
        cells=tuple(cells),
    )


def _with_feedback(questions, path):
    """The questions with what feedback says: lesson, names of outputs, kinds of input."""
    if not path.is_file():
        return tuple(questions)
    try:
        feedback = tomllib.loads(path.read_text(encoding="utf-8"))
        if unknown := set(feedback) - {question.name for question in questions}:
            raise ValueError(f"wanted names of questions, got {sorted(unknown)}")
        return tuple(
            dataclasses.replace(
                question,
                lesson=str(words.get("lesson", "")),
                outputs=tuple(words.get("outputs", ())),
                kinds=tuple(words.get("kinds", ())),
            )
            for question in questions
            for words in [feedback.get(question.name, {})]
        )
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: wanted tables of questions, got {error}") from None


def load_bank(name: str, given: Path = None) -> dict[str, dict]:
    """Right and wrong answers of an assignment: {question: {"right": [...], "wrong": {...}}}."""
    path = folder(given) / choice("assignment", name, names(given)) / "bank.py"
    return load_module(path, name).BANK


@functools.cache
def load_module(path: pathlib.Path, name: str) -> types.ModuleType:
    """A file of the assignment `name` as a module, under a name that nothing else imports."""
    label = f"_moe_np_assignment_{name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(label, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[label] = module
    spec.loader.exec_module(module)
    return module


# --- Their hidden inputs --------------------------------------------------------------------------


def seed_of(seed: int, assignment: str, question: str) -> list[int]:
    """The seed of one question's hidden inputs, different for each question of a grading."""
    return [int(seed), zlib.crc32(f"{assignment}/{question}".encode())]


def draw_all(assignment: Assignment, seed: int) -> dict[str, list[Case]]:
    """{question name: its cases with the reference's results}, drawn once for a whole class."""
    return {
        question.name: draw(question, seed_of(seed, assignment.name, question.name))
        for question in assignment.questions
        if question.function
    }


def hidden_test(assignment: str, question: str, answer: Callable, seed: int | None = None) -> None:
    """Examine `answer` in this process, for nbgrader's hidden tests and in a teacher's notebook.

    Raises AssertionError with the reason if it is wrong.
    """
    questions = {q.name: q for q in load(assignment).questions}
    choice("question", question, list(questions))
    seed = secrets.randbits(32) if seed is None else seed
    verdict = examine(questions[question], answer, seed_of(seed, assignment, question))
    if not verdict.passed:
        raise AssertionError(f"{question}: {verdict.message}")
