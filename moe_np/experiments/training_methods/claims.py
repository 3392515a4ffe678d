"""What popular articles say of the ways to train a mixture, each claim with a number of the run.

Every verdict is computed. On one problem a claim about two methods is

    yes         where the difference goes its way and a one-sided test gives p < .05 (Mann-Whitney
                for numbers, Fisher's exact test for counts)
    reverse     where it goes the other way as clearly
    no          where neither is seen

and as a whole it holds if it is yes on all problems, partly if on some; it is mixed if on others
the reverse is seen; without a yes it is reversed or not seen. `summary.py` says what level, stuck,
unfinished and failed mean.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import decimal, p_value
from moe_np.experiments.training_methods.runs import LONGER, SINGLE, SYSTEMS
from moe_np.experiments.training_methods.summary import above_level

ALPHA = 0.05  # of the tests
SHARE = 0.1  # of the runs: "gets stuck" holds from here on
EVOLUTIONARY = ("evolution strategy", "CMA-ES")
NO_RIVALS = ("joint", SINGLE, "separate, true regions", LONGER)
RESTARTS = 10  # joint runs with the budget of the long evolution

AFTER = "nats that joint training still gains from there"
PASSES = "median passes to the level"
EQUAL_PASSES = "CMA-ES runs above the level, against joint, equal passes"
TEN_TIMES = "the same with ten times the passes of joint"

Answer = tuple[str, str]  # the numbers as text, and "yes", "no" or "reverse"
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


def answer(p: float, p_reverse: float) -> str:
    """ "yes", "reverse" or "no", from the p of the claim and that of the reverse."""
    return "yes" if p < ALPHA else "reverse" if p_reverse < ALPHA else "no"


def chance_all_above(count: int, n: int, k: int) -> float:
    """The chance that k different runs of n, of which `count` end above the level, all do."""
    return math.comb(count, k) / math.comb(n, k)


# --- Words ----------------------------------------------------------------------------------------


def number_or_never(value: float | None, digits: int = 0) -> str:
    """A median of passes or seconds; "never" for None."""
    return decimal(value, digits, missing="never")


def p_text(p: float, p_reverse: float = 1.0) -> str:
    """p of the claim, or where the reverse is seen p of that."""
    is_reverse = p_reverse < ALPHA <= p
    text = p_value(p_reverse if is_reverse else p, name="p", coarse_below=1e-4)
    return f"{text} the other way" if is_reverse else text


def percent(share: float) -> str:
    """A share in percent, with one significant digit where it is below 1 %."""
    return f"{100 * share:.0f} %" if share in (0, 1) or share >= 0.01 else f"{100 * share:.1g} %"


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


@measured("lines of code", *SYSTEMS)
def joint_is_simple(result: Result, problem: str) -> Answer:
    """Yes if no other method has as few lines of code."""
    lines = result["lines"]
    shortest = min(n for system, n in lines.items() if system not in ("joint", SINGLE))
    text = f"{lines['joint']}, the next {shortest}"
    return text, "yes" if lines["joint"] < shortest else "no"


@measured(f"{PASSES}, and of the fastest other method", *SYSTEMS)
def joint_is_efficient(result: Result, problem: str) -> Answer:
    """Yes if most joint runs get to the level and no other method is clearly faster."""
    joint = summary_of(result, problem, "joint")
    systems = result["summary"][problem]["systems"]
    times = {
        system: summary["passes"]
        for system, summary in systems.items()
        if system not in NO_RIVALS and summary["passes"] is not None
    }
    never = joint["passes"] is None
    if not times:
        return f"{number_or_never(joint['passes'])}, no other", "no" if never else "yes"
    fastest = min(times, key=times.get)
    p = p_greater(joint["reached"], systems[fastest]["reached"])
    passes = f"{number_or_never(joint['passes'])}, {fastest} {times[fastest]:.0f}"
    return f"{passes}; {p_text(p)} the other way", (
        "reverse" if p < ALPHA else "no" if never else "yes"
    )


@measured("joint runs that end above the level", "joint", SINGLE)
def joint_gets_stuck(result: Result, problem: str) -> Answer:
    """Yes if a tenth of the joint runs or more end above the level without gaining."""
    joint = summary_of(result, problem, "joint")
    n = len(result["seeds"])
    text = f"{joint['stuck']} of {n} stuck, {joint['unfinished']} unfinished"
    return text, "yes" if joint["stuck"] >= SHARE * n else "no"


def more_idle(a: str, b: str) -> Measurement:
    """More experts are idle after training by a than by b."""

    @measured(f"idle experts, against {b}", a, b)
    def decide(result, problem):
        first, second = (values_of(result, problem, system, "idle") for system in (a, b))
        p = p_greater(first, second)
        p_reverse = p_greater(second, first)
        means = f"{np.mean(first):.2f} against {np.mean(second):.2f}"
        return f"{means}; {p_text(p, p_reverse)}", answer(p, p_reverse)

    return decide


# --- Claims on separate and alternating training --------------------------------------------------


@measured("spread of the quality and failures, against joint", "joint", "separate", SINGLE)
def separate_is_manageable(result: Result, problem: str) -> Answer:
    """Yes if the quality has a smaller deviation than that of joint training, and no more runs
    fail; reverse if both go the other way.
    """
    separate, joint = (summary_of(result, problem, system) for system in ("separate", "joint"))
    sd = separate["quality"]["sd"]
    sd_joint = joint["quality"]["sd"]
    failed = separate["failed"]
    failed_joint = joint["failed"]
    text = f"SD {sd:.1f} against {sd_joint:.1f}, failed {failed} against {failed_joint}"
    if sd < sd_joint and failed <= failed_joint:
        return text, "yes"
    return text, "reverse" if sd > sd_joint and failed >= failed_joint else "no"


def gains_more(a: str, b: str, words: str, turned: bool = False) -> Measurement:
    """Joint training gains more from the ends of a than of b (turned: b is named first)."""

    @measured(f"{AFTER}, against {words}", a, b)
    def decide(result, problem):
        gains_a, gains_b = (summary_of(result, problem, system)["gains"] for system in (a, b))
        p = p_greater(gains_a, gains_b)
        p_reverse = p_greater(gains_b, gains_a)
        pair = (gains_b, gains_a) if turned else (gains_a, gains_b)
        first, second = (f"{np.median(gains):.3f}" for gains in pair)
        return f"{first} against {second}; {p_text(p, p_reverse)}", answer(p, p_reverse)

    return decide


def slower(a: str, b: str) -> Measurement:
    """Training by a takes more passes to the level than by b."""

    @measured(f"{PASSES}, against {b}", a, b, SINGLE)
    def decide(result, problem):
        late, early = (summary_of(result, problem, system) for system in (a, b))
        p = p_greater(late["reached"], early["reached"])
        p_reverse = p_greater(early["reached"], late["reached"])
        passes = [number_or_never(summary["passes"]) for summary in (late, early)]
        return f"{' against '.join(passes)}; {p_text(p, p_reverse)}", answer(p, p_reverse)

    return decide


# --- Claims on evolution --------------------------------------------------------------------------


@measured(f"{PASSES}, joint against ES, CMA-ES", "joint", *EVOLUTIONARY, SINGLE)
def gradients_are_efficient(result: Result, problem: str) -> Answer:
    """Yes if both evolutionary methods take more passes than joint training."""
    joint, *rivals = (summary_of(result, problem, s) for s in ("joint", *EVOLUTIONARY))
    p, p_reverse = against_all(joint["reached"], [rival["reached"] for rival in rivals])
    passes = ", ".join(number_or_never(rival["passes"]) for rival in rivals)
    text = f"{number_or_never(joint['passes'])} against {passes}; {p_text(p, p_reverse)}"
    return text, answer(p, p_reverse)


@measured("variety of the routings looked at, ES, CMA-ES against joint", "joint", *EVOLUTIONARY)
def evolution_explores(result: Result, problem: str) -> Answer:
    """Yes if the routings of both evolutionary methods vary more than those of joint training."""
    joint, *rivals = (
        values_of(result, problem, system, "variety") for system in ("joint", *EVOLUTIONARY)
    )
    p, p_reverse = against_all(joint, rivals)
    means = ", ".join(f"{np.mean(rival):.0f}" for rival in rivals)
    text = f"{means} % against {np.mean(joint):.0f} %; {p_text(p, p_reverse)}"
    return text, answer(p, p_reverse)


def ends_below_level(system: str, words: str) -> Measurement:
    """Fewer runs of a system end above the level than of joint training."""

    @measured(words, system, "joint", SINGLE)
    def decide(result, problem):
        n = len(result["seeds"])
        a, b = (above_level(summary_of(result, problem, name)) for name in (system, "joint"))
        p = p_more_often(b, a, n)
        p_reverse = p_more_often(a, b, n)
        return f"{a} of {n} against {b}; {p_text(p, p_reverse)}", answer(p, p_reverse)

    return decide


@measured("runs above the level: long CMA-ES, best of ten joint", "joint", LONGER, SINGLE)
def evolution_beats_restarts(result: Result, problem: str) -> Answer:
    """Ten times the budget for one evolution, or for ten joint runs of which the best is kept."""
    n = len(result["seeds"])
    misses = above_level(summary_of(result, problem, "joint"))
    chance = chance_all_above(misses, n, min(RESTARTS, n))
    share = above_level(summary_of(result, problem, LONGER)) / n
    verdict = "yes" if share < chance else "reverse" if share > chance else "no"
    return f"{percent(share)} against {percent(chance)}", verdict


@measured("lines of code, ES, CMA-ES against joint", "joint", *EVOLUTIONARY)
def evolution_is_complex(result: Result, problem: str) -> Answer:
    """Yes if both evolutionary methods have more lines of code than joint training."""
    lines = result["lines"]
    counts = [lines[system] for system in EVOLUTIONARY]
    text = f"{', '.join(map(str, counts))} against {lines['joint']}"
    return text, "yes" if min(counts) > lines["joint"] else "no"


@measured("median seconds to the level, ES, CMA-ES against joint", "joint", *EVOLUTIONARY, SINGLE)
def evolution_is_slow(result: Result, problem: str) -> Answer:
    """Yes if both evolutionary methods take more seconds to the level; never counts as infinite."""
    seconds = result["seconds"][problem]
    summaries = {s: summary_of(result, problem, s) for s in ("joint", *EVOLUTIONARY)}
    times = {
        system: [None if passes is None else passes * seconds[system] for passes in s["reached"]]
        for system, s in summaries.items()
    }
    p, p_reverse = against_all(times["joint"], [times[system] for system in EVOLUTIONARY])
    medians = {system: number_or_never(s["seconds"], 2) for system, s in summaries.items()}
    text = f"{', '.join(medians[system] for system in EVOLUTIONARY)} against {medians['joint']}"
    return f"{text}; {p_text(p, p_reverse)}", answer(p, p_reverse)


# --- All claims -----------------------------------------------------------------------------------


CLAIMS = (  # (a key of PAPER, the claim, what is measured)
    ("joint", "simple", joint_is_simple),
    ("joint", "efficient", joint_is_efficient),
    ("joint", "experts may compete", more_idle("joint", "separate")),
    ("separate", "easy to manage", separate_is_manageable),
    ("separate", "experts incompatible", gains_more("separate", "joint", "joint going on")),
    ("alternating", "more compatible", gains_more("separate", "alternating", "separate", True)),
    ("alternating", "slower", slower("alternating", "joint")),
    ("gradient", "efficient", gradients_are_efficient),
    ("gradient", "stuck in local optima", joint_gets_stuck),
    ("evolutionary", "explores more", evolution_explores),
    ("evolutionary", "avoids local optima", ends_below_level("CMA-ES", EQUAL_PASSES)),
    ("evolutionary", "avoids them, given time", ends_below_level(LONGER, TEN_TIMES)),
    ("evolutionary", "better than restarts", evolution_beats_restarts),
    ("evolutionary", "complex", evolution_is_complex),
    ("evolutionary", "slow", evolution_is_slow),
)


def claims(result: Result) -> list[Result]:
    """All claims about the methods that were run.

    [{"about", "claim", "measured", "cells": {problem: text}, "found": {problem: answer},
    "verdict"}]. A claim about programs and not about runs has the same answer on all problems.
    """
    out = []
    for subject, claim, measurement in CLAIMS:
        if not set(measurement.systems) <= set(result["lines"]):
            continue
        decided = {problem: measurement.decide(result, problem) for problem in result["systems"]}
        answers = {problem: word for problem, (_, word) in decided.items()}
        words = {"about": subject, "claim": claim, "measured": measurement.words}
        cells = {problem: text for problem, (text, _) in decided.items()}
        answer_of_all = verdict(list(answers.values()))
        out.append({**words, "cells": cells, "found": answers, "verdict": answer_of_all})
    return out


def verdict(answers: Sequence[str]) -> str:
    """The verdict on a claim from the answers on the problems."""
    if "yes" in answers:
        return "holds" if set(answers) == {"yes"} else "mixed" if "reverse" in answers else "partly"
    return "reversed" if "reverse" in answers else "not seen"
