"""What popular articles say of the ways to train a mixture, each claim with cases and controls.

A case is a problem and two methods; its measure (`seed_ranges.py`) is a difference by seed, held
against the criterion of the claim. Of the controls one must hold and one must fail: where they
do not, the measure cannot tell. The intervals of all cases and controls of all claims hold
together. WITHDRAWN has the claims that these runs cannot decide, with the reason.

An earlier version counted p values of unpaired tests. These criteria were written before the runs
that they decide on, and those have seeds that no earlier run had.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from moe_np.experiments.common.controlled_claims import (
    CASE,
    MUST_FAIL,
    MUST_HOLD,
    Claim,
    came_out,
    verdict_with_controls,
)
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.verdicts import Criterion, bonferroni_level
from moe_np.experiments.training_methods.runs import (
    ANEW,
    CONTROLS,
    PERMUTED,
    PROBLEMS,
    SINGLE,
    SLOW,
    TRUE,
)
from moe_np.experiments.training_methods.seed_ranges import (
    Measure,
    decide_range,
    extra_gain,
    passes_ratio,
    seconds_ratio,
)

EVOLUTIONARY = ("evolution strategy", "CMA-ES")
RATIOS: dict[str, Measure] = {"passes": passes_ratio, "seconds": seconds_ratio}


class Case(NamedTuple):
    """One interval: what is measured of which two systems on which problem."""

    name: str
    problem: str
    systems: tuple[str, str]
    measure: Measure
    role: str = CASE


# --- Passes and seconds ---------------------------------------------------------------------------

TWICE = round(math.log(2), 3)
WHY_TWICE = (
    "The smallest difference, the log of 2, is a factor of two: below it a reader would not change "
    "the method, and the learning rates, from a grid in steps of three, may make as much. Joint "
    "training with a tenth of its learning rate must be slower than joint training, and joint "
    "training from other seeds must not."
)


def _ratio(units, slow, fast):
    """The criterion of passes or seconds."""
    return Criterion(f"log of the ratio of the {units} to the level ({slow} over {fast})", TWICE)


def _against(rivals, against, units):
    """The cases of each rival over `against`, on every problem and in every unit, with controls."""
    cases = [
        Case(f"{problem} ({rival}, in {unit})", problem, (rival, against), RATIOS[unit])
        for problem in PROBLEMS
        for rival in rivals
        for unit in units
    ]
    measure = RATIOS[units[-1]]
    words = f"in {units[-1]}"
    slow = Case(f"vowels ({SLOW}, {words})", "vowels", (SLOW, "joint"), measure, MUST_HOLD)
    anew = Case(f"vowels ({ANEW}, {words})", "vowels", (ANEW, "joint"), measure, MUST_FAIL)
    return (*cases, slow, anew)


JOINT = Claim(
    "Is joint training efficient?",
    "joint training is efficient",
    "popular articles; no paper is named",
    "A method is efficient in comparison. Alternating training and evolution have claims of their "
    "own below; separate training trains its gate in the second half only, and hard routing "
    "descends another loss. So the rival here is EM, which descends the same loss.",
    _ratio("passes or seconds", "EM", "joint training"),
    WHY_TWICE,
    _against(("EM",), "joint", ("passes", "seconds")),
    subject="joint",
)
SLOWER = Claim(
    "Is alternating training slower?",
    "alternating training is slower than joint training",
    "popular articles; no paper is named",
    "From the same initialisations, each with its own learning rate. In passes the work counts, in "
    "seconds the program too.",
    _ratio("passes or seconds", "alternating", "joint training"),
    WHY_TWICE,
    _against(("alternating",), "joint", ("passes", "seconds")),
    subject="alternating",
)
GRADIENT = Claim(
    "Are gradients efficient?",
    "gradient descent is common and efficient",
    "popular articles; no paper is named",
    "In comparison with methods that have no gradient, in work: joint training against both "
    "evolutionary methods.",
    _ratio("passes", "evolution", "joint training"),
    WHY_TWICE,
    _against(EVOLUTIONARY, "joint", ("passes",)),
    subject="gradient",
)
SLOW_EVOLUTION = Claim(
    "Is evolution slow?",
    "evolutionary methods are slow",
    "popular articles; no paper is named",
    "The same comparison in seconds, of one thread and of these programs.",
    _ratio("seconds", "evolution", "joint training"),
    WHY_TWICE,
    _against(EVOLUTIONARY, "joint", ("seconds",)),
    subject="evolutionary",
)

# --- Experts that fit together --------------------------------------------------------------------

WHY_NATS = (
    "Experts that do not fit together can be changed to fit, so the loss of the mixture still "
    "falls when they go on. The gate is held, since a gate that goes on mends its own faults and "
    "not theirs. A twentieth of a nat is a twentieth of the likelihood of a case. Experts of "
    "permuted regions must gain more; joint training from other seeds must not."
)


def _gains(a, b):
    """The criterion on what the experts of a gain more than those of b, the cases, the controls."""
    measure = f"nats that the experts still gain (“{a}” less “{b}”)"
    cases = [Case(problem, problem, (a, b), extra_gain) for problem in PROBLEMS]
    cases += [
        Case(f"piecewise ({PERMUTED})", "piecewise", (PERMUTED, b), extra_gain, MUST_HOLD),
        Case(f"vowels ({ANEW})", "vowels", (ANEW, "joint"), extra_gain, MUST_FAIL),
    ]
    return Criterion(measure, 0.05), WHY_NATS, tuple(cases)


INCOMPATIBLE = Claim(
    "Are experts that are trained apart incompatible?",
    "separate training may leave experts incompatible with each other",
    "popular articles; no paper is named",
    "Wrong cuts are not incompatible experts: k-means cuts the inputs where the clusters are, and "
    "not where the regions are. So separate training is told the true regions. Joint training "
    "from the same seed says what experts gain that were never trained apart.",
    *_gains(TRUE, "joint"),
    subject="separate",
)
COMPATIBLE = Claim(
    "Does alternating training make experts more compatible?",
    "alternating training makes experts more compatible than separate training",
    "popular articles; no paper is named",
    "Separate training is told the true regions here too, so that its cuts are not what differs.",
    *_gains(TRUE, "alternating"),
    subject="alternating",
)

CLAIMS = {
    "efficient": JOINT,
    "incompatible": INCOMPATIBLE,
    "more compatible": COMPATIBLE,
    "slower": SLOWER,
    "gradients": GRADIENT,
    "slow": SLOW_EVOLUTION,
}
INTERVALS = sum(len(claim.cases) for claim in CLAIMS.values())
LEVEL = bonferroni_level(0.95, INTERVALS)

UNFINISHED = "these runs cannot tell a run that is caught from one that is unfinished"
WITHDRAWN = (  # (a key of PAPER, the claim, why these runs cannot decide it)
    (
        "joint and evolutionary",
        "simple, complex",
        "lines of a method's own file leave out the gradient that joint training calls",
    ),
    (
        "joint",
        "experts may compete",
        "idle experts are not competition, and k-means gives every expert of separate training "
        "some cases",
    ),
    (
        "separate",
        "easy to manage",
        "a small deviation of the quality is one meaning of many, and to tell a ratio of "
        "deviations takes many times these seeds",
    ),
    (
        "separate",
        "other techniques for each expert",
        "no run tests it: all experts of a mixture are of one kind here, with one learning rate",
    ),
    (
        "gradient",
        "stuck in local optima",
        "a run that stands still may go on: some stood still for 2,000 passes and then solved the "
        "problem (lesson 13)",
    ),
    ("evolutionary", "avoids local optima", UNFINISHED),
    ("evolutionary", "avoids them, given time", UNFINISHED),
    (
        "evolutionary",
        "explores more",
        "a random child varies more than the iterate of a descent by construction",
    ),
    (
        "evolutionary",
        "better than restarts",
        "no article claims it, and a single run would decide it",
    ),
)


# --- Decisions ------------------------------------------------------------------------------------


def decidable(systems: Sequence[str]) -> list[str]:
    """The keys of the claims about these methods; without one expert alone there is no level."""
    known = {*systems, *CONTROLS} if SINGLE in systems else set()
    return [
        key
        for key, claim in CLAIMS.items()
        if all(known.issuperset(case.systems) for case in claim.cases)
    ]


def control_cells(keys: Sequence[str]) -> list[tuple[str, str]]:
    """(problem, control) of the runs that are needed for these claims only."""
    cells = [(c.problem, system) for key in keys for c in CLAIMS[key].cases for system in c.systems]
    return [cell for cell in dict.fromkeys(cells) if cell[1] in CONTROLS]


def claims(result: Result) -> dict[str, Result]:
    """All claims about the methods that were run.

    {key: {"subject", "claim", "decisions": those of `decide_range`, with "role", "controls":
    whether both came out, "verdict": one of `decisions.VERDICTS`}}.
    """
    return {key: decided(CLAIMS[key], result) for key in decidable(list(result["lines"]))}


def decided(claim: Claim, result: Result) -> Result:
    """One claim as in `claims`."""
    rule = claim.criterion._replace(level=LEVEL)
    decisions = []
    for case in claim.cases:
        values = case.measure(result, case.problem, *case.systems)
        decisions.append({**decide_range(case.name, rule, values), "role": case.role})
    values = {"subject": claim.subject, "claim": claim.claim, "decisions": decisions}
    return {**values, "controls": came_out(decisions), "verdict": verdict_with_controls(decisions)}
