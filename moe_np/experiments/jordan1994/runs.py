"""The robot-arm runs of Jordan and Jacobs (1994): one run, and what several show.

M. I. Jordan and R. A. Jacobs (1994), Hierarchical mixtures of experts and the EM algorithm, Neural
Computation 6:181-214: from 12 inputs (angles, velocities and torques of four joints) to 4
accelerations, 15,000 cases for training and 5,000 for testing. A binary tree of 16 linear experts
against a net of 60 hidden units, CART, and their on-line versions: all rows of Tables 1 and 2 but
MARS.

The paper does not give the equations, masses and ranges of the arm. `moe_np.data.arm` has a
surrogate, whose ranges were chosen so that the first row of Table 1 comes out. The other rows can
be compared, but they are not the same task.
"""

import dataclasses
import functools
import math
import time

import numpy as np

from moe_np.base.checks import choice
from moe_np.data import arm
from moe_np.data.arm import ArmTask
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.jordan1994 import learners

BATCH = ("linear", "backprop", "HME, Algorithm 1", "HME, Algorithm 2", "CART", "CART, linear")
ONLINE = ("linear, on-line", "backprop, on-line", "HME, on-line", "HME, gradient")
SYSTEMS = BATCH + ONLINE


@dataclasses.dataclass(frozen=True)
class Config:
    """Values of the paper (as far as `within`), and our choices where it has none."""

    n_train: int = 15_000
    n_test: int = 5_000
    tree: tuple = (2, 2, 2, 2)  # four levels, binary: 16 linear experts
    hidden: int = 60  # the net is 12-60-4
    within: float = 0.05  # epochs count to the first with an error within 5 % of the lowest
    seeds: int = 10  # chosen; each seed draws its own cases and its own initialisation
    ranges: str = arm.DEFAULT  # chosen, and calibrated
    covariance: str = "shared"  # chosen: one variance for all experts, learned
    irls_steps: int = 1  # chosen: Newton steps of a gate in one M step
    clip: float = 10.0  # chosen: bound of the log ratios that least squares gates are fitted to
    spread: float = 0.05  # chosen: initial weights of trees are uniform in ± this,
    net_spread: float = 0.3  # and those of nets in ± this
    beta: float = 0.9  # chosen: momentum of batch backprop
    min_leaf: int = 5  # chosen: the fewest cases in a leaf of CART before pruning
    # paper, on-line simulations: the forgetting factor λ of the tree is .99 at first and moves by
    # .6 of its distance to 1 every 1000 cases
    forget: float = 0.99
    nearer: float = 0.4  # 1 − .6: what is left of the distance
    every: int = 1000
    # one learning rate per system, in the order of SYSTEMS, chosen by `explore`
    lr: tuple = (0.0, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0005, 0.1, 0.0, 0.02)
    # chosen: passes over the data, per system
    epochs: tuple = (1, 5500, 100, 100, 1, 1, 3, 100, 20, 120)
    fails: float = 0.31  # chosen: a run that never gets below the best linear map counts as failed


PAPER = {
    "table1": {  # relative error on the test set, epochs
        "linear": (0.31, 1),
        "backprop": (0.09, 5500),
        "HME, Algorithm 1": (0.10, 35),
        "HME, Algorithm 2": (0.12, 39),
        "CART": (0.17, None),
        "CART, linear": (0.13, None),
        "MARS": (0.16, None),
    },
    "table2": {
        "linear, on-line": (0.32, 1),
        "backprop, on-line": (0.08, 63),
        "HME, on-line": (0.12, 2),
        "HME, gradient": (0.15, 104),
    },
}

# --- One run --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def task(seed: int, ranges: str, n_train: int, n_test: int) -> ArmTask:
    """The arm's cases for a seed; the last four draws of a process are kept."""
    bounds = arm.RANGES[choice("ranges", ranges, tuple(arm.RANGES))]
    rng = np.random.default_rng([seed, 0])
    return arm.arm_task(rng, n_train=n_train, n_test=n_test, ranges=bounds)


def run_one(spec: Spec) -> Result:
    """Train one system from one seed.

    -> {"error" (the lowest on the test set), "last", "epoch" (the first whose error is within
    `within` of the lowest), "failed", "epochs" and "errors" (the curve), "timing": {"seconds",
    "first"}}, or {"skipped": reason}. The seconds are processor time of this thread for learning
    alone, so other work of the machine hardly matters. They are not repeated bit by bit.
    """
    data = task(spec["seed"], spec["ranges"], spec["n_train"], spec["n_test"])
    if choice("system", spec["system"], SYSTEMS) == "CART" and not learners.has_sklearn():
        return {"skipped": "scikit-learn is not installed"}
    learners.warm_up(spec, data)
    epochs, errors, seconds = _curve(spec, data)
    lowest = min(errors)
    first = next(i for i, error in enumerate(errors) if error <= (1 + spec["within"]) * lowest)
    return {
        "error": lowest,
        "last": errors[-1],
        "epoch": epochs[first],
        "failed": "linear" not in spec["system"] and not lowest < spec["fails"],
        "epochs": epochs,
        "errors": errors,
        "timing": {"seconds": seconds, "first": seconds[first]},
    }


