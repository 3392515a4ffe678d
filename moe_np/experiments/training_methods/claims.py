"""What popular articles say of the ways to train a mixture, each sentence against a number of the
very run.

Every verdict is computed. On one problem a claim about two methods is
    yes         where the difference goes its way and a one-sided test gives p < .05 (Mann-Whitney for numbers,
                Fisher's exact test for counts)
    reverse     where it goes the other way as clearly
    no          where neither is seen
and as a whole it holds if it is yes on all problems, partly on some; mixed if on others the reverse is seen; without
a yes it is reversed or not seen.

    level       a loss a tenth of the way from the best that any run reached to the mean of one expert alone
    stuck       a run that ends above the level and gained less than a hundredth of that way in its last fifth
    unfinished  above the level, and still gaining
    failed      test quality not even half-way from one expert alone to the best method's median
"""

import math

import numpy as np

P = 0.05
SHARE = 0.1  # of the runs: "gets stuck" holds from here on
LEVEL, GAIN, LAST, HALF = 0.1, 0.01, 0.8, 0.5
EVOLUTIONARY = ("evolution strategy", "CMA-ES")
LONGER = "CMA-ES, 10 times"
NO_RIVALS = ("joint", "one expert", "separate, true regions", LONGER)


# --- one problem ----------------------------------------------------------------------------------


def summarise(result, problem):
    """{"level", "failure", "best", "systems": {system: {...}}} of one problem."""
    systems, checkpoints = result["systems"][problem], result["checkpoints"]
    finals = {system: np.array([run["loss"] for run in runs]) for system, runs in systems.items()}
    quality = {
        system: np.array([run["quality"] for run in runs]) for system, runs in systems.items()
    }
    alone, best = float(finals["one expert"].mean()), float(min(f.min() for f in finals.values()))
    level = best + LEVEL * (alone - best)
    median = max(float(np.median(q)) for q in quality.values())
    failure = median - HALF * (median - float(quality["one expert"].mean()))
    out = {}
    for system, runs in systems.items():
        losses = np.array([run["losses"] for run in runs])
        points = np.asarray(checkpoints[system])
        late = losses[:, np.searchsorted(points, LAST * points[-1])] - finals[system]
        above = finals[system] > level
        moving = late > GAIN * (alone - best)
        reached = [
            next((float(p) for p, loss in zip(points, own, strict=True) if loss <= level), None)
            for own in losses
        ]
        out[system] = {
            "stuck": int((above & ~moving).sum()),
            "unfinished": int((above & moving).sum()),
            "failed": int((quality[system] < failure).sum()),
            "reached": reached,
            "passes": middle(reached),
            "seconds": None
            if middle(reached) is None
            else middle(reached) * result["seconds"][problem][system],
            "whole": float(np.mean([run["passes"] for run in runs]))
            * result["seconds"][problem][system],
        }
        for key in ("loss", "quality", "quality_hard", "specialisation", "idle", "variety"):
            values = np.array([run[key] for run in runs], float)
            sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
            out[system][key] = {"mean": float(values.mean()), "sd": sd}
        if "tuned_loss" in runs[0]:
            gains = [run["loss"] - run["tuned_loss"] for run in runs]
            out[system]["gains"] = gains
            better = np.mean([run["tuned_quality"] - run["quality"] for run in runs])
            out[system]["tuned"] = {"loss": float(np.median(gains)), "quality": float(better)}
    return {"level": level, "failure": failure, "best": best, "alone": alone, "systems": out}


