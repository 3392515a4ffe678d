"""The errors of both systems as Markdown."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import basis, markdown_table, mean_sd


def report(result: Result) -> str:
    """One row per system, and which differences the runs can show."""
    caption = basis(len(result["seeds"]), "seed", deviation="sample")
    rows = [(name, mean_sd(ours["error"], 3)) for name, ours in result["summary"].items()]
    table = markdown_table(("system", "error"), rows)
    errors = {name: ours["error"] for name, ours in result["summary"].items()}
    power = power_sentence(errors, len(result["seeds"]), paired=False)
    return f"Root mean square error, {caption}.\n\n{table}\n\n{power}"
