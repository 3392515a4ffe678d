"""The results of shazeer2017 in words and tables, published numbers beside ours."""

import functools

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import MISSING, decimal, markdown_table, mean_sd, plural

HEAD = ("w_imp, w_load", "perplexity", "CV(Imp)", "CV(Load)", "max/mean")
NOISE = ("with noise", "without noise")


def report(result: Result) -> str:
    """Table 6 with ours beside it, with noise and without, then the case without a common part,
    and what carries over. Markdown.
    """
    length = result["config"]["common"]
    seeds = plural(len(result["seeds"]), "seed")
    parts = [
        f"Keys with a common part of length {length:g}; mean over {seeds}, with the sample SD for "
        "the perplexity. Each cell: published / ours with noise / ours without noise.",
        table6(result),
        _power(result),
        "Keys without a common part: ours with noise / without noise.",
        centred_table(result),
        what_carries_over(result),
        what_does_not(result),
        noise_makes_even(result),
    ]
    return "\n\n".join(parts)


def table6(result: Result) -> str:
    """Table 6 of the paper and our runs with a common part."""
    published = {tuple(row[:2]): row[2:] for row in result["paper"]["table6"]}
    rows = []
    for row in result["rows"]:
        if row["common"]:
            paper = published.get(tuple(row["weights"]), (MISSING,) * 4)
            ours = [cells(row["summary"][noise]) for noise in NOISE]
            joined = [f"{p} / {a} / {b}" for p, a, b in zip(paper, *ours, strict=True)]
            rows.append([pair(row), *joined])
    return markdown_table(HEAD, rows)


def _power(result):
    perplexities = {
        f"weights {pair(row)}, {noise}": row["summary"][noise]["perplexity"]
        for row in result["rows"]
        if row["common"]
        for noise in NOISE
    }
    return power_sentence(perplexities, len(result["seeds"]), "of the perplexity", paired=False)


def centred_table(result: Result) -> str:
    """Our runs without a common part."""
    rows = []
    for row in result["rows"]:
        if not row["common"]:
            ours = [cells(row["summary"][noise]) for noise in NOISE]
            rows.append([pair(row), *(f"{a} / {b}" for a, b in zip(*ours, strict=True))])
    return markdown_table(HEAD, rows)


def cells(summary: Result) -> list[str]:
    """The four columns of one case, with noise or without."""
    evenness = [decimal(summary[name]["mean"]) for name in ("cv_importance", "cv_load", "max_mean")]
    return [mean_sd(summary["perplexity"], 1), *evenness]


def pair(row: Result) -> str:
    """The two weights of a row: "0.1, 0.1"."""
    return ", ".join(f"{w:g}" for w in row["weights"])


def mean_of(
    result: Result,
    weights: tuple[float, float],
    column: str = "perplexity",
    noise: str = "without noise",
    shared: bool = True,
) -> float:
    """The mean of one column with these weights; `shared`: with a common part of the keys."""
    (summary,) = (
        row["summary"]
        for row in result["rows"]
        if tuple(row["weights"]) == weights and (row["common"] > 0) == shared
    )
    return summary[noise][column]["mean"]


def what_carries_over(result: Result) -> str:
    """The paragraph on what agrees with the paper, from the numbers of this very run."""
    config = result["config"]
    mean = functools.partial(mean_of, result)
    mild = [tuple(w) for w in config["weights"] if 0 < sum(w) < 1]
    perplexity = [mean(w) for w in mild]
    cv_load = [mean(w, "cv_load") for w in mild]
    importance_alone, load_alone = (
        f"{mean(w, 'cv_importance'):.2f} and {mean(w, 'cv_load'):.2f}" for w in ((0.2, 0), (0, 0.2))
    )
    none = (0, 0)
    ceiling = config["n_experts"] / config["k"]
    return (
        "**What carries over.** Without a loss the gate favours few experts: CV(Load) "
        f"{mean(none, 'cv_load'):.2f}, max/mean {mean(none, 'max_mean'):.1f} (with all tokens on "
        f"the same {config['k']} experts these would be {(ceiling - 1) ** 0.5:.2f} and "
        f"{ceiling:g}). Losses with weights up to .2 bring CV(Load) down to {min(cv_load):.2f} to "
        f"{max(cv_load):.2f}, and .01 less than .1, as in the paper. Training without a loss is "
        "worse, and these losses differ little from each other: perplexity "
        f"{mean(none):.1f} against {min(perplexity):.1f} to {max(perplexity):.1f}. In the paper "
        "each of the two losses alone is ahead in its own column; here CV(Importance) and CV(Load) "
        f"are {importance_alone} with importance alone, {load_alone} with load alone."
    )


def what_does_not(result: Result) -> str:
    """The paragraph on what does not carry over."""
    published = result["paper"]["table6"]
    mean = functools.partial(mean_of, result)
    return (
        f"**What does not.** The perplexities themselves: {published[0][2]} and {published[1][2]} "
        "belong to a language model that is not reproduced. Weights of 1 cost perplexity here "
        f"({mean((1, 1)):.1f}) and not there: how strong a weight is depends on the task's "
        "gradient beside it. And the common part is a condition: without it the gate does not "
        f"collapse (CV(Load) {mean((0, 0), 'cv_load', shared=False):.2f}), and a loss changes "
        f"little, perplexity {mean((0, 0), shared=False):.1f} without and "
        f"{mean((0.1, 0.1), shared=False):.1f} with it."
    )


def noise_makes_even(result: Result) -> str:
    """The paragraph on what the noise does to the loads."""
    mean = functools.partial(mean_of, result)
    strong, medium = (1, 1), (0.1, 0.1)
    return (
        "**Noise makes loads even by itself.** It is drawn anew for each token, and spreads the "
        "tokens whatever the gate has learned. With weights of 1 CV(Load) is "
        f"{mean(strong, 'cv_load', 'with noise'):.2f} with noise and "
        f"{mean(strong, 'cv_load'):.2f} without it: the losses were met by the noise and not by "
        f"the gate. With .1 each it is {mean(medium, 'cv_load', 'with noise'):.2f} and "
        f"{mean(medium, 'cv_load'):.2f}: there the gate has learned it. A published CV should come "
        "with the word whether the noise was on."
    )
