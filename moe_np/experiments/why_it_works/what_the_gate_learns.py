"""What does the gating network learn? Its choice beside the clusters that k-means finds.

The tasks are those of `when_it_helps`: clouds or one cloud, and a rule for each region that an
expert can have, one that none has, or one smooth rule for all.
"""

from collections.abc import Sequence

import numpy as np

from moe_np.data import regimes
from moe_np.experiments.common.controlled_claims import (
    BESIDE,
    MUST_FAIL,
    MUST_HOLD,
    of_role,
    verdict_with_controls,
    with_role,
    words_of_controls,
)
from moe_np.experiments.common.decisions import (
    CONDITION,
    Decision,
    decide,
    in_words,
    sensitivity_in_words,
)
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.reports import join
from moe_np.experiments.common.verdicts import HOLDS
from moe_np.experiments.why_it_works.questions import (
    Config,
    Question,
    criterion_of_table,
    first_seeds,
    grouped,
    means,
)
from moe_np.experiments.why_it_works.tasks import fit_em
from moe_np.experiments.why_it_works.when_it_helps import CELLS, cell_name, rules_of
from moe_np.layers import diagnostics
from moe_np.routing import kmeans

SHARE = 0.9  # of the bits of k-means: a gate with fewer has not found its clusters
OTHER_SHARES = (0.8, 0.95)
CONTROLS = {  # in place of the gate, where its case is clouds with straight rules
    "k-means from another start": MUST_HOLD,
    "a choice at random": MUST_FAIL,
}


def learns_specs(config: Config, quick: bool) -> list[Spec]:
    """Cells × seeds."""
    return [
        {"clouds": clouds, "rule": rule, "seed": seed, "n": 400, "restarts": 10}
        for clouds, rule in CELLS
        for seed in first_seeds(2 if quick else config.fits)
    ]


def learns_run(spec: Spec) -> Result:
    """{"gate", "k-means", and those of `CONTROLS`}: bits about the nearest centre.

    "gate" is the choice of the gate of 4 linear experts, "k-means" the clusters of the inputs.
    """
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng)
    structure = {"clouds": spec["clouds"], "rules": rules_of(task, spec)}
    cases = regimes.draw(task, spec["n"], rng, **structure)
    mixture = fit_em(rng, cases.x, cases.d, 4, spec["restarts"])
    choice = mixture.gate(cases.x).argmax(axis=1)
    other = np.random.default_rng([spec["seed"], 2])
    clusters, clusters_again = (_clusters(start, cases.x) for start in (rng, other))
    drawn = other.integers(4, size=len(cases.x))
    controls = dict(zip(CONTROLS, (clusters_again, drawn), strict=True))
    groups = {"gate": choice, "k-means": clusters, **controls}
    return {
        name: diagnostics.mutual_information(expert, cases.region, rng).bits
        for name, expert in groups.items()
    }


def _clusters(rng, x):
    """The cluster of every case by k-means from a start of this generator."""
    centroids, _ = kmeans.fit(rng, x, 4, rounds=20)
    return kmeans.route(centroids, x, k=1, weights="one")[0].expert


def learns_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per cell, with the bits of the gate, of k-means and of the controls run by run in
    "bits".
    """
    return [
        {
            **{"clouds": clouds, "rule": rule, "n": len(runs)},
            **means(runs, "gate", "k-means"),
            "bits": {name: [run[name] for run in runs] for name in runs[0]},
        }
        for (clouds, rule), runs in grouped(specs, results, "clouds", "rule").items()
    ]


CLUSTERS = criterion_of_table(
    f"gate's bits about the cloud less {SHARE:g} of those of k-means", 0, "greater"
)
AHEAD = criterion_of_table("gate's bits about the region less those of k-means", 0.1, "greater")
REASON = (
    f"A gate that clusters the inputs knows at least {100 * SHARE:.0f} % of what k-means knows of "
    "the clouds. The article's case is clouds with a rule for each, which may be one that an "
    "expert can have or one that none has. In the third case with clouds the rule gives no reason "
    "to cut there. The cases of one cloud have nothing to cluster: there the question is whether "
    f"the gate is ahead of k-means by more than {AHEAD.smallest:g} bits, which clustering of the "
    "inputs cannot explain. With one smooth rule it must not be. In place of the gate k-means from "
    "another start must find the clusters, and a choice at random must not. The rules that no "
    "expert has were added after the first runs, and so were these two controls; the seeds are new."
)


def learns_decisions(summary: list[Result], share: float = SHARE) -> list[Decision]:
    """With clouds, whether the gate finds the clusters that k-means finds; in one cloud, whether it
    knows more of the regions than k-means.
    """
    decisions = []
    for cell in summary:
        name = cell_name(cell["clouds"], cell["rule"])
        gate, clusters = (np.array(cell["bits"][key]) for key in ("gate", "k-means"))
        if cell["clouds"]:
            decisions.append(decide(name, CLUSTERS, gate - share * clusters))
            for words, role in CONTROLS.items() if cell["rule"] == "straight" else ():
                bits = np.array(cell["bits"][words])
                decision = decide(f"{name}, {words}", CLUSTERS, bits - share * clusters)
                decisions.append(with_role(role, decision))
        else:
            role = MUST_FAIL if cell["rule"] == "smooth" else BESIDE
            decisions.append(with_role(role, decide(name, AHEAD, gate - clusters)))
    return decisions


def learns_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim is on the cells with clouds."""
    decisions = learns_decisions(summary)
    cases = of_role(decisions)
    holds = verdict_with_controls(decisions)
    shown = "; ".join(
        f"{cell_name(cell['clouds'], cell['rule'])}: {cell['gate'][0]:.2f} and "
        f"{cell['k-means'][0]:.2f}"
        for cell in summary
    )
    text = (
        f"{words_of_controls(decisions)}Bits of the gate and of k-means, means: {shown}. That the "
        f"gate finds the clusters: {in_words(cases)}"
    )
    if holds == CONDITION:
        text += " So clusters of inputs are not enough for the gate to find them."
    ahead = [d["case"] for d in of_role(decisions, BESIDE) if d["verdict"] == HOLDS]
    if ahead:
        text += (
            f" In {join(ahead)}, the gate knows more than k-means: it learns where each expert is "
            "right, which it can see only in the targets."
        )
    return holds, text


def learns_sensitivity(summary: list[Result]) -> str:
    """The verdict with other shares of the bits of k-means."""
    verdicts = {s: verdict_with_controls(learns_decisions(summary, s)) for s in OTHER_SHARES}
    return sensitivity_in_words("share of the bits of k-means", verdicts)


LEARNS = Question(
    "What does the gate learn?",
    "to cluster the data",
    "popular articles; no paper is named",
    "Data that form clusters. Whether they do, and whether the rule of a region is one that an "
    "expert can have, are kept apart: clouds or one cloud, each with three kinds of rules.",
    learns_specs,
    learns_run,
    learns_summary,
    learns_verdict,
    CLUSTERS,
    REASON,
    learns_decisions,
    sensitivity=learns_sensitivity,
)
