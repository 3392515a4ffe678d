"""Who specialises in what: is it random, and does it follow the gate's beginning?

The runs are those of `allocation.py`: eight experts on the vowels, dense, and on the clusters of
patches, sparse.
"""

import itertools
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
    words_of_controls,
)
from moe_np.experiments.common.decisions import Decision, decide, in_words
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.power import POWER
from moe_np.experiments.common.reports import interval, join
from moe_np.experiments.common.statistics import Interval, wilson_interval
from moe_np.experiments.common.verdicts import bonferroni_level, verdict
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
    first_seeds,
    grouped,
    mean_and_sd,
    means,
)
from moe_np.layers import diagnostics

BLOCK = 25  # runs per spec, where runs are many and short

# --- Is the allocation random? --------------------------------------------------------------------

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


TWICE = 2 / E  # of the runs: twice as many as by chance
OTHER_BOUNDS = {"one and a half times": 1.5 / E, "three times": 3 / E}
RANDOM_CRITERION = criterion_of_table(
    "largest share of the runs in which one expert takes one region, less twice that by chance",
    0,
    "less",
)
RANDOM_REASON = (
    "Experts start alike, so an even allocation has to come out; it is a check of the program. A "
    "test that finds nothing would be no evidence, so the bound is the other way: no expert may "
    "take a region in twice as many runs as by chance. A gate that begins with a bias towards the "
    "first expert has to give it more than its part, so there the claim must fail: that is one "
    "control. In draws with equal chances it must hold. An earlier control, routing without noise, "
    "was none: its allocation varies as well. The seeds are new."
)


def random_decisions(summary: list[Result], bound: float = TWICE) -> list[Decision]:
    """One per task: the largest share of any expert and region, with Wilson's interval."""
    decisions = [_share_decision(cell, bound) for cell in summary]
    return [with_role(ROLES[d["case"]], d) if d["case"] in ROLES else d for d in decisions]


def _share_decision(cell, bound):
    """By Wilson's interval of the largest share, which holds for all experts and regions."""
    count = max(max(row) for row in cell["counts"])
    tests = sum(map(len, cell["counts"]))
    level = bonferroni_level(RANDOM_CRITERION.level, tests)
    bounds = wilson_interval(count, cell["n"], level=level)
    low, middle, high = (v - bound for v in (bounds.low, bounds.estimate, bounds.high))
    beyond = Interval(middle, low, high, RANDOM_CRITERION.level)
    decision = {"case": cell["task"], "verdict": verdict(RANDOM_CRITERION, beyond)}
    detectable = _detectable(cell["n"], level, bound)
    return {**decision, **beyond.record(), "n": cell["n"], "detectable": detectable}


def _detectable(n, level, bound):
    """The share, less the bound, that n runs show to lie below the bound in 80 % of all cases; None
    where they are too few. It is that of which 80 % of all counts show so.
    """
    shown = [
        count
        for count in range(int(n * bound) + 1)
        if wilson_interval(count, n, level=level).high < bound
    ]
    return wilson_interval(shown[-1], n, level=2 * POWER - 1).low - bound if shown else None


