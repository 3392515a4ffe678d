"""Experiments that run several systems from several seeds: their specs, and their result.

A run is a dict with "system" and "seed"; a spec has the same two. The specs are those of all
systems for seed 0, then for seed 1, and so on.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from moe_np.experiments.common.experiment import Result, Spec, seed_count, selected
from moe_np.experiments.common.sweep import versions


def specs_of(
    spec_of: Callable[[Any, str, int], Spec],
    config: Any,
    systems: Sequence[str],
    *,
    seeds: int | None = None,
    only: str | Iterable[str] | None = None,
) -> list[Spec]:
    """spec_of(config, system, seed) of every seed and every system that `only` picks out.

    seeds   None: those of the config, `config.seeds`
    """
    n = seed_count(seeds, config.seeds)
    names = selected(systems, only)
    return [spec_of(config, system, seed) for seed in range(n) for system in names]


def by_system(
    runs: Sequence[Result], systems: Sequence[str], only: str | Iterable[str] | None = None
) -> dict[str, list[Result]]:
    """{system: its runs}, of the systems that `only` picks out, in their own order."""
    return {
        system: [run for run in runs if run["system"] == system]
        for system in selected(systems, only)
    }


def result_of(
    name: str, config: Any, runs: Sequence[Result], summary: Any, paper: dict, **numbers: Any
) -> Result:
    """What is written as NAME.json; `numbers` are what an experiment has beside what all have."""
    return {
        "name": name,
        "config": dataclasses.asdict(config),
        "seeds": sorted({run["seed"] for run in runs}),
        "runs": runs,
        "summary": summary,
        **numbers,
        "paper": paper,
        "versions": versions(),
    }
