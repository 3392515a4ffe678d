"""The batch curve: all systems, their ratios, and a model with two constants.

    time(N) = touched(N) · bytes of an expert / bandwidth + operations(N) / rate

The two constants are fitted to the times of all systems together, by least squares of the relative
errors. The model says where the curve of the sparse layer lies between the dense ones, and why.
"""

import numpy as np

from moe_np.experiments.batch_curve.runs import (
    PAPER,
    SPARSE,
    SYSTEMS,
    Config,
    hidden_of,
    run_one,
    spec_of,
    summarise,
)
from moe_np.experiments.common import system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.sweep import Sweep
from moe_np.parallel import cost

OPTIONS: tuple[Option, ...] = ()
SMOKE = {
    "config": Config(
        d=8, hidden=16, experts=4, tokens=(1, 4, 16), most_total=4, at_least=0.001, seeds=2
    )
}
QUICK = Config(
    d=256,
    hidden=1024,
    experts=16,
    tokens=(1, 4, 16, 64, 256, 1024),
    most_total=256,
    at_least=0.1,
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
    """All systems: what is written as batch_curve.json. Runs are made one at a time, and
    their times are those of an idle machine, or they are noise.
    """
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with sweep.one_at_a_time() as single:
        runs = single.map(run_one, chosen, "batch_curve")
    summary = {
        system: summarise(of_system)
        for system, of_system in system_runs.by_system(runs, SYSTEMS, only).items()
    }
    return system_runs.result_of(
        "batch_curve",
        config,
        runs,
        summary,
        PAPER,
        expected=[cost.touched(config.experts, config.k, n) for n in config.tokens],
        ratios=ratios(summary),
        model=model(config, summary),
    )


def ratios(summary: Result) -> Result:
    """{dense system: time of the sparse layer over its time, by the number of tokens}."""
    if SPARSE not in summary:
        return {}
    sparse = dict(zip(summary[SPARSE]["tokens"], summary[SPARSE]["median"], strict=True))
    return {
        system: [sparse[n] / time for n, time in zip(ours["tokens"], ours["median"], strict=True)]
        for system, ours in summary.items()
        if system != SPARSE
    }


def work(config: Config, system: str, tokens: int) -> tuple[float, float]:
    """What a batch needs: (bytes of the weights that it touches, operations of the experts)."""
    numbers = 3 * config.d * hidden_of(config, system)
    touched = cost.touched(config.experts, config.k, tokens) if system == SPARSE else 1
    per_token = config.k if system == SPARSE else 1
    return 4 * numbers * touched, 2 * numbers * per_token * tokens


def model(config: Config, summary: Result) -> Result:
    """The two constants, per second, the model's seconds per token, and its largest relative
    error.
    """
    needs, times = [], []
    for system, ours in summary.items():
        for n, time in zip(ours["tokens"], ours["median"], strict=True):
            needs.append(work(config, system, n))
            times.append(time * n)
    needs, times = np.array(needs), np.array(times)
    bandwidth, rate = 1 / _fitted(needs / times[:, None])
    errors = (needs / (bandwidth, rate)).sum(axis=1) / times - 1
    lines = {
        system: [
            float((np.array(work(config, system, n)) / (bandwidth, rate)).sum() / n)
            for n in ours["tokens"]
        ]
        for system, ours in summary.items()
    }
    return {
        "bandwidth": float(bandwidth),
        "rate": float(rate),
        "seconds": lines,
        "largest_error": float(np.abs(errors).max()),
    }


def _fitted(relative):
    """Two constants x ≥ 0 with relative · x ≈ 1. One that is too small to be seen is almost 0."""
    from scipy.optimize import nnls

    size = relative.max(axis=0)
    return np.maximum(nnls(relative / size, np.ones(len(relative)))[0], 1e-6) / size
