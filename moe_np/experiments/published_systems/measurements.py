"""Published measurements, and what `moe_np.parallel.cost` says of the same machines.

Each system is a table of rows {"what", "unit", "published", "model"}. The model has as few
constants as it can: bandwidths that the makers print, and where a latency is not printed, one that
is fitted to the rows and said to be so.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from moe_np import accounting
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.parallel import cost
from moe_np.parallel.cost import Machine

DEEP_EP = "DeepEP"
DEEP_SPEED = "DeepSpeed-MoE"
SWITCH = "Switch"
SERVICE = "DeepSeek service"

PAPER = {
    # deepseek-ai/DeepEP, docs/legacy.md: low-latency kernels, H800 with 50 GB/s per device between
    # nodes of 8, 128 tokens, d = 7168, 8 of the experts: {ranks: (dispatch µs, combine µs)}
    DEEP_EP: {
        **{8: (77, 114), 16: (118, 195), 32: (155, 273)},
        **{64: (173, 314), 128: (192, 369), 256: (194, 360)},
    },
    # Rajbhandari et al. 2022 (arXiv 2201.05596), table 2: training samples per second on 128 A100,
    # of a dense model and of a sparse one of the same quality
    DEEP_SPEED: {"6.7B dense": 70, "1.3B+MoE-128": 372},
    # Fedus et al. 2021 (arXiv 2101.03961), table 1: examples per second on 32 cores, by capacity
    # factor; T5-Base has the same operations per token
    SWITCH: {"T5-Base": 1600, 1.0: 1000, 1.25: 910, 2.0: 860},
    # DeepSeek-AI, open-infra-index, day 6: decoding on 144 H800, per node of 8 devices; the number
    # per user is the middle of 20 to 22
    SERVICE: {"tokens per second of a node": 14800, "tokens per second of a user": 21},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What the model of each system takes from where."""

    ib: float = 50e9  # bytes per second, DeepEP: "50 GB/s maximum bandwidth" of a device
    tokens: int = 128  # DeepEP, low-latency kernels: per device
    d_model: int = 7168  # DeepSeek-V3 (arXiv 2412.19437), section 4.2, and all that follows
    k: int = 8
    experts: int = 256
    hidden: int = 2048
    layers: int = 58  # of 61, those with experts
    parameters: float = 671e9
    memory_bandwidth: float = 3.35e12  # bytes per second, H800
    group: int = 8192  # tokens of a group of the one-hot einsums of Switch; not printed
    sequence: int = 512  # T5's


def run_one(spec: Spec) -> Result:
    """The rows of one system: {"rows": [...], "fitted": {constant: value}}."""
    config = Config(**spec["config"])
    return TABLES[spec["system"]](config)


def _row(what: str, unit: str, published: float, model: float, counted: bool = True) -> Result:
    return {
        "what": what,
        "unit": unit,
        "published": float(published),
        "model": float(model),
        "counted": counted,  # whether it is in the summary of differences
    }


# --- the systems ----------------------------------------------------------------------------------


def row_bytes(config: Config) -> tuple[float, float]:
    """Bytes of a token's row: dispatched in 8 bits with a scale per 128 numbers, combined in 16."""
    return config.d_model + 4 * config.d_model / 128, 2.0 * config.d_model


def deep_ep(config: Config) -> Result:
    """One latency per direction, fitted, and the bytes over the wire: α + (1 − 8/R)·bytes/β."""
    machine = Machine(bandwidth=config.ib, local_bandwidth=np.inf, alpha=0.0)
    rows = []
    fitted = {}
    for name, column, width in zip(("dispatch", "combine"), (0, 1), row_bytes(config), strict=True):
        n_bytes = config.tokens * config.k * width
        times = {ranks: both[column] for ranks, both in PAPER[DEEP_EP].items() if ranks > 8}
        wire = {ranks: 1e6 * cost.all_to_all(n_bytes, ranks, machine) for ranks in times}
        alpha = _fitted_latency(np.array(list(times.values())), np.array(list(wire.values())))
        fitted[f"α of {name}, µs"] = alpha
        for ranks, published in times.items():
            what = f"{name}, {ranks} ranks"
            rows.append(_row(what, "µs", published, alpha + wire[ranks]))
    return {"rows": rows, "fitted": fitted}


