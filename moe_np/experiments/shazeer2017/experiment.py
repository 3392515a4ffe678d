"""The load-balancing losses of noisy top-k gating, on and off: Shazeer et al. 2017 (arXiv
1701.06538), appendix A.

Table 6 gives, for six pairs (w_importance, w_load), the test perplexity of a language model with
256 experts and how evenly it used them. Here the same six pairs train the same gate on an
associative memory (moe_np/models/associative_memory.py), in seconds. What can carry over is the
balance. The perplexity column belongs to the language model, which is not reproduced; ours is that
of the stored keys.

A gate collapses when its inputs have something in common, as the activations of a trained net have:
a step that makes an expert a little better for one token then draws most other tokens to it as
well. Gaussian keys have nothing in common, so `Config.common` adds one vector to all of them; the
case without it is run too, for comparison.
"""

import dataclasses

import numpy as np

from moe_np.base.types import ArrayND, Rng
from moe_np.experiments.common.experiment import Result, Spec, seed_count, selected
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.common.sweep import Sweep, versions
from moe_np.layers import balance, diagnostics
from moe_np.layers.balance import BalanceLoss
from moe_np.models import associative_memory
from moe_np.models.associative_memory import Forward, Parts, RouterSetup
from moe_np.routing import noisy_top_k

Case = tuple[tuple[float, float], float]  # (w_importance, w_load), the length of the common part


@dataclasses.dataclass(frozen=True)
class Config:
    """The pairs of Table 6. All else is our choice; comments say where the paper differs."""

    # Table 6: w_importance, w_load
    weights: tuple[tuple[float, float], ...] = (
        (0, 0),
        (0.2, 0),
        (0, 0.2),
        (0.1, 0.1),
        (0.01, 0.01),
        (1, 1),
    )
    # the pairs that are run without a common part as well
    centred: tuple[tuple[float, float], ...] = ((0, 0), (0.1, 0.1))
    k: int = 2  # the paper's MoE-256 has 4 of 256 experts
    n_experts: int = 32
    noise_epsilon: float = 1e-2  # the authors' code; the paper has 0
    common: float = 2.0  # length of what all keys share; the rest of a key has length √D = 5.7
    n_keys: int = 8192
    d_model: int = 32
    n_values: int = 64
    hidden: int = 16
    batch: int = 512
    epochs: int = 16
    lr: float = 0.04


SEEDS = 2

PAPER = {
    # w_importance, w_load, test perplexity, CV(Importance), CV(Load), max/mean of the load
    "table6": [
        (0, 0, 39.8, 3.04, 3.01, 17.80),
        (0.2, 0, 35.6, 0.06, 0.17, 1.47),
        (0, 0.2, 35.7, 0.22, 0.04, 1.15),
        (0.1, 0.1, 35.6, 0.06, 0.05, 1.14),
        (0.01, 0.01, 35.7, 0.48, 0.11, 1.37),
        (1, 1, 35.7, 0.03, 0.02, 1.07),
    ]
}
SYSTEMS = ()  # one table, which `report` reads across its rows
OPTIONS = ()
SMOKE = {
    "config": Config(n_experts=6, n_keys=100, d_model=6, n_values=5, hidden=3, batch=50, epochs=2),
    "seeds": 2,
}

# --- one run --------------------------------------------------------------------------------------


def setup_of(spec: Spec) -> RouterSetup:
    """The noisy gate with those of the two losses that have a weight. It is initialised at zero, as
    in appendix A.
    """
    w_importance, w_load = spec["weights"]

    def losses(forward: Forward) -> list[tuple[float, BalanceLoss]]:
        pairs = []
        if w_importance:
            pairs.append((w_importance, balance.importance(forward.routing)))
        if w_load:
            pairs.append((w_load, balance.load(forward.cache)))
        return pairs

    options = {"k": spec["k"], "noise_epsilon": spec["noise_epsilon"]}
    return RouterSetup(noisy_top_k, options, losses=losses)


