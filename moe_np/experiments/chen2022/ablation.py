"""What makes the mixture of Chen et al. (2022) work: one part of the published code is changed."""

from collections.abc import Iterable
from typing import Any

from moe_np.experiments.chen2022.runs import (
    VARIANTS,
    Config,
    checked_seeds,
    quick_config,
    run_one,
    spec_of,
    summarise,
)
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.sweep import Sweep

Case = tuple[str, int, str, dict[str, Any]]  # row of a table, setting, model, changes

# (row, what differs from the published code); setting 1, cubic experts
ABLATION = (
    ("as published", {}),
    ("experts: plain gradient descent, same learning rate", {"norm": None}),
    ("experts: learning rate 3 times as large", {"lr": 3e-3}),
    ("experts: initialisation 100 times as large", {"scale": 0.1}),
    ("router: no noise", {"noise": False}),
    ("router: never moves", {"lr_router": 0.0}),
    ("router: learning rate 1", {"lr_router": 1.0}),
)
ABLATION_SEEDS = 3


def ablation_cases() -> list[Case]:
    """Setting 1, cubic experts, one thing changed at a time: [(row, setting, model, changes)]."""
    return [(row, 1, "moe_nonlinear", changes) for row, changes in ABLATION]


def gate_and_loss_cases() -> list[Case]:
    """From the published code towards the paper: gate × loss, settings 1 and 2, both experts."""
    rows = {
        "as in the code": {},
        "softmax gate": {"gate": "softmax"},
        "cross-entropy once": {"loss": "once", "stop": False},
        "both: as in the paper": VARIANTS["paper"],
    }
    systems = [(setting, model) for setting in (1, 2) for model in ("moe_nonlinear", "moe_linear")]
    return [(row, *system, changes) for row, changes in rows.items() for system in systems]


def case_specs(
    cases: Iterable[Case],
    config: Config | None = None,
    *,
    seeds: int | list[int] = ABLATION_SEEDS,
    quick: bool = False,
) -> list[Spec]:
    """The specs of all cases, seed by seed: the published code with the changes of a case."""
    config = config or Config()
    config = quick_config(config) if quick else config
    return [
        spec_of(config, model, setting, "code", seed, **changes)
        for _, setting, model, changes in cases
        for seed in checked_seeds(seeds)
    ]


def run_cases(
    cases: list[Case],
    config: Config | None = None,
    *,
    seeds: int | list[int] = ABLATION_SEEDS,
    sweep: Sweep | None = None,
    quick: bool = False,
) -> list[Result]:
    """One dict per case: "row", "setting", "model", "summary", and as lists over the seeds
    "accuracy", "entropy", "epochs".
    """
    specs = case_specs(cases, config, seeds=seeds, quick=quick)
    results = (sweep or Sweep()).map(run_one, specs, desc="chen2022 ablation")
    out = []
    n = len(specs) // len(cases)
    for i, (row, setting, model, _) in enumerate(cases):
        runs = results[i * n : (i + 1) * n]
        lists = {name: [run[name] for run in runs] for name in ("accuracy", "entropy", "epochs")}
        case = {"row": row, "setting": setting, "model": model}
        out.append({**case, **lists, "summary": summarise(lists)})
    return out
