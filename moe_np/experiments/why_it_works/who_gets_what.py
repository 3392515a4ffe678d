"""Does it follow the gate's beginning who specialises in what?

The runs are those of `allocation.py`: eight experts on the vowels, dense, and on the clusters of
patches, sparse.
"""

from collections.abc import Sequence

import numpy as np

from moe_np.experiments.common.controlled_claims import (
    BESIDE,
    of_role,
    verdict_with_controls,
    with_role,
)
from moe_np.experiments.common.decisions import Decision, decide, in_words
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.why_it_works.allocation import (
    start_of_vowels,
    taken_patches,
    taken_vowels,
    train_patches,
    train_vowels,
)
from moe_np.experiments.why_it_works.questions import (
    Config,
    Question,
    criterion_of_table,
    first_seeds,
    grouped,
    mean_and_sd,
    means,
)

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
    "popular articles; no paper is named",
    "A gate that begins at random; in the papers that the articles build on it begins at 0. The "
    "starts of gate and experts and the noise of the routing are kept apart, each drawn anew while "
    "the others stay.",
    start_specs,
    start_run,
    start_summary,
    start_verdict,
    START_CRITERION,
    START_REASON,
    start_decisions,
)
