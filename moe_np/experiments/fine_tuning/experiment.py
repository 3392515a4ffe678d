"""Fine-tuning on few examples: do sparse models overfit more than dense ones?

Learning rate and batch size are swept for both, and for every remedy the learning rate, at the
smaller batch. A setting is chosen for each system and number of examples by the least mean
validation loss over the seeds; what is compared is the test loss.

Criteria, on 95 % intervals of differences paired by seed, for each number of examples. Sparse is
*worse* or *better* fine-tuned where the interval of the test loss with early stopping, sparse less
dense, lies above or below 0, each with the setting of its own. Sparse *overfits more* where the
interval of the rise of the validation loss from its least value to the last update, sparse less
dense, lies above 0; at equal batches, since a larger one sees the examples more often. A remedy
*helps* where the interval of its test loss less that of sparse, both without early stopping and
with the smaller batch, lies below 0; the paraphrase, which is on another text, is compared with
sparse on that text.

(In a first evaluation the last two had the batch of the least validation loss. With 256 examples
that was 32 for sparse and 8 for dense and the remedies, so that sparse had four times the epochs,
and nearly every remedy seemed to help.)
"""

import itertools

import numpy as np

from moe_np.experiments.common import pretrained, small_decoders, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec, seed_count, selected
from moe_np.experiments.common.statistics import describe, paired_interval
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.fine_tuning.runs import (
    CONTROLS,
    DENSE,
    MODERN,
    PAPER,
    REMEDIES,
    SPARSE,
    SYSTEMS,
    Config,
    run_one,
    spec_of,
)

OPTIONS: tuple[Option, ...] = ()
SMOKE = {
    "config": Config(
        small_decoders.SMOKE,
        examples=(2,),
        remedies_at=2,
        learning_rates=(1e-3,),
        batches=(2,),
        updates=2,
        every=2,
        held_out=100,
        seeds=1,
    )
}
QUICK = Config(
    small_decoders.QUICK,
    examples=(16, 64),
    remedies_at=16,
    learning_rates=(3e-3,),
    batches=(8,),
    updates=10,
    every=5,
    held_out=500,
    seeds=1,
)


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """One spec per system, number of examples, learning rate, batch size and seed."""
    config = config or (QUICK if quick else Config())
    n = seed_count(seeds, config.seeds)
    chosen = []
    for seed, system in itertools.product(range(n), selected(SYSTEMS, only)):
        remedy = system in REMEDIES or system in CONTROLS
        examples = (config.remedies_at,) if remedy else config.examples
        batches = (min(config.batches),) if remedy else config.batches
        settings = itertools.product(config.learning_rates, batches)
        for count, setting in itertools.product(examples, settings):
            chosen.append(spec_of(config, system, count, setting, seed))
    return chosen


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All systems and seeds (5; 1 if quick): what is written as fine_tuning.json."""
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with pretrained.stored_with(sweep):
        small_decoders.pretrain(sweep, chosen)
        runs = sweep.map(run_one, chosen, "fine-tuning")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    best = {system: best_settings(of_system) for system, of_system in by_system.items()}
    return system_runs.result_of(
        "fine_tuning",
        config,
        runs,
        {
            system: {examples: summarise(of_size) for examples, of_size in by_size.items()}
            for system, by_size in best.items()
        },
        PAPER,
        differences=differences(by_system, config),
    )


def best_settings(runs: list[Result], *, batch: int | None = None) -> dict[str, list[Result]]:
    """{number of examples: the runs, by seed, of the setting with the least mean of the least
    validation losses}, of the settings with this batch size; None: of all.
    """
    best = {}
    runs = [run for run in runs if batch in (None, run["batch"])]
    for examples in sorted({run["examples"] for run in runs}):
        settings: dict[tuple, list[Result]] = {}
        for run in runs:
            if run["examples"] == examples:
                settings.setdefault((run["learning_rate"], run["batch"]), []).append(run)
        least = {s: np.mean([min(r["validation"]) for r in rs]) for s, rs in settings.items()}
        best[str(examples)] = settings[min(least, key=lambda setting: (least[setting], setting))]
    return best


def rise(run: Result) -> float:
    """How far the validation loss has risen from its least value to the last update."""
    return run["validation"][-1] - min(run["validation"])


def summarise(runs: list[Result]) -> dict:
    """Means over the seeds of one system on one number of examples."""

    def mean_of(values):
        return describe(values).record("mean", "sd")

    return {
        "setting": [runs[0]["learning_rate"], runs[0]["batch"]],
        "training": mean_of([run["training"][-1] for run in runs]),
        "rise": mean_of([rise(run) for run in runs]),
        **{
            name: mean_of([run[name] for run in runs])
            for name in ("test before", "test", "test last")
        },
    }


def differences(by_system: dict[str, list[Result]], config: Config) -> dict:
    """Intervals of paired differences, sparse less dense and remedy less its control: {"test": by
    number of examples, "rise": {batch size: by number of examples}, "remedies": by remedy}.
    """
    dense, sparse = (by_system.get(system, []) for system in (DENSE, SPARSE))
    tests = _intervals(best_settings(sparse), best_settings(dense), lambda run: run["test"])
    rises = {}
    for batch in config.batches:
        pair = (best_settings(runs, batch=batch) for runs in (sparse, dense))
        rises[str(batch)] = _intervals(*pair, rise)
    remedies = {}
    at = str(config.remedies_at)
    for remedy, kind in REMEDIES.items():
        control = by_system.get(MODERN if kind.modern else SPARSE, [])
        runs = (by_system.get(remedy, []), control)
        pair = (best_settings(of_system, batch=min(config.batches)) for of_system in runs)
        last = _intervals(*pair, lambda run: run["test last"])
        remedies |= {remedy: last[at]} if at in last else {}
    return {"test": tests, "rise": rises, "remedies": remedies}


def _intervals(best, of_others, measure):
    """{number of examples: interval of a measure of the runs of one system less another's}."""
    return {
        examples: paired_interval(
            *([measure(run) for run in side[examples]] for side in (best, of_others))
        ).record()
        for examples in best
        if examples in of_others
    }
