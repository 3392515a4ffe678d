"""Do mixtures generalise? Eight claims of popular articles that nobody had put to the test.

Sparse layers with two of eight experts per case beside dense nets of equal operations and of equal
size, on three problems with training, validation and test sets (`data_sets.py`). The labels can be
learnt: one problem is real, one has a rule for each region, as mixtures are made for, and one has a
smooth rule, as dense nets are made for. `article_claims.py` has the claims with their criteria.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from moe_np.experiments.common.controlled_claims import Claim, came_out, verdict_with_controls
from moe_np.experiments.common.decisions import decide
from moe_np.experiments.common.experiment import Option, Result, Spec, seed_count, selected
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.common.sweep import Sweep, versions
from moe_np.experiments.common.verdicts import bonferroni_level
from moe_np.experiments.generalisation.article_claims import CLAIMS, INTERVALS
from moe_np.experiments.generalisation.runs import Cell, Config, run_one, spec_of

SYSTEMS = tuple(CLAIMS)
PAPER = {name: claim.claim for name, claim in CLAIMS.items()}  # there are no published numbers
OPTIONS: tuple[Option, ...] = ()
WHOLE = Config()
QUICK = Config(seeds=2, cases=200, many=400, steps=60)
SMOKE = {"config": Config(seeds=1, cases=40, few=20, many=60, steps=4, batch=20, rates=(0.01,))}
SHOWN = ("test", "noisy", "shifted", "overfit", "seconds", "operations", "parameters", "rate")


def cells_of(names: Sequence[str]) -> list[Cell]:
    """The cells of these claims, each once, in the order in which they are needed."""
    cells = [cell for name in names for case in CLAIMS[name].cases for cell in case.cells]
    return list(dict.fromkeys(cells))


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """The runs of all claims, or of those in `only`, cell by cell."""
    config = config or (QUICK if quick else WHOLE)
    n = seed_count(seeds, config.seeds)
    cells = cells_of(selected(SYSTEMS, only))
    return [spec_of(config, cell, config.first + i) for cell in cells for i in range(n)]


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All claims, or those in `only`: what is written as generalisation.json.

    seeds   per cell (80, from `Config.first` on; 2 if quick)
    quick   fewer cases and a tenth of the steps
    """
    config = config or (QUICK if quick else WHOLE)
    n = seed_count(seeds, config.seeds)
    names = selected(SYSTEMS, only)
    results = sweep.map(run_one, specs(config, seeds=n, only=only), "generalisation")
    runs = {}
    for i, cell in enumerate(cells_of(names)):
        cases = getattr(config, cell.cases)
        runs[cell] = [{"cases": cases, **result} for result in results[n * i : n * (i + 1)]]
    return {
        "name": "generalisation",
        "config": dataclasses.asdict(config),
        "seeds": list(range(config.first, config.first + n)),
        "cells": [{**cell._asdict(), **summarise(of_cell)} for cell, of_cell in runs.items()],
        "claims": {name: decided(CLAIMS[name], runs) for name in names},
        "paper": PAPER,
        "versions": versions(),
    }


def summarise(runs: Sequence[Result]) -> Result:
    """{measure: {"mean", "sd"}} of the runs of one cell, and their mean curves."""
    summary = {
        name: describe([run[name] for run in runs], single=0.0).record("mean", "sd")
        for name in SHOWN
    }
    curves = {
        name: np.mean([run[name] for run in runs], axis=0).tolist()
        for name in ("training", "testing")
    }
    return {"n": len(runs), "points": runs[0]["points"], **curves, **summary}


def decided(claim: Claim, runs: dict[Cell, list[Result]]) -> Result:
    """The decisions on the cases and controls of a claim, and its verdict.

    -> {"claim", "decisions": those of `decide`, with "role"}, "controls": whether both came out,
    "verdict": one of `decisions.VERDICTS`}.
    """
    criterion = claim.criterion._replace(level=bonferroni_level(0.95, INTERVALS))
    decisions = []
    for case in claim.cases:
        by_seed = zip(*(runs[cell] for cell in case.cells), strict=True)
        decision = decide(case.name, criterion, [case.measure(*values) for values in by_seed])
        decisions.append({**decision, "role": case.role})
    values = {"claim": claim.claim, "decisions": decisions, "controls": came_out(decisions)}
    return {**values, "verdict": verdict_with_controls(decisions)}
