"""The frameworks in words and tables."""

import math

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import decimal, interval, join, markdown_table, plural
from moe_np.experiments.frameworks.built_in import FEATURES
from moe_np.experiments.frameworks.experiment import LIMIT
from moe_np.experiments.frameworks.runs import FRAMEWORKS


def report(result: Result) -> str:
    """Numbers and times beside ours, and what is built in, as Markdown."""
    parts = (_numbers, _power, _seen, _built_in)
    return "\n\n".join(text for text in (part(result) for part in parts) if text)


def _numbers(result):
    config = result["config"]
    rows = []
    for system, ours in result["summary"].items():
        measured = result["milliseconds"][system]
        times = [decimal(measured and measured[name], 2) for name in ("theirs", "ours")]
        times.append(interval(ratio(measured)))
        differences = [
            f"{ours[name]:.0e}" if name in ours else "–" for name in ("outputs", "gradients")
        ]
        installed = ours["version"] or "not installed"
        rows.append((system, installed, FRAMEWORKS[system].words, *differences, *times))
    head = ("framework", "version", "statement", "outputs", "gradients", "ms", "ours, ms", "ratio")
    return (
        f"The sparse layer, top-{config['k']} of {config['experts']} SwiGLU experts: "
        f"{config['tokens']} tokens, D = {config['d_model']}, H = {config['hidden']}, float32. "
        "Outputs and gradients: the largest difference from ours, as a share of the largest value, "
        f"over {plural(len(result['seeds']), 'problem')}. Milliseconds of processor time of all "
        "threads together, forward and backward, taken in turn with ours: medians of "
        f"{plural(config['rounds'], 'round')}, and the geometric mean of the ratio with its 95 % "
        "interval over the rounds; above 1 ours takes less. The rounds are of one process on the "
        "first problem: another process can lie further off than the interval says.\n\n"
        f"{markdown_table(head, rows)}"
    )


def ratio(measured: Result | None) -> tuple[float | None, ...] | None:
    """The time of theirs as a multiple of ours, with the bounds of its interval."""
    if measured is None:
        return None
    bounds = [measured["log ratio"][name] for name in ("estimate", "low", "high")]
    return tuple(None if value is None else math.exp(value) for value in bounds)


def _power(result):
    logs = {
        system: measured["log ratio"]
        for system, measured in result["milliseconds"].items()
        if measured is not None
    }
    unit = "in the logarithm of the ratio"
    return power_sentence(logs, result["config"]["rounds"], unit, runs="round")


def _seen(result):
    measured = {s: ours for s, ours in result["summary"].items() if "outputs" in ours}
    if not measured:
        return 'No framework is installed: pip install "moe-np[frameworks]".'
    same = [s for s, o in measured.items() if max(o["outputs"], o["gradients"]) < LIMIT]
    other = [system for system in measured if system not in same]
    text = f"The same layer by the limit of {LIMIT:g}, fixed before the runs: {join(same)}."
    return f"{text} Not the same: {join(other)}." if other else text


def _built_in(result):
    cells = {s: o["built in"] for s, o in result["summary"].items() if o["built in"]}
    if not cells:
        return ""
    rows = [(feature, *(of[feature] for of in cells.values())) for feature in FEATURES]
    table = markdown_table(("what is built in", *cells), rows)
    return (
        f"{table}\n\nEvery cell was checked by running it in the versions above, but for those "
        "that say so."
    )
