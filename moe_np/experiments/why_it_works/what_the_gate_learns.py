"""What does the gating network learn? Its choice beside the clusters that k-means finds.

The tasks are those of `when_it_helps` of which a mixture of linear experts can be right, and the
same with one smooth rule.
"""

from collections.abc import Sequence

import numpy as np

from moe_np.data import regimes
from moe_np.experiments.common.decisions import (
    CONDITION,
    Decision,
    criterion,
    decide,
    in_words,
    whole_verdict,
)
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.verdicts import CANNOT_BE_TOLD, HOLDS
from moe_np.experiments.why_it_works.questions import Config, Question, grouped, means
from moe_np.experiments.why_it_works.tasks import fit_em
from moe_np.layers import diagnostics
from moe_np.routing import kmeans

CELLS = {  # are the inputs clouds, has each region a rule -> words
    (True, True): "clouds, a rule for each",
    (True, False): "clouds, one smooth rule",
    (False, True): "one cloud, a rule for each region",
    (False, False): "one cloud, one smooth rule",
}
SHARE = 0.9  # of the bits of k-means: a gate with fewer has not found its clusters


def learns_specs(config: Config, quick: bool) -> list[Spec]:
    """Cells × seeds."""
    return [
        {"clouds": clouds, "rules": rules, "seed": seed, "n": 400, "restarts": 10}
        for clouds, rules in CELLS
        for seed in range(2 if quick else config.fits)
    ]


def learns_run(spec: Spec) -> Result:
    """{"gate", "k-means"}: bits about the nearest centre.

    "gate" is the choice of the gate of 4 linear experts, "k-means" the clusters of the inputs.
    """
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng)
    cases = regimes.draw(task, spec["n"], rng, clouds=spec["clouds"], rules=spec["rules"])
    mixture = fit_em(rng, cases.x, cases.d, 4, spec["restarts"])
    choice = mixture.gate(cases.x).argmax(axis=1)
    centroids, _ = kmeans.fit(rng, cases.x, 4, rounds=20)
    routing, _ = kmeans.route(centroids, cases.x, k=1, weights="one")
    groups = {"gate": choice, "k-means": routing.expert}
    return {
        name: diagnostics.mutual_information(expert, cases.region, rng).bits
        for name, expert in groups.items()
    }


def learns_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per cell; "margin" has, run by run, the gate's bits less SHARE of those of k-means,
    "ahead" the gate's bits less those of k-means.
    """
    cells = []
    for (clouds, rules), runs in grouped(specs, results, "clouds", "rules").items():
        cell = {"clouds": clouds, "rules": rules, **means(runs, "gate", "k-means")}
        cell["margin"] = [run["gate"] - SHARE * run["k-means"] for run in runs]
        cell["ahead"] = [run["gate"] - run["k-means"] for run in runs]
        cells.append({**cell, "n": len(runs)})
    return cells


CLUSTERS = criterion(
    f"gate's bits about the cloud less {SHARE:g} of those of k-means", 0, "greater", 2
)
AHEAD = criterion("gate's bits about the region less those of k-means", 0.1, "greater", 2)
REASON = (
    f"A gate that clusters the inputs knows at least {100 * SHARE:.0f} % of what k-means knows of "
    "the clouds. The article's case is clouds with a rule for each. In the other case with clouds "
    "the rule gives no reason to cut there. The cases of one cloud have nothing to cluster and are "
    "controls: there the question is whether the gate is ahead of k-means by a tenth of a bit, "
    "which clustering of the inputs cannot explain."
)


def learns_decisions(summary: list[Result]) -> list[Decision]:
    """Both cells with clouds: whether the gate finds the clusters that k-means finds."""
    return [
        decide(CELLS[cell["clouds"], cell["rules"]], CLUSTERS, cell["margin"])
        for cell in summary
        if cell["clouds"]
    ]


def controls(summary: list[Result]) -> list[Decision]:
    """Both cells of one cloud: whether the gate knows more of the regions than k-means."""
    return [
        decide(CELLS[cell["clouds"], cell["rules"]], AHEAD, cell["ahead"])
        for cell in summary
        if not cell["clouds"]
    ]


def learns_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim is on the cells with clouds; the last control has to fail."""
    decisions = learns_decisions(summary)
    rules_only, neither = controls(summary)
    valid = neither["verdict"] != HOLDS
    holds = whole_verdict(decisions) if valid else CANNOT_BE_TOLD
    bits = {(cell["clouds"], cell["rules"]): cell for cell in summary}
    shown = "; ".join(
        f"{CELLS[key]}: {cell['gate'][0]:.2f} and {cell['k-means'][0]:.2f}"
        for key, cell in bits.items()
    )
    text = (
        f"Bits of the gate and of k-means, means: {shown}. That the gate finds the clusters: "
        f"{in_words(decisions)}"
    )
    if not valid:
        text += " The control without any structure did not come out."
    if holds == CONDITION:
        text += " The gate clusters the inputs where a cluster has a rule of its own."
    if rules_only["verdict"] == HOLDS:
        text += (
            " Where one cloud has a rule for each region, the gate is ahead of k-means: it learns "
            "where each expert is right, which it can see only in the targets."
        )
    return holds, text


LEARNS = Question(
    "What does the gate learn?",
    "to cluster the data",
    learns_specs,
    learns_run,
    learns_summary,
    learns_verdict,
    CLUSTERS,
    REASON,
    learns_decisions,
)
