"""The LSTM language models in words and tables."""

import math

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import (
    MISSING,
    basis,
    decimal,
    interval,
    interval_basis,
    markdown_table,
    mean_sd,
)
from moe_np.experiments.common.verdicts import side_of_0
from moe_np.experiments.shazeer2017_language.runs import (
    HIERARCHICAL,
    LARGEST,
    ROWS,
    SMALLEST,
    WIDE,
)

DECISIVE = {  # (system, against) -> what the interval decides
    (LARGEST, WIDE): "more parameters at equal operations",
    (LARGEST, SMALLEST): "parameters that are not used at every token",
}


def report(result: Result) -> str:
    """The rows beside the paper's, the comparisons, the balance, and what differs, as Markdown."""
    parts = (_caption, rows_table, published_table, differences_table, _power, balance_table)
    texts = [part(result) for part in (*parts, what_was_seen, what_differs)]
    return "\n\n".join(text for text in texts if text)


def _caption(result):
    config = result["config"]
    tokens = config["updates"] * config["batch"] * config["length"]
    return (
        f"LSTM, experts, LSTM of width {config['d_model']} on the King James Bible, whole books "
        f"held out: {tokens / 1e6:.1f} million tokens ({result['runs'][0]['epochs']:.1f} epochs), "
        f"dropout {config['dropout']:g}; {basis(len(result['seeds']), 'seed', deviation='sample')}."
        " Operations are multiplications per token; they and the parameters are without embedding "
        "and softmax. Test books are read by the model of the least validation loss. In brackets: "
        "perplexity as a multiple of that of MoE-1-Wide."
    )


def rows_table(result: Result) -> str:
    """A row per system, with the published perplexities of the row of the same name."""
    table7 = result["paper"]["table7"]
    table8 = result["paper"]["table8"]
    summary = result["summary"]
    wide = summary[WIDE]["loss"]["mean"] if WIDE in summary else None
    rows = []
    for system, ours in summary.items():
        name = ROWS.get(system, system)
        ratio = None if wide is None else math.exp(ours["loss"]["mean"] - wide)
        published = table7[name][0] if name in table7 else None
        of_wide = None if published is None else published / table7["MoE-1-Wide"][0]
        rows.append(
            (
                system,
                decimal(ours["operations"], 0, factor=1e-3),
                decimal(ours["parameters"], 0, factor=1e-3),
                mean_sd(ours["bits"], 3),
                f"{mean_sd(ours['perplexity'], 2)} ({decimal(ratio, 3)})",
                f"{decimal(published, 1)} ({decimal(of_wide, 3)})" if published else MISSING,
                decimal(table8[name][1], 1) if name in table8 else MISSING,
            )
        )
    head = ("system", "operations, thousand", "parameters, thousand", "bits per byte")
    head += ("test perplexity", "paper, Table 7", "paper, Table 8")
    return markdown_table(head, rows)


def published_table(result: Result) -> str:
    """The rows of Tables 7 and 8 that are too large to be run here."""
    table7 = result["paper"]["table7"]
    table8 = result["paper"]["table8"]
    names = [name for name in {**table7, **table8} if "256" in name or name.endswith("-h")]
    rows = [
        (
            name,
            decimal(table7[name][2], 1) if name in table7 else MISSING,
            decimal(table7[name][0], 1) if name in table7 else MISSING,
            decimal(table8[name][0], 1) if name in table8 else MISSING,
            decimal(table8[name][1], 1) if name in table8 else MISSING,
        )
        for name in names
    ]
    head = ("paper alone", "parameters, million", "Table 7", "Table 8, .1 epochs")
    return markdown_table((*head, "Table 8, 1 epoch"), rows)


def differences_table(result: Result) -> str:
    """A row per pair of systems, and the slope over the number of experts."""
    rows = [
        (f"{pair['system']} − {pair['against']}", interval(pair["loss"], 4))
        for pair in result["differences"]
    ]
    if result["slope"]:
        rows.append(("per doubling of the experts, 4 to 32", interval(result["slope"], 4)))
    measure = interval_basis(len(result["seeds"]), "seed", measure="test loss in nats per token")
    return markdown_table(("difference", measure), rows) if rows else ""


def balance_table(result: Result) -> str:
    """A row per mixture: the columns of Table 6, in evaluation and with the noise of training."""
    rows = []
    for system, ours in result["summary"].items():
        if ours["balance"]:
            modes = ours["balance"].values()
            cells = [mean_sd(value, 2) for mode in modes for value in mode.values()]
            rows.append((system, *cells))
    if not rows:
        return ""
    published = [decimal(value, 2) for value in result["paper"]["table6"].values()]
    rows.append(("paper, MoE-256, Table 6", *published, *[MISSING] * 3))
    names = list(result["paper"]["table6"])
    head = ("use of the experts", *names, *(f"{name}, with noise" for name in names))
    text = (
        "With 4 experts of 4 every load is equal. The hierarchical gate has no noise here, and so "
        "no load loss. The paper does not say whether its columns were measured with noise."
    )
    return markdown_table(head, rows) + "\n\n" + text


def what_was_seen(result: Result) -> str:
    """The answers by the criteria of `experiment`."""
    pairs = {(pair["system"], pair["against"]): pair["loss"] for pair in result["differences"]}
    lines = [
        f"{system} against {against} ({meaning}): {verdict(pairs[system, against])}."
        for (system, against), meaning in DECISIVE.items()
        if (system, against) in pairs
    ]
    if result["slope"]:
        lines.append(_slope_sentence(result))
    if (HIERARCHICAL, LARGEST) in pairs:
        lines.append(_levels_sentence(pairs[HIERARCHICAL, LARGEST]))
    return "**What was seen.** " + " ".join(lines) if lines else ""


def verdict(difference: dict) -> str:
    """What an interval of a difference in test loss says."""
    return side_of_0(
        difference,
        negative="it is better",
        positive="it is worse",
        neither="this cannot be told from no difference",
    )


def _slope_sentence(result):
    table7 = result["paper"]["table7"]
    published = math.log(table7["MoE-32"][0] / table7["MoE-4"][0]) / 3
    return (
        f"A doubling of the experts changes the loss by {interval(result['slope'], 4)} nats "
        f"({verdict(result['slope'])}); in Table 7 from MoE-4 to MoE-32 by {published:.4f}."
    )


def _levels_sentence(difference):
    answer = verdict(difference)
    return (
        f"Two levels change the loss by {interval(difference, 4)} nats ({answer}); in Table 7, "
        f"with 256 experts, by {math.log(36.0 / 35.7):.4f}."
    )


def what_differs(result: Result) -> str:
    """Why the numbers cannot be compared with the paper's, only their direction and ratio."""
    config = result["config"]
    return (
        "**What differs from the paper.** The perplexities are of other tokens: "
        f"{config['vocabulary']} byte pairs here, 793,471 words there, so that bits per byte and "
        f"ratios are what one may look at. The text has one million words (829 million in Table 7, "
        f"100 billion in Table 8) and is read several times. The width is {config['d_model']}, not "
        "512; the largest mixture has 32 experts, not 131,072. The experts have biases. Updates "
        "are those of AdamW with a cosine, the softmax is exact and not sampled, text comes in "
        "windows that begin with zero states. Dropout is the same for all rows, where the paper "
        "searched it for each. The hierarchical mixture has 4 groups, the paper's 16 and more. The "
        "paper gives one run per row, without a spread."
    )


def _power(result):
    losses = {f"{p['system']} − {p['against']}": p["loss"] for p in result["differences"]}
    return power_sentence(losses, len(result["seeds"]), "nats per token", digits=4)
