"""The router zoo: every router on one task. Which one remembers most, and which uses its experts
evenly?

The task is an associative memory (moe_np/models/associative_memory.py): 8,192 Gaussian keys, 64
values, 32 experts that are too small to hold them with ease. It is our own, so there is no
publication to compare with; `PAPER` holds what an earlier program of ours gave on the same task.
Quality is the perplexity of the stored keys, 64 before training and 1 at best.

`systems.py` lists the routers with the load-balancing losses of their papers.
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from moe_np.base.checks import choice
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import ArrayN, ArrayND, Rng
from moe_np.experiments.common.experiment import Result, Spec, seed_count, selected
from moe_np.experiments.common.sources import fingerprint
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.common.sweep import Sweep, versions
from moe_np.experiments.router_zoo import soft_mixture
from moe_np.experiments.router_zoo.systems import SETUPS, SIZES, TABLE, TWO_MODES, WITH_CAPACITY
from moe_np.models import associative_memory
from moe_np.models.associative_memory import Parts, RouterSetup


@dataclasses.dataclass(frozen=True)
class Config:
    """Our own choices; the first five are the earlier program's. All routers have one learning
    rate.
    """

    n_keys: int = 8192
    d_model: int = 32
    n_values: int = 64
    n_experts: int = 32
    hidden: int = 16  # of an expert
    batch: int = 512
    epochs: int = 12
    lr: float = 0.04  # of Adam; falls to 0
    # capacity factors at which the Switch routers are measured
    factors: tuple[float, ...] = (1.0, 1.25, 2.0)


SEEDS = 4

# Not published. An earlier program on this task: perplexity, CV of the load in a batch, and the
# percentage of tokens that Switch drops at capacity factors 1, 1.25 and 2.
PAPER = {
    "earlier": {
        "Switch, α = .1": (4.95, 0.27),
        "top-2, Switch loss": (5.35, 0.38),
        "expert choice": (4.25, 0.0),
        "BASE": (9.0, None),
        "hash": (3.55, 0.24),
        "k-means": (4.1, 0.25),
    },
    "earlier drops": (15, 5.5, 0.1),
}
SYSTEMS = tuple(SETUPS)
OPTIONS = ()
SMOKE = {
    "config": Config(
        n_keys=128, d_model=6, n_values=5, n_experts=16, hidden=3, batch=64, epochs=1, lr=0.01
    ),
    "seeds": 1,
}

# --- one run --------------------------------------------------------------------------------------


class Prepared(NamedTuple):
    """What a run begins with."""

    setup: RouterSetup
    keys: ArrayND
    labels: ArrayN
    params: Parts
    rng: Rng


def prepare(spec: Spec) -> Prepared:
    """The task and the initialisation of a spec. A seed gives all routers the same task and the
    same minibatches.
    """
    system = choice("system", spec["system"], SETUPS)
    task, initialisation, steps = (np.random.default_rng([spec["seed"], i]) for i in range(3))
    keys, labels = associative_memory.associations(
        task, spec["n_keys"], spec["d_model"], spec["n_values"]
    )
    sizes = {"n_experts": spec["n_experts"], "hidden": spec["hidden"], **SIZES.get(system, {})}
    setup = SETUPS[system]
    params = associative_memory.init(initialisation, setup, keys, spec["n_values"], **sizes)
    return Prepared(setup, keys, labels, params, steps)


def _layer(system):
    """The module with `train_step` and `predict` for this system."""
    return soft_mixture if system == "soft mixture" else associative_memory


def run_one(spec: Spec) -> Result:
    """Train one router from one seed: perplexity of the stored keys and use of the experts, in
    evaluation.
    """
    setup, keys, labels, params, rng = prepare(spec)
    system, layer = spec["system"], _layer(spec["system"])
    options = {name: spec[name] for name in ("epochs", "batch", "lr")}
    for step in associative_memory.train(
        setup, params, keys, labels, rng=rng, step=layer.train_step, **options
    ):
        params = step.params
    measure = functools.partial(
        associative_memory.measure,
        *(setup, params, keys, labels),
        batch=spec["batch"],
        predict=layer.predict,
    )
    result: dict[str, Any] = measure()
    if system in TWO_MODES:
        result["as trained"] = measure(training=True)["perplexity"]
    if system in WITH_CAPACITY:
        result["drops"] = [measure(capacity_factor=factor) for factor in spec["factors"]]
    return result


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """What determines a run, as JSON-able data.

    The source of a router that is not in the table is part of it: nothing else would show that it
    has changed.
    """
    values = {**dataclasses.asdict(config), "factors": list(config.factors)}
    spec = {"system": system, **values, "seed": seed}
    if system not in TABLE:
        spec["source"] = fingerprint(SETUPS[system].router.__name__)
    return spec


def step_times(
    config: Config, systems: Sequence[str] = SYSTEMS, *, rounds: int = 5, steps: int = 4
) -> dict[str, float]:
    """Milliseconds of a training step of each system, on one thread: the least of `rounds` means
    over `steps` steps, which the systems take in turn.
    """
    running, least = {}, dict.fromkeys(systems, np.inf)
    epochs = 1 + (rounds + 1) * steps // (config.n_keys // config.batch)
    options = {"epochs": epochs, "batch": config.batch, "lr": config.lr}
    for system in systems:
        setup, keys, labels, params, rng = prepare(spec_of(config, system, 0))
        running[system] = associative_memory.train(
            setup, params, keys, labels, rng=rng, step=_layer(system).train_step, **options
        )
    with one_blas_thread():
        for turn in range(rounds + 1):
            for system, training in running.items():
                begin = time.perf_counter()
                for _ in range(steps):
                    next(training)
                if turn:  # the first turn may compile
                    milliseconds = 1e3 * (time.perf_counter() - begin) / steps
                    least[system] = min(least[system], milliseconds)
    return least


# --- the experiment -------------------------------------------------------------------------------


def _sizes(config, seeds, quick):
    """The configuration and the number of seeds; quick: one seed and one pass over the keys."""
    config = Config() if config is None else config
    if quick:
        config = dataclasses.replace(config, epochs=1)
    return config, seed_count(seeds, 1 if quick else SEEDS)


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """The specs of all systems, or those of `only`, with `seeds` seeds each."""
    config, n_seeds = _sizes(config, seeds, quick)
    systems = selected(SYSTEMS, only)
    return [spec_of(config, system, seed) for system in systems for seed in range(n_seeds)]


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """Every system, `seeds` runs each, and the time of a step: what is written as router_zoo.json.

    All but `milliseconds` is the same on every call. Seed s is the same run however many seeds are
    asked for.
    """
    results = sweep.map(run_one, specs(config, seeds=seeds, only=only, quick=quick), "router zoo")
    config, n_seeds = _sizes(config, seeds, quick)
    names = selected(SYSTEMS, only)
    systems = {name: results[i * n_seeds : (i + 1) * n_seeds] for i, name in enumerate(names)}
    rounds = {"rounds": 1, "steps": 1} if quick else {}
    return {
        "name": "router_zoo",
        "config": dataclasses.asdict(config),
        "seeds": list(range(n_seeds)),
        "systems": systems,
        "summary": {name: summarise(runs) for name, runs in systems.items()},
        "milliseconds": step_times(config, names, **rounds),
        "paper": PAPER,
        "versions": versions(),
    }


def summarise(runs: list[Result]) -> Result:
    """{name: {"mean", "sd"}} of what the runs of a system gave, n − 1 in the deviation; lists item
    by item.
    """
    summary = {}
    for name, value in runs[0].items():
        if isinstance(value, list):
            items = zip(*(run[name] for run in runs), strict=True)
            summary[name] = [summarise(list(item)) for item in items]
        else:
            values = describe([run[name] for run in runs], single=0.0)
            summary[name] = values.record("mean", "sd")
    return summary


def by_chance(config: Result, k: int) -> float:
    """The CV of the load in a batch if tokens chose k experts at random: counts are binomial."""
    p = k / config["n_experts"]
    return float(np.sqrt((1 - p) / (p * config["batch"])))
