"""The ten vowels of Nowlan and Hinton (1991): errors of a mixture and of a net, row by row.

The learning rates of the published rows are explored on separate seeds first. The runs are in
`runs.py`.
"""

import dataclasses
import itertools
from collections.abc import Sequence

from moe_np.data.speech.ten_vowels import FORMANTS
from moe_np.experiments.common.experiment import Result, Spec, seed_count, selected
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.common.sweep import Sweep, versions
from moe_np.experiments.nowlan1991.runs import (
    BY_NAME,
    PAPER,
    ROWS,
    SYSTEMS,
    Config,
    Row,
    reference,
    run_one,
    spec_of,
)

OPTIONS = ()
SMOKE = {"config": Config(steps=20, experts=4, hidden=4), "seeds": 2, "quick": True}
QUICK_SEEDS = 2
QUICK_ROWS = ROWS[:3]

Cell = tuple[str, str]  # name of a row, system


def quick_config(config: Config) -> Config:
    """Short runs and no exploration: it shows that all works, and is not a result."""
    return dataclasses.replace(config, steps=min(config.steps, 150), grid=(0.1,), grid_seeds=1)


def cells(rows: Sequence[Row], systems: Sequence[str] = SYSTEMS) -> list[Cell]:
    """[(row, system)] of the rows, for those of `systems` that a row has."""
    return [(row.name, system) for row in rows for system in row.systems if system in systems]


def explore_specs(
    config: Config, rows: Sequence[Row], systems: Sequence[str] = SYSTEMS
) -> list[Spec]:
    """The runs of `explore`: rows with learning rates of their own × systems × `grid` × seeds."""
    explored = cells([row for row in rows if row.lr_from is None], systems)
    seeds = range(1000, 1000 + config.grid_seeds)
    return [
        spec_of(config, *cell, seed, lr)
        for cell, lr, seed in itertools.product(explored, config.grid, seeds)
    ]


def explore(
    config: Config, rows: Sequence[Row], sweep: Sweep, systems: Sequence[str] = SYSTEMS
) -> dict[Cell, float]:
    """{(row, system): the learning rate with the lowest mean training error on separate seeds}.

    A row with `lr_from` has the learning rates of that row.
    """
    specs = explore_specs(config, rows, systems)
    results = sweep.map(run_one, specs, "ten vowels, learning rates")
    errors = {}
    for spec, result in zip(specs, results, strict=True):
        rates = errors.setdefault((spec["row"], spec["system"]), {})
        rates.setdefault(spec["lr"], []).append(result["train"])
    best = {}
    for cell, rates in errors.items():
        means = {lr: describe(values).mean for lr, values in rates.items()}
        best[cell] = min(means, key=means.get)
    chosen = cells(rows, systems)
    return {(row, system): best[BY_NAME[row].lr_from or row, system] for row, system in chosen}


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """The runs that explore the learning rates, on separate seeds. Those of `seeds` follow from
    their results.
    """
    seed_count(seeds, 1)
    config = quick_config(config or Config()) if quick else config or Config()
    return explore_specs(config, QUICK_ROWS if quick else ROWS, selected(SYSTEMS, only))


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All rows and systems, `seeds` runs each (25; 2 if quick): what is written as nowlan1991.json.

    Seed s is the same run however many seeds are asked for.
    """
    config = quick_config(config or Config()) if quick else config or Config()
    rows = QUICK_ROWS if quick else ROWS
    n = seed_count(seeds, QUICK_SEEDS if quick else config.seeds)
    systems = selected(SYSTEMS, only)
    lr = explore(config, rows, sweep, systems)
    chosen = [spec_of(config, *cell, seed, lr[cell]) for cell in lr for seed in range(n)]
    results = sweep.map(run_one, chosen, "ten vowels")
    runs_of = {cell: results[i * n : (i + 1) * n] for i, cell in enumerate(lr)}
    return {
        "name": "nowlan1991",
        "config": dataclasses.asdict(config),
        "seeds": list(range(n)),
        "cells": [
            {"row": row, "system": system, "lr": lr[row, system], "runs": runs}
            for (row, system), runs in runs_of.items()
        ],
        "reference": {formants: reference(formants) for formants in FORMANTS},
        "paper": PAPER,
        "versions": versions(),
    }
