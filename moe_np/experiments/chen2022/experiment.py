"""Table 1 of Chen et al. (2022): accuracy and dispatch entropy on synthetic clusters.

Single networks and mixtures, linear and cubic, in four settings, by the algorithm of the published
code and by that of the paper. The runs are in `runs.py`.
"""

import dataclasses

from moe_np.base.checks import choice
from moe_np.data.clusters import SETTINGS
from moe_np.experiments.chen2022.published_numbers import PAPER
from moe_np.experiments.chen2022.runs import (
    SINGLE_SETTINGS,
    SYSTEMS,
    VARIANTS,
    Config,
    checked_seeds,
    quick_config,
    run_one,
    spec_of,
    summarise,
)
from moe_np.experiments.common.experiment import Option, Result, Spec, selected
from moe_np.experiments.common.sweep import Sweep, versions

OPTIONS = (
    Option("setting", "the data", (1, 2, 3, 4)),
    Option("variant", "the algorithm of the published code or of the paper", ("code", "paper")),
)
SMOKE = {
    "config": Config(n_train=400, n_test=400, epochs=11, single_epochs=11, lr=3e-3),
    "seeds": 2,
}


def specs(
    config: Config | None = None,
    *,
    setting: int = 1,
    variant: str = "code",
    seeds: int | list[int] | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """The runs of `run`, arguments as there."""
    config = quick_config(config or Config()) if quick else config or Config()
    choice("setting", setting, tuple(SETTINGS))
    choice("variant", variant, tuple(VARIANTS))
    models = SYSTEMS if setting in SINGLE_SETTINGS or only is not None else SYSTEMS[2:]
    seeds = checked_seeds(config.seeds if seeds is None else seeds)
    return [
        spec_of(config, model, setting, variant, seed)
        for model in selected(models, only)
        for seed in seeds
    ]


def run(
    config: Config | None = None,
    *,
    setting: int = 1,
    variant: str = "code",
    seeds: int | list[int] | None = None,
    only: tuple | None = None,
    sweep: Sweep | None = None,
    quick: bool = False,
) -> Result:
    """All models of one setting: the values of each run under "models", means and population
    standard deviations under "summary".

    seeds    the number of runs of each model (default: the paper's ten), or a list of seeds
    only     some of SYSTEMS; by default the mixtures, and in settings 1 and 2 the single networks
    """
    chosen = specs(config, setting=setting, variant=variant, seeds=seeds, only=only, quick=quick)
    config = quick_config(config or Config()) if quick else config or Config()
    results = (sweep or Sweep()).map(run_one, chosen, desc=f"chen2022 setting {setting}, {variant}")
    runs_of = {}
    for spec, result in zip(chosen, results, strict=True):
        runs_of.setdefault(spec["model"], []).append(result)
    names = ("accuracy", "train_accuracy", "loss", "epochs", "entropy", "entropy_per_epoch")
    models = {
        model: {name: [run[name] for run in runs] for name in names if name in runs[0]}
        for model, runs in runs_of.items()
    }
    return {
        "name": "chen2022",
        "config": dataclasses.asdict(config) | VARIANTS[variant],
        "seeds": list(dict.fromkeys(spec["seed"] for spec in chosen)),
        "setting": setting,
        "variant": variant,
        "models": models,
        "summary": {model: summarise(lists) for model, lists in models.items()},
        "paper": PAPER[setting],
        "versions": versions(),
    }
