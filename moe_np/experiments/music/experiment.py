"""The music: a mixture and two dense decoders from the same seeds.

Criterion, fixed before the runs (`CRITERION`): the mixture has a gain over a dense decoder where
the whole 95 % t interval of its loss less that of the dense one lies below −.01 nats per note of
the test chorales. There are two intervals.
"""

from moe_np.data.music import midi
from moe_np.experiments.common import comparisons, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.sequence_models import Sizes
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.common.verdicts import Criterion
from moe_np.experiments.music.runs import PAPER, SYSTEMS, Config, run_one, spec_of, summarise

OPTIONS: tuple[Option, ...] = ()
_TINY = Sizes(d_model=16, layers=1, heads=2, kv_heads=1, hidden=8, experts=4, batch=4, updates=3)
SMOKE = {"config": Config(_TINY, 16, (0,), 4, 400, 4, 4, seeds=2)}
QUICK = Config(Sizes(updates=40, every=20), held_out=2000, continuation=32, seeds=1)
TASK = "chorales"
CRITERION = Criterion("loss per note (mixture less dense)", smallest=0.01, direction="less")


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
    """All systems and seeds (5; 1 if quick): what is written as music.json.

    A sweep that stores its runs has the continuations beside them, music/SYSTEM.mid.
    """
    config = config or (QUICK if quick else Config())
    runs = sweep.map(run_one, specs(config, seeds=seeds, only=only), "music")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    losses = {system: [run["loss"] for run in of] for system, of in by_system.items()}
    return system_runs.result_of(
        "music",
        config,
        runs,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        claims=comparisons.claims({TASK: losses}, {TASK: CRITERION}),
        listening=_written(runs, sweep),
    )


def _written(runs, sweep):
    """The MIDI files of the continuations, within the folder of stored runs; [] without one."""
    if sweep.store is None:
        return []
    names = []
    for run in runs:
        if "continuation" in run:
            names.append(f"music/{run['system'].replace(', ', '_').replace(' ', '_')}.mid")
            path = sweep.store / names[-1]
            path.parent.mkdir(parents=True, exist_ok=True)
            midi.save(path, run["continuation"]["grid"])
    return names
