"""The decoder of the translation model: an LSTM that attends to the encoder's output, experts, and
a second LSTM. The equations are in `moe_np.models.translation`.
"""

from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import Array, ArrayBT, ArrayBTD, Rng
from moe_np.layers import attentive_lstm, dropout, embedding, lstm, mixture_layer
from moe_np.models import recurrent_blocks
from moe_np.models.recurrent_blocks import MixtureBlock
from moe_np.models.translation_config import Config
from moe_np.models.translation_encoder import check_valid
from moe_np.routing import contract
from moe_np.routing.contract import BalanceLoss

Tree = dict[str, Any]  # nested parameters, or their gradients


class State(NamedTuple):
    """What generation carries from one token to the next."""

    attentive: lstm.State
    lstm2: lstm.State


class Cache(NamedTuple):
    """What the backward pass of the decoder needs, and the state after the last position."""

    embedding: embedding.Cache
    masks: tuple[Array | None, ...]  # of the dropout of embedding, first and last layer
    attentive: attentive_lstm.Cache
    mixture: MixtureBlock
    lstm2: lstm.Cache
    x: ArrayBTD  # what the head reads
    head: Array  # (D, V)
    dropout: float
    state: State


def forward(
    params: Tree,
    inputs: ArrayBT,
    keys: attentive_lstm.Keys,
    config: Config,
    *,
    state: State | None = None,
    valid: ArrayBT | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[ArrayBTD, Cache]:
    """inputs (B, T), keys of the memory -> (y³ (B, T, D), cache); `params` are the decoder's.

    state   after the positions before these; None: there are none
    """
    training, rng = contract.check_training(training, rng)
    inputs = checks.array("inputs", inputs, (len(keys.memory), "T"), kind="i")
    valid = check_valid("valid", valid, inputs)
    p = config.dropout
    before = (None, None) if state is None else state
    y, embedded = embedding.forward(params["embed"], inputs)
    y, mask0 = dropout.forward(y, p, rng)

    h, context, state1, attentive = attentive_lstm.forward(params["attentive"], y, keys, before[0])
    h, mask1 = dropout.forward(h, p, rng)
    y = y + h
    y, mixture = recurrent_blocks.mixture_forward(
        params["mixture"],
        y,
        valid=valid,
        expert=mixture_layer.KINDS[config.expert],
        router=mixture_layer.causal_router(config.decoder_router),
        options=config.decoder_options,
        training=training,
        ids=inputs.ravel(),
        dropout_share=p,
        rng=rng,
    )
    both = np.concatenate([y, context], axis=2)
    h, state2, of_lstm2 = lstm.forward(params["lstm2"], both, before[1])
    h, mask2 = dropout.forward(h, p, rng)
    y = y + h
    head = checks.array("params['head']['w']", params["head"]["w"], (config.d_model, "V"))
    masks = (mask0, mask1, mask2)
    state = State(state1, state2)
    return y, Cache(embedded, masks, attentive, mixture, of_lstm2, y, head, p, state)


def backward(dy: ArrayBTD, cache: Cache, added: BalanceLoss | None = None) -> tuple[ArrayBTD, Tree]:
    """dy (B, T, D) -> (dmemory (B, S, D), the gradients of all parameters but the head)."""
    p = cache.dropout
    mask0, mask1, mask2 = cache.masks
    dboth, _, dlstm2 = lstm.backward(dropout.backward(dy, mask2, p), cache.lstm2)
    D = dy.shape[2]
    dy, dmixture = recurrent_blocks.mixture_backward(dy + dboth[:, :, :D], cache.mixture, added)
    dh = dropout.backward(dy, mask1, p)
    dy0, dmemory, dattentive = attentive_lstm.backward(dh, dboth[:, :, D:], cache.attentive)
    dy = dropout.backward(dy + dy0, mask0, p)
    dembed = embedding.backward(dy, cache.embedding)
    grads = {"embed": dembed, "attentive": dattentive, "mixture": dmixture, "lstm2": dlstm2}
    return dmemory, grads
