"""Is it random who specialises in what?

The runs are those of `allocation.py`: eight experts on the vowels, dense, and on the clusters of
patches, sparse.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np

from moe_np.base.types import ArrayN
from moe_np.experiments.common.controlled_claims import (
    BESIDE,
    MUST_FAIL,
    MUST_HOLD,
    of_role,
    verdict_with_controls,
    with_role,
    with_roles,
    words_of_controls,
)
from moe_np.experiments.common.decisions import Decision, in_words, sensitivity_in_words
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.power import POWER
from moe_np.experiments.common.reports import interval, join
from moe_np.experiments.common.statistics import Interval, wilson_interval
from moe_np.experiments.common.verdicts import HOLDS, bonferroni_level, verdict
from moe_np.experiments.why_it_works.allocation import (
    E,
    start_of_vowels,
    taken_patches,
    taken_vowels,
    train_patches,
    train_vowels,
)
from moe_np.experiments.why_it_works.questions import (
    FIRST_SEED,
    Config,
    Question,
    criterion_of_table,
    grouped,
)
from moe_np.layers import diagnostics

BLOCK = 25  # runs per spec, where runs are many and short

CLUSTERS = ("cluster 1", "cluster 2", "cluster 3", "cluster 4")
BIASED = "patches, a gate with a bias"
FAIR = "a fair draw"
REGIONS = {"vowels": ("[i] [ɪ]", "[ɑ] [ʌ]"), "patches": CLUSTERS} | dict.fromkeys(
    (BIASED, FAIR), CLUSTERS
)
ROLES = {BIASED: MUST_FAIL, FAIR: MUST_HOLD}  # of the controls
BIAS = 10.0  # the mean logit of the first expert at the beginning, against noise between 0 and 1
BIASED_BLOCKS = 8


def random_specs(config: Config, quick: bool) -> list[Spec]:
    """Tasks × blocks of runs, fewer of them with a bias."""
    blocks = 1 if quick else config.blocks
    runs = 4 if quick else BLOCK
    sizes = {"n": 500, "epochs": 40} if quick else {"n": 2000, "epochs": 120}
    return [
        {"task": task, "first": FIRST_SEED + runs * block, "runs": runs, **sizes}
        for task in REGIONS
        for block in range(min(blocks, BIASED_BLOCKS) if task == BIASED else blocks)
    ]


def random_run(spec: Spec) -> Result:
    """{"taken": [the expert that took each region] of every run of the block}."""
    taken = []
    if spec["task"] == FAIR:
        rng = np.random.default_rng(spec["first"])
        return {"taken": rng.integers(E, size=(spec["runs"], len(CLUSTERS))).tolist()}
    for seed in range(spec["first"], spec["first"] + spec["runs"]):
        if spec["task"] == "vowels":
            data, run = train_vowels(start_of_vowels(seed))
            taken.append(taken_vowels(data, run.params))
        else:
            bias = BIAS if spec["task"] == BIASED else 0.0
            options = {"n": spec["n"], "epochs": spec["epochs"], "bias": bias}
            taken.append(taken_patches(train_patches(seed, 0, seed, **options), spec["n"]))
    return {"taken": taken}


def information(expert: ArrayN, label: ArrayN) -> float:
    """I(expert; label) in bits.

    It is without the permuted baseline of `diagnostics.mutual_information`, here below .03.
    """
    p = diagnostics.table(expert, label) / len(label)
    independent = p.sum(axis=1, keepdims=True) * p.sum(axis=0)
    return float((p[p > 0] * np.log2(p[p > 0] / independent[p > 0])).sum())


def random_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per task: how often each expert took each region, with χ² against evenness.

    "ways" is the number of allocations; "bits" what the expert of one region tells about that of
    another, the largest of all pairs; "shared" the runs in which regions have an expert in common.
    """
    from scipy import stats

    cells = []
    for (task,), blocks in grouped(specs, results, "task").items():
        taken = np.array([allocation for block in blocks for allocation in block["taken"]])
        counts = np.array([np.bincount(column, minlength=E) for column in taken.T])
        cell = {"task": task, "n": len(taken), "counts": counts.tolist()}
        cell["chi2"] = [float(stats.chisquare(row).statistic) for row in counts]
        cell["ways"] = len({tuple(row) for row in taken.tolist()})
        cell["shared"] = sum(len(set(row)) < len(row) for row in taken.tolist())
        pairs = itertools.combinations(taken.T, 2)
        cell["bits"] = max(information(first, second) for first, second in pairs)
        cells.append(cell)
    return cells


