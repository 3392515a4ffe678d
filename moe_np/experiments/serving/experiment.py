"""Serving: latency against load of all systems, under Poisson arrivals and in bursts."""

from moe_np.experiments.common import pretrained, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.language_model import runs as language_models
from moe_np.experiments.serving.runs import PAPER, SYSTEMS, Config, run_one, spec_of, summarise

OPTIONS: tuple[Option, ...] = ()
SMALL = language_models.Config(
    d_model=8,
    layers=1,
    heads=2,
    kv_heads=1,
    hidden=8,
    vocabulary=280,
    length=8,
    batch=2,
    updates=2,
    checkpoint_every=2,
    books=("Obad",),
    validation_tokens=100,
)
SMOKE = {
    "config": Config(
        d_model=16,
        layers=1,
        heads=2,
        hidden=16,
        experts=4,
        vocabulary=30,
        prompt=4,
        tokens=3,
        requests=6,
        most=3,
        loads=(1.0, 4.0),
        language_model=SMALL,
        seeds=1,
    )
}
QUICK = Config(
    d_model=128,
    hidden=512,
    tokens=12,
    requests=24,
    most=16,
    loads=(0.5, 2.0),
    language_model=language_models.Config(updates=20, checkpoint_every=20, validation_tokens=2048),
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
    """All systems: what is written as serving.json. The models that say what equal quality is are
    those of `language_model`; what is not stored is trained, which takes hours. Runs are
    made one at a time, and their times are those of an idle machine, or they are noise.
    """
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with pretrained.stored_with(sweep), sweep.one_at_a_time() as single:
        runs = single.map(run_one, chosen, "serving")
    return system_runs.result_of(
        "serving",
        config,
        runs,
        {
            system: summarise(of_system)
            for system, of_system in system_runs.by_system(runs, SYSTEMS, only).items()
        },
        PAPER,
    )