def random_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim holds where no expert is preferred; with a bias of the gate it must not."""
    decisions = random_decisions(summary)
    free = [cell for cell in summary if cell["task"] not in ROLES]
    ways = join(f"{cell['ways']} in {cell['n']} runs ({cell['task']})" for cell in free)
    bits = join(f"{cell['bits']:.2f} bits ({cell['task']})" for cell in free)
    by_chance = join(f"{(E - 1) ** 2 / (2 * np.log(2) * cell['n']):.2f}" for cell in free)
    return verdict_with_controls(decisions), (
        f"{words_of_controls(decisions)}"
        "That no expert takes a region twice as often as by chance: "
        f"{in_words(of_role(decisions))} Different allocations: {ways}. The expert of one region "
        f"tells about that of another at most {bits}; where regions are independent, chance gives "
        f"about {by_chance}. {' '.join(map(_avoidance, free))}"
    )


def _avoidance(cell):
    """Whether regions have an expert in common less often than if each drew its expert alone."""
    n_regions = len(cell["counts"])
    by_chance = 1 - np.prod(1 - np.arange(n_regions) / E)
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
    """The verdict with other bounds than twice the share by chance."""
    words = [
        f"with {words} that by chance, {verdict_with_controls(random_decisions(summary, bound))}"
        for words, bound in OTHER_BOUNDS.items()
    ]
    return f"Sensitivity, the verdict with another bound than twice: {join(words)}."


RANDOM = Question(
    "Is the allocation random?",
    "experts specialise in regions at random",
    random_specs,
    random_run,
    random_summary,
    random_verdict,
    RANDOM_CRITERION,
    RANDOM_REASON,
    random_decisions,
    sensitivity=random_sensitivity,
)

# --- Does it follow the beginning of the gate? ----------------------------------------------------

SCALES = {"vowels": (0.05, 0.5, 2.0), "patches": (0.001, 0.01, 0.1)}  # of the gate's beginning
SOURCES = {"vowels": ("experts", "gate"), "patches": ("experts", "gate", "noise")}  # of chance


def start_specs(config: Config, quick: bool) -> list[Spec]:
    """Tasks × scales × base runs."""
    sizes = {"n": 500, "epochs": 40} if quick else {"n": 2000, "epochs": 120}
    return [
        {"task": task, "scale": scale, "seed": seed, **sizes}
        for task, scales in SCALES.items()
        for scale in (scales[1:] if quick else scales)
        for seed in first_seeds(3 if quick else config.bases)
    ]


def start_run(spec: Spec) -> Result:
    """The share of regions that go to the same expert as in a base run.

    -> {source of chance: that share for a run that keeps it and draws the other sources anew,
    "nothing": for a run that keeps none, which is what chance alone gives}.
    """
    sources = SOURCES[spec["task"]]
    base = dict.fromkeys(sources, 1000 + spec["seed"])
    wanted = np.array(allocation(spec, base))
    same = {}
    for i, kept in enumerate((*sources, "nothing")):
        fresh = 2000 + 100 * i + spec["seed"]
        seeds = {source: base[source] if source == kept else fresh for source in sources}
        same[kept] = float(np.mean(wanted == np.array(allocation(spec, seeds))))
    return same


def allocation(spec: Spec, seeds: dict[str, int]) -> list[int]:
    """The expert that takes each region, in a run with a seed per source of chance."""
    if spec["task"] == "vowels":
        params = start_of_vowels(seeds["experts"], seeds["gate"], spec["scale"])
        data, run = train_vowels(params)
        return taken_vowels(data, run.params)
    options = {"gate_scale": spec["scale"], "n": spec["n"], "epochs": spec["epochs"]}
    steps = train_patches(seeds["experts"], seeds["gate"], seeds["noise"], **options)
    return taken_patches(steps, spec["n"])


def start_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per task and scale; "explained" by a source: (share kept − share with nothing kept)
    / (1 − share with nothing kept), of the means; "kept" has the differences of all runs.
    """
    cells = []
    for (task, scale), runs in grouped(specs, results, "task", "scale").items():
        agree = means(runs, *runs[0])
        baseline = agree["nothing"][0]
        room = max(1 - baseline, 1e-12)
        kept = {s: [run[s] - run["nothing"] for run in runs] for s in SOURCES[task]}
        explained = {source: mean_and_sd(values)[0] / room for source, values in kept.items()}
        error = {s: mean_and_sd(v)[1] / len(v) ** 0.5 / room for s, v in kept.items()}
        cell = {"task": task, "scale": scale, "n": len(runs), "agree": agree, "kept": kept}
        cells.append({**cell, "explained": explained, "se": error})
    return cells


START_CRITERION = criterion_of_table(
    "share of regions with the same expert, the gate's beginning kept less nothing kept",
    0.1,
    "greater",
)
START_REASON = (
    "What chance gives is measured in the same runs and not taken to be 1/8. A tenth of the "
    "regions is the least that matters. In the papers that the claim is about the gate begins at "
    "0: it has no beginning to follow, so the claim can be true only for the scales that are tried "
    "here. Before any training the choice is the gate's beginning, so there it must hold, and "
    "after training with a gate that begins at 0 it must fail. Beside the claim the gate's "
    "beginning is compared with every other source of chance, by the same measure with that source "
    "kept in place of nothing. The seeds are new."
)


def start_decisions(summary: list[Result]) -> list[Decision]:
    """One per task and scale of the gate's beginning; then the gate against every other source."""
    decisions = []
    comparisons = []
    for cell in summary:
        name = f"{cell['task']} at {cell['scale']:g}"
        gate = np.array(cell["kept"]["gate"])
        decisions.append(decide(name, START_CRITERION, gate))
        for source in SOURCES[cell["task"]]:
            if source != "gate":
                beyond = gate - cell["kept"][source]
                decision = decide(f"{name}, gate against {source}", START_CRITERION, beyond)
                comparisons.append(with_role(BESIDE, decision))
    return [*decisions, *comparisons]


def start_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim is on the gate; what the other sources explain is told beside it."""
    decisions = start_decisions(summary)
    parts = []
    for cell in summary:
        shares = ", ".join(f"{s} {100 * v:.0f} %" for s, v in cell["explained"].items())
        parts.append(f"{cell['task']} at {cell['scale']:g}: {shares}")
    return verdict_with_controls(decisions), (
        "The share of the allocation that is kept when one source of chance is kept and the others "
        f"are drawn anew, beyond what is kept with none: {'; '.join(parts)}. That the gate's "
        f"beginning decides some of it: {in_words(of_role(decisions))} That it decides more than "
        f"another source: {in_words(of_role(decisions, BESIDE))}"
    )


START = Question(
    "Does the allocation follow the start of the gate?",
    "which expert takes what depends on the gate's start",
    start_specs,
    start_run,
    start_summary,
    start_verdict,
    START_CRITERION,
    START_REASON,
    start_decisions,
)
