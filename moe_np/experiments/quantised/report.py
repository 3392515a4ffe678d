"""Quantised experts in words and a table."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import basis, markdown_table, mean_sd
from moe_np.experiments.quantised.runs import BOTH, EXPERTS, ROUTERS


def report(result: Result) -> str:
    """The added loss by bits and group, of experts, routers, and both, as Markdown."""
    model = result["config"]["model"]
    seeds = basis(len(result["seeds"]), "seed", deviation="sample")
    caption = (
        f"A decoder with {model['layers']} layers of width {model['d_model']} and 8 experts, "
        f"trained with {model['updates']} updates on the King James Bible; held-out loss in "
        f"float32 {mean_sd(result['float32'], 3)} nats per token ({seeds}). Rounding to nearest "
        "by groups of the input axis, no calibration. Loss added by rounding, nats per token:"
    )
    return f"{caption}\n\n{table(result)}\n\n{_power(result)}\n\n{_reading(result)}"


def table(result: Result) -> str:
    """A row per number of bits and group."""
    by_part = {(r["part"], r["bits"], r["group"]): r for r in result["summary"]}
    rows = [
        (
            row["bits"],
            row["group"],
            f"{row['share']:.3f}",
            *(
                mean_sd(by_part[part, row["bits"], row["group"]]["added"], 4)
                for part in (EXPERTS, ROUTERS, BOTH)
            ),
        )
        for row in result["summary"]
        if row["part"] == EXPERTS
    ]
    head = ("bits", "group", "experts' memory / float32", "experts", "routers", "both")
    return markdown_table(head, rows)


def _reading(result):
    """Which numbers of bits cost less than a hundredth of the loss, by the mean over the seeds."""
    limit = 0.01 * result["float32"]["mean"]
    rows = [r for r in result["summary"] if r["part"] == EXPERTS and r["added"]["mean"] < limit]
    if not rows:
        return "Every way to round the experts adds more than 1 % to the loss."
    least = min(rows, key=lambda row: row["share"])
    return (
        f"The least memory that adds under 1 % to the loss: {least['bits']} bits in groups of "
        f"{least['group']}, {least['share']:.3f} of float32."
    )


def _power(result):
    """The added loss is a difference by seed already."""
    added = {
        f"{r['part']}, {r['bits']} bits by {r['group']}": r["added"] for r in result["summary"]
    }
    return power_sentence(added, len(result["seeds"]), "nats per token", digits=4)
