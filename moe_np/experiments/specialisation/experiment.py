"""The specialisation of experts: both systems from all seeds, and four claims of papers.

Criteria, fixed before the runs (`CRITERIA`). Each is decided by the 95 % t interval over the seeds;
four at once hold the truth together in at least 80 % of all repetitions.

    repetition   Mixtral, table 5: neighbours share their first expert more often in higher layers.
                 The excess over Σ p_i² of the last layer, less that of layer 0, is above 0
    saturation   OLMoE, section 5.1: layer 0 settles last. At the checkpoint next to 40 % of
                 training, the saturation of the last layer less that of layer 0 is above 0
    prediction   OLMoE, section 5.4: later layers specialise on the predicted token. The excess over
                 chance of its highest share in the last layer, less that of layer 0, is above 0
    domains      OLMoE, section 5.3: experts specialise on domains. The highest share of a domain,
                 less what its vocabulary alone explains, is on average over the layers above .05
"""

import numpy as np

from moe_np.experiments.common import pretrained, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.statistics import t_interval
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.common.verdicts import Criterion, verdict
from moe_np.experiments.specialisation.runs import (
    ONE,
    PAPER,
    SYSTEMS,
    THREE,
    Config,
    run_one,
    spec_of,
    summarise,
)

OPTIONS: tuple[Option, ...] = ()
SMOKE = {
    "config": Config(
        d_model=16,
        layers=2,
        heads=2,
        kv_heads=1,
        hidden=16,
        experts=4,
        vocabulary=300,
        length=16,
        batch=4,
        updates=6,
        checkpoint_every=3,
        books=("Jonah",),
        characters=6000,
        measured=360,
        minimum=3,
        top=3,
        seeds=2,
    )
}
QUICK = Config(updates=60, checkpoint_every=20, measured=6144, characters=300_000, seeds=1)
SATURATION_AT = 0.4  # of training

CRITERIA = {
    "repetition": Criterion(
        "excess of the repetition over the loads (last layer less layer 0)", smallest=0.0
    ),
    "saturation": Criterion(
        "saturation at 40 % of training (last layer less layer 0)", smallest=0.0
    ),
    "prediction": Criterion(
        "excess of the highest share of the predicted token (last layer less layer 0)", smallest=0.0
    ),
    "domains": Criterion("highest share of a domain less that by its vocabulary", smallest=0.05),
}
SYSTEM_OF = {"repetition": ONE, "saturation": ONE, "prediction": ONE, "domains": THREE}


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
    """Both systems and all seeds (5; 1 if quick): what is written as specialisation.json."""
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with pretrained.stored_with(sweep):
        runs = sweep.map(run_one, chosen, "specialisation")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    return system_runs.result_of(
        "specialisation",
        config,
        runs,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        claims=claims(by_system),
    )


def claims(by_system: dict[str, list[Result]]) -> Result:
    """{claim: its interval over the seeds, its criterion in words, and the verdict}; a claim whose
    system was not run is left out.
    """
    out = {}
    for name, criterion in CRITERIA.items():
        runs = by_system.get(SYSTEM_OF[name])
        if runs:
            interval = t_interval([measured(name, run) for run in runs])
            out[name] = {
                "interval": interval.record(),
                "criterion": criterion.text(),
                "verdict": verdict(criterion, interval),
            }
    return out


def measured(claim: str, run: Result) -> float:
    """The number of a run that the criterion of a claim is of."""
    if claim == "repetition":
        (of_text,) = run["repetition"].values()
        return _last_less_first([r["value"] - r["by_loads"] for r in of_text["first"]])
    if claim == "saturation":
        steps = run["saturation"]["steps"]
        nearest_step = np.abs(np.array(steps) - SATURATION_AT * steps[-1]).argmin()
        return _last_less_first(run["saturation"]["values"][nearest_step])
    if claim == "prediction":
        predicted = run["vocabulary"]["predicted"]
        return _last_less_first([m["value"] - m["permuted"] for m in predicted])
    return float(np.mean([m["value"] - m["by_words"] for m in run["domains"]]))


def _last_less_first(values):
    return float(values[-1] - values[0])
