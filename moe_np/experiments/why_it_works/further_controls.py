"""Controls of the questions that have runs of their own.

In a control the claim must hold, or must fail, whatever the articles say: if it does not, the
measure cannot tell, and neither can the question. A question whose own cells hold a control has it
in its file; here is the other one, or both. A run gives one value of the question's measure.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from moe_np.base import optim
from moe_np.data import regimes
from moe_np.experiments.common.controlled_claims import MUST_FAIL, MUST_HOLD, with_role
from moe_np.experiments.common.decisions import Decision, decide
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.verdicts import Criterion
from moe_np.experiments.why_it_works import more_experts as more
from moe_np.experiments.why_it_works import one_expert_or_two as one_or_two
from moe_np.experiments.why_it_works.allocation import (
    start_of_vowels,
    taken_patches,
    taken_vowels,
    train_patches,
)
from moe_np.experiments.why_it_works.cooperation import (
    SIGMA,
    dependence,
    train_on_regression,
    train_on_vowels,
)
from moe_np.experiments.why_it_works.questions import OTHER_SEED
from moe_np.experiments.why_it_works.tasks import fit_em, vowels
from moe_np.experiments.why_it_works.why_experts_differ import EPOCHS, equal_run
from moe_np.layers import sparse_layer
from moe_np.layers.experts import LINEAR
from moe_np.routing.contract import Routing

# --- More experts ---------------------------------------------------------------------------------

MOST = 12  # experts


def network_that_stays(seed: int, quick: bool) -> float:
    """Rise of the mixture's log test error, less the 0 of a network that does not grow."""
    rng, train, test = more.few_cases(seed)
    few, many = (fit_em(rng, train.x, train.d, n, 4).predict for n in (more.REGIONS, MOST))
    return _log_error(many(test.x), test) - _log_error(few(test.x), test)


def experts_taken_away(seed: int, quick: bool) -> float:
    """The same from the most experts to as many as regions: the error falls."""
    return -network_that_stays(seed + 1000, quick)


def _log_error(y, test):
    return float(np.log(((test.d - y) ** 2).mean()))


STEPS = (0.0, 2.0, -1.0, 1.0)  # levels on the right half, which no expert can have in common


