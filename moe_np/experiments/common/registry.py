"""The experiments that there are, found by walking the folders of `moe_np/experiments`.

An experiment is a folder whose `__init__` has a SUMMARY (see `common/experiment.py`). The summaries
are read from the source, so that listing them imports nothing.
"""

import ast
import functools
import importlib
import pathlib
from typing import cast

from moe_np.base import checks
from moe_np.experiments.common.experiment import Experiment

FOLDER = pathlib.Path(__file__).resolve().parents[1]


@functools.cache
def summaries() -> dict[str, str]:
    """{name: one line} of every experiment, in alphabetical order."""
    lines = {}
    for path in sorted(FOLDER.glob("*/__init__.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SUMMARY":
                lines[path.parent.name] = ast.literal_eval(node.value)
    return lines


def load(name: str) -> Experiment:
    """The experiment of this name, a module. Raises InputError for a name that is not one."""
    checks.choice("experiment", name, tuple(summaries()))
    module = importlib.import_module(f"moe_np.experiments.{name}")
    return cast(Experiment, module)  # a test checks the protocol for all of them


def replays() -> tuple[str, ...]:
    """The experiments whose publication left recorded runs that can be repeated: a `replay.py`."""
    return tuple(path.parent.name for path in sorted(FOLDER.glob("*/replay.py")))
