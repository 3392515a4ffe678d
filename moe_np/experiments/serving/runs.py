"""The runs: a decoder serves requests by continuous batching (`moe_np.serving.batching`).

    sparse                  E experts in every layer, k per token
    dense, equal active     one feed-forward network with the operations of k experts
    dense, equal quality    one that is as good as a mixture of as many experts, of a width that
                            the experiment `language_model` says (`quality.py`)
    dense, equal total      one with the parameters, and so the memory, of all experts

Parameters are random: they decide nothing about time but which experts are used together, nearly at
random. The load is relative: 1 is the rate at which requests come as fast as the sparse system
alone serves one after the other, measured first, and the same for all systems of a seed. Times are
those of this process.
"""

import dataclasses
import functools
import json
import time
from typing import Any

import numpy as np

from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.language_model import runs as language_models
from moe_np.experiments.serving import quality
from moe_np.models import decoder
from moe_np.serving import batching, requests
from moe_np.serving.requests import Request

SPARSE = "sparse"
ACTIVE = "dense, equal active"
QUALITY = "dense, equal quality"
TOTAL = "dense, equal total"
SYSTEMS = (SPARSE, ACTIVE, QUALITY, TOTAL)
POISSON = "poisson"
BURSTS = "bursts"
ARRIVALS = {POISSON: requests.poisson, BURSTS: requests.bursts}
MODEL = language_models.Config()
PAPER: dict = {}  # published latencies are of clusters


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours. The sparse model has 101 MB of experts. It has as many as the mixture of
    `language_model`, so that a factor of widths can be carried over.
    """

    d_model: int = 256
    layers: int = 4
    heads: int = 4
    hidden: int = 1024  # of an expert
    experts: int = 8
    k: int = 2
    vocabulary: int = 1000
    prompt: int = 16  # tokens
    tokens: int = 32  # to be generated
    requests: int = 96
    most: int = 32  # sequences at a time
    loads: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    language_model: language_models.Config = MODEL  # for equal quality
    seeds: int = 3


def decoder_config(sizes: dict[str, Any], system: str, wider: float = 1.0) -> decoder.Config:
    """The decoder of a system.

    wider   of equal quality: how many times as wide as that of equal operations
    """
    k = sizes["k"]
    factor = {SPARSE: 1, ACTIVE: k, QUALITY: k * wider, TOTAL: sizes["experts"]}[system]
    return decoder.Config(
        vocabulary=sizes["vocabulary"],
        d_model=sizes["d_model"],
        layers=sizes["layers"],
        heads=sizes["heads"],
        kv_heads=sizes["heads"],
        d_head=sizes["d_model"] // sizes["heads"],
        experts=sizes["experts"] if system == SPARSE else 1,
        hidden=round(factor * sizes["hidden"]),
        options={"k": sizes["k"], "renormalise": True},
        context=2 * (sizes["prompt"] + sizes["tokens"]),
        tied=True,
    )


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed, under all loads."""
    sizes = dataclasses.asdict(config)
    del sizes["seeds"], sizes["language_model"]
    if system == QUALITY:
        sizes["models"] = quality.models_of(config.language_model, seed)
    return {"system": system, "seed": seed, **{n: _listed(v) for n, v in sizes.items()}}


def _listed(value):
    return list(value) if isinstance(value, tuple) else value


def run_one(spec: Spec) -> Result:
    """Latencies, waits, batches and throughput of a system by kind of arrivals and load."""
    seed = spec["seed"]
    as_good = quality.measured(spec["models"]) if spec["system"] == QUALITY else None
    rate = _rate(json.dumps({**spec, "system": SPARSE, "models": None}))
    config = decoder_config(spec, spec["system"], as_good["factor"] if as_good else 1.0)
    params = decoder.init(np.random.default_rng(seed), config)
    _serve(params, config, spec, np.zeros(2))  # loads the kernels
    rows = []
    for kind, arrivals in ARRIVALS.items():
        for load in spec["loads"]:
            times = arrivals(np.random.default_rng(seed), load * rate, spec["requests"])
            served, log = _serve(params, config, spec, times)
            facts = {"arrivals": kind, "load": load, "rate": load * rate}
            facts |= requests.percentiles(served)
            facts |= {"batch": log.mean_batch, "throughput": log.tokens / log.seconds}
            rows.append(facts)
    experts = sum(a.nbytes for layer in params["layers"] for a in layer["experts"].values())
    sizes = {"bytes": experts, "quality": as_good}
    return {"system": spec["system"], "seed": seed, **sizes, "rows": rows}


def _serve(params, config, spec, times):
    rng = np.random.default_rng(spec["seed"])
    prompts = rng.integers(0, config.vocabulary, (len(times), spec["prompt"]))
    given = [
        Request(float(arrival), prompt, spec["tokens"], number)
        for number, (arrival, prompt) in enumerate(zip(times, prompts, strict=True))
    ]
    return batching.serve(params, config, given, most=spec["most"])


@functools.cache
def _rate(text):
    """Requests per second that the sparse system of a spec serves one after the other."""
    spec = json.loads(text)
    config = decoder_config(spec, SPARSE)
    params = decoder.init(np.random.default_rng(spec["seed"]), config)
    alone = {**spec, "most": 1}
    _serve(params, config, alone, np.zeros(1))
    begin = time.perf_counter()
    _serve(params, config, alone, np.zeros(3))
    return 3 / (time.perf_counter() - begin)


def summarise(runs: list[Result]) -> list[Result]:
    """A row per kind of arrivals and load: means over the seeds of one system."""
    rows = []
    for same in zip(*(run["rows"] for run in runs), strict=True):
        numbers = {
            name: describe([row[name] for row in same])._asdict()
            for name in ("rate", "batch", "throughput")
        }
        for i, percentile in enumerate(("p50", "p99")):
            numbers[percentile] = describe([row["latency"][i] for row in same])._asdict()
        numbers["wait p50"] = describe([row["wait"][0] for row in same])._asdict()
        rows.append({"arrivals": same[0]["arrivals"], "load": same[0]["load"], **numbers})
    return rows
