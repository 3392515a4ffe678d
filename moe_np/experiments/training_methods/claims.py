"""What popular articles say of the ways to train a mixture, each claim with a number of the run.

Every verdict is computed. On one problem a claim about two methods is

    yes         where the difference goes its way (Mann-Whitney for numbers, Fisher's exact test for
                counts, Brown and Forsythe for deviations)
    reverse     where it goes the other way
    no          where neither is seen

at p < .05, two-sided, after Holm's correction for all tests of the table. As a whole a claim holds
if it is yes on all problems, and holds under a condition if on some: these problems are the
condition. It is not supported if the reverse is seen on all problems. Otherwise it cannot be told,
since that no difference was seen does not say that there is none. `summary.py` says what level,
stuck, unfinished and failed mean. WITHDRAWN has the claims that these runs cannot decide, with the
reason.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from moe_np.experiments.common.decisions import CONDITION
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import decimal, p_value
from moe_np.experiments.common.verdicts import CANNOT_BE_TOLD, HOLDS, NOT_SUPPORTED, holm
from moe_np.experiments.training_methods.runs import LONGER, SINGLE, SYSTEMS
from moe_np.experiments.training_methods.summary import above_level

ALPHA = 0.05  # of all tests together
EVOLUTIONARY = ("evolution strategy", "CMA-ES")
NO_RIVALS = ("joint", SINGLE, "separate, true regions", LONGER)

AFTER = "nats that joint training still gains from there"
PASSES = "median passes to the level"
EQUAL_PASSES = "CMA-ES runs above the level, against joint, equal passes"
TEN_TIMES = "the same with ten times the passes of joint"


class Answer(NamedTuple):
    """The numbers as text, with the one-sided p of the claim and that of the reverse."""

    text: str
    p: float
    p_reverse: float

    def two_sided(self) -> float:
        """p of any difference, before the correction for other tests."""
        return min(1.0, 2 * min(self.p, self.p_reverse))

    def word(self, adjusted: float) -> str:
        """ "yes", "reverse" or "no" at an adjusted two-sided p."""
        if adjusted >= ALPHA:
            return "no"
        return "yes" if self.p < self.p_reverse else "reverse"


Decide = Callable[[Result, str], Answer]  # of a result and a problem


class Measurement(NamedTuple):
    """What is measured of a claim: in words, the systems it needs, and how it is decided."""

    words: str
    systems: tuple[str, ...]
    decide: Decide


def measured(words: str, *systems: str) -> Callable[[Decide], Measurement]:
    """A decorator that makes a Measurement of a function (result, problem) -> Answer."""
    return lambda decide: Measurement(words, systems, decide)


# --- Tests ----------------------------------------------------------------------------------------


def p_greater(a: Sequence[float | None], b: Sequence[float | None]) -> float:
    """One-sided p of Mann-Whitney that a tends to be greater than b; None counts as infinite.

    1 where all values are equal.
    """
    from scipy import stats

    a, b = (np.array([1e300 if v is None else v for v in values], float) for values in (a, b))
    if len({*a, *b}) < 2:
        return 1.0
    return float(stats.mannwhitneyu(a, b, alternative="greater").pvalue)


def p_more_often(a: int, b: int, n: int) -> float:
    """One-sided p of Fisher's exact test that a of n is a larger share than b of n."""
    from scipy import stats

    return float(stats.fisher_exact([[a, n - a], [b, n - b]], alternative="greater").pvalue)


def p_less_spread(a: Sequence[float], b: Sequence[float]) -> float:
    """One-sided p of Brown and Forsythe's test that a has the smaller deviation from its median.

    1 where the deviations within each of the two are all the same, as with two values.
    """
    from scipy import stats

    spreads = [np.abs(np.asarray(values) - np.median(values)) for values in (a, b)]
    if all(np.ptp(spread) == 0 for spread in spreads):
        return 1.0
    p = float(stats.levene(a, b, center="median").pvalue)
    return p / 2 if spreads[0].mean() < spreads[1].mean() else 1 - p / 2


# --- Words ----------------------------------------------------------------------------------------


def number_or_never(value: float | None, digits: int = 0) -> str:
    """A median of passes or seconds; "never" for None."""
    return decimal(value, digits, missing="never")


def p_text(p: float, p_reverse: float = 1.0) -> str:
    """p of the claim, or where the reverse is seen p of that."""
    is_reverse = p_reverse < ALPHA <= p
    text = p_value(p_reverse if is_reverse else p, name="p", coarse_below=1e-4)
    return f"{text} the other way" if is_reverse else text


# --- The parts of a result ------------------------------------------------------------------------


