"""Training methods compared: quality, specialisation, time and failures on three problems.

Nine ways to train a mixture of experts, each from 60 initialisations on the same data; one expert
alone and separate training on the true regions are there for comparison, and three controls for the
claims. There is no publication to compare with: `PAPER` holds what popular articles say of each
method, and `claims.py` what was measured of it. The runs are in `runs.py`, with the budget that
every method gets.
"""

import ast
import dataclasses
import inspect
import itertools
import math
import time
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from moe_np.base.machine import one_blas_thread
from moe_np.experiments.common.experiment import Result, Spec, seed_count, selected
from moe_np.experiments.common.sweep import Sweep, versions
from moe_np.experiments.training_methods import problems
from moe_np.experiments.training_methods.claims import claims, control_cells, decidable
from moe_np.experiments.training_methods.runs import (
    FIRST_SEED,
    METHODS,
    PAPER,
    PROBLEMS,
    SYSTEMS,
    WITH_KNOB,
    Config,
    begin,
    checkpoints,
    passes_of,
    run_one,
    spec_of,
    until,
)
from moe_np.experiments.training_methods.sensitivity import sensitivity
from moe_np.experiments.training_methods.summary import summarise

OPTIONS = ()
SMOKE = {"config": Config(passes=12, longer=2), "seeds": 1}
QUICK_SEEDS = 2


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """The runs of `run`, arguments as there: problems × methods × seeds, then the controls."""
    config = _checked(config, quick)
    n = seed_count(seeds, QUICK_SEEDS if quick else config.seeds)
    return [
        spec_of(config, problem, system, seed)
        for problem, system in cells_of(selected(SYSTEMS, only))
        for seed in seeds_of(n)
    ]


def cells_of(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """(problem, system): all methods on all problems, and the controls of what they decide."""
    return [*itertools.product(PROBLEMS, names), *control_cells(decidable(names))]


def seeds_of(n: int) -> range:
    """The first n seeds."""
    return range(FIRST_SEED, FIRST_SEED + n)


def _checked(config, quick):
    """The configuration in force; quick: a tenth of the passes."""
    config = config or Config()
    return dataclasses.replace(config, passes=max(20, config.passes // 10)) if quick else config


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """Every method on every problem from `seeds` initialisations (60; 2 if quick).

    -> what is written as training_methods.json. All but `seconds`, their range and what is made
    of them is the same on every call. Seed s is the same run however many seeds are asked for.
    quick: a tenth of the passes. only: some of the methods; levels, failures and claims need "one
    expert" and the methods that they compare, and claims bring their controls.
    """
    chosen = specs(config, seeds=seeds, only=only, quick=quick)
    config = _checked(config, quick)
    names = selected(SYSTEMS, only)
    n = seed_count(seeds, QUICK_SEEDS if quick else config.seeds)
    results = iter(sweep.map(run_one, chosen, "ways to train"))
    cells = cells_of(names)
    systems = {problem: {} for problem in PROBLEMS}
    for problem, system in cells:
        systems[problem][system] = list(itertools.islice(results, n))
    result = {
        "name": "training_methods",
        "config": dataclasses.asdict(config),
        "seeds": list(seeds_of(n)),
        "checkpoints": {name: checkpoints(passes_of(config, name)) for _, name in cells},
        "systems": systems,
        "seconds": {problem: {} for problem in PROBLEMS},
        "seconds_range": seconds_per_pass(config, cells, *((1, 1) if quick else (3, 3))),
        "lines": {name: lines_of_code(METHODS[name].module) for name in names},
        "measures": {problem: problems.task(problem).measure for problem in PROBLEMS},
        "paper": PAPER,
        "versions": versions(),
    }
    for problem, ranges in result["seconds_range"].items():
        result["seconds"][problem] = {name: least for name, (least, _) in ranges.items()}
    result["summary"] = {problem: summarise(result, problem) for problem in PROBLEMS}
    result["claims"] = claims(result)
    result["sensitivity"] = sensitivity(result) if result["claims"] else []
    return result


# --- Knobs, times, lines of code ------------------------------------------------------------------


def explore(config: Config, sweep: Sweep) -> list[Result]:
    """Try `config.grid` for every method on separate seeds.

    -> [{"problem", "system", "best", "losses": {knob: mean final training loss}}]. The best knob
    has the lowest mean; the test data take no part in the choice.
    """
    cells = list(itertools.product(PROBLEMS, WITH_KNOB, config.grid))
    seeds = range(1000, 1000 + config.grid_seeds)
    any_knob = tuple((p, s, 0.1) for p, s in itertools.product(PROBLEMS, WITH_KNOB))
    config = dataclasses.replace(config, knobs=any_knob)
    grid = [
        spec_of(config, problem, system, seed, knob)
        for problem, system, knob in cells
        for seed in seeds
    ]
    results = iter(sweep.map(run_one, grid, "knobs"))
    losses = {}
    for problem, system, knob in cells:
        finals = [result["loss"] for result in itertools.islice(results, config.grid_seeds)]
        losses.setdefault((problem, system), {})[knob] = float(np.mean(finals))
    return [
        {"problem": p, "system": s, "best": min(means, key=means.get), "losses": means}
        for (p, s), means in losses.items()
    ]


def seconds_per_pass(
    config: Config, cells: Sequence[tuple[str, str]], seeds: int = 3, repeats: int = 3
) -> dict[str, dict[str, list[float]]]:
    """{problem: {system: [least, greatest]}} of the cells (problem, system): processor seconds per
    pass of the runs of the first seeds, on one thread.

    Of each run the least of several times, which are taken far apart. The range holds the error of
    the timing, and what runs from other initialisations differ by.
    """
    times = {cell: dict.fromkeys(seeds_of(seeds), math.inf) for cell in cells}
    with one_blas_thread():
        for _, cell, seed in itertools.product(range(repeats), cells, seeds_of(seeds)):
            spec = {**spec_of(config, *cell, seed), "passes": config.passes}
            before = time.process_time()
            *_, end = until(begin(spec).steps, spec["passes"])
            per_pass = (time.process_time() - before) / end.passes
            times[cell][seed] = min(times[cell][seed], per_pass)
    out = {problem: {} for problem in PROBLEMS}
    for (problem, system), by_seed in times.items():
        out[problem][system] = [min(by_seed.values()), max(by_seed.values())]
    return out


def lines_of_code(module: ModuleType) -> int:
    """Lines of a module without docstrings, comments and imports.

    Each statement is written in the same form, so that the layout does not count.
    """
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
            kept = [n for n in node.body if not isinstance(n, (ast.Import, ast.ImportFrom))]
            first = kept[0] if kept else None
            has_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            node.body = kept[1:] if has_text else kept
    return len([line for line in ast.unparse(tree).splitlines() if line.strip()])
