"""Dense against experts: all systems from all seeds, and the comparisons by seed.

Criteria, fixed before the runs: a system of experts trains *better* where the 95 % interval of the
paired difference of its test loss to the dense model's lies below 0, and *faster* where the
interval of the ratio (dense over experts) of the processor seconds until the dense model's last
validation loss lies above 1. It *infers faster* where the interval of the ratio of processor
seconds per token lies above 1. The criteria of the other questions stand in their files.
"""

from moe_np.experiments.common import pretrained, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.statistics import paired_interval, t_interval
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.language_model.equal_quality import equal_quality
from moe_np.experiments.language_model.overfitting import overfitting
from moe_np.experiments.language_model.runs import (
    DENSE_OF,
    PAPER,
    SYSTEMS,
    Config,
    reached,
    run_one,
    spec_of,
    summarise,
)

OPTIONS: tuple[Option, ...] = ()
SMOKE = {
    "config": Config(
        d_model=16,
        layers=1,
        heads=2,
        kv_heads=1,
        hidden=16,
        vocabulary=300,
        length=16,
        batch=4,
        updates=6,
        checkpoint_every=3,
        books=("Jonah",),
        two_books=("Jonah", "Obad"),
        updates_of_two_books=6,
        validation_tokens=300,
        timed_batch=2,
        seeds=2,
    )
}
QUICK = Config(
    updates=60, updates_of_two_books=60, checkpoint_every=20, validation_tokens=4096, seeds=1
)


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
    """All systems and seeds (3; 1 if quick): what is written as language_model.json."""
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with pretrained.stored_with(sweep):
        runs = sweep.map(run_one, chosen, "language models")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    return system_runs.result_of(
        "language_model",
        config,
        runs,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        against_dense=against_dense(by_system),
        equal_quality=equal_quality(by_system),
        overfitting=overfitting(by_system),
    )


def against_dense(by_system: dict[str, list[Result]]) -> dict:
    """{system: its comparisons with the dense model of equal text and width, seed by seed}, as far
    as that was run.
    """
    return {
        system: _compare(by_system[system], by_system[dense])
        for system, dense in DENSE_OF.items()
        if by_system.get(system) and by_system.get(dense)
    }


def _compare(runs, dense):
    loss = paired_interval([r["test"]["loss"] for r in runs], [r["test"]["loss"] for r in dense])
    record = {"test loss": loss.record()}
    for name in ("tokens", "seconds"):
        ratios = []
        for ours, of_dense in zip(runs, dense, strict=True):
            place = reached(ours["validation"], ours[name], of_dense["validation"][-1])
            ratios.append(None if place is None else of_dense[name][-1] / place)
        reached_by = [ratio for ratio in ratios if ratio is not None]
        whole = len(reached_by) == len(ratios)
        record[name] = t_interval(reached_by).record() if whole else None
        record[f"{name} reached"] = len(reached_by)
    inference = [d["inference"] / r["inference"] for r, d in zip(runs, dense, strict=True)]
    record["inference"] = t_interval(inference).record()
    return record
