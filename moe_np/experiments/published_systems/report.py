"""The model of cost beside published measurements, in words and a table."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import markdown_table

SOURCES = {
    "DeepEP": "low-latency kernels of DeepEP, H800, 128 tokens per device",
    "DeepSpeed-MoE": "training on 128 A100, table 2 of DeepSpeed-MoE, of equal quality",
    "Switch": "training on 32 TPU cores, table 1 of Switch Transformers",
    "DeepSeek service": "decoding on 144 H800, day 6 of the open-source week",
}


def report(result: Result) -> str:
    """All rows, and what the model explains and what it does not."""
    return "\n\n".join([_caption(result), table(result), what_was_seen(result)])


def _caption(result):
    return (
        "Published measurements beside the model of `moe_np.parallel.cost`. A difference in "
        "brackets is of a model that leaves out on purpose what the row above has; it is not "
        "counted. **Power.** Nothing is random here: a row is computed once, and has no spread."
    )


def table(result: Result) -> str:
    """One row per published number."""
    rows = []
    for name, run in result["systems"].items():
        for number, row in enumerate(run["rows"]):
            difference = f"{row['model'] / row['published'] - 1:+.1%}"
            rows.append(
                (
                    SOURCES[name] if number == 0 else "",
                    f"{row['what']} ({row['unit']})",
                    f"{row['published']:.4g}",
                    f"{row['model']:.4g}",
                    difference if row["counted"] else f"[{difference}]",
                )
            )
    return markdown_table(("system", "what", "published", "model", "difference"), rows)


def what_was_seen(result: Result) -> str:
    """A sentence per system, from the numbers of this run."""
    sentences = {
        "DeepEP": _of_messages,
        "DeepSpeed-MoE": _of_operations,
        "Switch": _of_einsums,
        "DeepSeek service": _of_service,
    }
    parts = [sentences[name](result, run) for name, run in result["systems"].items()]
    return "**What was seen.** " + " ".join(parts)


def _largest(result, name):
    return f"{100 * result['summary'][name]['largest']:.0f} %"


def _of_messages(result, run):
    dispatch, combine = run["fitted"].values()
    return (
        f"One latency of {dispatch:.0f} µs for dispatch and one of {combine:.0f} µs for combine, "
        f"both fitted, and the bytes over the wire explain DeepEP within "
        f"{_largest(result, 'DeepEP')} from 16 to 256 ranks."
    )


def _of_operations(result, run):
    return (
        "DeepSpeed's speed-up is the ratio of the operations, within "
        f"{_largest(result, 'DeepSpeed-MoE')}."
    )


def _of_einsums(result, run):
    without = run["rows"][-1]
    first, *_, largest, _ = run["rows"]
    slower = without["published"] / without["model"]
    return (
        f"A sparse model with the operations of T5-Base makes only {slower:.2f} of its steps. "
        "Dispatch by one-hot products can explain it without any network: with groups of "
        f"{run['fitted']['tokens of a group']:.0f} tokens, a size that the paper does not print, "
        f"the model is off by {first['model'] / first['published'] - 1:+.0%} at capacity factor 1, "
        f"but by {largest['model'] / largest['published'] - 1:+.0%} at 2: capacity costs less "
        "there than in the model."
    )


def _of_service(result, run):
    fitted = run["fitted"]
    step = run["rows"][0]
    return (
        f"In DeepSeek's service a device decodes {fitted['users per device']:.0f} tokens per step; "
        f"messages take {fitted['messages, ms']:.0f} ms and reading the weights "
        f"{fitted['reading, ms']:.0f} ms of the {step['published']:.0f} ms of a step. The model "
        "leaves attention over the context out, so it has to come out too fast; it does, by "
        f"{1 - step['model'] / step['published']:.0%}."
    )