def summary_of(result: Result, problem: str, system: str) -> Result:
    """The summary of a system on a problem."""
    return result["summary"][problem]["systems"][system]


def values_of(result: Result, problem: str, system: str, key: str) -> list[float]:
    """The values of the runs of a system on a problem."""
    return [run[key] for run in result["systems"][problem][system]]


def against_all(joint: Sequence, rivals: Sequence[Sequence]) -> tuple[float, float]:
    """(p, p of the reverse) that every rival is greater than joint training: the larger of all."""
    return max(p_greater(r, joint) for r in rivals), max(p_greater(joint, r) for r in rivals)


# --- Claims on joint training ---------------------------------------------------------------------


@measured(f"{PASSES}, and of the fastest other method", *SYSTEMS)
def joint_is_efficient(result: Result, problem: str) -> Answer:
    """Yes if joint training is faster than every other method; reverse if any other is faster."""
    joint = summary_of(result, problem, "joint")
    systems = result["summary"][problem]["systems"]
    rivals = {name: values for name, values in systems.items() if name not in NO_RIVALS}
    p = max(p_greater(rival["reached"], joint["reached"]) for rival in rivals.values())
    least = min(p_greater(joint["reached"], rival["reached"]) for rival in rivals.values())
    p_reverse = min(1.0, len(rivals) * least)
    times = {name: r["passes"] for name, r in rivals.items() if r["passes"] is not None}
    fastest = min(times, key=times.get) if times else None
    words = "no other" if fastest is None else f"{fastest} {times[fastest]:.0f}"
    text = f"{number_or_never(joint['passes'])}, {words}; {p_text(p, p_reverse)}"
    return Answer(text, p, p_reverse)


# --- Claims on separate and alternating training --------------------------------------------------


@measured("spread of the quality, against joint", "joint", "separate", SINGLE)
def separate_is_manageable(result: Result, problem: str) -> Answer:
    """Yes if the quality has a smaller deviation than that of joint training."""
    qualities = [values_of(result, problem, system, "quality") for system in ("separate", "joint")]
    p = p_less_spread(*qualities)
    p_reverse = p_less_spread(*qualities[::-1])
    sds = [summary_of(result, problem, s)["quality"]["sd"] for s in ("separate", "joint")]
    return Answer(f"SD {sds[0]:.1f} against {sds[1]:.1f}; {p_text(p, p_reverse)}", p, p_reverse)


def gains_more(a: str, b: str, words: str, turned: bool = False) -> Measurement:
    """Joint training gains more from the ends of a than of b (turned: b is named first)."""

    @measured(f"{AFTER}, against {words}", a, b)
    def decide(result, problem):
        gains_a, gains_b = (summary_of(result, problem, system)["gains"] for system in (a, b))
        p = p_greater(gains_a, gains_b)
        p_reverse = p_greater(gains_b, gains_a)
        pair = (gains_b, gains_a) if turned else (gains_a, gains_b)
        first, second = (f"{np.median(gains):.3f}" for gains in pair)
        return Answer(f"{first} against {second}; {p_text(p, p_reverse)}", p, p_reverse)

    return decide


def slower(a: str, b: str) -> Measurement:
    """Training by a takes more passes to the level than by b."""

    @measured(f"{PASSES}, against {b}", a, b, SINGLE)
    def decide(result, problem):
        late, early = (summary_of(result, problem, system) for system in (a, b))
        p = p_greater(late["reached"], early["reached"])
        p_reverse = p_greater(early["reached"], late["reached"])
        passes = [number_or_never(summary["passes"]) for summary in (late, early)]
        return Answer(f"{' against '.join(passes)}; {p_text(p, p_reverse)}", p, p_reverse)

    return decide


# --- Claims on evolution --------------------------------------------------------------------------


@measured(f"{PASSES}, joint against ES, CMA-ES", "joint", *EVOLUTIONARY, SINGLE)
def gradients_are_efficient(result: Result, problem: str) -> Answer:
    """Yes if both evolutionary methods take more passes than joint training."""
    joint, *rivals = (summary_of(result, problem, s) for s in ("joint", *EVOLUTIONARY))
    p, p_reverse = against_all(joint["reached"], [rival["reached"] for rival in rivals])
    passes = ", ".join(number_or_never(rival["passes"]) for rival in rivals)
    text = f"{number_or_never(joint['passes'])} against {passes}; {p_text(p, p_reverse)}"
    return Answer(text, p, p_reverse)