def _curve(spec, data):
    """Passes, error on the test set and seconds of learning, a list each, until the last pass of
    the spec or the first error that is not finite.
    """
    measured = measured_passes(spec["epochs"])
    passes = learners.passes(spec, data, np.random.default_rng([spec["seed"], 1]))
    spent = 0.0
    points = []
    while True:
        before = time.thread_time()
        number, predict = next(passes)
        spent += time.thread_time() - before
        if number not in measured:
            continue
        error = arm.relative_error(data.y_test, predict(data.x_test))
        if math.isfinite(error):
            points.append((number, error, spent))
        if number >= spec["epochs"] or not math.isfinite(error):
            return [list(values) for values in zip(*points, strict=True)]


def measured_passes(epochs: int) -> set[int]:
    """The numbers of passes after which the error is measured: all to 100, then every 2 %."""
    passes = set(range(min(epochs, 100) + 1))
    number = 100.0
    while number < epochs:
        passes.add(round(number))
        number *= 1.02
    return passes | {epochs}


def spec_of(config: Config, system: str, seed: int, **changes: object) -> Spec:
    """What determines a run, as JSON-able data. `changes` override any of it."""
    spec = dataclasses.asdict(config)
    del spec["seeds"]
    place = SYSTEMS.index(choice("system", system, SYSTEMS))
    spec |= {"system": system, "seed": seed, "lr": config.lr[place], "epochs": config.epochs[place]}
    spec |= changes
    return {**spec, "tree": list(spec["tree"])}


def quick_config(config: Config) -> Config:
    """Few cases and short runs: it shows that all works, and is not a result."""
    most = (1, 300, 12, 12, 1, 1, 2, 8, 3, 8)
    epochs = tuple(min(pair) for pair in zip(config.epochs, most, strict=True))
    return dataclasses.replace(config, n_train=2000, n_test=1000, epochs=epochs)


# --- What several runs show -----------------------------------------------------------------------


def summarise(runs: list[Result]) -> Result:
    """Mean and sample standard deviation (n − 1) of one system's runs: {"failures", "error",
    "last", "epoch", "seconds", "seconds an epoch"}; {"skipped"} if there are none.
    """
    if "skipped" in runs[0]:
        return runs[0]
    values = {name: [run[name] for run in runs] for name in ("error", "last", "epoch")}
    values["seconds"] = [run["timing"]["first"] for run in runs]
    values["seconds an epoch"] = [
        run["timing"]["seconds"][-1] / max(run["epochs"][-1], 1) for run in runs
    ]
    summary = {name: describe(v, single=0.0).record("mean", "sd") for name, v in values.items()}
    return {"failures": sum(run["failed"] for run in runs), **summary}


def reach(runs: list[Result], level: float) -> list[tuple[int, float] | None]:
    """(epochs, seconds) of each run until its error was first at most `level`; None if never."""
    out = []
    for run in runs:
        first = next((i for i, error in enumerate(run["errors"]) if error <= level), None)
        seconds = run["timing"]["seconds"]
        out.append(None if first is None else (run["epochs"][first], seconds[first]))
    return out


# --- Choosing the learning rates ------------------------------------------------------------------

GRID = {
    "backprop": (0.05, 0.1, 0.2, 0.3),
    "linear, on-line": (0.0005, 0.001, 0.003, 0.01),
    "backprop, on-line": (0.01, 0.03, 0.1),
    "HME, gradient": (0.01, 0.02, 0.04),
}


def explore(config: Config, sweep: Sweep, seeds: int = 2) -> dict[str, dict[float, float]]:
    """{system: {learning rate: mean lowest error}} on the separate seeds 1000, 1001, ..., where a
    run ends after a fifth of its passes.
    """
    cells = [(system, lr) for system, grid in GRID.items() for lr in grid]
    short = {system: max(config.epochs[SYSTEMS.index(system)] // 5, 2) for system in GRID}
    specs = [
        spec_of(config, system, 1000 + i, lr=lr, epochs=short[system])
        for system, lr in cells
        for i in range(seeds)
    ]
    results = sweep.map(run_one, specs, "learning rates")
    explored = {system: {} for system in GRID}
    for i, (system, lr) in enumerate(cells):
        errors = [result["error"] for result in results[i * seeds : (i + 1) * seeds]]
        explored[system][lr] = describe(errors).mean
    return explored
