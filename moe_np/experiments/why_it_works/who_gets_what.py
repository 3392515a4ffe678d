"""Who specialises in what: does it take time, is it random, does it follow the gate's beginning?

The runs are those of `allocation.py`: eight experts on the vowels, dense, and on the clusters of
patches, sparse.
"""

from collections.abc import Sequence

import numpy as np

from moe_np.base.types import ArrayN
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.reports import join
from moe_np.experiments.why_it_works.allocation import (
    E,
    taken_patches,
    taken_vowels,
    train_patches,
    train_vowels,
)
from moe_np.experiments.why_it_works.questions import (
    LEVEL,
    Config,
    Question,
    grouped,
    mean_and_sd,
    means,
)
from moe_np.experiments.why_it_works.tasks import is_front, patches
from moe_np.layers import diagnostics

BLOCK = 25  # runs per spec, where runs are many and short

# --- Does specialisation take time? ---------------------------------------------------------------

TIMES = {"a tenth": 0.1, "half": 0.5, "nine tenths": 0.9}  # of the information at the end


def time_specs(config: Config, quick: bool) -> list[Spec]:
    """Tasks × seeds."""
    sizes = {"n": 500, "epochs": 60} if quick else {"n": 2000, "epochs": 120}
    return [
        {"task": task, "seed": seed, **sizes}
        for task in ("vowels", "patches")
        for seed in range(2 if quick else config.seeds)
    ]


def time_run(spec: Spec) -> Result:
    """What the choice of the expert tells about the region, in bits, during training.

    -> {"bits" at the end, "epochs", the epochs until "a tenth", "half" and "nine tenths" of these
    bits are there for good, "known at a tenth": their share after a tenth of the epochs, "curve"}.
    The bits are computed every epoch, on the vowels every tenth.
    """
    dense = spec["task"] == "vowels"
    every = 10 if dense else 1  # epochs
    bits, length = _bits_on_vowels(spec, every) if dense else _bits_on_patches(spec)
    end = bits[-1]
    result = {name: every * for_good(bits, share * end) for name, share in TIMES.items()}
    at_tenth = float(bits[int(0.1 * length / every)] / end) if end > 0 else 1.0
    result |= {"epochs": length, "known at a tenth": at_tenth, "bits": float(end)}
    return {**result, "curve": bits[:: 1 if dense else 2].round(4).tolist()}


def _bits_on_vowels(spec, every):
    data, run = train_vowels(spec["seed"], keep=True)
    front = is_front(data.vowel_train).astype(int)
    gates = zip(run.history["U"][::every], run.history["c"][::every], strict=True)
    bits = [information((data.x_train @ U + c).argmax(axis=1), front) for U, c in gates]
    return np.array(bits), run.epochs


def _bits_on_patches(spec):
    cluster = patches(spec["n"]).train.cluster
    sizes = {"n": spec["n"], "epochs": spec["epochs"]}
    steps = train_patches(spec["seed"], 0, spec["seed"], **sizes)
    return np.array([information(step.expert, cluster) for step in steps]), spec["epochs"]


def for_good(curve: ArrayN, level: float) -> int:
    """The first place from which on the curve does not fall below the level."""
    below = np.flatnonzero(curve < level)
    return int(below[-1]) + 1 if len(below) else 0


def information(expert: ArrayN, label: ArrayN) -> float:
    """I(expert; label) in bits.

    It is without the permuted baseline of `diagnostics.mutual_information`, here below .03.
    """
    p = diagnostics.table(expert, label) / len(label)
    independent = p.sum(axis=1, keepdims=True) * p.sum(axis=0)
    return float((p[p > 0] * np.log2(p[p > 0] / independent[p > 0])).sum())


def time_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per task; "late" runs know less than half after a tenth of the epochs."""
    cells = []
    for (task,), runs in grouped(specs, results, "task").items():
        cell = {"task": task, "n": len(runs)}
        cell |= means(runs, *TIMES, "epochs", "known at a tenth", "bits")
        cell["late"] = sum(run["known at a tenth"] < 0.5 for run in runs)
        cells.append({**cell, "curves": [run["curve"] for run in runs]})
    return cells


def time_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim holds where nine tenths of the runs are late on both tasks."""
    late = [cell["late"] > 0.9 * cell["n"] for cell in summary]
    holds = "yes" if all(late) else "partly" if any(late) else "no"
    parts = []
    for cell in summary:
        mean, sd = cell["half"]
        known = 100 * cell["known at a tenth"][0]
        parts.append(
            f"on the {cell['task']}, half of what the choice of the expert says in the end is "
            f"there for good after {mean:.0f} ± {sd:.0f} of {cell['epochs'][0]:.0f} epochs; after "
            f"a tenth of the epochs {known:.0f} % of it is, less than half in {cell['late']} of "
            f"{cell['n']} runs"
        )
    return holds, f"{'; '.join(parts)}.".replace("on the", "On the", 1)


TIME = Question(
    "Does specialisation take time?",
    "specialisation takes time (Chen et al. 2022)",
    time_specs,
    time_run,
    time_summary,
    time_verdict,
)

# --- Is the allocation random? --------------------------------------------------------------------

CLUSTERS = ("cluster 1", "cluster 2", "cluster 3", "cluster 4")
NO_NOISE = "patches, no noise"
REGIONS = {"vowels": ("[i] [ɪ]", "[ɑ] [ʌ]"), "patches": CLUSTERS, NO_NOISE: CLUSTERS}


