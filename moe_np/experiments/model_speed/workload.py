"""What every contestant of the bench of whole models computes: a model, its data, the least time.

    train      one update: loss, gradients of all parameters, clipping, AdamW
    prefill    the logits of every position of a text
    generate   after a prompt of PROMPT tokens, `length` more, the most probable one each time

The model is a decoder in Mixtral's layout, tied, with heads of 32 features, two query heads per key
head, and SwiGLU experts of 2d hidden units, of which each token passes two. The dense model has one
feed-forward network of 4d hidden units: the same number of active operations.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np import accounting
from moe_np.base.types import Array
from moe_np.experiments.layer_speed.floor import Peaks
from moe_np.models import decoder
from moe_np.models.decoder_config import Tree, architecture

K = 2
PROMPT = 16
UPDATE = {"lr": 1e-4, "weight_decay": 0.1, "eps": 1e-8}  # of AdamW
CLIP = 1.0  # the largest global norm of the gradients
BALANCE = 0.01  # coefficient of the load-balancing loss


class Workload(NamedTuple):
    """A thing to be timed; equal workloads have equal data, in whatever process."""

    what: str  # train, prefill or generate
    d: int
    batch: int
    length: int
    layers: int = 4
    experts: int = 8
    vocabulary: int = 4096

    def __str__(self) -> str:
        return f"{self.what}, d {self.d}, batch {self.batch}"

    @property
    def tokens(self) -> int:
        """The tokens that are read, or written."""
        return self.batch * self.length


def config_of(w: Workload, dense: bool = False) -> decoder.Config:
    """The model: with experts, or dense with the same number of active operations."""
    return decoder.Config(
        vocabulary=w.vocabulary,
        d_model=w.d,
        layers=w.layers,
        heads=w.d // 32,
        kv_heads=max(1, w.d // 64),
        d_head=32,
        experts=1 if dense else w.experts,
        hidden=(2 * K if dense else 2) * w.d,
        tied=True,
        context=PROMPT + max(w.length, 128),
    )


def params_of(w: Workload, dense: bool = False) -> Tree:
    """New parameters in float32."""
    return decoder.init(np.random.default_rng(0), config_of(w, dense))


def text_of(w: Workload) -> tuple[Array, Array]:
    """ids and targets (B, T); for `generate` the ids are the prompts."""
    length = PROMPT if w.what == "generate" else w.length
    tokens = np.random.default_rng(1).integers(0, w.vocabulary, (w.batch, length + 1))
    return tokens[:, :-1], tokens[:, 1:]


# --- the floor ------------------------------------------------------------------------------------


def operations(w: Workload, dense: bool = False) -> float:
    """Floating-point operations of a call: each active matrix once per token, twice more with the
    backward pass; attention to the positions before; the update of AdamW left out.
    """
    model = architecture(config_of(w, dense))
    tokens = w.tokens + (w.batch * PROMPT if w.what == "generate" else 0)
    longest = tokens / w.batch
    context = (longest + 1) / 2
    per_token = accounting.count(model).operations + context * model.attention_operations(1)
    return (3 if w.what == "train" else 1) * 2 * tokens * per_token


def bytes_read(w: Workload, dense: bool = False) -> float:
    """Bytes of weights that have to be read; in generation again for each token, those of the
    experts that a batch of B tokens can be expected to choose, E (1 − (1 − k/E)^B).
    """
    counts = accounting.count(architecture(config_of(w, dense)))
    if w.what != "generate" or dense:
        return 4 * counts.total * (w.length if w.what == "generate" else 1)
    expert = 3 * w.d * 2 * w.d * w.layers
    used = w.experts * (1 - (1 - K / w.experts) ** w.batch)
    return 4 * w.length * (counts.total + expert * (used - w.experts))


def floor(w: Workload, peaks: Peaks, dense: bool = False) -> Annotated[float, "seconds"]:
    """The time that the machine cannot beat, from its best product and its best copy."""
    return max(operations(w, dense) / peaks.flops, bytes_read(w, dense) / peaks.bandwidth)
