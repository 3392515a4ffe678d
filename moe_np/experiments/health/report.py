"""The health experiment in words and tables."""

from moe_np.experiments.common import comparisons
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import basis, decimal, markdown_table, mean_sd
from moe_np.experiments.health.methods import CANCER, DIABETES
from moe_np.experiments.health.runs import LEVEL


def report(result: Result) -> str:
    """The tables of both data sets, the comparisons, and what the experts take, as Markdown."""
    parts = (_cancer, _diabetes, _claims, _taken)
    return "\n\n".join(text for text in (part(result) for part in parts) if text)


def _of(result, data):
    """{method: its summary} of one data set."""
    named = ((system.split(": "), ours) for system, ours in result["summary"].items())
    return {method: ours for (name, method), ours in named if name == data}


def _basis(result):
    n = len(result["seeds"])
    return f"{basis(n, 'fold', deviation='sample', sentence=True)} that are held out"


def _size(ours):
    return "–" if ours["parameters"] is None else ours["parameters"]


def _cancer(result):
    methods = _of(result, CANCER)
    if not methods:
        return ""
    rows = [
        (
            method,
            _size(ours),
            mean_sd(ours["right"], 1),
            mean_sd(ours["loss"], 3),
            mean_sd(ours["Brier"], 4),
            f"{decimal(ours['ECE'], 3)} ({decimal(ours['ECE if right'], 3)})",
        )
        for method, ours in methods.items()
    ]
    head = ("breast cancer", "parameters", "% right", "loss, nats", "Brier score", "ECE")
    return (
        f"{_basis(result)}. The expected calibration error (ECE) is of all held-out cases "
        "together; in brackets what chance gives where the probabilities are right.\n\n"
        f"{markdown_table(head, rows)}"
    )


def _diabetes(result):
    methods = _of(result, DIABETES)
    if not methods:
        return ""
    rows = [
        (
            method,
            _size(ours),
            mean_sd(ours["R2"], 3),
            mean_sd(ours["loss"], 3),
            mean_sd(ours["coverage"], 1),
            mean_sd(ours["width"], 2),
        )
        for method, ours in methods.items()
    ]
    intervals = f"{100 * LEVEL:g} % intervals"
    head = ("diabetes", "parameters", "R²", "loss, nats", f"in {intervals}, %", "their width, SD")
    return (
        f"{_basis(result)}; the target has a deviation of 1. R² judges the mean that is predicted, "
        "the loss the whole distribution: a mixture's can have another width for every case, that "
        f"of the three usual methods has one.\n\n{markdown_table(head, rows)}"
    )


def _claims(result):
    text = comparisons.section(result["claims"], digits=3)
    if not text:
        return ""
    return f"{text} The folds share training cases, so these intervals are somewhat too narrow."


def _taken(result):
    texts = [
        f"{system}: {mean_sd(ours['taken'], 0)} %, mean largest weight "
        f"{mean_sd(ours['largest weight'], 2)}"
        for system, ours in result["summary"].items()
        if "taken" in ours
    ]
    if not texts:
        return ""
    return (
        "**What the experts take up.** The percentage of the entropy of the target (malignant or "
        "not; above the median or not) that the expert with the largest mixture weight tells, less "
        f"what a permutation gives: {'; '.join(texts)}. By EM every expert is computed for every "
        "case, so that equal size is equal operations; the neural network has about as many "
        "parameters as a mixture of two experts."
    )