def ends_below_level(system: str, words: str) -> Measurement:
    """Fewer runs of a system end above the level than of joint training.

    An unfinished run is not caught in an optimum. So for the claim it counts as missing the level,
    and against the claim, where the reverse is tested, it does not count.
    """

    @measured(words, system, "joint", SINGLE)
    def decide(result, problem):
        n = len(result["seeds"])
        evolved, joint = (summary_of(result, problem, name) for name in (system, "joint"))
        missed = above_level(evolved)
        missed_joint = above_level(joint)
        p = p_more_often(missed_joint, missed, n)
        p_reverse = p_more_often(evolved["stuck"], missed_joint, n)
        counts = f"{missed} of {n} ({evolved['unfinished']} unfinished) against {missed_joint}"
        return Answer(f"{counts}; {p_text(p, p_reverse)}", p, p_reverse)

    return decide


@measured("median seconds to the level, ES, CMA-ES against joint", "joint", *EVOLUTIONARY, SINGLE)
def evolution_is_slow(result: Result, problem: str) -> Answer:
    """Yes if both evolutionary methods take more seconds to the level; never counts as infinite.

    A method's seconds per pass are known up to a range. For the claim those of joint training are
    the greatest and the rivals' the least, and against the claim the other way round.
    """
    ranges = result["seconds_range"][problem]
    summaries = {s: summary_of(result, problem, s) for s in ("joint", *EVOLUTIONARY)}
    least, greatest = (
        {
            system: [None if passes is None else passes * ranges[system][end] for passes in reached]
            for system, reached in ((name, s["reached"]) for name, s in summaries.items())
        }
        for end in (0, 1)
    )
    p, _ = against_all(greatest["joint"], [least[system] for system in EVOLUTIONARY])
    _, p_reverse = against_all(least["joint"], [greatest[system] for system in EVOLUTIONARY])
    medians = {system: number_or_never(s["seconds"], 2) for system, s in summaries.items()}
    text = f"{', '.join(medians[system] for system in EVOLUTIONARY)} against {medians['joint']}"
    return Answer(f"{text}; {p_text(p, p_reverse)}", p, p_reverse)


# --- All claims -----------------------------------------------------------------------------------


TRUE = "separate, true regions"
CLAIMS = (  # (a key of PAPER, the claim, what is measured)
    ("joint", "efficient", joint_is_efficient),
    ("separate", "easy to manage", separate_is_manageable),
    ("separate", "experts incompatible", gains_more(TRUE, "joint", "joint, with the right cuts")),
    ("alternating", "more compatible", gains_more("separate", "alternating", "separate", True)),
    ("alternating", "slower", slower("alternating", "joint")),
    ("gradient", "efficient", gradients_are_efficient),
    ("evolutionary", "avoids local optima", ends_below_level("CMA-ES", EQUAL_PASSES)),
    ("evolutionary", "avoids them, given time", ends_below_level(LONGER, TEN_TIMES)),
    ("evolutionary", "slow", evolution_is_slow),
)
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
        "gradient",
        "stuck in local optima",
        "a run that stands still may go on: some stood still for 2,000 passes and then solved the "
        "problem (lesson 13)",
    ),
    (
        "evolutionary",
        "explores more",
        "a random child varies more than the iterate of a descent by construction",
    ),
    (
        "evolutionary",
        "better than restarts",
        "no article claims it, and one run of 25 would decide it",
    ),
)


def claims(result: Result) -> list[Result]:
    """All claims about the methods that were run.

    [{"about", "claim", "measured", "cells": {problem: text}, "found": {problem: answer},
    "verdict"}].
    """
    decided = {
        (i, problem): measurement.decide(result, problem)
        for i, (_, _, measurement) in enumerate(CLAIMS)
        if set(measurement.systems) <= set(result["lines"])
        for problem in result["systems"]
    }
    adjusted = holm([answer.two_sided() for answer in decided.values()])
    words = {k: decided[k].word(p) for k, p in zip(decided, adjusted, strict=True)}
    out = []
    for i in dict.fromkeys(i for i, _ in decided):
        subject, claim, measurement = CLAIMS[i]
        by_problem = {problem: words[i, problem] for problem in result["systems"]}
        cells = {problem: decided[i, problem].text for problem in result["systems"]}
        columns = {"about": subject, "claim": claim, "measured": measurement.words}
        verdict_of_all = verdict(list(by_problem.values()))
        out.append({**columns, "cells": cells, "found": by_problem, "verdict": verdict_of_all})
    return out


def verdict(answers: Sequence[str]) -> str:
    """The verdict on a claim from the answers on the problems, one of `decisions.VERDICTS`."""
    if "yes" in answers:
        return HOLDS if set(answers) == {"yes"} else CONDITION
    return NOT_SUPPORTED if set(answers) == {"reverse"} else CANNOT_BE_TOLD