def middle(reached):
    """The median over runs, of which those that never got there count as infinite: a number, or
    None for that.
    """
    values = sorted(math.inf if r is None else r for r in reached)
    found = values[(len(values) - 1) // 2]
    return None if math.isinf(found) else found


# --- tests ----------------------------------------------------------------------------------------


def greater(a, b):
    """One-sided p of Mann-Whitney that a tends to be greater than b; None is infinite. 1 where all
    values are equal.
    """
    from scipy import stats

    a, b = (np.array([1e300 if v is None else v for v in values], float) for values in (a, b))
    if len({*a, *b}) < 2:
        return 1.0
    return float(stats.mannwhitneyu(a, b, alternative="greater").pvalue)


def more_often(a, b, n):
    """One-sided p of Fisher's test that a of n is a larger share than b of n."""
    from scipy import stats

    return float(stats.fisher_exact([[a, n - a], [b, n - b]], alternative="greater").pvalue)


def state(p, p_reverse):
    return "yes" if p < P else "reverse" if p_reverse < P else "no"


def best_of(above, n, k):
    """The chance that k different runs of n, of which `above` did not get below the level, hold
    none that did.
    """
    return math.comb(above, k) / math.comb(n, k)


# --- the claims: (result, problem) -> (what was measured, "yes" | "no" | "reverse") ---------------


def claims(result):
    """[{"about", "claim", "measured", "cells": {problem: text}, "found": {problem: state},
    "verdict"}].

    Claims about the programs and not about runs say the same for all problems.
    """
    out = []
    for about, claim, measured, ask in CLAIMS:
        answers = {problem: ask(result, problem) for problem in result["systems"]}
        cells = {problem: text for problem, (text, _) in answers.items()}
        found = {problem: state for problem, (_, state) in answers.items()}
        one = {"about": about, "claim": claim, "measured": measured, "cells": cells, "found": found}
        out.append({**one, "verdict": verdict(list(found.values()))})
    return out


def verdict(states):
    if "yes" in states:
        return "holds" if set(states) == {"yes"} else "mixed" if "reverse" in states else "partly"
    return "reversed" if "reverse" in states else "not seen"


def own(result, problem, system):
    return result["summary"][problem]["systems"][system]


def column(result, problem, system, key):
    return [run[key] for run in result["systems"][problem][system]]


def above(one):
    return one["stuck"] + one["unfinished"]


def simple(result, problem):
    lines = result["lines"]
    others = min(
        n for system, n in result["lines"].items() if system not in ("joint", "one expert")
    )
    return f"{lines['joint']}, the next {others}", "yes" if lines["joint"] < others else "no"


def efficient(result, problem):
    """Yes if most joint runs get to the level and no other method is clearly faster."""
    mine = own(result, problem, "joint")
    others = {
        s: one for s, one in result["summary"][problem]["systems"].items() if s not in NO_RIVALS
    }
    times = {s: one["passes"] for s, one in others.items() if one["passes"] is not None}
    if not times:
        return f"{number(mine['passes'])}, no other", "no" if mine["passes"] is None else "yes"
    first = min(times, key=times.get)
    p = greater(mine["reached"], others[first]["reached"])
    text = f"{number(mine['passes'])}, {first} {times[first]:.0f}; {p_text(p)} the other way"
    return text, "reverse" if p < P else "no" if mine["passes"] is None else "yes"


def compared(key, a, b, form="{:.2f}"):
    """A claim that the column `key` of the runs of a is greater than that of b: means, and the
    test.
    """

    def ask(result, problem):
        first, second = (column(result, problem, s, key) for s in (a, b))
        p, back = greater(first, second), greater(second, first)
        text = f"{form.format(np.mean(first))} against {form.format(np.mean(second))}"
        return f"{text}; {p_text(p, back)}", state(p, back)

    return ask


def manageable(result, problem):
    a, b = (own(result, problem, s) for s in ("separate", "joint"))
    spread = [one["quality"]["sd"] for one in (a, b)]
    text = f"SD {spread[0]:.1f} against {spread[1]:.1f}, failed {a['failed']} against {b['failed']}"
    better, worse = (x < y for x, y in (spread, spread[::-1]))
    if better and a["failed"] <= b["failed"]:
        return text, "yes"
    return text, "reverse" if worse and a["failed"] >= b["failed"] else "no"


def gains(more, less, turned=False):
    """A claim that joint training gains more from the ends of `more` than of `less` (turned: `less`
    is named first).
    """

    def ask(result, problem):
        a, b = (own(result, problem, s)["gains"] for s in (more, less))
        p, back = greater(a, b), greater(b, a)
        medians = [f"{np.median(v):.3f}" for v in ((b, a) if turned else (a, b))]
        return f"{medians[0]} against {medians[1]}; {p_text(p, back)}", state(p, back)

    return ask


def slower(late, early):
    def ask(result, problem):
        a, b = (own(result, problem, s) for s in (late, early))
        p, back = (greater(x["reached"], y["reached"]) for x, y in ((a, b), (b, a)))
        return f"{number(a['passes'])} against {number(b['passes'])}; {p_text(p, back)}", state(
            p, back
        )

    return ask


def gradient_efficient(result, problem):
    """Yes if both evolutionary methods take more passes; p is the larger of the two."""
    mine, *others = (own(result, problem, s) for s in ("joint", *EVOLUTIONARY))
    p = max(greater(one["reached"], mine["reached"]) for one in others)
    back = max(greater(mine["reached"], one["reached"]) for one in others)
    passes = ", ".join(number(one["passes"]) for one in others)
    return f"{number(mine['passes'])} against {passes}; {p_text(p, back)}", state(p, back)


def gets_stuck(result, problem):
    one, n = own(result, problem, "joint"), len(result["seeds"])
    text = f"{one['stuck']} of {n} stuck, {one['unfinished']} unfinished"
    return text, "yes" if one["stuck"] >= SHARE * n else "no"


def explores(result, problem):
    """Yes if both evolutionary methods vary more; p is the larger of the two."""
    mine = column(result, problem, "joint", "variety")
    others = [column(result, problem, s, "variety") for s in EVOLUTIONARY]
    p, back = max(greater(o, mine) for o in others), max(greater(mine, o) for o in others)
    means = ", ".join(f"{np.mean(o):.0f}" for o in others)
    return f"{means} % against {np.mean(mine):.0f} %; {p_text(p, back)}", state(p, back)


def avoids(system):
    def ask(result, problem):
        n = len(result["seeds"])
        a, b = (above(own(result, problem, s)) for s in (system, "joint"))
        p, back = more_often(b, a, n), more_often(a, b, n)
        return f"{a} of {n} against {b}; {p_text(p, back)}", state(p, back)

    return ask


def beats_restarts(result, problem):
    """Ten times the budget for one evolution, or for ten joint runs of which the best is kept."""
    n = len(result["seeds"])
    chance = best_of(above(own(result, problem, "joint")), n, min(10, n))
    share = above(own(result, problem, LONGER)) / n
    found = "yes" if share < chance else "reverse" if share > chance else "no"
    return f"{percent(share)} against {percent(chance)}", found


def complicated(result, problem):
    lines = result["lines"]
    text = ", ".join(str(lines[s]) for s in EVOLUTIONARY) + f" against {lines['joint']}"
    return text, "yes" if min(lines[s] for s in EVOLUTIONARY) > lines["joint"] else "no"


def slow(result, problem):
    """Seconds to the level, a run that never gets there counting as infinite; p is the larger of
    the two.
    """
    seconds = result["seconds"][problem]
    times = {
        s: [None if r is None else r * seconds[s] for r in own(result, problem, s)["reached"]]
        for s in ("joint", *EVOLUTIONARY)
    }
    mine, others = times["joint"], [times[s] for s in EVOLUTIONARY]
    p, back = max(greater(o, mine) for o in others), max(greater(mine, o) for o in others)
    found = ", ".join(number(own(result, problem, s)["seconds"], 2) for s in EVOLUTIONARY)
    return (
        f"{found} against {number(own(result, problem, 'joint')['seconds'], 2)}; {p_text(p, back)}",
        state(p, back),
    )


def number(value, digits=0):
    return "never" if value is None else f"{value:.{digits}f}"


def p_text(p, back=1.0):
    """p for the claim, or where the reverse is seen p for that."""
    other = back < P <= p
    p = back if other else p
    return (f"p = {p:.2g}" if p >= 1e-4 else f"p = {p:.0e}") + (" the other way" if other else "")


def percent(share):
    return f"{100 * share:.0f} %" if share in (0, 1) or share >= 0.01 else f"{100 * share:.1g} %"


AFTER = "nats that joint training still gains from there"
CLAIMS = (
    ("joint", "simple", "lines of code", simple),
    (
        "joint",
        "efficient",
        "median passes to the level, and of the fastest other method",
        efficient,
    ),
    (
        "joint",
        "experts may compete",
        "idle experts, against separate",
        compared("idle", "joint", "separate"),
    ),
    ("separate", "easy to manage", "spread of the quality and failures, against joint", manageable),
    (
        "separate",
        "experts incompatible",
        f"{AFTER}, against joint going on",
        gains("separate", "joint"),
    ),
    (
        "alternating",
        "more compatible",
        f"{AFTER}, against separate",
        gains("separate", "alternating", True),
    ),
    (
        "alternating",
        "slower",
        "median passes to the level, against joint",
        slower("alternating", "joint"),
    ),
    (
        "gradient",
        "efficient",
        "median passes to the level, joint against ES, CMA-ES",
        gradient_efficient,
    ),
    ("gradient", "stuck in local optima", "joint runs that end above the level", gets_stuck),
    (
        "evolutionary",
        "explores more",
        "variety of the routings looked at, ES, CMA-ES against joint",
        explores,
    ),
    (
        "evolutionary",
        "avoids local optima",
        "CMA-ES runs above the level, against joint, equal passes",
        avoids("CMA-ES"),
    ),
    (
        "evolutionary",
        "avoids them, given time",
        "the same with ten times the passes of joint",
        avoids(LONGER),
    ),
    (
        "evolutionary",
        "better than restarts",
        "runs above the level: long CMA-ES, best of ten joint",
        beats_restarts,
    ),
    ("evolutionary", "complex", "lines of code, ES, CMA-ES against joint", complicated),
    ("evolutionary", "slow", "median seconds to the level, ES, CMA-ES against joint", slow),
)
