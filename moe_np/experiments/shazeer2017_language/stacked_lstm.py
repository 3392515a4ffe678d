"""A language model of LSTM layers without experts, the baseline of Shazeer et al. 2017 (arXiv
1701.06538, appendix C.1).

    x⁰ = D(embed[ids]),   xˡ = xˡ⁻¹ + D(LSTM_l(xˡ⁻¹)),   logits = x^L head

    paper            here                       operations per token, D = d_model
    4xLSTM-512       layers=4                   32 D²
    LSTM-2048-512    layers=1, hidden=4 D       36 D²: with a projection to D (Sak et al. 2014)

D(·) is the dropout of each layer's output, after which the layer's input is added to it, as in
`moe_np.models.lstm_moe`. Every text begins with states that are zero.
"""

from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import Array, ArrayBT, ArrayBTV, DType, Rng
from moe_np.layers import cross_entropy, dropout, embedding, lstm
from moe_np.models import recurrent_blocks

Tree = dict[str, Any]  # nested parameters, or their gradients


class Config(NamedTuple):
    """Which model it is."""

    vocabulary: int
    d_model: int  # D
    layers: int
    hidden: int | None = None  # units of each LSTM; None: D, without a projection
    dropout: float = 0.0


class Cache(NamedTuple):
    """What the backward pass needs."""

    embedding: embedding.Cache
    mask: Array | None  # of the embedding's dropout
    blocks: tuple[recurrent_blocks.LstmBlock, ...]


class Loss(NamedTuple):
    """What `loss_and_grads` measures."""

    task: float  # mean of −log p(target), nats per token
    tokens: int


def init(rng: Rng, config: Config, *, dtype: DType = np.float32) -> Tree:
    """{"embed": {"w"}, "layers": [...], "head": {"w"}}, with the scales of `lstm_moe.init`."""
    checks.size("config.layers", config.layers)
    D = config.d_model
    units = (config.hidden or D, D if config.hidden else None)
    head = rng.normal(size=(D, config.vocabulary)) / np.sqrt(D)
    return {
        "embed": embedding.init(rng, config.vocabulary, D, dtype=dtype),
        "layers": [lstm.init(rng, D, *units, dtype=dtype) for _ in range(config.layers)],
        "head": {"w": head.astype(dtype)},
    }


def forward(
    params: Tree, ids: ArrayBT, config: Config, *, rng: Rng | None = None
) -> tuple[ArrayBTV, Cache]:
    """ids (B, T) -> (logits (B, T, V), cache). rng: for dropout; None is evaluation."""
    x, cache = _hidden(params, ids, config, rng)
    return x @ params["head"]["w"], cache


def _hidden(params, ids, config, rng):
    x, embedded = embedding.forward(params["embed"], ids)
    x, mask = dropout.forward(x, config.dropout, rng)
    blocks = []
    for layer in params["layers"]:
        x, _, block = recurrent_blocks.lstm_forward(layer, x, dropout_share=config.dropout, rng=rng)
        blocks.append(block)
    return x, Cache(embedded, mask, tuple(blocks))


def _hidden_backward(dx, cache, config):
    layers = []
    for block in reversed(cache.blocks):
        dx, dlayer = recurrent_blocks.lstm_backward(dx, block)
        layers.insert(0, dlayer)
    dx = dropout.backward(dx, cache.mask, config.dropout)
    return {"embed": embedding.backward(dx, cache.embedding), "layers": layers}


def loss_and_grads(
    params: Tree, ids: ArrayBT, targets: ArrayBT, config: Config, *, rng: Rng | None = None
) -> tuple[Loss, Tree]:
    """One step of training: ids and targets (B, T) -> (Loss, gradients of all parameters)."""
    x, cache = _hidden(params, ids, config, rng)
    rows = x.reshape(-1, config.d_model)
    task, head = cross_entropy.head_forward(params["head"], rows, targets.ravel())
    dx, dhead = cross_entropy.head_backward(1.0, head)
    grads = {**_hidden_backward(dx.reshape(x.shape), cache, config), "head": dhead}
    return Loss(task, head.n_valid), grads
