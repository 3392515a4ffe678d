"""The model of cost beside published measurements: the experiment computes, nothing is random."""

import dataclasses

from moe_np.experiments.common.experiment import Result, Spec, seed_count, selected
from moe_np.experiments.common.sweep import Sweep, versions
from moe_np.experiments.published_systems.measurements import (
    PAPER,
    TABLES,
    Config,
    run_one,
    summarise,
)

SYSTEMS = tuple(TABLES)
OPTIONS = ()
SMOKE: dict = {}


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """One run per system. Without random numbers there is one seed, whatever `seeds` says."""
    seed_count(seeds, 1)
    config = config or Config()
    return [
        {"system": system, "seed": 0, "config": dataclasses.asdict(config)}
        for system in selected(SYSTEMS, only)
    ]


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All systems and their differences: what is written as published_systems.json."""
    chosen = specs(config, seeds=seeds, only=only, quick=quick)
    runs = sweep.map(run_one, chosen, "published systems")
    systems = [spec["system"] for spec in chosen]
    return {
        "name": "published_systems",
        "config": dataclasses.asdict(config or Config()),
        "seeds": [0],
        "systems": dict(zip(systems, runs, strict=True)),
        "summary": {name: summarise([rows]) for name, rows in zip(systems, runs, strict=True)},
        "paper": {name: {str(key): v for key, v in PAPER[name].items()} for name in systems},
        "versions": versions(),
    }
