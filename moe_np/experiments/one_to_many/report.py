"""The results of the inverse problem in words and tables."""

import numpy as np

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import interval, markdown_table, plural
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.one_to_many.runs import BEST, EM, FIRST, LINE, NET

DIGITS = {"error": 3, "distance": 3, "impossible": 1}  # columns


def report(result: Result) -> str:
    """The systems' numbers and what they show, as Markdown."""
    parts = (_caption, systems_table, _power, what_was_seen, what_falls_short)
    return "\n\n".join(part(result) for part in parts)


def _caption(result):
    return (
        f"Test set, median and in brackets the quartiles of {plural(len(result['seeds']), 'seed')} "
        "(new data and initialisations each). Log likelihood in nats per case; error: root mean "
        "square; distance: to the nearest of the branches at that x; impossible: percent of the "
        "predictions t that cannot have led to x. Mean: the blend of the experts; mode: the output "
        "of the expert with the largest gate probability."
    )


def systems_table(result: Result) -> str:
    """Two rows per mixture, since its mean and its mode are predictions."""
    rows = []
    for name, ours in result["summary"]["systems"].items():
        answers = ("mean",) if name in (LINE, NET) else ("mean", "mode")
        for answer in answers:
            cells = [interval(ours[f"{answer}, {key}"], n) for key, n in DIGITS.items()]
            first = (name, interval(ours["log likelihood"])) if answer == "mean" else ("", "")
            rows.append((*first, answer, *cells))
    rows.append(("the exact density", interval(result["summary"]["exact"]), *[None] * 4))
    head = ("system", "log likelihood", "answer", "error", "distance", "impossible %")
    return markdown_table(head, rows)


def _power(result):
    runs = [run["systems"] for run in result["runs"]]
    fewer = [run[NET]["mean, impossible"] - run[BEST]["mode, impossible"] for run in runs]
    values = {"impossible answers, net less mixture's modes": describe(fewer)[:2]}
    return power_sentence(values, len(runs), "percentage points", digits=1)


def what_was_seen(result: Result) -> str:
    """The paragraph on what was seen, from the numbers of this very run."""
    runs = [run["systems"] for run in result["runs"]]
    summary = result["summary"]
    medians = {name: _medians(ours) for name, ours in summary["systems"].items()}
    best, net = medians[BEST], medians[NET]
    gains = [run[BEST]["log likelihood"] - run[NET]["log likelihood"] for run in runs]
    likelier = sum(gain > 0 for gain in gains)
    fewer = sum(run[NET]["mean, impossible"] > run[BEST]["mode, impossible"] for run in runs)
    short = summary["exact"][0] - best["log likelihood"]
    forward, inverse = (100 * summary[key][0] for key in ("forward", "inverse"))
    return (
        f"**What was seen.** Medians: the net explains {forward:.0f} % of the variance of x given "
        f"t and {inverse:.0f} % of t given x. Of its answers {net['mean, impossible']:.0f} % are "
        f"impossible; of the mixture's modes {best['mode, impossible']:.1f} % ({fewer} of "
        f"{len(runs)} seeds fewer than the net). The mixture is the likelier model in {likelier} "
        f"of {len(runs)} seeds, by {np.median(gains):.2f} nats per case, and {short:.2f} short of "
        f"the exact density. {_on_the_mean(best, net)} {_on_the_error(best, net)}"
        f"{_far_off(runs)}"
    )


def _medians(measures):
    return {key: median for key, (median, *_) in measures.items()}


def _on_the_mean(best, net):
    """The sentence on the mean of the mixture, which is a prediction too."""
    blended = best["mean, impossible"]
    if blended <= 0.5 * net["mean, impossible"]:
        return f"Even its mean is better than the net's: {blended:.0f} % of it is impossible."
    return (
        "It is the density that a mixture gets right, and not its mean: that is a blend like the "
        f"net's, and {blended:.0f} % of it is impossible as well."
    )


def _on_the_error(best, net):
    """The sentence on the squared error of the net's mean and of the mixture's modes."""
    errors = f"({net['mean, error']:.3f} against {best['mode, error']:.3f} for the mode)"
    if net["mean, error"] < best["mode, error"]:
        return f"The error of the net's mean is smaller {errors}: squared error asks for the mean."
    return f"The error of the net's mean is not smaller {errors}."


def _far_off(runs):
    """The sentence on nets that are far off beyond the training inputs; empty without any."""
    worse = sum(run[NET]["mean, error"] > 2 * run[LINE]["mean, error"] for run in runs)
    if not worse:
        return ""
    largest = max(run[NET]["mean, error"] for run in runs)
    return (
        f" In {worse} of {len(runs)} seeds the net's test error is above twice that of a line "
        f"(up to {largest:.3g}): nothing holds its weights, and just beyond the outermost training "
        "inputs it may run away. That is why medians are given."
    )


def what_falls_short(result: Result) -> str:
    """The paragraph on what falls short."""
    summary = result["summary"]
    runs = [run["systems"] for run in result["runs"]]
    gains = [run[EM]["log likelihood"] - run[BEST]["log likelihood"] for run in runs]
    higher = sum(gain > 0.01 for gain in gains)
    lower = sum(gain < -0.01 for gain in gains)
    restarts = result["config"]["restarts"]
    share = 100 * summary["starts at the best"][0]
    poor = sum(run[FIRST]["mode, impossible"] > 10 for run in runs)
    return (
        f"**What falls short.** Of the {restarts} starts (random initialisations) {share:.0f} % "
        "(the median) come within .01 nats of the best of them; the others end in a local optimum, "
        f"and a single start leaves over 10 % of the modes impossible in {poor} of {len(runs)} "
        "seeds. Experts are straight lines here and the branches are not, which costs likelihood. "
        "EM ends in the same place as the gradient in "
        f"{len(runs) - higher - lower} of {len(runs)} seeds (test likelihoods within "
        f".01), in a better one in {higher}, in a worse one in {lower}."
    )
