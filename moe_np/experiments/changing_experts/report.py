"""Changed experts in words and tables."""

from moe_np.experiments.changing_experts.experiment import LEARNING, SMALLER
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import basis, interval, markdown_table, mean_sd
from moe_np.experiments.common.verdicts import side_of_0


def report(result: Result) -> str:
    """The tables and what came out, as Markdown."""
    parts = (_caption(result), _smaller(result), _learnt(result), _differences(result))
    parts += (_power(result),)
    return "\n\n".join(part for part in (*parts, _seen(result)) if part)


def _caption(result):
    sizes = result["config"]["sizes"]
    caption = basis(len(result["seeds"]), "seed", deviation="sample")
    return (
        f"Decoders with {sizes['experts']} experts per layer, 2 per token, {sizes['updates']} "
        f"updates on the King James Bible; {caption}. Loss in nats per token of held-out books. "
        "The new domain is the Spanish Bible, in the tokens of the English one."
    )


def _smaller(result):
    systems = [system for system in SMALLER if system in result["summary"]]
    if not systems:
        return ""
    counts = list(result["summary"][systems[0]]["losses"])
    rows = [
        (system, *(mean_sd(result["summary"][system]["losses"][n], 3) for n in counts))
        for system in systems
    ]
    return markdown_table(("experts removed", *counts), rows)


def _learnt(result):
    rows = []
    for system in LEARNING:
        if system in result["summary"]:
            ours = result["summary"][system]
            losses = [mean_sd(ours[name], 3) for name in ("rise of old", "new before", "new after")]
            rows.append((system, f"{ours['trained']:,}", *losses))
    head = ("trained", "numbers", "rise of the old loss", "new loss before", "after")
    return markdown_table(head, rows) if rows else ""


def _differences(result):
    rows = [(name, interval(value, 4)) for name, value in result["differences"].items()]
    return markdown_table(("difference, 95 % interval by seed", "nats"), rows) if rows else ""


def _seen(result):
    ours = result["differences"]
    claims = {
        "loss less random": "removing by reconstruction loss is better than at random",
        "merged less loss": "merging is better than removing",
        "old, new expert and router less old, everything": "a new expert forgets less",
    }
    lines = ["**What was seen.**"]
    for name, claim in claims.items():
        if name in ours:
            lines.append(f"That {claim}: {verdict(ours[name])}.")
    points = result["paper"]["points lost"]
    text = ", ".join(f"{n} of 8 experts {lost} points" for n, lost in points.items())
    lines.append(
        f"Published: removed from Mixtral 8x7B by reconstruction loss, {text} of the average of "
        "eight tasks (Lu et al. 2024); such tasks cannot be had at this scale."
    )
    return " ".join(lines)


def verdict(difference: Result) -> str:
    """Whether a claim that the difference is below 0 holds."""
    words = {"negative": "holds", "positive": "the opposite holds", "neither": "cannot be told"}
    return side_of_0(difference, **words)


def _power(result):
    return power_sentence(result["differences"], len(result["seeds"]), "nats per token", digits=4)
