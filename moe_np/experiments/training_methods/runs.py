"""One run of a training method on one of three problems, and what is measured of it.

The methods are those of `moe_np.training.methods`, the problems those of `problems.py`.

Budget. Every method gets `Config.passes` passes over the training data
(`moe_np.training.methods.method` says what a pass is), and no step that would go beyond them.
"CMA-ES, 10 times" gets ten times as many and spends them on a larger population.

Knob. Each method has at most one number that is chosen for it: the learning rate of Adam, or σ of
the first mutations of an evolutionary method. `explore` in `experiment.py` chose it on separate
seeds.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.checks import choice
from moe_np.base.numerics import softmax
from moe_np.base.params import flatten, unflatten
from moe_np.base.types import Array, ArrayN, Options, Rng
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.training_methods import problems
from moe_np.experiments.training_methods.problems import Task
from moe_np.layers import diagnostics
from moe_np.mixtures import jacobs1991
from moe_np.training.methods import (
    alternating,
    cma_es,
    em,
    evolutionary,
    hard,
    joint,
    separate,
)
from moe_np.training.methods.method import MixtureParams, Problem, Step

PROBLEMS = problems.NAMES
POINTS = 50  # of a curve
# children of the long CMA-ES: fewer leave it in local optima of the pieces, more take too long
POPULATION = 50
LARGE = 100  # numbers in a mixture; above, CMA-ES learns variances only

# --- The methods ----------------------------------------------------------------------------------


class Method(NamedTuple):
    """A training method of the comparison.

    module    its file in `moe_np.training.methods`
    knob      the argument of `train` that is chosen: "lr", "sigma", or "" for none
    options   (task, passes) -> its other arguments
    """

    module: ModuleType
    knob: str
    options: Callable[[Task, float], Options] = lambda task, passes: {}


def _half_for_experts(task, passes):
    return {"expert_steps": passes // 2}


def _true_regions(task, passes):
    return {"expert_steps": passes // 2, "labels": task.region}


def _permuted_regions(task, passes):
    labels = np.random.default_rng(0).permutation(task.region)
    return {"expert_steps": passes // 2, "labels": labels}


def _straight_through(task, passes):
    return {"estimator": "straight_through"}


def _diagonal_if_large(task, passes):
    """The full covariance matrix of many numbers would take far longer to learn."""
    size = flatten(task.problem.init(np.random.default_rng(0))).size
    return {"diagonal": size > LARGE}


def _large_population(task, passes):
    return {**_diagonal_if_large(task, passes), "children": POPULATION}


METHODS = {
    "one expert": Method(joint, "lr"),
    "joint": Method(joint, "lr"),
    "alternating": Method(alternating, "lr"),
    "separate": Method(separate, "lr", _half_for_experts),
    "separate, true regions": Method(separate, "lr", _true_regions),
    "EM": Method(em, ""),
    "straight-through": Method(hard, "lr", _straight_through),
    "REINFORCE": Method(hard, "lr"),
    "evolution strategy": Method(evolutionary, "sigma"),
    "CMA-ES": Method(cma_es, "sigma", _diagonal_if_large),
    "CMA-ES, 10 times": Method(cma_es, "sigma", _large_population),
    "joint, other seeds": Method(joint, "lr"),
    "joint, a tenth of the rate": Method(joint, "lr"),
    "separate, permuted regions": Method(separate, "lr", _permuted_regions),
}
SINGLE = "one expert"  # what a mixture is compared with
LONGER = "CMA-ES, 10 times"
TRUE = "separate, true regions"
# controls of the claims: what they must show is known
ANEW = "joint, other seeds"
SLOW = "joint, a tenth of the rate"
PERMUTED = "separate, permuted regions"
CONTROLS = (ANEW, SLOW, PERMUTED)
SYSTEMS = tuple(name for name in METHODS if name not in CONTROLS)
TUNED = ("joint", "alternating", TRUE, ANEW, PERMUTED)  # their experts go on with the gate held
KNOB_OF = {  # this one has the knob of that one
    TRUE: "separate",
    PERMUTED: "separate",
    ANEW: "joint",
    SLOW: "joint",
}
SHARE = {SLOW: 0.1}  # of that knob
FIRST_SEED = 100  # earlier versions had other criteria, and seeds from 0 to 24
ANEW_FROM = 500  # is added to the seed of ANEW
WITH_KNOB = tuple(name for name in SYSTEMS if METHODS[name].knob and name not in KNOB_OF)

# --- Configuration --------------------------------------------------------------------------------

# what `explore` found best of Config.grid
KNOBS = tuple(
    (problem, system, value)
    for system, values in {
        "one expert": (0.03, 0.01, 0.01),
        "joint": (0.1, 0.03, 0.1),
        "alternating": (0.3, 0.03, 0.1),
        "separate": (1.0, 0.03, 0.1),
        "straight-through": (0.3, 0.03, 0.03),
        "REINFORCE": (1.0, 0.03, 0.03),
        "evolution strategy": (1.0, 0.3, 0.1),
        "CMA-ES": (0.1, 0.1, 0.3),
        "CMA-ES, 10 times": (0.3, 0.3, 0.3),
    }.items()
    for problem, value in zip(PROBLEMS, values, strict=True)
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Our own choices."""

    seeds: int = 60
    passes: int = 2000
    longer: int = 10  # times the passes, for one evolutionary method
    tuning: float = 0.5  # of the passes, for the experts that go on where a method ended
    knobs: tuple = KNOBS  # ((problem, system, value), ...)
    grid: tuple = (0.01, 0.03, 0.1, 0.3, 1.0)  # the values that `explore` tries
    grid_seeds: int = 5  # on seeds 1000, 1001, ... that the experiment itself does not use