FACTOR = 1.5  # more often, or less often, than by chance
OTHER_FACTORS = (1.25, 2)
TWICE = 2 / E  # of the runs: twice as many as by chance
RANDOM_CRITERION = criterion_of_table(
    "log of how much more or less often than by chance regions have an expert in common, less "
    f"log {FACTOR:g}",
    0,
    "less",
)
EVEN_CRITERION = criterion_of_table(
    "largest share of the runs in which one expert takes one region, less twice that by chance",
    0,
    "less",
)
RANDOM_REASON = (
    "Experts start alike, so that one takes a region as often as another is certain before the "
    "first run: that no expert takes a region twice as often as by chance is a check of the "
    "program, and stands beside the claim. Not certain is whether each region draws its expert "
    "alone, whatever the other regions have. If so, some have an expert in common as often as by "
    f"chance, here at most {FACTOR:g} times more or less often. In draws with equal chances the "
    "claim must hold. A gate that begins with a bias towards the first expert has to give it more "
    "than its part, so there it must fail. Earlier forms decided by the evenness alone; one had "
    "routing without noise as a control, which was none: its allocation varies as well. The seeds "
    "are new."
)


def random_decisions(summary: list[Result], factor: float = FACTOR) -> list[Decision]:
    """One per task, that of a control with its role; then the evenness of the cases."""
    decisions = with_roles(ROLES, [_alone_decision(cell, factor) for cell in summary])
    free = [cell for cell in summary if cell["task"] not in ROLES]
    return [*decisions, *(with_role(BESIDE, _even_decision(cell)) for cell in free)]


def in_common(n_regions: int) -> float:
    """1 − Π_r (1 − r / E), r = 0 ... n − 1: the chance that two regions or more have an expert in
    common, where each of n draws one of the E alone.
    """
    return float(1 - np.prod(1 - np.arange(n_regions) / E))


def _alone_decision(cell, factor):
    """By Wilson's interval of the share of the runs in which regions have an expert in common."""
    by_chance = in_common(len(cell["counts"]))
    share = wilson_interval(cell["shared"], cell["n"], level=RANDOM_CRITERION.level)
    low, middle, high = (
        math.log(max(v, 0.5 / cell["n"]) / by_chance)  # no run at all counts as half of one
        for v in (share.low, share.estimate, share.high)
    )
    least = 0 if low < 0 < high else min(abs(low), abs(high))
    bounds = (v - math.log(factor) for v in (abs(middle), least, max(abs(low), abs(high))))
    detectable = _detectable_in_common(cell["n"], by_chance, factor)
    return _decision(cell["task"], RANDOM_CRITERION, bounds, cell["n"], detectable)


def _even_decision(cell):
    """By Wilson's interval of the largest share, which holds for all experts and regions."""
    count = max(max(row) for row in cell["counts"])
    level = bonferroni_level(EVEN_CRITERION.level, sum(map(len, cell["counts"])))
    share = wilson_interval(count, cell["n"], level=level)
    bounds = (v - TWICE for v in (share.estimate, share.low, share.high))
    case = f"{cell['task']}, no expert twice as often as by chance"
    return _decision(case, EVEN_CRITERION, bounds, cell["n"], _detectable_share(cell["n"], level))


