"""The runs: one SwiGLU layer without its backward pass, and the time that it takes for N tokens.

    sparse                  E experts of H hidden units, k per token, router included
    dense, equal active     one network with k H hidden units: the operations of the sparse layer
    dense, equal total      one network with E H hidden units: its parameters

Router and tokens are random, so the choice is nearly uniform: N tokens touch E(1 − (1 − k/E)^N)
experts (`parallel.cost.touched`). Times are the least of several calls, in this process, with one
thread; the resident memory is that which the weights and one call have added.
"""

import dataclasses

import numpy as np

from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.layer_speed.problem import least_time
from moe_np.layers import few_tokens, shared_experts
from moe_np.layers.experts import SWIGLU
from moe_np.routing import top_k
from moe_np.serving import memory

SPARSE = "sparse"
ACTIVE = "dense, equal active"
TOTAL = "dense, equal total"
SYSTEMS = (SPARSE, ACTIVE, TOTAL)
PAPER: dict = {}  # articles say when mixtures are fast, but print no curve


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours. The weights of the sparse layer are 403 MB, more than most caches."""

    d: int = 512
    hidden: int = 2048  # H, of an expert
    experts: int = 32
    k: int = 2
    tokens: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
    most_total: int = 1024  # tokens up to which the large dense layer is timed
    at_least: float = 0.5  # seconds of calls per time
    seeds: int = 3


def hidden_of(config: Config, system: str) -> int:
    """The hidden units of one expert, or of the dense network."""
    return config.hidden * {SPARSE: 1, ACTIVE: config.k, TOTAL: config.experts}[system]


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed."""
    most = config.most_total if system == TOTAL else max(config.tokens)
    return {
        "system": system,
        "seed": seed,
        "d": config.d,
        "hidden": hidden_of(config, system),
        "experts": config.experts if system == SPARSE else 1,
        "k": config.k if system == SPARSE else 1,
        "tokens": [n for n in config.tokens if n <= most],
        "at_least": config.at_least,
    }


def run_one(spec: Spec) -> Result:
    """Times of a system in seconds for each number of tokens, experts touched, memory."""
    rng = np.random.default_rng(spec["seed"])
    d, experts = spec["d"], spec["experts"]
    small = (_weights(rng, 8, 8, experts), top_k.init(rng, 8, experts, dtype=np.float32))
    _call(*small, np.ones((max(spec["tokens"]), 8), np.float32), spec["k"])()  # loads the kernels
    memory.give_back()  # what systems before had is not to be used again unseen
    before = memory.resident()
    params = _weights(rng, d, spec["hidden"], experts)
    router = top_k.init(rng, d, experts, dtype=np.float32)
    x = rng.standard_normal((max(spec["tokens"]), d), np.float32)
    times, touched = [], []
    for n in spec["tokens"]:
        call = _call(params, router, x[:n], spec["k"])
        touched.append(call())  # also reads all weights once, before the clock runs
        times.append(least_time(call, at_least=spec["at_least"]))
    after = memory.resident()
    return {
        "system": spec["system"],
        "seed": spec["seed"],
        "tokens": spec["tokens"],
        "seconds": times,
        "touched": touched,
        "weights": sum(array.nbytes for array in params.values()),
        "expert_bytes": sum(array[0].nbytes for array in params.values()),
        "resident": None if before is None or after is None else after - before,
    }


def _weights(rng, d, hidden, experts):
    shapes = {"w1": (d, hidden), "w3": (d, hidden), "w2": (hidden, d)}
    return {
        name: rng.standard_normal((experts, *shape), np.float32) / np.float32(np.sqrt(shape[0]))
        for name, shape in shapes.items()
    }


def _call(params, router, x, k):
    """A function that computes the layer and returns the number of experts that it used."""
    experts = len(params["w2"])
    every = shared_experts.routing(len(x), 1, x.dtype)

    def call():
        routing = every
        if experts > 1:
            routing = top_k.route_unchecked(router, x, k=k, renormalise=True)
        few_tokens.forward(params, x, routing, SWIGLU)
        return len(np.unique(routing.expert))

    return call


def summarise(runs: list[Result]) -> Result:
    """Several seeds of one system: per number of tokens the median time per token in seconds with
    its smallest and largest value, and the mean of the experts touched.
    """
    seconds = np.array([run["seconds"] for run in runs]) / np.array(runs[0]["tokens"])
    resident = [run["resident"] for run in runs if run["resident"] is not None]
    return {
        "tokens": runs[0]["tokens"],
        "median": np.median(seconds, axis=0).tolist(),
        "low": seconds.min(axis=0).tolist(),
        "high": seconds.max(axis=0).tolist(),
        "touched": np.mean([run["touched"] for run in runs], axis=0).tolist(),
        "weights": runs[0]["weights"],
        "expert_bytes": runs[0]["expert_bytes"],
        "resident": describe(resident)._asdict() if resident else None,
    }