PAPER = {  # what popular articles say, not a measurement
    "joint": "simple and efficient, but experts may compete",
    "separate": "easy to manage, but may leave experts incompatible with each other",
    "alternating": "makes experts more compatible, but is slower",
    "gradient": "common and efficient, but gets stuck in local optima",
    "evolutionary": "explores more configurations and avoids local optima, but is complex and slow",
}


def passes_of(config: Config, system: str) -> int:
    """The budget of a method."""
    return config.passes * (config.longer if system == LONGER else 1)


def spec_of(
    config: Config, problem: str, system: str, seed: int, knob: float | None = None
) -> Spec:
    """What determines a run, as JSON-able data. `knob` overrides that of the configuration."""
    knobs = {(name, method): value for name, method, value in config.knobs}
    if knob is None and METHODS[system].knob:
        knob = knobs[problem, KNOB_OF.get(system, system)] * SHARE.get(system, 1)
    return {
        "problem": problem,
        "system": system,
        "seed": seed + (ANEW_FROM if system == ANEW else 0),
        "knob": knob,
        "passes": passes_of(config, system),
        "tuning": config.tuning,
        "knob_joint": knobs[problem, "joint"],
    }


# --- One run --------------------------------------------------------------------------------------


class Training(NamedTuple):
    """A run that begins: `steps` draws from `rng`."""

    task: Task
    rng: Rng
    steps: Iterator[Step]


def begin(spec: Spec) -> Training:
    """The task of a spec, its generator, and the steps of its method."""
    method = METHODS[choice("system", spec["system"], METHODS)]
    task = problems.task(spec["problem"], 1 if spec["system"] == SINGLE else problems.E)
    rng = np.random.default_rng(spec["seed"])
    options = dict(method.options(task, spec["passes"]))
    if method.knob:
        options[method.knob] = spec["knob"]
    return Training(task, rng, method.module.train(task.problem, rng, **options))