def _decision(case, rule, bounds, n, detectable):
    """A decision, by (estimate, low, high)."""
    bounds = Interval(*bounds, rule.level)
    decision = {"case": case, "verdict": verdict(rule, bounds), **bounds.record()}
    return {**decision, "n": n, "detectable": detectable}


# a share of which 80 % of all counts lie on the side of the bound that n runs can show
_SIDE = 2 * POWER - 1


@functools.cache
def _detectable_in_common(n, by_chance, factor):
    """The measure from which on n runs show in 80 % of all cases that the claim holds; None where
    they are too few.
    """
    shown = []
    for count in range(n + 1):
        share = wilson_interval(count, n, level=RANDOM_CRITERION.level)
        if by_chance / factor < share.low and share.high < by_chance * factor:
            shown.append(count)
    if not shown:
        return None
    most = wilson_interval(shown[-1], n, level=_SIDE).low / by_chance
    fewest = by_chance / wilson_interval(shown[0], n, level=_SIDE).high
    return math.log(min(most, fewest) / factor) if min(most, fewest) > 1 else None


@functools.cache
def _detectable_share(n, level):
    """The share less twice that by chance, in the same way."""
    counts = range(int(n * TWICE) + 1)
    shown = [c for c in counts if wilson_interval(c, n, level=level).high < TWICE]
    return wilson_interval(shown[-1], n, level=_SIDE).low - TWICE if shown else None


def random_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim holds where regions have an expert in common as often as by chance."""
    decisions = random_decisions(summary)
    free = [cell for cell in summary if cell["task"] not in ROLES]
    ways = join(f"{cell['ways']} in {cell['n']} runs ({cell['task']})" for cell in free)
    bits = join(f"{cell['bits']:.2f} bits ({cell['task']})" for cell in free)
    by_chance = join(f"{(E - 1) ** 2 / (2 * np.log(2) * cell['n']):.2f}" for cell in free)
    even = [d for d in of_role(decisions, BESIDE) if d["verdict"] == HOLDS]
    return verdict_with_controls(decisions), (
        f"{words_of_controls(decisions)}{' '.join(map(_avoidance, free))} That each region draws "
        f"its expert alone: {in_words(of_role(decisions))} No expert takes a region twice as often "
        f"as by chance, as it must be, shown for {len(even)} of {len(free)} tasks. Different "
        f"allocations: {ways}. The expert of one region tells about that of another at most "
        f"{bits}; where regions are independent, chance gives about {by_chance}."
    )


def _avoidance(cell):
    """Whether regions have an expert in common less often than if each drew its expert alone."""
    by_chance = in_common(len(cell["counts"]))
    share = wilson_interval(cell["shared"], cell["n"], level=RANDOM_CRITERION.level)
    words = "whether they avoid one cannot be told"
    if share.high < by_chance:
        words = "so regions avoid an expert that has another one"
    elif share.low > by_chance:
        words = "so regions are drawn to an expert that has another one"
    shown = interval(share, 1, factor=100)
    return (
        f"On the {cell['task']} regions have an expert in common in {shown} % of the runs, and in "
        f"{100 * by_chance:.1f} % if each drew its expert alone: {words}."
    )


def random_sensitivity(summary: list[Result]) -> str:
    """The verdict with other factors."""
    verdicts = {f: verdict_with_controls(random_decisions(summary, f)) for f in OTHER_FACTORS}
    return sensitivity_in_words(f"factor than {FACTOR:g}", verdicts)


RANDOM = Question(
    "Is the allocation random?",
    "experts specialise in regions at random",
    "Chen et al. 2022, and articles",
    "Clusters of inputs with one expert per case; the vowels are added. Which expert a region gets "
    "is kept apart from whether it depends on what the other regions have.",
    random_specs,
    random_run,
    random_summary,
    random_verdict,
    RANDOM_CRITERION,
    RANDOM_REASON,
    random_decisions,
    sensitivity=random_sensitivity,
)
