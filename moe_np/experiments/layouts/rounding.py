"""How many tokens a router sends elsewhere when its numbers are rounded to bfloat16.

Fedus et al. 2021 (arXiv 2101.03961, section 2.4) train with bfloat16 and compute the router alone
in float32 ("selective precision"). Of a trained model, on the same inputs:

    float32     logits = h W                                   what the model was trained with
    selective   logits = b(h) W                                h comes in bfloat16
    bfloat16    logits = b(b(h) b(W))                          the router too

b rounds to bfloat16, which has 8 significant bits: of logits near 4, neighbours are 1/64 apart, and
different ones become equal.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.types import Array, ArrayDE, ArrayND, ArrayNE
from moe_np.models import safetensors
from moe_np.routing import contract

WAYS = ("selective", "bfloat16")


class Changed(NamedTuple):
    """What rounding does to the choice of experts, as shares of the tokens."""

    sets: float  # another set of k experts
    first: float  # another first expert
    ties: float  # the last expert chosen and the first one left out have the same logit


def rounded(a: Array) -> Array:
    """b(a): each number's neighbour in bfloat16, ties to even, as float32."""
    return safetensors.from_bfloat16(safetensors.to_bfloat16(a))


def logits_of(h: ArrayND, w: ArrayDE, way: str) -> ArrayNE:
    """The logits of a router (N, E) in one of WAYS; "float32" for those without rounding."""
    if way == "float32":
        return h @ w
    if way == "selective":
        return rounded(h) @ w
    return rounded(rounded(h) @ rounded(w))


def changed(h: ArrayND, w: ArrayDE, k: int, way: str) -> Changed:
    """The tokens (N) whose experts are others than those of float32."""
    before = contract.top_k(logits_of(h, w, "float32"), k)
    logits = logits_of(h, w, way)
    after = contract.top_k(logits, k)
    sets = (np.sort(before, axis=1) != np.sort(after, axis=1)).any(axis=1)
    return Changed(
        float(sets.mean()),
        float((before[:, 0] != after[:, 0]).mean()),
        float(_tied(logits, k).mean()),
    )


def _tied(logits, k) -> Annotated[np.ndarray, "N"]:
    if k == logits.shape[1]:
        return np.zeros(len(logits), bool)
    in_order = np.sort(logits, axis=1)[:, ::-1]
    return in_order[:, k - 1] == in_order[:, k]
