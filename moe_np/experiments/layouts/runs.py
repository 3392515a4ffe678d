"""The runs: one decoder on the King James Bible, its experts in different layers, or its initial
parameters of another scale.

Systems, all with the same operations per token and, but for the routers' rows, the same number of
parameters:

    every layer          8 experts in each of 4 layers
    every other layer    14 experts in the second and fourth layer
    first half           14 experts in the first two layers
    second half          14 experts in the last two layers
    initial scale .1     8 experts in each layer, initial weights of a tenth of the variance

Layers without experts have one feed-forward network with the hidden units of two experts. "Every
layer" is the model with 8 experts of the experiment `language_model`, and shared with it. Its
routers are also read in bfloat16, see `rounding`.
"""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from moe_np.base.params import leaves, map_leaves
from moe_np.data.text import bible
from moe_np.data.text.windows import UNCOUNTED, covering_windows
from moe_np.experiments.common import pretrained
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.layouts import rounding
from moe_np.language import model_files, run_folder, run_state
from moe_np.language.run_folder import Run
from moe_np.layers import diagnostics
from moe_np.models import decoder
from moe_np.training import loop

EVERY = "every layer"
ALTERNATE = "every other layer"
FIRST = "first half"
SECOND = "second half"
SMALL = "initial scale .1"
SYSTEMS = (EVERY, ALTERNATE, FIRST, SECOND, SMALL)
SCALES = {SMALL: 0.1}  # of the variance of the initial weights; of the other systems 1
ACTIVE = 2  # experts per token

PAPER: dict[str, Any] = {
    # Fedus et al. 2021 (arXiv 2101.03961), section 2.4: negative log perplexity after 3,500 steps,
    # mean and standard deviation of three seeds, by the scale of the initial variance
    "switch scale": {0.1: (-2.72, 0.01), 1.0: (-3.60, 0.68)},
    # the same section: with bfloat16 everywhere training diverged, with a router in float32 not
    "switch bfloat16": "diverged",
    # layers with experts, by the models that are described with them
    "layouts": {
        "every layer": ("Mixtral (arXiv 2401.04088)", "OLMoE (arXiv 2409.02060)"),
        "every other layer": (
            "GShard (arXiv 2006.16668)",
            "Switch (arXiv 2101.03961)",
            "GLaM (arXiv 2112.06905)",
        ),
        "all but the first": ("DeepSeekMoE (arXiv 2401.06066)",),
        "more in later layers": ("DeepSpeed-MoE (arXiv 2201.05596)",),
    },
}


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours; the model is that of the experiment `language_model`."""

    d_model: int = 64
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 128  # of an expert
    experts: int = 8  # in each layer, where every layer has experts
    vocabulary: int = 1000
    length: int = 128
    batch: int = 16
    updates: int = 2000
    checkpoint_every: int = 100
    learning_rate: float = 3e-3
    books: tuple[str, ...] = ()  # to train on; () for all that are not held out
    validation_tokens: int = 32768
    rounded_tokens: int = 8192  # that routers are read on in bfloat16
    seeds: int = 3


def dense_layers(system: str, layers: int) -> list[int]:
    """The layers without experts."""
    return {
        ALTERNATE: list(range(0, layers, 2)),
        FIRST: list(range(layers // 2, layers)),
        SECOND: list(range(layers // 2)),
    }.get(system, [])


def experts_of(system: str, layers: int, experts: int) -> int:
    """The experts in each layer that has some, for as many parameters as `experts` in all layers:
    the dense layers have those of two experts each.
    """
    dense = len(dense_layers(system, layers))
    return (layers * experts - ACTIVE * dense) // (layers - dense)


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed."""
    dense = dense_layers(system, config.layers)
    layout = {"dense_layers": dense, "dense_hidden": ACTIVE * config.hidden} if dense else {}
    model = pretrained.spec_of(
        "mixtral",
        updates=config.updates,
        seed=seed,
        checkpoint_every=config.checkpoint_every,
        books=config.books,
        d_model=config.d_model,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        d_head=config.d_model // config.heads,
        hidden=config.hidden,
        experts=experts_of(system, config.layers, config.experts),
        vocabulary=config.vocabulary,
        length=config.length,
        batch=config.batch,
        learning_rate=config.learning_rate,
        validation_tokens=config.validation_tokens,
        **layout,
    )
    if system in SCALES:
        model["initial_scale"] = SCALES[system]
    rounded = config.rounded_tokens if system == EVERY else None
    return {"system": system, "seed": seed, "model": model, "rounded_tokens": rounded}


# --- one run --------------------------------------------------------------------------------------


