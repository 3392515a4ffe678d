"""Distillation in words and a table, beside table 6 of Fedus et al. 2021."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import basis, decimal, interval, markdown_table, mean_sd
from moe_np.experiments.common.verdicts import is_below_0, side_of_0
from moe_np.experiments.distillation.experiment import CONTROL, STUDENTS, TEACHER, TEACHER_LONG


def report(result: Result) -> str:
    """The table and what came out, as Markdown."""
    parts = (_caption, _table, _power, _seen)
    return "\n\n".join(text for part in parts if (text := part(result)))


def _caption(result):
    caption = basis(len(result["seeds"]), "seed", deviation="sample")
    return (
        f"Decoders on the King James Bible, {result['config']['sizes']['updates']} updates each, "
        f"or twice as many; {caption}. Loss: the least in nats per token of the held-out books; "
        "less dense: the 95 % interval of the difference by seed. Students with weights of the "
        "teacher have its updates too, so they are compared with dense trained for twice as long. "
        "Active width: hidden units of feed-forward networks that a token passes per layer. "
        "Published: negative log perplexity, and the share kept (Fedus et al. 2021, table 6)."
    )


def _table(result):
    paper = result["paper"]
    kept = result["shares"]
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
    for teacher in (TEACHER, TEACHER_LONG):
        if teacher in ours and not is_below_0(ours[teacher]):
            lines.append(f"The gain of {teacher} cannot be told from 0: no share of it is printed.")
    for system in STUDENTS:
        if system in ours and ours[system]["low"] is not None:
            lines.append(f"{system.capitalize()}: {verdict(ours[system])}.")
    for system, difference in result["against_control"].items():
        if difference["low"] is not None:
            lines.append(f"{system.capitalize()} beside the control: {helps(difference)}.")
    if CONTROL in ours and ours[CONTROL]["low"] is not None:
        negation = "" if is_below_0(ours[CONTROL]) else "not "
        lines.append(f"The control is {negation}better than dense; in the paper it is not better.")
    kept = result["paper"]["share by compression"]
    text = ", ".join(f"{share} % at {size} %" for size, share in kept.items())
    lines.append(
        f"Published: {text} compression (table 7), with teachers of a thousand times this size, "
        "trained for hundreds of times as many updates."
    )
    return " ".join(lines)


def helps(difference: Result) -> str:
    """Whether soft targets help, by the interval of a student less the control."""
    words = side_of_0(
        difference,
        negative="soft targets help",
        positive="soft targets harm",
        neither="no help of soft targets is told",
    )
    return f"{words}, {interval(difference, 4)} nats"


def verdict(difference: Result) -> str:
    """Whether a student keeps something of the gain, by the interval of student less dense."""
    return side_of_0(
        difference,
        negative="it keeps something of the gain",
        positive="it is worse than dense",
        neither="no difference to dense is told",
    )


def _power(result):
    differences = {f"{name} less dense": v for name, v in result["against_dense"].items()}
    control = result["against_control"]
    differences |= {f"{name} less the control": v for name, v in control.items()}
    return power_sentence(differences, len(result["seeds"]), "nats per token", digits=4)
