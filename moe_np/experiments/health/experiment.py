"""The health experiment: every method on the same folds, and the mixture beside the usual methods.

Criteria, fixed before the runs (`CRITERIA`): the mixture of experts has a gain over another method
where the whole 95 % t interval of its −log P(y | x) less that of the other one lies below −.01 nats
per held-out case. There are six intervals. The folds share training cases, so that the intervals
are somewhat too narrow (Bengio and Grandvalet 2004).
"""

from moe_np.experiments.common import comparisons, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.common.verdicts import Criterion
from moe_np.experiments.health.methods import (
    BOOSTING,
    DATA,
    LINEAR,
    MIXTURE,
    NETWORK,
)
from moe_np.experiments.health.runs import (
    LOSS,
    PAPER,
    SYSTEMS,
    Config,
    run_one,
    spec_of,
    summarise,
)

OPTIONS: tuple[Option, ...] = ()
SMOKE = {"config": Config(cases=60, restarts=1, max_iter=5, choose=False, seeds=2)}
QUICK = Config(restarts=2, choose=False, seeds=2)
OTHERS = (LINEAR, NETWORK, BOOSTING)
CRITERIA = dict.fromkeys(
    DATA, Criterion("loss per case (mixture less the other)", smallest=0.01, direction="less")
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
    """All systems and seeds (5; 2 if quick): what is written as health.json.

    Raises InputError where scikit-learn is not installed.
    """
    config = config or (QUICK if quick else Config())
    runs = sweep.map(run_one, specs(config, seeds=seeds, only=only), "health")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    return system_runs.result_of(
        "health",
        config,
        runs,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        claims=claims(by_system),
    )


def claims(by_system: dict[str, list[Result]]) -> list[Result]:
    """Mixture less each usual method, of the data whose systems were run."""
    values = {
        data: {
            method: [run[LOSS] for run in by_system.get(f"{data}: {method}", [])]
            for method in (MIXTURE, *OTHERS)
        }
        for data in DATA
    }
    return comparisons.claims(values, CRITERIA)
