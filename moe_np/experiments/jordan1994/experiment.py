"""Tables 1 and 2 of Jordan and Jacobs (1994): a hierarchical mixture of experts and its rivals
learn the dynamics of a robot arm, which is a surrogate here.

With `sensitivity` also under other covariances of the experts and other ranges of the arm. The runs
are in `runs.py`, the learners in `learners.py`.
"""

import dataclasses

from moe_np.experiments.common.experiment import Option, Result, Spec, seed_count, selected
from moe_np.experiments.common.sweep import Sweep, versions
from moe_np.experiments.jordan1994 import sensitivity as other_choices
from moe_np.experiments.jordan1994.runs import (
    PAPER,
    SYSTEMS,
    Config,
    quick_config,
    run_one,
    spec_of,
    summarise,
)

OPTIONS = (Option("sensitivity", "other covariances and other ranges of the surrogate arm"),)
FEW_EPOCHS = (1, 5, 3, 3, 1, 1, 1, 1, 1, 1)
SMOKE = {
    "config": Config(n_train=150, n_test=60, tree=(2, 2), hidden=5, epochs=FEW_EPOCHS),
    "seeds": 2,
}
QUICK_SEEDS = 2


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """The runs behind both tables: all systems, or those of `only`, with `seeds` seeds each."""
    config = config or Config()
    n = seed_count(seeds, QUICK_SEEDS if quick else config.seeds)
    config = quick_config(config) if quick else config
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
    """All systems, `seeds` runs each (10; 2 if quick): what is written as jordan1994.json.

    Seed s is the same run however many seeds are asked for. `sensitivity` adds the runs of
    `sensitivity.py`.
    """
    chosen = specs(config, seeds=seeds, only=only, quick=quick)
    config = config or Config()
    config = quick_config(config) if quick else config
    results = sweep.map(run_one, chosen, "robot arm, Tables 1 and 2")
    systems = {system: [] for system in selected(SYSTEMS, only)}
    for spec, result in zip(chosen, results, strict=True):
        systems[spec["system"]].append(result)
    result = {
        "name": "jordan1994",
        "config": dataclasses.asdict(config),
        "seeds": list(dict.fromkeys(spec["seed"] for spec in chosen)),
        "systems": systems,
        "summary": {system: summarise(runs) for system, runs in systems.items()},
        "paper": PAPER,
    }
    if sensitivity:
        result["sensitivity"] = other_choices.run(config, sweep=sweep, quick=quick)
    return {**result, "versions": versions()}
