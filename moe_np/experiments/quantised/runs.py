"""The runs: the model with 8 experts of the experiment `language_model`, its weights rounded.

    experts    the routed experts in few bits, the routers in float32
    both       the routers in the same number of bits too
    routers    the routers alone

Rounding is to nearest by groups, without calibration (`moe_np.serving.quantise`).
"""

import dataclasses
import itertools
from typing import Any

import numpy as np

from moe_np.data.text import bible
from moe_np.experiments.common import pretrained
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.language_model import runs as language_models
from moe_np.language import model_files, run_folder
from moe_np.serving import quantise

EXPERTS = "experts"
BOTH = "both"
ROUTERS = "routers"
PARTS = (EXPERTS, BOTH, ROUTERS)
SYSTEMS = ()
MODEL = language_models.Config()
PAPER: dict = {}  # published losses are of other models, and of methods that calibrate


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours."""

    model: language_models.Config = MODEL
    bits: tuple[int, ...] = quantise.BITS
    groups: tuple[int, ...] = (64, 32, 16)
    tokens: int = 32768  # of the held-out books
    seeds: int = 3


def spec_of(config: Config, seed: int) -> Spec:
    """One trained model."""
    model = language_models.spec_of(config.model, language_models.EIGHT, seed)["model"]
    sizes = {"bits": list(config.bits), "groups": list(config.groups), "tokens": config.tokens}
    return {"seed": seed, "model": model, **sizes}


def run_one(spec: Spec) -> Result:
    """The loss of a model in float32, and for every part, number of bits and group."""
    run = pretrained.trained(spec["model"])
    params = model_files.load(run.folder / "best").params
    text = bible.running_text(bible.split().test)
    run = run._replace(validation=run.tokeniser.encode(text)[: spec["tokens"]])
    rows = []
    for part in PARTS:
        for bits, group in itertools.product(spec["bits"], spec["groups"]):
            rounded, share = rounded_model(params, part, bits, group)
            loss = run_folder.validate(run, rounded).loss
            rows.append({"part": part, "bits": bits, "group": group, "share": share, "loss": loss})
    return {"seed": spec["seed"], "loss": run_folder.validate(run, params).loss, "rows": rows}


def rounded_model(params: Any, part: str, bits: int, group: int) -> tuple[Any, float]:
    """-> (parameters with a part in few bits, the experts' memory over that of float32)."""
    if part == ROUTERS:
        layers = [
            {**layer, "router": quantise.rounded_router(layer["router"], bits, group)}
            for layer in params["layers"]
        ]
        return {**params, "layers": layers}, 1.0
    router_bits = bits if part == BOTH else None
    rounded, sizes = quantise.of_model(params, bits, group, router_bits=router_bits)
    return rounded, sizes.share


def summarise(runs: list[Result]) -> list[Result]:
    """A row per part, bits and group: the experts' memory, the loss, and what it is above float32,
    over the seeds.
    """
    rows = []
    for same in zip(*(run["rows"] for run in runs), strict=True):
        losses = np.array([row["loss"] for row in same])
        added = losses - [run["loss"] for run in runs]
        facts = {name: same[0][name] for name in ("part", "bits", "group", "share")}
        added = describe(added)._asdict()
        rows.append({**facts, "loss": describe(losses)._asdict(), "added": added})
    return rows
