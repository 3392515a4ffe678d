"""One run: a classifier trained with every learning rate, and what its best form does on new data.

The learning rate and the moment at which training stops are those of the least validation loss, for
every system alike. Overfitting is the rise of the test loss from its least value to the end of
training, without early stopping: it is read off at the largest learning rate for all systems, since
a small one only delays it.
"""

import copy
import dataclasses
import time
from typing import NamedTuple

import numpy as np

from moe_np.base.optim import adamw
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.generalisation import classifier
from moe_np.experiments.generalisation.classifier import SYSTEMS
from moe_np.experiments.generalisation.data_sets import Cases, Data, data

POINTS = 12  # at which the losses are looked at, close together at first


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours: small enough for many seeds of many systems."""

    seeds: int = 80
    first: int = 100  # the first seed
    cases: int = 400  # of training
    few: int = 100
    many: int = 1600
    steps: int = 400
    batch: int = 50
    rates: tuple[float, ...] = (0.005, 0.02)  # of Adam


class Cell(NamedTuple):
    """What is run from every seed."""

    problem: str
    system: str  # a key of `classifier.SYSTEMS`
    cases: str = "cases"  # which of the numbers in Config
    inputs: str = "clean"  # a key of `data_sets.INPUTS`


def spec_of(config: Config, cell: Cell, seed: int) -> Spec:
    """What determines a run, JSON-able."""
    cases = getattr(config, cell.cases)
    facts = {"problem": cell.problem, "system": cell.system, "cases": cases, "inputs": cell.inputs}
    training = {"steps": config.steps, "batch": config.batch, "rates": list(config.rates)}
    return {**facts, **training, "seed": seed}


def run_one(spec: Spec) -> Result:
    """One system on one problem from one seed.

    -> {"rate", "points": numbers of steps, "training", "validation", "testing": losses there,
    "test", "noisy", "shifted", "shifted twice": losses of the best parameters, "overfit",
    "seconds" per step, "operations" per case, "parameters"}; losses in nats per case.
    """
    sets = data(spec["problem"], spec["cases"], spec["inputs"], spec["seed"])
    curves = [_train(spec, sets, rate) for rate in sorted(spec["rates"])]
    fastest = curves[-1][0]["testing"]
    least = int(np.argmin([min(curve["validation"]) for curve, _ in curves]))
    curve, params = curves[least]
    system = SYSTEMS[spec["system"]]
    features = sets.train.x.shape[1]

    def loss_on(part):
        return float(classifier.losses_of(system, params, part, spec["batch"]).mean())

    changed = {"noisy": sets.noisy, "shifted": sets.shifted, "shifted twice": sets.shifted_twice}
    return {
        "rate": sorted(spec["rates"])[least],
        **curve,
        "test": loss_on(sets.test),
        **{name: loss_on(part) for name, part in changed.items()},
        "overfit": fastest[-1] - min(fastest),
        "operations": classifier.operations(spec["system"], features, sets.classes),
        "parameters": classifier.parameters(params),
    }


def points(steps: int) -> list[int]:
    """The numbers of steps after which the losses are looked at, from 5 to `steps`."""
    spaced = np.geomspace(min(5, steps), steps, POINTS)
    return sorted({round(float(number)) for number in spaced})


def _train(spec, sets: Data, rate):
    """Adam with a constant learning rate: (curves, the parameters of least validation loss)."""
    system = SYSTEMS[spec["system"]]
    begin, order, noise = np.random.default_rng([spec["seed"], 12]).spawn(3)
    params = classifier.init(begin, spec["system"], sets.train.x.shape[1], sets.classes)
    fixed = {part: p for part, p in params.items() if "table" in p}
    learnt, vector = _as_vector({part: p for part, p in params.items() if part not in fixed})
    at = points(spec["steps"])
    curve = {"points": at, "training": [], "validation": [], "testing": []}
    best, least = params, np.inf
    state = None
    workspace = {}
    seconds = 0.0
    for number in range(1, spec["steps"] + 1):
        before = time.process_time()
        chosen = order.integers(len(sets.train.x), size=spec["batch"])
        batch = Cases(sets.train.x[chosen], sets.train.y[chosen])
        params = {**learnt, **fixed}
        _, grads = classifier.gradients(system, params, batch, noise, workspace)
        flat = {"all": np.concatenate([grads[a][b].ravel() for a in learnt for b in learnt[a]])}
        options = {"lr": rate, "weight_decay": system.weight_decay, "in_place": True}
        _, state = adamw(vector, flat, state, **options)  # the parameters are views of the vector
        seconds += time.process_time() - before
        if number in at:
            for name in ("training", "validation", "testing"):
                losses = classifier.losses_of(system, params, _part(sets, name), spec["batch"])
                curve[name].append(float(losses.mean()))
            if curve["validation"][-1] < least:
                best, least = copy.deepcopy(params), curve["validation"][-1]
    return {**curve, "seconds": seconds / spec["steps"]}, best


def _as_vector(params):
    """The same parameters as views of one vector, and the vector: an update is of one array."""
    arrays = [p for part in params.values() for p in part.values()]
    vector = np.concatenate([p.ravel() for p in arrays])
    blocks = iter(np.split(vector, np.cumsum([p.size for p in arrays])[:-1]))
    views = {
        part: {k: next(blocks).reshape(p.shape) for k, p in arrays.items()}
        for part, arrays in params.items()
    }
    return views, {"all": vector}


def _part(sets, name):
    return {"training": sets.train, "validation": sets.validation, "testing": sets.test}[name]


def steps_to(run: Result, level: float) -> float:
    """Steps until the validation loss is at a level for the first time, on the straight line
    between two points. The first point where it is there already, the last one where it never is.
    """
    losses = np.asarray(run["validation"])
    reached = np.flatnonzero(losses <= level)
    if not len(reached):
        return float(run["points"][-1])
    i = int(reached[0])
    if i == 0:
        return float(run["points"][0])
    early, late = losses[i - 1], losses[i]
    share = (early - level) / (early - late)
    return float(run["points"][i - 1] + share * (run["points"][i] - run["points"][i - 1]))
