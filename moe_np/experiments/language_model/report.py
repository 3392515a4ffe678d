"""The language models in words and tables."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import (
    basis,
    decimal,
    interval,
    join,
    markdown_table,
    mean_sd,
)
from moe_np.experiments.common.verdicts import side_of_0
from moe_np.experiments.language_model.equal_quality import equal_quality_table
from moe_np.experiments.language_model.overfitting import overfitting_table, what_overfits
from moe_np.experiments.language_model.runs import (
    DENSE,
    EIGHT,
    LARGE,
    MANY,
    PAPER,
    WIDE_EIGHT,
)


def report(result: Result) -> str:
    """The systems, the comparisons with the dense model, and what came out, as Markdown."""
    parts = (_caption, systems_table, comparison_table, _power, equal_quality_table, what_was_seen)
    parts += (overfitting_table, what_overfits, published)
    return "\n\n".join(text for part in parts if (text := part(result)))


def _caption(result):
    config = result["config"]
    tokens = config["updates"] * config["batch"] * config["length"]
    caption = basis(len(result["seeds"]), "seed", deviation="sample")
    return (
        f"Decoders with {config['layers']} layers of width {config['d_model']} (two of twice the "
        "width), trained on "
        f"{tokens / 1e6:.1f} million tokens ({result['runs'][0]['epochs']:.1f} epochs) of the King "
        "James Bible, whole books held out, and, to overfit, on "
        f"{join(config['two_books'])} alone; {caption}. Loss in nats per token, the task's alone. "
        "Active: parameters that a token uses. Seconds are those of the processor, all threads "
        "together. The test books are read by the model of the least validation loss."
    )


def systems_table(result: Result) -> str:
    """A row per system."""
    rows = []
    for system, ours in result["summary"].items():
        rows.append(
            (
                system,
                f"{ours['parameters'] / 1e6:.2f}",
                f"{ours['active'] / 1e6:.2f}",
                mean_sd(ours["validation"], 3),
                mean_sd(ours["test"], 3),
                mean_sd(ours["perplexity"], 1),
                mean_sd(ours["bits"], 3),
                mean_sd(ours["seconds"], 0),
                mean_sd(ours["inference"], 2, factor=1000),
            )
        )
    head = ("system", "parameters, million", "active", "validation loss", "test loss")
    head += ("test perplexity", "bits per byte", "seconds", "ms per 1000 tokens read")
    return markdown_table(head, rows)


def comparison_table(result: Result) -> str:
    """A row per system against the dense model, with 95 % intervals of the paired comparison."""
    rows = []
    n = len(result["seeds"])
    for system, ours in result["against_dense"].items():
        cells = [interval(ours["test loss"], 3)]
        for name in ("tokens", "seconds"):
            missing = f"reached by {ours[f'{name} reached']} of {n}"
            cells.append(interval(ours[name], 2) if ours[name] else missing)
        rows.append((system, *cells, interval(ours["inference"], 2)))
    head = ("against dense", "test loss, difference", "fewer tokens by", "fewer seconds by")
    return markdown_table((*head, "inference faster by"), rows)


def what_was_seen(result: Result) -> str:
    """The answers to what articles claim, by the criteria of `experiment`."""
    ours = result["against_dense"]
    lines = []
    for system in (EIGHT, MANY, WIDE_EIGHT):
        if system in ours:
            lines.append(loss_sentence(system, ours[system]))
            lines.append(_faster(system, ours[system], len(result["seeds"])))
    if LARGE in ours and EIGHT in ours:
        lines.append(_inference(result))
    return "**What was seen.** " + " ".join(lines) if lines else ""


def loss_sentence(system: str, ours: Result) -> str:
    """Whether the test loss of a system is better than the dense model's, by its interval."""
    difference = ours["test loss"]
    verdict = side_of_0(
        difference,
        negative="they are better",
        positive="they are worse",
        neither="this cannot be told from no difference",
    )
    return (
        f"{system.capitalize()} at the operations of the dense model change its test loss by "
        f"{interval(difference, 3)} nats: {verdict}."
    )


def _faster(system, ours, n):
    if ours["seconds"] is None:
        count = ours["seconds reached"]
        return f"Its last validation loss is reached by {count} of {n} seeds of {system}."
    return (
        f"Its last validation loss is reached with {interval(ours['tokens'], 2)} times fewer "
        f"tokens, and in {interval(ours['seconds'], 2)} times less processor time."
    )


def _inference(result):
    ours, large = (result["summary"][system]["inference"]["mean"] for system in (EIGHT, LARGE))
    dense = result["summary"][DENSE]["inference"]["mean"] if DENSE in result["summary"] else None
    text = (
        f"Reading with 8 experts takes {ours / large:.2f} of the time of the dense model of equal "
        "size"
    )
    if dense is None:
        return text + "."
    return text + f", and {ours / dense:.2f} of the time of the one of equal operations."


def published(result: Result) -> str:
    """What papers print at their scale."""
    config = result["config"]
    size = max(ours["parameters"] for ours in result["summary"].values()) / 1e6
    return (
        "**Published, at a thousand times this size.** Switch-Base with 64 experts reaches the "
        f"quality of T5-Base in 1/{decimal(PAPER['switch steps'], 1)} of the steps and "
        f"1/{decimal(PAPER['switch time'], 0)} of the time (Fedus et al. 2021, section 3.1); OLMoE "
        f"that of a dense model with 1/{decimal(PAPER['olmoe tokens'], 0)} of the tokens and in "
        f"1/{decimal(PAPER['olmoe time'], 0)} of the time (Muennighoff et al. 2024, section 4.1). "
        f"Here the largest model has {size:.1f} million parameters, and the text "
        f"{config['vocabulary']} kinds of token: the gain of parameters that are not used at every "
        "token has less to hold on to."
    )


def _power(result):
    ours = result["against_dense"]
    losses = {f"{system}, test loss": values["test loss"] for system, values in ours.items()}
    return power_sentence(losses, len(result["seeds"]), "nats per token")
