"""Upcycling: a dense decoder was trained; what does the same number of updates more give?

    system              what is trained further
    dense               the dense decoder goes on with a new optimiser, as all but two others
    dense, kept         it goes on with its optimiser's running means
    upcycled            equal copies, a new router, renormalised top-2: equal at first
    with noise          copies with noise of 1 % of each array's standard deviation
    half redrawn        half of each expert's hidden units are drawn anew (Drop-Upcycling)
    upcycled, kept      the same, the running means of the optimiser carried over
    weight of Switch    upcycled, the weight is a probability: not equal at first
    experts anew        a mixture from initialisation, for the updates of both parts

Criteria, fixed before the runs. Upcycling *pays* where the whole 95 % interval of the paired
difference of the last validation loss, upcycled less dense, lies below 0. It is *better than
experts anew* at the same further updates where that of upcycled less experts anew (at the number of
further updates) lies below 0. The mixture from initialisation *passes* the upcycled one at the
first common number of tokens, the sunk ones included, from which on its mean validation loss is
lower; the number is printed as a share of the sunk updates. Every difference is paired by seed.
"""

import dataclasses

import numpy as np

from moe_np.adapt import upcycling
from moe_np.experiments.common import pretrained, small_decoders, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.small_decoders import ACTIVE, Sizes
from moe_np.experiments.common.statistics import describe, paired_interval
from moe_np.experiments.common.sweep import Sweep
from moe_np.training import loop

DENSE = "dense"
UPCYCLED = "upcycled"
ANEW = "experts anew"
SWITCH = "weight of Switch"
DENSE_KEPT = "dense, kept"
KEPT = "upcycled, kept"
SYSTEMS = (DENSE, DENSE_KEPT, UPCYCLED, "with noise", "half redrawn", KEPT, SWITCH, ANEW)
VARIANTS = {"with noise": {"noise": 0.01}, "half redrawn": {"redrawn": 0.5}}

