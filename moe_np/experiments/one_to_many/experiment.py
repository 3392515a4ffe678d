"""One input, several right outputs: a net answers with their mean, a mixture with one of them.

Whatever the seed, one run fits all systems to the same data, so none of them runs alone. The exact
conditional density is known and stands in the last row of the table. The runs are in `runs.py`.
"""

import dataclasses

from moe_np.experiments.common.experiment import Result, Spec, seed_count, selected
from moe_np.experiments.common.sweep import Sweep, versions
from moe_np.experiments.one_to_many.runs import PAPER, Config, run_one, spec_of, summarise

SYSTEMS = ()
OPTIONS = ()
SMOKE = {
    "config": Config(n_train=120, n_test=200, restarts=2, rounds=2, max_iter=60),
    "seeds": 2,
}
QUICK_SEEDS = 5


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """The runs, one per seed. Raises InputError for `only`, since one run holds all systems."""
    selected(SYSTEMS, only)
    config = config or Config()
    n = seed_count(seeds, QUICK_SEEDS if quick else config.seeds)
    return [spec_of(config, seed) for seed in range(n)]


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All seeds (25; 5 if quick) and their summary: what is written as one_to_many.json."""
    chosen = specs(config, seeds=seeds, only=only, quick=quick)
    runs = sweep.map(run_one, chosen, "one to many")
    return {
        "name": "one_to_many",
        "config": dataclasses.asdict(config or Config()),
        "seeds": [spec["seed"] for spec in chosen],
        "runs": runs,
        "summary": summarise(runs),
        "paper": PAPER,
        "versions": versions(),
    }