def evenness(setup: RouterSetup, params: Parts, keys: ArrayND, rng: Rng | None) -> dict[str, float]:
    """CV(Importance), CV(Load), max/mean of the load over all keys as one batch; `rng` is the
    noise, None without.

    With noise the load is the expected one of eq. (10), without it a count. One large batch,
    because counts of a small one are uneven by chance alone.
    """
    routing, cache = noisy_top_k.route(params["router"], keys, **setup.options, rng=rng)
    load, _ = noisy_top_k.load_forward(cache)
    return {
        "cv_importance": diagnostics.cv(diagnostics.importance(routing)),
        "cv_load": diagnostics.cv(load),
        "max_mean": diagnostics.max_over_mean(load),
    }


def run_one(spec: Spec) -> Result:
    """Train with one pair of weights from one seed; perplexity of the stored keys and balance,
    noise on and off.
    """
    setup = setup_of(spec)
    sizes = (spec["n_keys"], spec["d_model"], spec["n_values"])
    generators = (np.random.default_rng([spec["seed"], i]) for i in range(4))
    task, initialisation, steps, noise = generators
    keys, labels = associative_memory.associations(task, *sizes, common=spec["common"])
    experts = {name: spec[name] for name in ("n_experts", "hidden")}
    params = associative_memory.init(initialisation, setup, keys, spec["n_values"], **experts)
    options = {name: spec[name] for name in ("epochs", "batch", "lr")}
    for step in associative_memory.train(setup, params, keys, labels, rng=steps, **options):
        params = step.params
    result = {}
    for name, rng in (("without noise", None), ("with noise", noise)):
        measured = associative_memory.measure(
            setup, params, keys, labels, batch=spec["batch"], rng=rng
        )
        perplexity = measured["perplexity"]
        result[name] = {"perplexity": perplexity, **evenness(setup, params, keys, rng)}
    return result


def spec_of(config: Config, weights: tuple[float, float], common: float, seed: int) -> Spec:
    """What determines a run, as JSON-able data."""
    values = dataclasses.asdict(config)
    del values["centred"]
    return {**values, "weights": list(weights), "common": common, "seed": seed}


# --- the experiment -------------------------------------------------------------------------------


def cases(config: Config) -> list[Case]:
    """The pairs of weights, each with the length of the common part that it is run with."""
    shared = [(weights, config.common) for weights in config.weights]
    return shared + [(weights, 0.0) for weights in config.centred]


def _sizes(config, seeds, quick):
    """The configuration and the number of seeds; quick: one seed and one pass over the keys."""
    config = Config() if config is None else config
    if quick:
        config = dataclasses.replace(config, epochs=1)
    return config, seed_count(seeds, 1 if quick else SEEDS)


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """The specs of all cases, with `seeds` seeds each. Raises InputError for `only`, since the
    report reads the table across its rows.
    """
    selected(SYSTEMS, only)
    config, n_seeds = _sizes(config, seeds, quick)
    return [spec_of(config, *case, seed) for case in cases(config) for seed in range(n_seeds)]


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All pairs of weights, `seeds` runs each: what is written as shazeer2017.json."""
    chosen = specs(config, seeds=seeds, only=only, quick=quick)
    results = sweep.map(run_one, chosen, "balance losses")
    config, n_seeds = _sizes(config, seeds, quick)
    rows = []
    for i, (weights, common) in enumerate(cases(config)):
        runs = results[i * n_seeds : (i + 1) * n_seeds]
        row = {"weights": list(weights), "common": common}
        rows.append({**row, "runs": runs, "summary": summarise(runs)})
    return {
        "name": "shazeer2017",
        "config": dataclasses.asdict(config),
        "seeds": list(range(n_seeds)),
        "rows": rows,
        "paper": PAPER,
        "versions": versions(),
    }


def summarise(runs: list[Result]) -> Result:
    """{"with noise" or "without noise": {name: {"mean", "sd"}}}, n − 1 in the deviation."""
    return {
        noise: {
            name: describe([run[noise][name] for run in runs], single=0.0).record("mean", "sd")
            for name in names
        }
        for noise, names in runs[0].items()
    }