def steps_on_the_right(seed: int, quick: bool) -> float:
    """Experts of the half with four steps, less those of the half with one straight line."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (300, 1))
    step = np.minimum((4 * np.maximum(x[:, 0], 0)).astype(int), 3)
    levels = np.where(x[:, 0] > 0, np.array(STEPS)[step], 0)
    d = 0.5 * x + levels[:, None] + 0.1 * rng.normal(size=x.shape)
    easy, hard = more.experts_by_half(fit_em(rng, x, d, more.CURVE_EXPERTS, 4), x)
    return hard - easy


def no_waves(seed: int, quick: bool) -> float:
    """Experts of the right half less those of the left one, on one straight line."""
    spec = {"task": "curve", "amplitude": 0.0, "seed": seed, "restarts": 4}
    run = more.harder_run(spec)
    return run["hard"] - run["easy"]


# --- One expert or two ----------------------------------------------------------------------------


def told_the_regions(seed: int, quick: bool) -> float:
    """Log of the test errors' ratio: experts that are told the regions, over k = 1 that learns.

    Nobody has to learn the routing, so that nothing is gained by it.
    """
    steps = 60 if quick else 800
    learned = one_or_two.k_run({"choice": "k = 1", "seed": seed, "steps": steps})["error"]
    rng = np.random.default_rng(seed)
    task = regimes.make_task(rng)
    train, test = (regimes.draw(task, n, rng) for n in (400, 1000))
    experts, state = LINEAR.init(rng, 3, 4, 1, scale=0.5), None
    x, routing = _told(train)
    for i in range(steps):
        out, cache = sparse_layer.forward(experts, x, routing, LINEAR)
        _, grads, _ = sparse_layer.backward((out - train.d) / len(x), cache)
        experts, state = optim.adam(experts, grads, state, lr=0.05 * (1 - i / steps))
    x, routing = _told(test)
    out, _ = sparse_layer.forward(experts, x, routing, LINEAR)
    return float(np.log(((out - test.d) ** 2).mean() / learned))


def _told(cases):
    """The inputs with a 1, and every case with the expert of its region."""
    n = len(cases.x)
    zeros = np.zeros((n, 4))
    demand = np.arange(4) == cases.region[:, None]
    routing = Routing(np.arange(n), cases.region, np.ones(n), zeros, zeros, demand)
    return np.hstack([cases.x, np.ones((n, 1))]), routing


# --- What keeps experts apart ---------------------------------------------------------------------

PUSH, PULL = 0.02, -0.01  # growth per epoch that is added to every difference from the mean


def pushed_apart(seed: int, quick: bool) -> float:
    """Growth under eq. 2 with the gate held, where none was seen, and a push away from the mean."""
    return _growth(seed, quick, "competitive", PUSH)


def pulled_together(seed: int, quick: bool) -> float:
    """Growth under eq. 1 with the gate held, where some was seen, and a pull to the mean. (A gate
    that learns parts experts in spite of it.)
    """
    return _growth(seed, quick, "cooperative", PULL)


def _growth(seed, quick, error, force):
    spec = {"error": error, "start": "1e-8 apart", "gate learns": False, "seed": seed}
    return equal_run({**spec, "force": force, "epochs": 400 if quick else EPOCHS})["rate"]


def even_gate(seed: int, quick: bool) -> float:
    """Share of the experts' errors that averaging cancels on the regression: eq. 1 with the gate
    held at ¼, less eq. 3. Such experts are fitted as a sum and never alone.
    """
    spec = {"seed": seed, "epochs": 300 if quick else 2500}
    held = train_on_regression({**spec, "error": "cooperative"}, SIGMA, hold_gate=True)
    free = train_on_regression({**spec, "error": "mixture"}, SIGMA)
    return dependence(*held)["cancelled"] - dependence(*free)["cancelled"]


def other_initialisation(seed: int, quick: bool) -> float:
    """The same share on the vowels: eq. 3, less eq. 3 from another initialisation."""
    shares = []
    for start in (seed, seed + 1000):
        spec = {"seed": start, "error": "mixture", "epochs": 300 if quick else 2500}
        shares.append(dependence(*train_on_vowels(spec)[1])["cancelled"])
    return shares[0] - shares[1]


# --- Whether the allocation follows the gate's beginning ------------------------------------------


def before_training(seed: int, quick: bool) -> float:
    """Share of regions with the same expert on the vowels, the gate's beginning kept less nothing
    kept, before any training: the choice is the gate's beginning.
    """
    data = vowels()
    starts = ((seed, seed), (seed + 1000, seed), (seed + 2000, seed + 2000))  # of experts and gate
    return _share_kept(*(taken_vowels(data, start_of_vowels(*two, 2.0)) for two in starts))


def no_beginning(seed: int, quick: bool) -> float:
    """The same on the patches after training, with a gate that begins at 0: nothing is kept."""
    sizes = {"n": 500, "epochs": 40} if quick else {"n": 2000, "epochs": 120}
    runs = (seed, seed + 1000, seed + 2000)
    return _share_kept(
        *(taken_patches(train_patches(run, 0, run, **sizes), sizes["n"]) for run in runs)
    )


def _share_kept(base, kept, fresh):
    """Of three allocations: where the second is as the first, less where the third is."""
    return float(np.equal(base, kept).mean() - np.equal(base, fresh).mean())


# --- All of them ----------------------------------------------------------------------------------


class Control(NamedTuple):
    """value(seed, quick) -> the measure of one run; `runs` of them."""

    role: str
    case: str
    value: Callable[[int, bool], float]
    runs: int


CONTROLS = {
    "more": (
        Control(MUST_HOLD, "against a network that stays", network_that_stays, 200),
        Control(
            MUST_FAIL, "experts taken away, against a network that stays", experts_taken_away, 120
        ),
    ),
    "harder": (
        Control(MUST_HOLD, "four steps on the right", steps_on_the_right, 20),
        Control(MUST_FAIL, "no waves", no_waves, 260),
    ),
    "k": (Control(MUST_FAIL, "told the regions, against k = 1", told_the_regions, 40),),
    "equal": (
        Control(MUST_HOLD, "eq. 2, gate held, experts pushed apart", pushed_apart, 12),
        Control(MUST_FAIL, "eq. 1, gate held, experts pulled together", pulled_together, 12),
    ),
    "errors": (
        Control(MUST_HOLD, "regression, eq. 1 with an even gate against eq. 3", even_gate, 20),
        Control(MUST_FAIL, "vowels, eq. 3 from another start", other_initialisation, 12),
    ),
    "start": (
        Control(MUST_HOLD, "vowels at 2, before training", before_training, 60),
        Control(MUST_FAIL, "patches, a gate that begins at 0", no_beginning, 240),
    ),
}


def specs(question: str, most: int | None, quick: bool) -> list[Spec]:
    """The runs of the controls of a question; `most` caps the number of each."""
    return [
        {"control": control.case, "seed": seed, "quick": quick}
        for control in CONTROLS.get(question, ())
        for runs in (2 if quick else control.runs,)
        for seed in range(OTHER_SEED, OTHER_SEED + min(runs, most or runs))
    ]


def run(question: str, spec: Spec) -> Result:
    """{"value"}: the measure of the question in one run of a control."""
    control = next(c for c in CONTROLS[question] if c.case == spec["control"])
    return {"value": float(control.value(spec["seed"], spec["quick"]))}


def decisions(
    question: str, rule: Criterion, specs: Sequence[Spec], results: Sequence[Result]
) -> list[Decision]:
    """One per control, with its role, by the criterion of the question."""
    decided = []
    for control in CONTROLS.get(question, ()):
        pairs = zip(specs, results, strict=True)
        values = [result["value"] for spec, result in pairs if spec["control"] == control.case]
        decided.append(with_role(control.role, decide(control.case, rule, values)))
    return decided
