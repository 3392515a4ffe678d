"""Does specialisation come later than learning? Both, epoch by epoch.

The runs are those of `allocation.py`: dense on the vowels, sparse on the clusters of patches.
"""

from collections.abc import Sequence

import numpy as np

from moe_np.base.types import ArrayN, Params
from moe_np.experiments.common.controlled_claims import (
    MUST_FAIL,
    MUST_HOLD,
    of_role,
    verdict_with_controls,
    with_roles,
    words_of_controls,
)
from moe_np.experiments.common.decisions import Decision, decide, in_words, other_thresholds
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.reports import join
from moe_np.experiments.why_it_works.allocation import start_of_vowels, train_patches, train_vowels
from moe_np.experiments.why_it_works.allocation_at_random import information
from moe_np.experiments.why_it_works.questions import (
    FIRST_SEED,
    OTHER_SEED,
    Config,
    Question,
    criterion_of_table,
    grouped,
    means,
)
from moe_np.experiments.why_it_works.tasks import is_front, patches
from moe_np.mixtures import jacobs1991

# of the information at the end, and of the fall of the error
TIMES = {"a tenth": 0.1, "half": 0.5, "nine tenths": 0.9}
EVERY = 10  # epochs between two looks at the vowels
SLOWED = "patches, specialisation at half the pace"
TRAINED = "vowels, the gate of a trained mixture"
ROLES = {SLOWED: MUST_HOLD, TRAINED: MUST_FAIL}  # of the controls, which have seeds of their own
DENSE = ("vowels", TRAINED)


def time_specs(config: Config, quick: bool) -> list[Spec]:
    """Tasks × seeds; the length of a run is fixed and does not depend on what it reaches."""
    sizes = {"n": 500} if quick else {"n": 2000}
    dense, sparse = (300, 60) if quick else (3000, 120)
    return [
        {
            "task": task,
            "seed": (OTHER_SEED if task in ROLES else FIRST_SEED) + i,
            "epochs": dense if task in DENSE else sparse,
            **sizes,
        }
        for task in ("vowels", "patches", *ROLES)
        for i in range(2 if quick else config.seeds)
    ]


def time_run(spec: Spec) -> Result:
    """What the choice of the expert tells about the region, in bits, and the error, in training.

    -> {"bits" at the end, the epochs until "a tenth", "half" and "nine tenths" of these bits are
    there for good, "learned": those until half of the fall of the error is, "fallen": those until
    these shares of it are, "epochs", "curve"}.
    """
    dense = spec["task"] in DENSE
    every = EVERY if dense else 1
    if dense:
        params = start_of_vowels(spec["seed"])
        if spec["task"] == TRAINED:
            params |= _trained_gate(params, spec["epochs"])
        bits, errors = on_vowels(params, spec["epochs"])
    else:
        bits, errors = on_patches(spec)
    if spec["task"] == SLOWED:
        bits = np.repeat(bits, 2)  # each epoch counts as two
    result = epochs_to(bits, errors, every)
    result |= {"learned": result["fallen"]["half"], "bits": float(bits[-1])}
    curve = bits[:: 1 if dense else 2].round(4).tolist()
    return {**result, "epochs": spec["epochs"], "curve": curve}


def _trained_gate(params, epochs):
    """The gate that training from here ends with: it has nothing to learn."""
    trained = train_vowels(params, stop=1e-9, max_epochs=epochs)[1].params
    return {name: trained[name] for name in ("U", "c")}


def on_vowels(params: Params, epochs: int) -> tuple[ArrayN, ArrayN]:
    """Bits about the pair of vowels and the error, every `EVERY` epochs of training from here."""
    data, run = train_vowels(params, keep=True, stop=1e-9, max_epochs=epochs)
    front = is_front(data.vowel_train).astype(int)
    bits = []
    errors = []
    for epoch in range(0, run.epochs + 1, EVERY):
        params = {name: values[epoch] for name, values in run.history.items()}
        cache = jacobs1991.system_forward(params, data.x_train, data.d_train)[1]
        bits.append(information(cache.p.argmax(axis=1), front))
        errors.append(float(((data.d_train - cache.y) ** 2).mean()))
    return np.array(bits), np.array(errors)


