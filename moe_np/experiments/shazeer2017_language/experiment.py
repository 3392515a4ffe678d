"""Perplexity against the number of experts at equal operations: all rows from all seeds, and the
comparisons by seed.

Criteria, fixed before the runs, on the loss of the test books, seed by seed, with 95 % t intervals
that are not corrected for their number:

    experts help              MoE-32 − MoE-1-Wide lies below 0
    by unused parameters      MoE-32 − MoE-4, of which all experts are always used, lies below 0
    the more the better       the slope of the loss over log₂ E, E = 4, 8, 16, 32, lies below 0
    two levels cost nothing   MoE-32-h − MoE-32 contains 0 (in the paper 36.0 against 35.7 with 256
                              experts). This cannot show that they are equal

All other differences to MoE-1-Wide are printed and decide nothing.
"""

import numpy as np

from moe_np.experiments.common import pretrained, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.statistics import paired_interval, t_interval
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.shazeer2017_language.runs import (
    FLAT,
    HIERARCHICAL,
    LARGEST,
    PAPER,
    SMALLEST,
    SYSTEMS,
    WIDE,
    Config,
    run_one,
    spec_of,
    summarise,
)

OPTIONS: tuple[Option, ...] = ()
SMOKE = {
    "config": Config(
        d_model=8,
        vocabulary=270,
        length=8,
        batch=4,
        updates=4,
        checkpoint_every=2,
        books=("Jonah",),
        held_out_tokens=100,
        seeds=2,
    )
}
QUICK = Config(updates=60, checkpoint_every=20, held_out_tokens=4096, seeds=1)


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
    """All systems and seeds (5; 1 if quick): what is written as shazeer2017_language.json."""
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with pretrained.stored_with(sweep):
        runs = sweep.map(run_one, chosen, "LSTM language models")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    return system_runs.result_of(
        "shazeer2017_language",
        config,
        runs,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        differences=differences(by_system),
        slope=slope(by_system),
    )


PAIRS = (
    *((system, WIDE) for system in SYSTEMS if system != WIDE),
    (LARGEST, SMALLEST),
    (HIERARCHICAL, LARGEST),
)


def differences(by_system: dict[str, list[Result]]) -> list[dict]:
    """The differences of test loss of PAIRS, seed by seed, as far as both systems were run."""
    losses = {system: [run["test"]["loss"] for run in runs] for system, runs in by_system.items()}
    return [
        {
            "system": system,
            "against": against,
            "loss": paired_interval(losses[system], losses[against]).record(),
        }
        for system, against in PAIRS
        if system in losses and against in losses
    ]


def slope(by_system: dict[str, list[Result]]) -> dict | None:
    """The least-squares slope of the test loss over log₂ E of the flat mixtures: nats per doubling
    of the experts, seed by seed. None where one of them was not run."""
    if not set(FLAT) <= set(by_system):
        return None
    losses = np.array([[run["test"]["loss"] for run in by_system[system]] for system in FLAT])
    doublings = np.log2(list(FLAT.values()))
    centred = doublings - doublings.mean()
    return t_interval(centred @ losses / (centred @ centred)).record()