def _fitted_latency(published, wire):
    """The α for which the largest relative difference is the smallest, in tenths of a µs."""
    candidates = np.arange(0.0, 200.0, 0.1)
    worst = np.abs((candidates[:, None] + wire) / published - 1).max(axis=1)
    return float(candidates[worst.argmin()])


def deep_speed(config: Config) -> Result:
    """Operations alone: a model of 1.3B for each token, in place of one of 6.7B."""
    published = PAPER[DEEP_SPEED]["1.3B+MoE-128"] / PAPER[DEEP_SPEED]["6.7B dense"]
    row = _row("1.3B+MoE-128 over 6.7B dense, speed", "times", published, 6.7 / 1.3)
    return {"rows": [row], "fitted": {}}


def switch(config: Config) -> Result:
    """The one-hot einsums of dispatch and combine take E·C·d = capacity factor·S·d multiply-adds
    per token each, with groups of S tokens, in every layer with experts.
    """
    base = accounting.MODELS["switch-base"]
    operations = accounting.count("t5-base").operations
    speed = PAPER[SWITCH]["T5-Base"]
    rows = []
    for factor in (1.0, 1.25, 2.0):
        einsums = base.moe_layers * 2 * factor * config.group * base.d_model
        # larger capacities also compute on empty places of the experts
        places = (factor - 1) * accounting.count("switch-base").parts["experts"].operations
        model = speed * operations / (operations + einsums + places)
        what = f"Switch-Base, capacity factor {factor:g}"
        rows.append(_row(what, "examples/s", PAPER[SWITCH][factor], model))
    without = _row(
        "Switch-Base without the einsums", "examples/s", PAPER[SWITCH][1.0], speed, False
    )
    return {"rows": [*rows, without], "fitted": {"tokens of a group": float(config.group)}}


def service(config: Config) -> Result:
    """A step of decoding: two exchanges per layer, and the weights that a device reads.

    The tokens of a device are those that the two published numbers together make. Attention over
    the context is left out, and so is what overlaps.
    """
    rates = PAPER[SERVICE]
    users = rates["tokens per second of a node"] / 8 / rates["tokens per second of a user"]
    latencies = deep_ep(config)["fitted"]
    machine = Machine(bandwidth=config.ib, local_bandwidth=np.inf, alpha=0.0)
    exchange = sum(
        1e-6 * latency + cost.all_to_all(users * config.k * width, 144, machine)
        for latency, width in zip(latencies.values(), row_bytes(config), strict=True)
    )
    expert = 3 * config.d_model * config.hidden  # one byte per number
    routed = config.experts * expert * config.layers
    read = config.parameters - routed + 2 * expert * config.layers  # "2 routed experts" per device
    messages = 1e3 * config.layers * exchange
    reading = 1e3 * read / config.memory_bandwidth
    published = 1e3 / rates["tokens per second of a user"]
    return {
        "rows": [
            _row("step of decoding, one after the other", "ms", published, messages + reading),
            _row("step of decoding, all reading hidden", "ms", published, messages, False),
        ],
        "fitted": {"users per device": users, "messages, ms": messages, "reading, ms": reading},
    }


TABLES: dict[str, Callable[[Config], Result]] = {
    DEEP_EP: deep_ep,
    DEEP_SPEED: deep_speed,
    SWITCH: switch,
    SERVICE: service,
}


def summarise(runs: list[Result]) -> Result:
    """The largest relative difference of the model from what was published, over counted rows."""
    rows = [row for run in runs for row in run["rows"] if row["counted"]]
    return {"largest": max(abs(row["model"] / row["published"] - 1) for row in rows)}