def on_patches(spec: Spec) -> tuple[ArrayN, ArrayN]:
    """Bits about the cluster and the error, epoch by epoch."""
    cluster = patches(spec["n"]).train.cluster
    sizes = {"n": spec["n"], "epochs": spec["epochs"]}
    steps = list(train_patches(spec["seed"], 0, spec["seed"], **sizes))
    bits = [information(step.expert, cluster) for step in steps]
    return np.array(bits), np.array([step.loss for step in steps])


def for_good(curve: ArrayN, level: float) -> int:
    """The first place from which on the curve does not fall below the level."""
    below = np.flatnonzero(curve < level)
    return int(below[-1]) + 1 if len(below) else 0


def epochs_to(bits: ArrayN, errors: ArrayN, every: int) -> Result:
    """From both curves, with so many epochs between two looks: the epochs until every share of
    `TIMES` of the bits at the end is there for good, and as "fallen" of the fall of the error.
    """
    fall = errors[0] - errors[-1]
    fallen = {
        name: every * for_good(-errors, share * fall - errors[0]) for name, share in TIMES.items()
    }
    known = {name: every * for_good(bits, share * bits[-1]) for name, share in TIMES.items()}
    return {**known, "fallen": fallen}


def later(run: Result, share: str, least: int) -> float:
    """Log of the epochs to a share of the specialisation over those to the same share of the fall
    of the error, each at least `least`.
    """
    return float(np.log(max(run[share], least) / max(run["fallen"][share], least)))


def time_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per task; "later" is, for every share of `TIMES`, the log of the epochs to that
    share of the specialisation over those to the same share of the fall of the error, run by run,
    each at least one look.
    """
    cells = []
    for (task,), runs in grouped(specs, results, "task").items():
        least = EVERY if task in DENSE else 1
        cell = {"task": task, "n": len(runs), **means(runs, *TIMES, "learned", "epochs", "bits")}
        cell["later"] = {share: [later(run, share, least) for run in runs] for share in TIMES}
        cells.append({**cell, "curves": [run["curve"] for run in runs]})
    return cells


CRITERION = criterion_of_table(
    "log of the epochs to half of the specialisation over those to half of the fall of the error",
    0.22,
    "greater",
)
REASON = (
    "Everything in training takes some time, and a share of the epochs of a run depends on where "
    "the run was ended. So the question that can be answered is whether half of the specialisation "
    "comes at least a quarter later (log 1.25 = .22) than half of what there is to learn, in runs "
    "of fixed length. It must be found later where every epoch of it is counted twice, and not "
    "where the gate begins as that of a trained mixture. That it takes any time at all is not in "
    "doubt and is not the question. The seeds are new."
)


def time_decisions(summary: list[Result], share: str = "half") -> list[Decision]:
    """One per task, that of a control with its role."""
    decisions = [decide(cell["task"], CRITERION, cell["later"][share]) for cell in summary]
    return with_roles(ROLES, decisions)


def time_sensitivity(summary: list[Result]) -> str:
    """The verdict with other shares than half, and with other smallest differences."""
    words = [
        f"with {share} of both, {verdict_with_controls(time_decisions(summary, share))}"
        for share in TIMES
        if share != "half"
    ]
    thresholds = other_thresholds(CRITERION, time_decisions(summary), verdict_with_controls)
    return f"{thresholds} With another share than half: {join(words)}."


def time_verdict(summary: list[Result]) -> tuple[str, str]:
    """Later than the task itself is learned, on both tasks."""
    decisions = time_decisions(summary)
    parts = [
        f"on the {cell['task']} half of what the choice of the expert says in the end is there for "
        f"good after {cell['half'][0]:.0f} epochs, and half of the fall of the error after "
        f"{cell['learned'][0]:.0f} (means of {cell['n']})"
        for cell in summary
        if cell["task"] not in ROLES
    ]
    return verdict_with_controls(decisions), (
        f"{words_of_controls(decisions)}In the mean {'; '.join(parts)}. That specialisation comes "
        f"later: {in_words(of_role(decisions))}"
    )


TIME = Question(
    "Does specialisation come later than learning?",
    "specialisation takes time, which is tested as: it comes later than learning",
    "Chen et al. 2022",
    "Sparse mixtures on clusters; dense ones on the vowels are added. How long training is, and "
    "how fast the task itself is learned, are kept apart from when experts specialise.",
    time_specs,
    time_run,
    time_summary,
    time_verdict,
    CRITERION,
    REASON,
    time_decisions,
    sensitivity=time_sensitivity,
)
