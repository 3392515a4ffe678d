"""Upcycling in words and tables."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import (
    basis,
    decimal,
    interval,
    markdown_table,
    mean_sd,
)
from moe_np.experiments.common.verdicts import side_of_0
from moe_np.experiments.upcycling.experiment import ANEW, DENSE, DENSE_KEPT, KEPT, UPCYCLED


def report(result: Result) -> str:
    """The systems, the differences, and what came out, as Markdown."""
    parts = (_caption, _systems, _differences, _power, _seen)
    return "\n\n".join(text for part in parts if (text := part(result)))


def _caption(result):
    config = result["config"]
    caption = basis(len(result["seeds"]), "seed", deviation="sample")
    return (
        f"A dense decoder was trained for {config['sizes']['updates']} updates on the King James "
        f"Bible, and everything but '{ANEW}' goes on from it for {config['further']}; {caption}. "
        "Loss in nats per token of the held-out books. At first: the change of the loss by "
        "upcycling alone. Seconds are those of the processor, the sunk ones included."
    )


def _systems(result):
    rows = [
        (
            system,
            mean_sd(ours["first"], 4, unsigned_zero=True),
            mean_sd(ours["last"], 4),
            mean_sd(ours["seconds"], 0),
        )
        for system, ours in result["summary"].items()
    ]
    return markdown_table(("system", "at first", "last loss", "seconds"), rows)


def _differences(result):
    rows = [(name, interval(value, 4)) for name, value in result["differences"].items()]
    return markdown_table(("difference of the last loss, 95 % interval by seed", "nats"), rows)


def _seen(result):
    pays = result["differences"].get(f"{UPCYCLED} less {DENSE}")
    kept = result["differences"].get(f"{KEPT} less {DENSE_KEPT}")
    early = result["differences"].get(f"{UPCYCLED} less {ANEW}, equal further updates")
    paper = result["paper"]
    lines = ["**What was seen.**"]
    if pays:
        lines.append(f"Upcycling against going on dense: {verdict(pays)}.")
    if kept:
        lines.append(f"Both with the optimiser's state kept: {verdict(kept)}.")
    if early:
        lines.append(f"Against experts anew after equally many updates: {verdict(early)}.")
    if result["passes"] is not None:
        lines.append(
            "From initialisation the mixture is ahead, on equal tokens in all, after "
            f"{decimal(result['passes'], 2)} of the sunk updates more."
        )
    elif early:
        lines.append("On equal tokens in all, the mixture from initialisation never passes it.")
    lines.append(
        f"Published: better than dense with {100 * paper['extra budget']:.0f} % extra budget, and "
        f"passed after {100 * paper['anew passes, Komatsuzaki']:.0f} % of the sunk budget "
        "(Komatsuzaki et al. 2022, encoder-decoders and expert choice) or "
        f"{100 * paper['anew passes, OLMoE']:.0f} % (OLMoE, where noise on the copies did not "
        "help); both at a thousand times this size."
    )
    return " ".join(lines)


def verdict(difference: Result) -> str:
    """What an interval of a difference of losses says."""
    text = f"{interval(difference, 4)} nats"
    return side_of_0(
        difference,
        negative=f"better, by {text}",
        positive=f"worse, by {text}",
        neither=f"no difference can be told, {text}",
    )


def _power(result):
    return power_sentence(result["differences"], len(result["seeds"]), "nats per token", digits=4)
