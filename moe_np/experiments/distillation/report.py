"""Distillation in words and a table, beside table 6 of Fedus et al. 2021."""

import itertools

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import basis, decimal, interval, markdown_table, mean_sd
from moe_np.experiments.distillation.experiment import CONTROL, STUDENTS, TEACHER


def report(result: Result) -> str:
    """The table and what came out, as Markdown."""
    parts = (_caption, _table, _power, _seen)
    return "\n\n".join(text for part in parts if (text := part(result)))


def _caption(result):
    caption = basis(len(result["seeds"]), "seed", deviation="sample")
    return (
        f"Decoders on the King James Bible, {result['config']['sizes']['updates']} updates each; "
        f"{caption}. Loss: the least in nats per token of the held-out books; less dense: the 95 % "
        "interval of the difference by seed. Active width: hidden units of feed-forward networks "
        "that a token passes per layer. Published: negative log perplexity, and the share kept "
        "(Fedus et al. 2021, table 6)."
    )


def _table(result):
    paper = result["paper"]
    kept = result["shares"] or {}
    rows = []
    for system, ours in result["summary"].items():
        share = kept.get(system)
        quality = paper["quality"].get(system)
        published = paper["share"].get(system)
        rows.append(
            (
                system,
                ours["active width"],
                mean_sd(ours["least"], 4),
                interval(result["against_dense"].get(system), 4),
                mean_sd(share, 0, factor=100) if share else "–",
                decimal(quality, 3, missing="–"),
                "–" if published is None else published,
            )
        )
    head = ("system", "active width", "loss", "less dense", "share kept, %", "published")
    return markdown_table((*head, "published share, %"), rows)


def _seen(result):
    ours = result["against_dense"]
    lines = ["**What was seen.**"]
    if TEACHER in ours and result["shares"] is None:
        lines.append("The gain of the teacher cannot be told from 0, so there are no shares.")
    for system in STUDENTS:
        if system in ours and ours[system]["low"] is not None:
            lines.append(f"{system.capitalize()}: {verdict(ours[system])}.")
    rows = [s for s in STUDENTS if s in result["paper"]["share"]]
    means = [result["summary"][s]["least"]["mean"] for s in rows if s in result["summary"]]
    if len(means) == len(rows):
        order = all(a > b for a, b in itertools.pairwise(means))
        lines.append(f"The order of the paper's rows {'holds' if order else 'does not hold'}.")
    if CONTROL in ours and ours[CONTROL]["low"] is not None:
        worse = ours[CONTROL]["low"] > 0
        lines.append(f"The control is {'worse' if worse else 'not worse'} than dense.")
    kept = result["paper"]["share by compression"]
    text = ", ".join(f"{share} % at {size} %" for size, share in kept.items())
    lines.append(
        f"Published: {text} compression (table 7), with teachers of a thousand times this size."
    )
    return " ".join(lines)


def verdict(difference: Result) -> str:
    """Whether a student keeps something of the gain, by the interval of student less dense."""
    if difference["high"] < 0:
        return "it keeps something of the gain"
    return "it is worse than dense" if difference["low"] > 0 else "no difference to dense is told"


def _power(result):
    differences = {f"{name} less dense": v for name, v in result["against_dense"].items()}
    return power_sentence(differences, len(result["seeds"]), "nats per token", digits=4)
