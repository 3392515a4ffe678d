"""Which claims of Jacobs et al. (1991) hold under other choices of what the paper leaves open.

Range of the initial weights × target coding × split. In each cell all four systems get learning
rates of their own, explored on separate seeds, and then run on fresh ones. It is not the full
product: the ranges are crossed with the splits under one coding, and the other codings are tried
at the ends of the range.
"""

import dataclasses
import itertools

import numpy as np

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.jacobs1991 import runs
from moe_np.experiments.jacobs1991.runs import SYSTEMS, Config, run_one

SPREADS = (0.05, 0.1, 0.25, 0.5)
SPLITS = {  # label -> settings
    "file order, no man 1": {"drop": 1, "split": "file order"},
    "file order, no man 17": {"drop": 17, "split": "file order"},
    "random speakers, A": {"drop": 1, "split": "random", "split_seed": 1},
    "random speakers, B": {"drop": 1, "split": "random", "split_seed": 2},
}
FIRST_SPLIT = next(iter(SPLITS))
OTHER_CODINGS = ("IY+AA", "IY+IH", "one-hot")
SEEDS = 10
GRID = (0.03, 0.04, 0.06, 0.09)
ONE_HOT_GRID = (0.005, 0.01, 0.02, 0.03)  # four outputs: larger learning rates do not settle


def cells(quick: bool = False) -> list[tuple[str, str, Config]]:
    """[(coding, split label, Config)]: 4 ranges × 4 splits, and 3 more codings × 2 ranges."""
    choices = [("IY+AH", split, spread) for split, spread in itertools.product(SPLITS, SPREADS)]
    ends = (SPREADS[0], SPREADS[-1])
    choices += [(coding, FIRST_SPLIT, s) for coding, s in itertools.product(OTHER_CODINGS, ends)]
    if quick:
        choices = [("IY+AH", FIRST_SPLIT, SPREADS[0]), ("one-hot", FIRST_SPLIT, SPREADS[0])]
    return [(coding, split, _config(coding, split, s, quick)) for coding, split, s in choices]


def _config(coding, split, spread, quick):
    grid = ONE_HOT_GRID if coding == "one-hot" else GRID
    if quick:
        grid = (0.01,) if coding == "one-hot" else (0.04, 0.06)
    return Config(
        seeds=3 if quick else SEEDS,
        coding=coding,
        spread=spread,
        **SPLITS[split],
        grid=grid,
        grid_seeds=1 if quick else 3,
        grid_epochs=3_000,
        max_epochs=6_000,
    )


def run(*, sweep: Sweep, quick: bool = False) -> list[Result]:
    """All cells: [{"coding", "split", "spread", "lr", "seeds", "summary", "tests", "claims"}]."""
    planned = []
    for _, _, config in cells(quick):
        sweep.submit(run_one, runs.explore_specs(config))
    for coding, split, config in cells(quick):
        explored = runs.explore(config, sweep, "sensitivity, learning rates")
        config = dataclasses.replace(config, lr=tuple(system["best"] for system in explored))
        pairs = itertools.product(SYSTEMS, range(config.seeds))
        specs = [runs.spec_of(config, system, seed) for system, seed in pairs]
        sweep.submit(run_one, specs)
        planned.append((coding, split, config, specs))
    out = []
    for coding, split, config, specs in planned:
        systems = runs.by_system(config, SYSTEMS, sweep.map(run_one, specs, "sensitivity"))
        tests = runs.compare(systems)
        cell = {"coding": coding, "split": split, "spread": config.spread, "lr": config.lr}
        summary = [runs.summarise(system) for system in systems]
        cell |= {"seeds": config.seeds, "summary": summary, "tests": tests}
        out.append({**cell, "claims": verdicts(tests)})
    return out


def verdicts(tests: list[Result]) -> dict[str, str]:
    """Per claim "holds" (all its tests right with p < .05), "direction" (right sign in all its
    tests), or "fails".
    """
    out = {}
    for claim, held in runs.claims(tests).items():
        right = all(t["difference"] > 0 for t in tests if t["claim"] == claim)
        out[claim] = "holds" if held else "direction" if right else "fails"
    return out


def one_softmax_expert(*, sweep: Sweep, quick: bool = False) -> Result:
    """One softmax expert alone on one-hot targets: {"lr", "epochs", "train", "test"}, means."""
    config = _config("one-hot", FIRST_SPLIT, SPREADS[0], quick)
    explored = runs.explore(config, sweep, "one expert, learning rates", ("1 expert",))
    best = explored[0]["best"]
    specs = [runs.spec_of(config, "1 expert", seed, best) for seed in range(config.seeds)]
    results = sweep.map(run_one, specs, "one expert")
    means = {k: float(np.mean([r[k] for r in results])) for k in ("epochs", "train", "test")}
    return {"lr": best, **means}


def eight_against_four(*, sweep: Sweep, batches: int = 6, seeds: int = 25) -> Result:
    """The paper's test of 8 against 4 experts, `batches` times with `seeds` fresh runs each, and
    once with all runs.

    {"p": [...], "difference": epochs, "sd": [4 experts, 8 experts], "p_all"}: 25 runs can miss
    a difference that is there.
    """
    from scipy import stats

    config = Config()
    pairs = itertools.product(SYSTEMS[:2], range(batches * seeds))
    specs = [runs.spec_of(config, system, seed) for system, seed in pairs]
    results = sweep.map(run_one, specs, "8 against 4 experts")
    epochs = np.array([r["epochs"] for r in results], dtype=float)
    four, eight = epochs.reshape(2, batches, seeds)
    return {
        "p": [float(stats.ttest_ind(a, b).pvalue) for a, b in zip(four, eight, strict=True)],
        "difference": float(four.mean() - eight.mean()),
        "sd": [float(four.std(ddof=1)), float(eight.std(ddof=1))],
        "p_all": float(stats.ttest_ind(four.ravel(), eight.ravel()).pvalue),
    }
