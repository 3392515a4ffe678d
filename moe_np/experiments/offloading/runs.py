"""The runs: what a trained model's routers choose on a held-out text, token by token, and what
caches make of it.

    trained    the model with 32 experts of the experiment `language_model`, 2 per token, on the
               held-out books
    uniform    the same number of tokens, 2 of 32 experts at random

A trace is one layer's; hit rates are means over the layers. Tokens per second are those of
generation with the experts behind a cache (`moe_np.serving.offload`), in two ways: with the files
in the page cache of the system, so that a miss costs a copy and no disk, which bounds the cost from
below; and cold, where the system is asked to forget each part of a file before it is read
(`posix_fadvise`). A system without it has no cold reads.
"""

import dataclasses
import pathlib
import time
from typing import Any

import numpy as np

from moe_np.base.types import ArrayN
from moe_np.data.text import bible
from moe_np.data.text.windows import UNCOUNTED, covering_windows
from moe_np.experiments.common import pretrained
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.language_model import runs as language_models
from moe_np.layers import specialisation
from moe_np.models import checkpoints, decoder, generation
from moe_np.serving import memory, offload
from moe_np.serving.cache_policies import simulate
from moe_np.serving.preadv_reader import HAS_FADVISE

TRAINED = "trained"
UNIFORM = "uniform"
SYSTEMS = (TRAINED, UNIFORM)
POLICIES = ("lru", "lfu", "belady")
PAPER = {
    # Eliseev and Mazur 2023 (arXiv 2312.17238), 2 of 8 experts per token; read second-hand
    "mixtral": "40 to 60 % hits with LRU per layer",
    # a trace of OLMoE, 8 of 64 experts per token, in mkvn/quantization-cache-amplification
    "olmoe": "a token shares .25 to .47 of its experts with the one before it, .125 by chance",
}
MODEL = language_models.Config()


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours."""

    model: language_models.Config = MODEL
    places: tuple[int, ...] = (2, 4, 8, 16, 24)  # of a layer's cache
    tokens: int = 8192  # of the trace
    timed: int = 200  # tokens generated for a time
    seeds: int = 3


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed."""
    model = language_models.spec_of(config.model, language_models.MANY, seed)["model"]
    sizes = {"places": list(config.places), "tokens": config.tokens}
    if system == UNIFORM:
        layers = config.model.layers
        return {"system": system, "seed": seed, "layers": layers, "experts": 32, "k": 2, **sizes}
    return {"system": system, "seed": seed, "model": model, "timed": config.timed, **sizes}


def run_one(spec: Spec) -> Result:
    """Hit rates by policy and places, how often a token has an expert of the one before it, and
    for the trained model the speed of generation.
    """
    speed = None
    if spec["system"] == UNIFORM:
        rng = np.random.default_rng(spec["seed"])
        scores = rng.random((spec["layers"], spec["tokens"], spec["experts"]))
        traces = np.argsort(scores, axis=2)[:, :, : spec["k"]]
        n_experts = spec["experts"]
    else:
        run = pretrained.trained(spec["model"])
        tokens = run.tokeniser.encode(bible.running_text(bible.split().test))[: spec["tokens"] + 1]
        config, params = checkpoints.load(run.folder / "best")
        traces = traces_of(params, config, tokens, run.settings.length)
        n_experts = config.experts
        prompt = tokens[: config.context // 4][None]
        speed = [
            speed_of(run.folder / "best", n, prompt, spec["timed"])
            for n in (*spec["places"], n_experts)
        ]
    return {
        "system": spec["system"],
        "seed": spec["seed"],
        "places": spec["places"],
        "experts": n_experts,
        "reuse": float(np.mean([reuse(trace) for trace in traces])),
        "by_chance": traces.shape[2] / n_experts,
        "largest_share": float(np.mean([_largest_share(trace, n_experts) for trace in traces])),
        "hit_rates": {policy: _rates(traces, spec["places"], policy) for policy in POLICIES},
        "speed": speed,
    }


def traces_of(params: Any, config: decoder.Config, tokens: ArrayN, length: int) -> np.ndarray:
    """The experts of every token in every layer (layers, N, k), each token with at least half a
    window before it.
    """
    columns = []
    for ids, targets in covering_windows(tokens, batch=8, length=length):
        _, cache = decoder.forward(params, ids, config)
        counted = (targets != UNCOUNTED).ravel()
        chosen = [specialisation.choices(block.mixture.routing).expert for block in cache.blocks]
        columns.append(np.stack([experts[counted] for experts in chosen]))
    return np.concatenate(columns, axis=1)


def reuse(trace: np.ndarray) -> float:
    """The share of the experts (N, k) that the token before had too."""
    same = trace[1:, :, None] == trace[:-1, None, :]
    return float(same.any(axis=2).mean())


def _largest_share(trace, n_experts):
    return np.bincount(trace.ravel(), minlength=n_experts).max() / trace.size


def _rates(traces, places, policy):
    return [
        float(np.mean([simulate(trace, n, policy).hit_rate for trace in traces])) for n in places
    ]


def speed_of(folder: pathlib.Path, places: int, prompt: np.ndarray, tokens: int) -> Result:
    """Generation with so many places per layer: tokens per second, from the page cache and cold
    (None where the system cannot), hit rate, memory in bytes.
    """
    speed, done = _generated(folder, places, prompt, tokens, cold=False)
    resident = memory.resident()
    cold = None
    if HAS_FADVISE:
        cold, _ = _generated(folder, places, prompt, tokens, cold=True)
    return {
        "places": places,
        "tokens_per_second": speed,
        "cold": cold,
        "hit_rate": done.counts.hit_rate,
        "experts_bytes": done.nbytes,
        "resident": resident,
    }


def _generated(folder, places, prompt, tokens, *, cold):
    """-> tokens per second, and what the caches did."""
    config, lazy = checkpoints.load(folder, lazy=True)
    layers = [layer["experts"] for layer in lazy["layers"]]
    budget = places * sum(map(offload.expert_bytes, layers))
    params, caches = offload.attach(lazy, budget, cold=cold)
    tokens = min(tokens, config.context - prompt.shape[1])
    start = time.perf_counter()
    for _ in generation.generate(params, prompt, config, tokens=tokens, temperature=0):
        pass
    return tokens / (time.perf_counter() - start), offload.totals(caches)


def summarise(runs: list[Result]) -> Result:
    """Means over the seeds of one system."""
    rates = {
        policy: [
            describe(values)._asdict()
            for values in zip(*(run["hit_rates"][policy] for run in runs), strict=True)
        ]
        for policy in POLICIES
    }
    numbers = {
        name: describe([run[name] for run in runs])._asdict() for name in ("reuse", "largest_share")
    }
    return {
        "places": runs[0]["places"],
        "experts": runs[0]["experts"],
        "by_chance": runs[0]["by_chance"],
        **numbers,
        "hit_rates": rates,
        "speed": runs[0]["speed"]
        and [_of_seeds(same) for same in zip(*_speeds(runs), strict=True)],
    }


def _speeds(runs):
    return [run["speed"] for run in runs]


def _of_seeds(same):
    mean = {
        name: describe([row[name] for row in same])._asdict()
        for name in ("tokens_per_second", "hit_rate", "cold")
        if same[0][name] is not None
    }
    return {**same[0], **mean}
