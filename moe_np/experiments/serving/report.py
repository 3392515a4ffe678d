"""Serving in words and a table."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import basis, markdown_table, mean_sd, plural
from moe_np.experiments.common.statistics import describe


def report(result: Result) -> str:
    """Latencies and throughput by arrivals, load and system, as Markdown."""
    return f"{_caption(result)}\n\n{table(result)}\n\n{_power(result)}"


def _caption(result):
    config = result["config"]
    sizes = {run["system"]: run["bytes"] / 1e6 for run in result["runs"]}
    memory = "; ".join(f"{system} {size:.1f} MB" for system, size in sizes.items())
    seeds = basis(len(result["seeds"]), "seed", deviation="sample")
    return (
        f"Decoders with {config['layers']} layers of width {config['d_model']} and random "
        f"parameters, {config['requests']} requests of {config['prompt']} tokens that get "
        f"{config['tokens']} more, at most {config['most']} at a time; {seeds}, in the state in "
        "which this machine was. Load 1 is the rate at which the sparse system serves requests one "
        f"after the other; each seed's is the same for all systems up to the noise of its "
        f"measurement. Experts or feed-forward networks: {memory}.{_quality(result)}"
    )


def _quality(result):
    """How wide the network of equal quality is, and whether the rule found it."""
    records = [run["quality"] for run in result["runs"] if run["quality"] is not None]
    if not records:
        return ""
    factor = mean_sd(describe([record["factor"] for record in records])._asdict(), 2)
    inside = sum(record["inside"] for record in records)
    losses = "; ".join(
        f"{system} {mean_sd(describe([r['losses'][system] for r in records])._asdict(), 3)}"
        for system in records[0]["losses"]
    )
    return (
        f" The dense network of equal quality is {factor} times as wide as that of equal "
        f"operations; the mixture's loss lay between those of dense models for {inside} of "
        f"{plural(len(records), 'seed')} (validation loss of `language_model`: {losses})."
    )


def table(result: Result) -> str:
    """A row per kind of arrivals, load and system; latencies in seconds."""
    systems = result["summary"]
    n_rows = len(next(iter(systems.values())))
    rows = []
    for i in range(n_rows):
        for system, ours in systems.items():
            row = ours[i]
            numbers = [mean_sd(row[name], 3) for name in ("p50", "p99", "wait p50")]
            batch = mean_sd(row["batch"], 1)
            throughput = mean_sd(row["throughput"], 0)
            rows.append((row["arrivals"], row["load"], system, *numbers, batch, throughput))
    head = ("arrivals", "load", "system", "latency p50", "latency p99", "first token p50")
    return markdown_table((*head, "sequences per step", "tokens per second"), rows)


def _power(result):
    speeds = {
        f"{system}, {row['arrivals']}, load {row['load']}": row["throughput"]
        for system, rows in result["summary"].items()
        for row in rows
    }
    return power_sentence(speeds, len(result["seeds"]), "tokens per second", digits=0, paired=False)
