"""The experiment of Jacobs et al. (1991): which system needs fewer epochs, a mixture or one net.

Table 1 of the paper with its t-tests; with `sensitivity` the same under other choices of what the
paper leaves open. The runs are in `runs.py`.
"""

import dataclasses

from moe_np.experiments.common.experiment import Option, Result, Spec, seed_count, selected
from moe_np.experiments.common.sweep import Sweep, versions
from moe_np.experiments.jacobs1991 import sensitivity as other_choices
from moe_np.experiments.jacobs1991.runs import (
    PAPER,
    SYSTEMS,
    Config,
    by_system,
    claims,
    compare,
    run_one,
    spec_of,
    summarise,
)

OPTIONS = (Option("sensitivity", "the claims under other choices of what the paper leaves open"),)
SMOKE = {"config": Config(stop=0.24, max_epochs=300), "seeds": 2}
QUICK_SEEDS = 5


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """The runs behind Table 1: all systems, or those of `only`, with `seeds` seeds each."""
    config = config or Config()
    n = seed_count(seeds, QUICK_SEEDS if quick else config.seeds)
    return [spec_of(config, system, i) for system in selected(SYSTEMS, only) for i in range(n)]


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
    sensitivity: bool = False,
) -> Result:
    """All systems, `seeds` runs each (25; 5 if quick): what is written as jacobs1991.json.

    Seed s is the same run however many seeds are asked for. `sensitivity` adds the runs of
    `sensitivity.py`.
    """
    config = config or Config()
    chosen = specs(config, seeds=seeds, only=only, quick=quick)
    results = sweep.map(run_one, chosen, "vowels, Table 1")
    systems = by_system(config, selected(SYSTEMS, only), results)
    tests = compare(systems)
    result = {
        "name": "jacobs1991",
        "config": dataclasses.asdict(config),
        "seeds": list(range(seed_count(seeds, QUICK_SEEDS if quick else config.seeds))),
        "systems": systems,
        "summary": [summarise(runs) for runs in systems],
        "tests": tests,
        "claims": claims(tests),
        "paper": PAPER,
    }
    if sensitivity:
        result["sensitivity"] = {
            "cells": other_choices.run(sweep=sweep, quick=quick),
            "quick": quick,
            "one_softmax_expert": other_choices.one_softmax_expert(sweep=sweep, quick=quick),
        }
    return {**result, "versions": versions()}
