"""The images: every task with the dense models and the mixture, from the same seeds.

Criteria, fixed before the runs (`CRITERIA`), each by the 95 % t interval over the seeds of the
mixture less a dense model: in percent right of the test images a gain of over 1 point, and pixel
by pixel a loss that is lower by over .01 nats per pixel. There are eight intervals: all of them
hold the truth together in at least 60 % of all repetitions.
"""

from moe_np.experiments.common import comparisons, system_runs
from moe_np.experiments.common.dense_and_mixture import MODELS
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.sequence_models import Sizes
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.common.verdicts import Criterion
from moe_np.experiments.images.digit_images import TASKS
from moe_np.experiments.images.runs import (
    ALL_TASKS,
    PAPER,
    PIXELS,
    SYSTEMS,
    Config,
    run_one,
    spec_of,
    summarise,
)

OPTIONS: tuple[Option, ...] = ()
_TINY = Sizes(d_model=16, layers=1, heads=2, kv_heads=1, hidden=8, experts=4, batch=4, updates=3)
SMOKE = {
    "config": Config(60, 20, 40, 4, 4, 20, 16, 10, (1e-2,), pixels=_TINY, seeds=2),
}
QUICK = Config(updates=200, pixels=Sizes(updates=30), seeds=1)

CRITERIA = {
    **{task: Criterion("percent right (mixture less dense)", smallest=1.0) for task in TASKS},
    PIXELS: Criterion("loss per pixel (mixture less dense)", smallest=0.01, direction="less"),
}
MEASURE = {**dict.fromkeys(TASKS, "accuracy"), PIXELS: "loss"}


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
    """All systems and seeds (5; 1 if quick): what is written as images.json."""
    config = config or (QUICK if quick else Config())
    runs = sweep.map(run_one, specs(config, seeds=seeds, only=only), "images")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    return system_runs.result_of(
        "images",
        config,
        runs,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        claims=claims(by_system),
    )


def claims(by_system: dict[str, list[Result]]) -> list[Result]:
    """Mixture less dense of every task whose systems were run."""
    values = {
        task: {
            model: [run[MEASURE[task]] for run in by_system.get(f"{task}: {model}", [])]
            for model in MODELS
        }
        for task in ALL_TASKS
    }
    return comparisons.claims(values, CRITERIA)
