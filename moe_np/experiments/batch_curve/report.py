"""The batch curve in words and a table."""

import numpy as np

from moe_np.experiments.batch_curve.runs import ACTIVE, SPARSE, TOTAL
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import MISSING, decimal, markdown_table, mean_sd, plural
from moe_np.experiments.common.statistics import describe


def report(result: Result) -> str:
    """Times per token and their ratios, memory, and the model, as Markdown."""
    parts = (_caption, times_table, memory_table, _power, _model)
    return "\n\n".join(part(result) for part in parts)


def _caption(result):
    config = result["config"]
    return (
        f"One SwiGLU layer, d {config['d']}, {config['experts']} experts of {config['hidden']} "
        f"hidden units, {config['k']} per token, float32, one thread, no backward pass. Median "
        f"of {plural(len(result['seeds']), 'seed')}, each the least time of several calls, in the "
        "state in which this machine was."
    )


def times_table(result: Result) -> str:
    """A row per number of tokens."""
    rows = []
    for i, n in enumerate(result["config"]["tokens"]):
        times = [decimal(_at(ours["median"], i), 4, factor=1e3) for ours in _systems(result)]
        ratios = [
            decimal(_at(result["ratios"].get(system, []), i), 2) for system in (ACTIVE, TOTAL)
        ]
        touched = MISSING
        if SPARSE in result["summary"]:
            touched = f"{result['summary'][SPARSE]['touched'][i]:.1f}"
        rows.append((n, *times, *ratios, touched, f"{result['expected'][i]:.1f}"))
    head = ("tokens", *(f"{system}, ms per token" for system in result["summary"]))
    head += ("sparse / equal active", "sparse / equal total", "experts touched", "formula")
    return markdown_table(head, rows)


def _systems(result):
    return result["summary"].values()


def _at(values, i):
    return values[i] if i < len(values) else None


def memory_table(result: Result) -> str:
    """A row per system."""
    rows = [
        (
            system,
            decimal(ours["weights"], 1, factor=1e-6),
            mean_sd(ours["resident"], 1, factor=1e-6),
        )
        for system, ours in result["summary"].items()
    ]
    return markdown_table(("MB (10⁶ bytes)", "weights", "resident, with tokens and outputs"), rows)


def _model(result):
    model = result["model"]
    text = (
        f"Model: weights touched at {model['bandwidth'] / 1e9:.1f} GB/s plus operations at "
        f"{model['rate'] / 1e9:.1f} GFLOP/s, two constants for all systems; largest error "
        f"{model['largest_error']:.0%}."
    )
    worst = result["ratios"].get(ACTIVE)
    if worst:
        tokens = result["config"]["tokens"][max(range(len(worst)), key=worst.__getitem__)]
        text += (
            f" Against the dense layer of equal operations the sparse one is slowest at {tokens} "
            f"tokens, {max(worst):.1f} times its time; "
        )
        text += "it is nowhere faster." if min(worst) >= 1 else f"at best {min(worst):.2f} times."
    return text


def _power(result):
    """Of the logs of the times per token, whose difference is the log of a ratio."""
    n = len(result["seeds"])
    logs = {
        f"{system}, {tokens} tokens": describe(np.log(seconds))[:2]
        for system in result["summary"]
        for i, tokens in enumerate(result["summary"][system]["tokens"])
        for seconds in [[r["seconds"][i] for r in result["runs"] if r["system"] == system]]
    }
    return power_sentence(logs, n, "of the log of the time per token", paired=False)
