"""The uneven load in words and a table."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import MISSING, decimal, join, markdown_table, plural
from moe_np.experiments.imbalance.runs import ONE, RANKS, TWO


def report(result: Result) -> str:
    """Times by skew and system, measured and by the model, as Markdown."""
    return "\n\n".join([_caption(result), table(result), _reading(result)])


def _caption(result):
    config = result["config"]
    machine = result["machine"]
    of = "as measured" if machine["measured"] else "assumed, because nothing was measured"
    by = {
        maker: [s for s, m in result["by"].items() if m == maker] for maker in result["by"].values()
    }
    under = "; ".join(
        f"{join(systems)} {f'under {maker}' if maker else 'not measured'}"
        for maker, systems in by.items()
    )
    return (
        f"A training step of one SwiGLU layer with its router: {config['tokens']} tokens, "
        f"d {config['d_model']}, {config['experts']} experts of {config['hidden']} hidden units, "
        f"{config['k']} per token, float32, one thread per rank. Median of "
        f"{plural(len(result['seeds']), 'seed')}, each the fastest of {config['repeats'] + 1} "
        f"steps, in the state in which this machine was; {under}. The model: what each rank "
        "computes, timed alone, the slowest rank of each part of the step, and messages with "
        f"{1e6 * machine['alpha']:.0f} µs and {machine['bandwidth'] / 1e9:.2f} GB/s, {of}."
    )


def table(result: Result) -> str:
    """A row per skew and system; times in ms."""
    rows = []
    for system, of_system in result["summary"].items():
        for row, model in zip(of_system, result["model"][system], strict=True):
            waiting = row.get("waiting")
            rows.append(
                (
                    row["skew"],
                    system,
                    f"{row['busiest']:.0%}",
                    decimal(row.get("measured"), 1, factor=1e3),
                    decimal(model, 1, factor=1e3),
                    _percent(row["measured"] / model - 1) if "measured" in row else MISSING,
                    ", ".join(f"{1e3 * seconds:.0f}" for seconds in row["compute"]),
                    ", ".join(f"{share:.0%}" for share in waiting) if waiting else MISSING,
                )
            )
    rows.sort(key=lambda row: row[0])
    head = ("skew", "system", "rows on the busiest rank", "step ms", "model ms", "difference")
    return markdown_table((*head, "each rank computes ms", "waiting share of each rank"), rows)


def _percent(share):
    return f"{share:+.0%}"


def _reading(result):
    """From which skew on two ranks are slower than one, by what was measured, else by the model."""
    if not {ONE, TWO} <= set(result["summary"]):
        return f"{plural(len(result['summary']), 'system')} of {len(RANKS)}."
    pairs = []
    for i, row in enumerate(result["summary"][ONE]):
        times = [
            result["summary"][system][i].get("measured", result["model"][system][i])
            for system in (ONE, TWO)
        ]
        pairs.append((row["skew"], times[0] / times[1]))
    slower = [skew for skew, gain in pairs if gain < 1]
    text = (
        f"Two ranks do a step {pairs[0][1]:.2f} times as fast as one at skew {pairs[0][0]:g}, and "
        f"{pairs[-1][1]:.2f} times at skew {pairs[-1][0]:g}: a step takes as long as its busiest "
        "rank."
    )
    if slower:
        text += f" From skew {slower[0]:g} on, two ranks are slower than one."
    return text
