"""Offloading: traces of trained routers against uniform ones, under every policy."""

from moe_np.experiments.common import pretrained, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.language_model import runs as language_models
from moe_np.experiments.offloading.runs import PAPER, SYSTEMS, Config, run_one, spec_of, summarise

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
SMOKE = {"config": Config(model=SMALL, places=(2, 8), tokens=150, timed=4, seeds=2)}
QUICK = Config(
    model=language_models.Config(updates=40, checkpoint_every=40, validation_tokens=2048),
    tokens=2048,
    timed=50,
    seeds=1,
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
    """All seeds (3; 1 if quick): what is written as offloading.json."""
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with pretrained.stored_with(sweep), sweep.one_at_a_time() as single:
        runs = single.map(run_one, chosen, "offloading")
    return system_runs.result_of(
        "offloading",
        config,
        runs,
        {
            system: summarise(of_system)
            for system, of_system in system_runs.by_system(runs, SYSTEMS, only).items()
        },
        PAPER,
    )