def random_specs(config: Config, quick: bool) -> list[Spec]:
    """Tasks × blocks of runs; one block without noise."""
    blocks = 1 if quick else config.blocks
    runs = 4 if quick else BLOCK
    sizes = {"n": 500, "epochs": 40} if quick else {"n": 2000, "epochs": 120}
    return [
        {"task": task, "first": runs * block, "runs": runs, **sizes}
        for task in REGIONS
        for block in range(1 if task == NO_NOISE else blocks)
    ]


def random_run(spec: Spec) -> Result:
    """{"taken": [the expert that took each region] of every run of the block}."""
    taken = []
    for seed in range(spec["first"], spec["first"] + spec["runs"]):
        if spec["task"] == "vowels":
            data, run = train_vowels(seed)
            taken.append(taken_vowels(data, run.params))
        else:
            noise_seed = None if spec["task"] == NO_NOISE else seed
            sizes = {"n": spec["n"], "epochs": spec["epochs"]}
            taken.append(taken_patches(train_patches(seed, 0, noise_seed, **sizes), spec["n"]))
    return {"taken": taken}


def random_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per task: how often each expert took each region, and χ² tests against evenness.

    "p" is the smallest of the regions times their number, "ways" the number of allocations.
    """
    from scipy import stats

    cells = []
    for (task,), blocks in grouped(specs, results, "task").items():
        taken = np.array([allocation for block in blocks for allocation in block["taken"]])
        counts = np.array([np.bincount(column, minlength=E) for column in taken.T])
        tests = [stats.chisquare(row) for row in counts]
        cell = {"task": task, "n": len(taken), "counts": counts.tolist()}
        cell["chi2"] = [float(test.statistic) for test in tests]
        cell["p"] = float(min(1.0, len(tests) * min(test.pvalue for test in tests)))
        cell["ways"] = len({tuple(row) for row in taken.tolist()})
        cells.append(cell)
    return cells


def random_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim holds where no task with noise is uneven."""
    *usual, without = summary
    even = [cell for cell in usual if cell["p"] > LEVEL]
    holds = "yes" if len(even) == len(usual) else "partly" if even else "no"
    parts = [
        f"{cell['task']}: p = {cell['p']:.2g} ({cell['ways']} allocations in {cell['n']} runs)"
        for cell in usual
    ]
    text = (
        "Against 'every expert is equally likely to take a region', the smallest p of the regions "
        f"times their number: {'; '.join(parts)}. Experts start alike, so this has to be so; it is "
        "a check that nothing in the program prefers one. "
    )
    if without["p"] >= LEVEL:
        return holds, f"{text}Without the routing noise it is as even (p = {without['p']:.2g})."
    return holds, (
        f"{text}Without the routing noise the gate that starts at 0 ties everywhere and the lowest "
        f"index wins: then it is not even at all (p = {without['p']:.1g}; "
        f"{max(without['counts'][0])} of {without['n']} runs give the first cluster to the same "
        "expert)."
    )


RANDOM = Question(
    "Is the allocation random?",
    "experts specialise in regions at random",
    random_specs,
    random_run,
    random_summary,
    random_verdict,
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
        for seed in range(3 if quick else config.bases)
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
        data, run = train_vowels(seeds["experts"], seeds["gate"], spec["scale"])
        return taken_vowels(data, run.params)
    options = {"gate_scale": spec["scale"], "n": spec["n"], "epochs": spec["epochs"]}
    steps = train_patches(seeds["experts"], seeds["gate"], seeds["noise"], **options)
    return taken_patches(steps, spec["n"])


def start_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per task and scale; "explained" by a source: (share kept − 1/E) / (1 − 1/E)."""
    chance = 1 / E
    cells = []
    for (task, scale), runs in grouped(specs, results, "task", "scale").items():
        agree = means(runs, *runs[0])
        explained = {
            source: mean_and_sd([(run[source] - chance) / (1 - chance) for run in runs])[0]
            for source in SOURCES[task]
        }
        error = {k: agree[k][1] / np.sqrt(len(runs)) / (1 - chance) for k in explained}
        cell = {"task": task, "scale": scale, "n": len(runs), "agree": agree}
        cells.append({**cell, "explained": explained, "se": error})
    return cells


def start_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim holds where the gate explains more than half, and more than any other source."""
    follows = []
    parts = []
    for cell in summary:
        explained = cell["explained"]
        most = max(explained, key=explained.get)
        if most == "gate" and explained["gate"] > 0.5:
            follows.append(f"{cell['task']} at {cell['scale']:g}")
        remark = "" if explained[most] > 0.1 else " (next to nothing)"
        share = f"{100 * explained[most]:.0f} %"
        parts.append(f"{cell['task']}, {cell['scale']:g}: {most}, {share}{remark}")
    text = (
        "The share of the allocation that is kept when one source of chance is kept and the others "
        "are drawn anew (1 all, 0 as many as by chance). What explains most, by the scale of the "
        f"gate's start: {'; '.join(parts)}. "
    )
    if follows:
        text += f"The gate's start decides (more than half) for {join(follows)}"
    else:
        text += "The gate's start never decides"
    if len(follows) == len(summary):
        return "yes", f"{text}."
    return "partly" if follows else "no", (
        f"{text}: it has to be large beside what the experts' start and noise bring in."
    )


START = Question(
    "Does the allocation follow the start of the gate?",
    "which expert takes what depends on the gate's start",
    start_specs,
    start_run,
    start_summary,
    start_verdict,
)
