"""The runs of the frameworks: one framework on one problem, and its time beside ours.

A framework that is not installed is a row of the table that says so.
"""

import dataclasses
import importlib.metadata
import time
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from moe_np.base.checks import choice
from moe_np.base.machine import one_blas_thread
from moe_np.experiments.common import extras
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import t_interval
from moe_np.experiments.frameworks import (
    built_in,
    jax_layer,
    keras_layer,
    layer_problem,
    torch_layer,
)


class Framework(NamedTuple):
    """Where a framework is found, and its statement of the layer."""

    package: str
    statement: ModuleType
    words: str


FRAMEWORKS = {
    "PyTorch": Framework("torch", torch_layer, "a module with a loop over experts"),
    "JAX": Framework("jax", jax_layer, "a sort and `ragged_dot`, compiled"),
    "TensorFlow": Framework("tensorflow", keras_layer, "a Keras layer with a loop, as a graph"),
}
SYSTEMS = tuple(FRAMEWORKS)
PAPER: dict[str, Any] = {}  # nothing to compare with


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours."""

    tokens: int = 512
    d_model: int = 128
    hidden: int = 256
    experts: int = 8
    k: int = 2
    rounds: int = 15  # of the times, ours and theirs in turn
    seeds: int = 3


def version(system: str) -> str | None:
    """The version that is installed, or None."""
    package = FRAMEWORKS[choice("system", system, SYSTEMS)].package
    if not extras.installed(package):
        return None
    for name in (package, f"{package}-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One framework and one problem. The version is part of it, so a new one is run anew."""
    sizes = {n: getattr(config, n) for n in ("tokens", "d_model", "hidden", "experts", "k")}
    return {"system": system, "seed": seed, "version": version(system), "sizes": sizes}


def run_one(spec: Spec) -> Result:
    """Outputs and gradients beside ours, and with seed 0 what is built in.

    "differences" is None where the framework is not installed.
    """
    facts = {name: spec[name] for name in ("system", "seed", "version")}
    if spec["version"] is None:
        return {**facts, "differences": None, "built in": None}
    problem = layer_problem.problem(spec["seed"], **spec["sizes"])
    values = FRAMEWORKS[spec["system"]].statement.step_of(problem)()
    differences = layer_problem.largest_difference(layer_problem.step_of(problem)(), values)
    cells = built_in.table(spec["system"]) if spec["seed"] == 0 else None
    return {**facts, "differences": differences, "built in": cells}


def times(config: Config, system: str) -> Result | None:
    """Milliseconds of processor time of a step, forward and backward, ours and theirs in turn.

    The medians over the rounds, and the ratio, theirs to ours: "log ratio" is the mean of its
    logarithm over the rounds with its 95 % t interval. None where the framework is not installed.
    Ours runs on one thread; the time of all threads of theirs is added up.
    """
    if version(system) is None:
        return None
    sizes = spec_of(config, system, 0)["sizes"]
    problem = layer_problem.problem(0, **sizes)
    steps = (layer_problem.step_of(problem), FRAMEWORKS[system].statement.step_of(problem))
    rounds = []
    with one_blas_thread():
        for number in range(config.rounds + 2):
            used = []
            for step in steps:
                begin = time.process_time()
                step()
                used.append(1e3 * (time.process_time() - begin))
            if number >= 2:  # the first ones compile
                rounds.append(used)
    ours, framework = np.maximum(np.array(rounds).T, 1e-6)  # a clock may be coarse
    return {
        "ours": float(np.median(ours)),
        "theirs": float(np.median(framework)),
        "log ratio": t_interval(np.log(framework / ours)).record(),
    }


def summarise(runs: list[Result]) -> Result:
    """The largest differences over the problems, and what is built in."""
    summary: Result = {"version": runs[0]["version"]}
    differences = [run["differences"] for run in runs if run["differences"] is not None]
    if differences:
        for name in ("outputs", "gradients"):
            summary[name] = max(values[name] for values in differences)
    cells = [run["built in"] for run in runs if run["built in"] is not None]
    summary["built in"] = cells[0] if cells else None
    return summary
