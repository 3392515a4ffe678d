"""One line and a mixture of two lines on y = |x|, fitted by EM. Nobody published it.

A line can only answer with the mean of y, which does not depend on x; two lines and a gate follow
both branches.
"""

import dataclasses

import numpy as np

from moe_np.experiments.common.experiment import Result, Spec, seed_count, selected
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.common.sweep import Sweep, versions
from moe_np.mixtures import em

SYSTEMS = ("one line", "two lines")
PAPER: dict = {}
OPTIONS = ()


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are our choice."""

    n_train: int = 100
    n_test: int = 1000
    noise: float = 0.1
    restarts: int = 5
    seeds: int = 2


SMOKE = {"config": Config(n_train=40, n_test=50, restarts=1)}


def run_one(spec: Spec) -> Result:
    """Fit one system to cases drawn from the seed: {"error": root mean square on new cases}."""
    rng = np.random.default_rng(spec["seed"])
    n = spec["n_train"] + spec["n_test"]
    x = rng.uniform(-1, 1, (n, 1))
    y = np.abs(x) + spec["noise"] * rng.normal(size=(n, 1))
    train, test = slice(spec["n_train"]), slice(spec["n_train"], n)
    n_experts = 1 + SYSTEMS.index(spec["system"])
    options = {"family": em.Gaussian(), "restarts": spec["restarts"], "rng": rng}
    fit = em.fit(x[train], y[train], n_experts, **options)
    return {"error": float(np.sqrt(((fit.predict(x[test]) - y[test]) ** 2).mean()))}


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """The specs of all systems and seeds. `quick` changes nothing: a run takes no second."""
    config = config or Config()
    values = dataclasses.asdict(config)
    n_seeds = seed_count(seeds, config.seeds)
    systems = selected(SYSTEMS, only)
    return [{**values, "system": name, "seed": s} for name in systems for s in range(n_seeds)]


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All runs and their summary: what is written as two_lines.json."""
    chosen = specs(config, seeds=seeds, only=only, quick=quick)
    systems: dict[str, list[Result]] = {}
    for spec, result in zip(chosen, sweep.map(run_one, chosen, "two lines"), strict=True):
        systems.setdefault(spec["system"], []).append(result)
    return {
        "name": "two_lines",
        "config": dataclasses.asdict(config or Config()),
        "seeds": list(dict.fromkeys(spec["seed"] for spec in chosen)),
        "systems": systems,
        "summary": {name: summarise(runs) for name, runs in systems.items()},
        "paper": PAPER,
        "versions": versions(),
    }


def summarise(runs: list[Result]) -> Result:
    """{"error": {"mean", "sd"}} of several runs of one system."""
    return {"error": describe([run["error"] for run in runs]).record("mean", "sd")}
