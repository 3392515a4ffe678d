"""The errors of both systems as Markdown."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import basis, markdown_table, mean_sd


def report(result: Result) -> str:
    """One row per system."""
    caption = basis(len(result["seeds"]), "seed", deviation="sample")
    rows = [(name, mean_sd(ours["error"], 3)) for name, ours in result["summary"].items()]
    return f"Root mean square error, {caption}.\n\n{markdown_table(('system', 'error'), rows)}"
