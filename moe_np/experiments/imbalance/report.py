"""The uneven load in words and a table."""

import math

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import (
    MISSING,
    decimal,
    interval,
    join,
    markdown_table,
    plural,
)
from moe_np.experiments.common.statistics import Interval, t_interval
from moe_np.experiments.imbalance.runs import ONE, RANKS, TWO, TWO_PACKED


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
    skews = [row["skew"] for row in result["summary"][ONE]]
    logs = {s: gains(result, s) for s in (TWO, TWO_PACKED) if s in result["summary"]}
    first, last = (_times(logs[TWO][i]) for i in (0, -1))
    text = (
        f"Two ranks do a step {first} times as fast as one at skew {skews[0]:g}, and "
        f"{last} times at skew {skews[-1]:g}: a step takes as long as its busiest rank."
    )
    if TWO_PACKED in logs:
        text += f" With the experts placed by load it is {_times(logs[TWO_PACKED][-1])} times."
    slower = [
        skew
        for skew, gain in zip(skews, logs[TWO], strict=True)
        if (gain.estimate if gain.high is None else gain.high) < 0
    ]
    if slower:
        text += f" From skew {slower[0]:g} on, two ranks are slower than one."
    n = len(result["seeds"])
    if logs[TWO][0].low is None:
        return text
    text += f" In brackets: 95 % t interval of the log ratio over {plural(n, 'seed')}."
    names = {f"{s}, skew {skews[i]:g}": of[i].record() for s, of in logs.items() for i in (0, -1)}
    return f"{text}\n\n{power_sentence(names, n, 'in the log of the ratio')}"


def gains(result: Result, system: str) -> list[Interval]:
    """Per skew the log of how many times as fast as one rank a system is: the mean over the seeds,
    paired, with its t interval; by the model, without bounds, where nothing was measured.
    """
    by_seed: dict[str, dict] = {ONE: {}, system: {}}
    for run in result["runs"]:
        if run["system"] in by_seed:
            by_seed[run["system"]][run["seed"]] = run["rows"]
    logs = []
    for i, times in enumerate(zip(*(result["model"][s] for s in by_seed), strict=True)):
        steps = [
            [of_seed[seed][i]["measured"] for of_seed in by_seed.values()]
            for seed in by_seed[system]
        ]
        if all(step for of_seed in steps for step in of_seed):
            ratios = [alone["seconds"] / several["seconds"] for alone, several in steps]
            logs.append(t_interval([math.log(ratio) for ratio in ratios]))
        else:
            logs.append(Interval(math.log(times[0] / times[1]), None, None, 0.95))
    return logs


def _times(gain):
    """e to the power of a log ratio and of its bounds, if it has any."""
    estimate = math.exp(gain.estimate)
    if gain.low is None or gain.high is None:
        return decimal(estimate)
    return interval((estimate, math.exp(gain.low), math.exp(gain.high)))
