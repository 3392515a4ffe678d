"""Layouts and initial scales: all systems from all seeds, compared by seed.

Criteria, fixed before the runs (`CRITERIA`): a direction of the literature holds if the 95 % t
interval of the paired difference over the seeds lies below 0 as a whole. Where the literature
describes models and does not compare them, the difference is printed without a verdict.

    halves      experts in the second half of the layers against the first half: lower test loss
                (Rajbhandari et al. 2022, arXiv 2201.05596, section 4.1)
    scale       initial scale .1 against 1: lower loss at the first checkpoint (Fedus et al. 2021,
                arXiv 2101.03961, section 2.4, where it is that after 3,500 steps)
    precision   a router in float32 with inputs in bfloat16 against one in bfloat16: fewer tokens
                with other experts than in float32 (the same section, where the latter diverged)
    alternate   every other layer against every layer, at equal parameters and equal operations: no
                published comparison
"""

import numpy as np

from moe_np.experiments.common import pretrained, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.statistics import paired_interval
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.common.verdicts import Criterion, verdict
from moe_np.experiments.layouts.runs import (
    ALTERNATE,
    EVERY,
    FIRST,
    PAPER,
    SECOND,
    SMALL,
    SYSTEMS,
    Config,
    run_one,
    spec_of,
    summarise,
)

OPTIONS: tuple[Option, ...] = ()
SMOKE = {
    "config": Config(
        d_model=16,
        layers=2,
        heads=2,
        kv_heads=1,
        hidden=16,
        experts=4,
        vocabulary=300,
        length=16,
        batch=4,
        updates=4,
        checkpoint_every=2,
        books=("Jonah",),
        validation_tokens=200,
        rounded_tokens=100,
        seeds=2,
    )
}
QUICK = Config(
    updates=60, checkpoint_every=20, validation_tokens=4096, rounded_tokens=4096, seeds=1
)

CRITERIA = {
    "halves": Criterion("test loss, second half less first half", 0.0, direction="less"),
    "scale": Criterion("loss at the first checkpoint, scale .1 less 1", 0.0, direction="less"),
    "precision": Criterion(
        "share of tokens with other experts, selective less bfloat16", 0.0, direction="less"
    ),
    "alternate": None,
}
# claim -> the two systems that it compares
PAIRS = {
    "halves": (SECOND, FIRST),
    "scale": (SMALL, EVERY),
    "precision": (EVERY, EVERY),
    "alternate": (ALTERNATE, EVERY),
}


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """One spec per system and seed."""
    config = config or (QUICK if quick else Config())
    return system_runs.specs_of(spec_of, config, SYSTEMS, seeds=seeds, only=only)


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All systems and seeds (3; 1 if quick): what is written as layouts.json."""
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with pretrained.stored_with(sweep):
        runs = sweep.map(run_one, chosen, "layouts")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    return system_runs.result_of(
        "layouts",
        config,
        runs,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        claims=claims(by_system),
    )


def claims(by_system: dict[str, list[Result]]) -> Result:
    """{claim: the paired difference with its interval, and the verdict, None without a criterion};
    claims of which a system was not run are left out.
    """
    out = {}
    for name, criterion in CRITERIA.items():
        if all(by_system.get(system) for system in PAIRS[name]):
            a, b = measured(name, *(by_system[system] for system in PAIRS[name]))
            difference = paired_interval(a, b)
            decided = None if criterion is None else verdict(criterion, difference)
            out[name] = {"interval": difference.record(), "verdict": decided}
    return out


def measured(claim: str, a: list[Result], b: list[Result]) -> tuple[list[float], list[float]]:
    """What a claim compares, of each seed of its two systems."""
    if claim == "precision":
        first, second = (
            [float(np.mean([layer["sets"] for layer in run["rounded"][way]])) for run in a]
            for way in ("selective", "bfloat16")
        )
        return first, second
    if claim == "scale":
        return [run["validation"][0] for run in a], [run["validation"][0] for run in b]
    return [run["test"] for run in a], [run["test"] for run in b]