def run_one(spec: Spec) -> Result:
    """Train the model of a spec; its curve, its test loss, and how even the loads of its layers
    are.
    """
    run = trained(spec["model"])
    updates, validations = pretrained.metrics(run)
    best = model_files.load(run.folder / "best")
    test = bible.running_text(bible.split().test)
    tokens = run.tokeniser.encode(test)[: run.settings.validation_tokens]
    measured = run_folder.validate(run._replace(validation=tokens), best.params)
    last = updates[-len(updates) // 10 :]  # the load over the last tenth of the updates
    loads = np.sum([record["load"] for record in last], axis=0)
    dense = dense_layers(spec["system"], run.config.layers)
    routed = [i for i in range(run.config.layers) if i not in dense]
    kept = spec["rounded_tokens"]
    return {
        "system": spec["system"],
        "seed": spec["seed"],
        "parameters": sum(leaf.size for leaf in leaves(best.params).values()),
        "steps": [record["step"] for record in validations],
        "validation": [record["validation_loss"] for record in validations],
        "test": measured.loss,
        "perplexity": measured.perplexity,
        "gradient_norm": max(record["gradient_norm"] for record in updates),
        "load_cv": {str(i): diagnostics.cv(load) for i, load in zip(routed, loads, strict=True)},
        "rounded": None if kept is None else in_bfloat16(best, tokens[:kept], run.settings.length),
    }


def trained(spec: Spec) -> Run:
    """The run of a spec of `pretrained`, which may have "initial_scale": its first parameters are
    then those of the model times √scale, but for embedding, head and gains.
    """
    scale = spec.get("initial_scale")
    if scale is not None:
        run = run_folder.open_run(
            pathlib.Path(os.environ[pretrained.FOLDER]) / pretrained.key(spec),
            pretrained.corpus_of(spec),
            model=spec["model"],
            updates=spec["updates"],
            changes=spec["changes"],
            checkpoint_every=spec["checkpoint_every"],
        )
        if not (run.folder / run_state.STATE).exists():
            params = decoder.init(np.random.default_rng([run.options.seed, 0]), run.config)
            first = loop.initial_state(scaled(params, scale))
            run_state.write(run.folder, first, None)
    return pretrained.trained(spec)


def scaled(params: Any, scale: float) -> Any:
    """Parameters with the variance of all matrices between embedding and head times `scale`
    (Fedus et al. 2021, section 2.4: N(0, σ²), σ = √(scale / fan-in)).
    """
    layers = [
        {
            part: tree
            if part.startswith("norm")
            else map_leaves(lambda w: (w * scale**0.5).astype(w.dtype), tree)
            for part, tree in layer.items()
        }
        for layer in params["layers"]
    ]
    return {**params, "layers": layers}


def in_bfloat16(model: Any, tokens: np.ndarray, length: int) -> dict[str, list[dict[str, float]]]:
    """{way: per layer the tokens whose experts change} of `rounding`."""
    gates: list[list[Any]] = [[] for _ in range(model.config.layers)]
    for ids, targets in covering_windows(tokens, batch=8, length=length):
        counted = (targets != UNCOUNTED).ravel()  # every token once
        _, cache = decoder.forward(model.params, ids, model.config)
        for layer, block in enumerate(cache.blocks):
            gates[layer].append(block.mixture.gate.x[counted])
    k = model.config.options["k"]
    routers = [layer["router"]["w"] for layer in model.params["layers"]]
    return {
        way: [
            rounding.changed(np.concatenate(h), w, k, way)._asdict()
            for h, w in zip(gates, routers, strict=True)
        ]
        for way in rounding.WAYS
    }


# --- over seeds -----------------------------------------------------------------------------------


def summarise(runs: list[Result]) -> Result:
    """Means over the seeds of one system."""

    def over_seeds(value_of):
        return describe([value_of(run) for run in runs]).record("mean", "sd")

    first = runs[0]
    out = {
        "parameters": first["parameters"],
        "early": over_seeds(lambda run: run["validation"][0]),
        "validation": over_seeds(lambda run: run["validation"][-1]),
        "test": over_seeds(lambda run: run["test"]),
        "perplexity": over_seeds(lambda run: run["perplexity"]),
        "gradient_norm": over_seeds(lambda run: run["gradient_norm"]),
        "load_cv": {i: over_seeds(lambda run, i=i: run["load_cv"][i]) for i in first["load_cv"]},
        "rounded": None,
    }
    if first["rounded"]:
        out["rounded"] = {
            way: [
                {
                    name: over_seeds(lambda run, w=way, i=i, n=name: run["rounded"][w][i][n])
                    for name in rounding.Changed._fields
                }
                for i in range(len(layers))
            ]
            for way, layers in first["rounded"].items()
        }
    return out
