"""The text classification: a mixture and two dense networks from the same seeds.

Criterion, fixed before the runs (`CRITERION`): the mixture has a gain over a dense network where
the whole 95 % t interval of its percent right less that of the dense one lies above 1 point, on
passages of held-out chapters. There are two intervals.
"""

from moe_np.experiments.common import comparisons, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.common.verdicts import Criterion
from moe_np.experiments.text_classification.runs import (
    PAPER,
    SYSTEMS,
    Config,
    run_one,
    spec_of,
    summarise,
)

OPTIONS: tuple[Option, ...] = ()
SMOKE = {"config": Config(20, 16, 12, 4, 4, 10, 16, 10, (1e-2,), seeds=2)}
QUICK = Config(chapters=4, updates=300, learning_rates=(3e-3,), seeds=1)
TASK = "part of the Bible"
CRITERION = Criterion("percent right (mixture less dense)", smallest=1.0)


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
    """All systems and seeds (5; 1 if quick): what is written as text_classification.json."""
    config = config or (QUICK if quick else Config())
    runs = sweep.map(run_one, specs(config, seeds=seeds, only=only), "text classification")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    right = {system: [run["accuracy"] for run in of] for system, of in by_system.items()}
    return system_runs.result_of(
        "text_classification",
        config,
        runs,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        claims=comparisons.claims({TASK: right}, {TASK: CRITERION}),
    )
