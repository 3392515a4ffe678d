"""What the tests of coursework share: the assignments that are there, a sandbox for each, notebooks
made of cells.
"""

import functools
import importlib.util
import pathlib

import pytest

from moe_np.coursework import assignments, percent
from moe_np.coursework.sandbox import Sandbox

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "lessons" / "assignments"
NAMES = assignments.names(FOLDER) if FOLDER.is_dir() else []
SEED = 20240


@functools.cache
def assignment(name):
    return assignments.load(name, FOLDER)


@functools.cache
def drawn(name, seed=SEED):
    return assignments.draw_all(assignment(name), seed)


def sandbox_of(name, **options):
    found = assignment(name)
    return Sandbox(found.allowed, found.libraries, secret=(FOLDER,), **options)


def notebook(cells):
    """The bytes of a notebook."""
    return percent.write_notebook(percent.to_notebook(cells)).encode()


def simulate_class():
    """The script of that name as a module."""
    spec = importlib.util.spec_from_file_location("simulate_class", FOLDER / "simulate_class.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lacking(name):
    """What an assignment's students need and this Python has not (Numba, in one leg of the tests)."""
    try:
        return [
            library
            for library in assignment(name).libraries
            if importlib.util.find_spec(library) is None
        ]
    except ValueError:
        return []  # its own tests say what is wrong with it


def _parameter(name):
    return pytest.param(
        name, marks=pytest.mark.skipif(bool(lacking(name)), reason=f"without {lacking(name)}")
    )


PARAMETERS = [_parameter(name) for name in NAMES]
every_assignment = pytest.mark.parametrize("name", PARAMETERS)
