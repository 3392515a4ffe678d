"""The results of the inverse problem in words and tables."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import basis, markdown_table, mean_sd
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.one_to_many.runs import BEST, EM, FIRST, LINE, NET

DIGITS = {"error": 3, "distance": 3, "impossible": 1}  # columns


def report(result: Result) -> str:
    """The systems' numbers and what they show, as Markdown."""
    parts = (_caption, systems_table, _power, what_was_seen, what_falls_short)
    return "\n\n".join(part(result) for part in parts)


def _caption(result):
    caption = basis(len(result["seeds"]), "seed", deviation="sample")
    return (
        f"Test set, {caption} (new data and initialisations each). Log likelihood in nats per "
        "case; error: root mean square; distance: to the nearest of the branches at that x; "
        "impossible: percent of the predictions t that cannot have led to x. Mean: the blend of "
        "the experts; mode: the output of the expert with the largest gate probability."
    )


def systems_table(result: Result) -> str:
    """Two rows per mixture, since its mean and its mode are predictions."""
    rows = []
    for name, ours in result["summary"]["systems"].items():
        answers = ("mean",) if name in (LINE, NET) else ("mean", "mode")
        for answer in answers:
            cells = [mean_sd(ours[f"{answer}, {key}"], n) for key, n in DIGITS.items()]
            first = (name, mean_sd(ours["log likelihood"])) if answer == "mean" else ("", "")
            rows.append((*first, answer, *cells))
    rows.append(("the exact density", mean_sd(result["summary"]["exact"]), *[None] * 4))
    head = ("system", "log likelihood", "answer", "error", "distance", "impossible %")
    return markdown_table(head, rows)


def _power(result):
    runs = [run["systems"] for run in result["runs"]]
    gains = [run[BEST]["log likelihood"] - run[NET]["log likelihood"] for run in runs]
    values = {"log likelihood, mixture less net": describe(gains)[:2]}
    return power_sentence(values, len(runs), "nats per case")


def what_was_seen(result: Result) -> str:
    """The paragraph on what was seen, from the numbers of this very run."""
    runs = [run["systems"] for run in result["runs"]]
    summary = result["summary"]
    means = {name: _means(ours) for name, ours in summary["systems"].items()}
    best = means[BEST]
    net = means[NET]
    likelier = sum(run[BEST]["log likelihood"] > run[NET]["log likelihood"] for run in runs)
    fewer = sum(run[NET]["mean, impossible"] > run[BEST]["mode, impossible"] for run in runs)
    gain = best["log likelihood"] - net["log likelihood"]
    short = summary["exact"][0] - best["log likelihood"]
    forward, inverse = (100 * summary[key][0] for key in ("forward", "inverse"))
    closer = "smaller" if net["mean, error"] < best["mode, error"] else "larger"
    return (
        f"**What was seen.** The net explains {forward:.0f} % of the variance of x given t and "
        f"{inverse:.0f} % of t given x. Of its answers {net['mean, impossible']:.0f} % are "
        f"impossible; of the mixture's modes {best['mode, impossible']:.1f} % ({fewer} of "
        f"{len(runs)} seeds fewer than the net). The mixture is the likelier model in {likelier} "
        f"of {len(runs)} seeds, by {gain:.2f} nats per case, and {short:.2f} short of the exact "
        f"density. {_on_the_mean(best, net)} The error of the net's mean is {closer} "
        f"({net['mean, error']:.3f} against {best['mode, error']:.3f} for the mode): squared error "
        "asks for the mean."
    )


def _means(measures):
    return {key: mean for key, (mean, _) in measures.items()}


def _on_the_mean(best, net):
    """The sentence on the mean of the mixture, which is a prediction too."""
    blended = best["mean, impossible"]
    if blended <= 0.5 * net["mean, impossible"]:
        return f"Even its mean is better than the net's: {blended:.0f} % of it is impossible."
    return (
        "It is the density that a mixture gets right, and not its mean: that is a blend like the "
        f"net's, and {blended:.0f} % of it is impossible as well."
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
    impossible = summary["systems"][FIRST]["mode, impossible"][0]
    return (
        f"**What falls short.** Of the {restarts} starts (random initialisations) {share:.0f} % "
        "come within .01 nats of the best of them; the others end in a local optimum, and a single "
        f"start leaves {impossible:.0f} % of the modes impossible. Experts are straight lines here "
        "and the branches are not, which costs likelihood. EM ends in the same place as the "
        f"gradient in {len(runs) - higher - lower} of {len(runs)} seeds (test likelihoods within "
        f".01), in a better one in {higher}, in a worse one in {lower}."
    )