# Komatsuzaki et al. 2022 (arXiv 2212.05055), figure 1 and abstract; Muennighoff et al. 2024 (arXiv
# 2409.02060), section 4.1.5
PAPER = {
    "extra budget": 0.5,  # of the dense model's, with which upcycling is better than dense
    "anew passes, Komatsuzaki": 1.2,  # of the sunk budget until experts from initialisation pass
    "anew passes, OLMoE": 0.25,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours: small enough for several seeds."""

    sizes: Sizes = dataclasses.field(default_factory=Sizes)
    further: int = 1000  # updates after the sunk ones
    every: int = 100  # updates between validations
    learning_rate: float = 1e-3  # the highest of the further training
    seeds: int = 5


OPTIONS: tuple[Option, ...] = ()
SMOKE = {"config": Config(small_decoders.SMOKE, further=4, every=2, seeds=2)}
QUICK = Config(small_decoders.QUICK, further=40, every=20, seeds=1)


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """One spec per system and seed."""
    config = config or (QUICK if quick else Config())
    return system_runs.specs_of(_spec, config, SYSTEMS, seeds=seeds, only=only)


def _spec(config, system, seed):
    sizes = config.sizes
    updates = sizes.updates + config.further if system == ANEW else sizes.updates
    model = small_decoders.model_spec(sizes, seed, dense=system != ANEW, updates=updates)
    facts = {name: getattr(config, name) for name in ("further", "every", "learning_rate")}
    return {"system": system, "seed": seed, "model": model, "experts": sizes.experts, **facts}


def run_one(spec: Spec) -> Result:
    """Train one system from one seed, and measure its curve."""
    model = small_decoders.pretrained_of(spec["model"])
    updates, validations = model.records
    seconds = np.cumsum([record["processor_seconds"] for record in updates])
    facts = {"system": spec["system"], "seed": spec["seed"]}
    before = {
        "steps": [record["step"] for record in validations],
        "seconds": [float(seconds[record["step"] - 1]) for record in validations],
        "validation": [record["validation_loss"] for record in validations],
    }
    tokens = model.batch * model.length
    if spec["system"] == ANEW:
        return {**facts, **before, "tokens_per_step": tokens, "first": None}
    curve = _further(spec, model)
    sunk = len(updates)
    return {
        **facts,
        "steps": [sunk + step for step in curve.steps],
        "seconds": [float(seconds[-1]) + used for used in curve.seconds],
        "validation": curve.validation,
        "tokens_per_step": tokens,
        "first": curve.validation[0] - before["validation"][-1],
    }


def _further(spec, model):
    config, params, optimiser = model.config, model.params, None
    if spec["system"] not in (DENSE, DENSE_KEPT):
        rng = small_decoders.generator(spec["seed"])
        gate = {"options": {"k": ACTIVE, "renormalise": True}}
        if spec["system"] == SWITCH:
            gate = {"router": "switch", "options": {}}
        variant = VARIANTS.get(spec["system"], {})
        options = {"experts": spec["experts"], "rng": rng, **gate, **variant}
        config, params = upcycling.upcycle(model.config, model.params, **options)
    if spec["system"] == DENSE_KEPT:
        optimiser = model.optimiser
    elif spec["system"] == KEPT:
        optimiser = upcycling.upcycled_optimiser(model.optimiser, config, params)

    def validation_of(trained):
        return small_decoders.loss_on(config, trained, model.validation, model.length)

    return small_decoders.further(
        params,
        small_decoders.ordinary(config),
        small_decoders.windows(model),
        validation_of,
        loop.Options(spec["further"], spec["learning_rate"], warmup=10, seed=spec["seed"]),
        every=spec["every"],
        optimiser=optimiser,
    )


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All systems and seeds (5; 1 if quick): what is written as upcycling.json."""
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with pretrained.stored_with(sweep):
        small_decoders.pretrain(sweep, chosen)
        runs = sweep.map(run_one, chosen, "upcycling")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    return system_runs.result_of(
        "upcycling",
        config,
        runs,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        differences=differences(by_system, config),
        passes=passes(by_system, config),
    )


def summarise(runs: list[Result]) -> dict:
    """Means over the seeds of one system."""
    first = [run["first"] for run in runs if run["first"] is not None]
    return {
        "last": describe([run["validation"][-1] for run in runs]).record("mean", "sd"),
        "seconds": describe([run["seconds"][-1] for run in runs]).record("mean", "sd"),
        "first": describe(first).record("mean", "sd") if first else None,
    }


def differences(by_system: dict[str, list[Result]], config: Config) -> dict:
    """{name: interval of a paired difference of validation losses}, of the systems that ran."""
    last = {s: [run["validation"][-1] for run in runs] for s, runs in by_system.items() if runs}
    early = {ANEW: [_at(run, config.further) for run in by_system.get(ANEW, [])]}
    pairs = {f"{system} less {DENSE}": (last, last, system, DENSE) for system in SYSTEMS[1:]}
    pairs |= {
        f"{system} less {UPCYCLED}": (last, last, system, UPCYCLED) for system in SYSTEMS[3:-1]
    }
    pairs[f"{KEPT} less {DENSE_KEPT}"] = (last, last, KEPT, DENSE_KEPT)
    pairs[f"{UPCYCLED} less {ANEW}, equal further updates"] = (last, early, UPCYCLED, ANEW)
    return {
        name: paired_interval(a[ours], b[other]).record()
        for name, (a, b, ours, other) in pairs.items()
        if a.get(ours) and b.get(other)
    }


def _at(run, step):
    """The validation loss of a run at the validation nearest to this update."""
    return run["validation"][int(np.abs(np.array(run["steps"]) - step).argmin())]


def passes(by_system: dict[str, list[Result]], config: Config) -> float | None:
    """Further updates, as a share of the sunk ones, from which on the mean validation loss of the
    mixture from initialisation is below the upcycled one; None: in no validation, or not run.
    """
    anew, ours = (by_system.get(system, []) for system in (ANEW, UPCYCLED))
    if not anew or not ours:
        return None
    steps = [step for step in ours[0]["steps"] if step in anew[0]["steps"]]
    lower = [
        np.mean([_at(run, step) for run in anew]) < np.mean([_at(run, step) for run in ours])
        for step in steps
    ]
    ahead = [step for i, step in enumerate(steps) if all(lower[i:])]
    return (ahead[0] - config.sizes.updates) / config.sizes.updates if ahead else None
