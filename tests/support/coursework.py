"""What the tests of coursework share: the assignments, a sandbox for each, notebooks of cells."""

import dataclasses
import functools
import importlib.util
import pathlib
import types
from collections.abc import Iterable

import pytest

from moe_np import cli
from moe_np.coursework import assignments, notebook
from moe_np.coursework.assignments import Assignment
from moe_np.coursework.notebook import Cell
from moe_np.coursework.question import Case, draw
from moe_np.coursework.sandbox import Sandbox

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "lessons" / "assignments"
NAMES = assignments.names(FOLDER) if FOLDER.is_dir() else []
NAME = "1_mixture"  # where one assignment is enough
SEED = 20240


@functools.cache
def assignment(name: str = NAME) -> Assignment:
    """An assignment of the checkout."""
    return assignments.load(name, FOLDER)


@functools.cache
def drawn(name: str = NAME, seed: int = SEED) -> dict[str, list[Case]]:
    """The cases of an assignment's questions."""
    return assignments.draw_all(assignment(name), seed)


@functools.cache
def drawn_one(name: str, question: str, seed: int) -> list[Case]:
    """The cases of one question, without those of its race."""
    asked = next(q for q in assignment(name).questions if q.name == question)
    seeds = assignments.seed_of(seed, name, question)
    return draw(dataclasses.replace(asked, baseline=None), seeds)


def bank(name: str = NAME) -> dict[str, dict]:
    """An assignment's right and wrong answers."""
    return assignments.load_bank(name, FOLDER)


def sandbox_of(name: str = NAME, **options: object) -> Sandbox:
    """A sandbox for the students of an assignment."""
    loaded = assignment(name)
    return Sandbox(loaded.allowed, loaded.libraries, secret=(FOLDER,), **options)


def notebook_bytes(cells: Iterable[Cell]) -> bytes:
    """The bytes of a notebook."""
    return notebook.write(cells).encode()


@functools.cache
def simulate_class() -> types.ModuleType:
    """The script of that name as a module."""
    spec = importlib.util.spec_from_file_location("simulate_class", FOLDER / "simulate_class.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- The command line -----------------------------------------------------------------------------


def moe_np(*arguments: object) -> int:
    """Run `moe-np coursework` on the assignments of the checkout. Returns the exit status."""
    place = () if arguments[0] == "check" else ("--assignments", FOLDER)
    return cli.main(["coursework", *map(str, (*arguments, *place))])


def files_below(folder: pathlib.Path) -> dict[str, bytes]:
    """{relative path: bytes} of all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_class(
    folder: pathlib.Path,
    kinds: Iterable[str] = ("untouched", "not_a_notebook", "syntax_error"),
    honest: int = 2,
) -> dict[str, list[str]]:
    """Write a few submissions; {student: questions that are lost}. kinds: of `cheats`."""
    simulated = simulate_class()
    solved = {f"honest{i}": (simulated.solved(assignment()), []) for i in range(honest)}
    cheats = simulated.cheats(assignment())
    work = solved | {kind: cheats[kind] for kind in kinds}
    folder.mkdir(exist_ok=True)
    for student, (cells, _) in work.items():
        raw = simulated.notebook_bytes(assignment(), cells)
        (folder / f"{student}.ipynb").write_bytes(raw)
    return {student: lost for student, (_, lost) in work.items()}


# --- Parameters -----------------------------------------------------------------------------------


def missing_libraries(name: str) -> list[str]:
    """What an assignment's students need and this Python does not have (perhaps Numba)."""
    try:
        libraries = assignment(name).libraries
    except ValueError:
        return []  # the tests of the assignment say what is wrong with it
    return [library for library in libraries if importlib.util.find_spec(library) is None]


def _parameter(name):
    missing = missing_libraries(name)
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=f"without {missing}"))


PARAMETERS = [_parameter(name) for name in NAMES]
every_assignment = pytest.mark.parametrize("name", PARAMETERS)
