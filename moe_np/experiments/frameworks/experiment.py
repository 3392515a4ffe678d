"""The sparse layer in PyTorch, JAX and TensorFlow beside ours, where they are installed.

Criterion, fixed before the runs: a statement is the same layer where outputs and gradients differ
from ours by less than `LIMIT` of their largest value, in float32, for all problems. The times are
measured anew in each call, ours and theirs in turn; all other numbers are the same on every call.
"""

from moe_np.experiments.common import system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec, selected
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.frameworks.runs import (
    PAPER,
    SYSTEMS,
    Config,
    run_one,
    spec_of,
    summarise,
    times,
)

OPTIONS: tuple[Option, ...] = ()
SMOKE = {"config": Config(tokens=8, d_model=4, hidden=6, experts=3, rounds=1, seeds=1)}
QUICK = Config(tokens=64, d_model=32, hidden=64, rounds=3, seeds=1)
LIMIT = 1e-4


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """One spec per framework and problem."""
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
    """All frameworks, on three problems (1 if quick): what is written as frameworks.json."""
    config = config or (QUICK if quick else Config())
    runs = sweep.map(run_one, specs(config, seeds=seeds, only=only), "frameworks")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    return system_runs.result_of(
        "frameworks",
        config,
        runs,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        milliseconds={system: times(config, system) for system in selected(SYSTEMS, only)},
    )
