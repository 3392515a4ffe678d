"""Quantised experts: one trained model per seed, rounded in all ways."""

import dataclasses

from moe_np.experiments.common import pretrained
from moe_np.experiments.common.experiment import Option, Result, Spec, seed_count, selected
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.common.sweep import Sweep, versions
from moe_np.experiments.language_model import runs as language_models
from moe_np.experiments.quantised.runs import PAPER, SYSTEMS, Config, run_one, spec_of, summarise

OPTIONS: tuple[Option, ...] = ()
SMALL = language_models.Config(
    d_model=16,
    layers=2,
    heads=2,
    kv_heads=1,
    hidden=16,
    vocabulary=300,
    length=16,
    batch=4,
    updates=4,
    checkpoint_every=2,
    books=("Jonah",),
    validation_tokens=200,
)
SMOKE = {"config": Config(model=SMALL, bits=(8, 2), groups=(16,), tokens=200, seeds=2)}
QUICK = Config(
    model=language_models.Config(updates=40, checkpoint_every=40, validation_tokens=2048),
    groups=(64,),
    tokens=2048,
    seeds=1,
)


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """One spec per seed."""
    config = config or (QUICK if quick else Config())
    selected(SYSTEMS, only)
    return [spec_of(config, seed) for seed in range(seed_count(seeds, config.seeds))]


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All seeds (3; 1 if quick): what is written as quantised.json."""
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with pretrained.stored_with(sweep):
        runs = sweep.map(run_one, chosen, "quantised")
    return {
        "name": "quantised",
        "config": dataclasses.asdict(config),
        "seeds": [spec["seed"] for spec in chosen],
        "runs": runs,
        "float32": describe([run["loss"] for run in runs])._asdict(),
        "summary": summarise(runs),
        "paper": PAPER,
        "versions": versions(),
    }
