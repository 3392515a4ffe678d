"""The music in words and tables."""

import math

from moe_np.data.music import chorales
from moe_np.experiments.common import comparisons
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import basis, decimal, join, markdown_table, mean_sd


def report(result: Result) -> str:
    """The tables, what the experts take, and the continuation, as Markdown."""
    parts = (_table, _claims, _taken, _continuation)
    return "\n\n".join(text for text in (part(result) for part in parts) if text)


def _table(result):
    caption = basis(len(result["seeds"]), "seed", deviation="sample")
    rows = [
        (system, ours["parameters"], ours["active"], mean_sd(ours["loss"], 4))
        for system, ours in result["summary"].items()
    ]
    head = ("decoder", "parameters", "of them a note passes", "loss, nats per note")
    return (
        "Bach's four-part chorales, four notes per eighth note; families of melodies are held "
        f"out. {result['config']['sizes']['updates']} updates, {caption}. With the same "
        f"probability for every note the loss is {math.log(chorales.SIZE):.2f}.\n\n"
        + markdown_table(head, rows)
    )


def _claims(result):
    return comparisons.section(result["claims"], digits=4)


def _taken(result):
    taken = next((s["taken"] for s in result["summary"].values() if "taken" in s), None)
    if taken is None:
        return ""
    texts = [
        f"{name} {join([decimal(value, 0) for value in values])} %"
        for name, values in taken.items()
    ]
    return (
        "**What the experts take up.** The percentage of the entropy of a label that the first "
        f"expert of a note tells, layer by layer, less what a permutation gives: {', '.join(texts)}"
        "."
    )


def _continuation(result):
    runs = [run for run in result["runs"] if "continuation" in run]
    if not runs:
        return ""
    first = runs[0]["continuation"]
    text = (
        f"**To listen to.** The first {first['prompt']} eighth notes of {first['name']}, which is "
        "held out, and what each decoder of seed 0 draws after them"
    )
    if not result["listening"]:
        return f"{text}: the grids are in the result."
    return f"{text}: {join(result['listening'])} in the folder of stored runs."