def until(steps: Iterable[Step], passes: float) -> Iterator[Step]:
    """The steps within a number of passes, and always the first."""
    for step in steps:
        if step.passes > passes and step.number > 0:
            return
        yield step


def checkpoints(passes: float) -> Annotated[Array, "POINTS"]:
    """The numbers of passes at which a curve is read off: from 2 to all, in equal ratios."""
    return np.geomspace(2, passes, POINTS)


def sampled(steps: Iterable[Step], passes: float) -> list[Step]:
    """The last step within each number of passes of `checkpoints`; the first step if none is."""
    points = checkpoints(passes)
    out = []
    last = None
    for step in until(steps, passes):
        while last is not None and len(out) < POINTS and points[len(out)] < step.passes:
            out.append(last)
        last = step
    return out + [last] * (POINTS - len(out))


def run_one(spec: Spec) -> Result:
    """Train by one method from one seed.

    -> {"loss", "quality" and "quality_hard" (the expert with the largest p answers alone) of the
    test data, "specialisation" (percent of the information about the region, less chance), "idle"
    experts, "variety" (percent), "passes", "losses" at the checkpoints}; for the methods in TUNED
    also "tuned_loss", after the experts alone went on. There are no times in it.
    """
    training = begin(spec)
    task = training.task
    problem = task.problem
    kept = sampled(training.steps, spec["passes"])
    end = kept[-1]
    chosen = first_choice(problem, end.params, task.x_test)
    measuring = np.random.default_rng([spec["seed"], 1])
    information = diagnostics.mutual_information(chosen, task.region_test, measuring)
    beyond_chance = information.bits - information.permuted
    p = softmax(problem.gate_forward(end.params["gate"], task.x_test)[0])
    routings = [first_choice(problem, candidate(step), problem.x) for step in kept[::3]]
    result = {
        "loss": end.loss,
        "quality": problem.quality(end.params, task.x_test, task.y_test),
        "quality_hard": problem.quality(end.params, task.x_test, task.y_test, hard=True),
        "specialisation": 100 * beyond_chance / information.label_bits,
        "idle": int((~jacobs1991.active_experts(p)).sum()),
        "variety": variety(routings),
        "passes": end.passes,
        "losses": [step.loss for step in kept],
    }
    if spec["system"] in TUNED:
        result["tuned_loss"] = _tuned_loss(spec, training, end)
    return result


def _tuned_loss(spec, training, end):
    """The loss after the experts alone went on down the loss of the mixture, the gate held.

    They do so in the first turn of alternating training, which is longer than the budget.
    """
    options = {"initial": end.params, "lr": spec["knob_joint"], "turn": spec["passes"]}
    steps = alternating.train(training.task.problem, training.rng, **options)
    *_, tuned = until(steps, spec["tuning"] * spec["passes"])
    return tuned.loss


def first_choice(problem: Problem, params: MixtureParams, x: Array) -> ArrayN:
    """The expert with the largest p, for each case."""
    return problem.gate_forward(params["gate"], x)[0].argmax(axis=1)


def candidate(step: Step) -> MixtureParams:
    """A mixture that was looked at in this step: its parameters, or one child of its generation."""
    vectors = getattr(step.cache, "vectors", None)
    return step.params if vectors is None else unflatten(vectors[0], step.params)


def variety(routings: Sequence[ArrayN]) -> float:
    """The mean over pairs of routings of 1 − Rand index, in percent.

    That is the share of pairs of cases that have one expert in common under one routing and not
    under the other. It does not depend on how experts are numbered. routings: expert of each case.
    """
    shares = []
    for a, b in itertools.combinations(routings, 2):
        counts = diagnostics.table(a, b).astype(float)
        marginals = (counts, counts.sum(axis=1), counts.sum(axis=0))
        together, under_a, under_b = ((c * c).sum() for c in marginals)
        n = len(a)
        shares.append((under_a + under_b - 2 * together) / (n * (n - 1)))
    return 100 * float(np.mean(shares))
