"""The encoder of the translation model: LSTMs, the first of them in both directions, and experts.
The equations are in `moe_np.models.translation`.
"""

from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayBT, ArrayBTD, Options, Rng
from moe_np.layers import dropout, embedding, lstm, mixture_layer
from moe_np.models import recurrent_blocks
from moe_np.models.recurrent_blocks import LstmBlock, MixtureBlock
from moe_np.models.translation_config import Config
from moe_np.routing import contract
from moe_np.routing.contract import BalanceLoss

Tree = dict[str, Any]  # nested parameters, or their gradients


class Cache(NamedTuple):
    """What the backward pass of the encoder needs."""

    embedding: embedding.Cache
    masks: tuple[Array | None, ...]  # of the dropout of embedding and first layer
    forward: lstm.Cache
    backward: lstm.Cache
    reversal: Array  # (B, S, 1)
    lstm2: LstmBlock
    mixture: MixtureBlock
    lstm3: LstmBlock
    valid: ArrayBT
    dropout: float


def forward(
    params: Tree,
    source: ArrayBT,
    config: Config,
    *,
    valid: ArrayBT | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[ArrayBTD, Cache]:
    """source (B, S) -> (memory (B, S, D), cache); `params` are those of the encoder.

    valid   (B, S), False at padding, which has to come last; None: there is none
    """
    training, rng = contract.check_training(training, rng)
    source = checks.array("source", source, ("B", "S"), kind="i")
    valid = check_valid("source_valid", valid, source)
    p = config.dropout
    x, embedded = embedding.forward(params["embed"], source)
    x, mask0 = dropout.forward(x, p, rng)

    reversal = _reversal(valid)
    ahead, _, of_ahead = lstm.forward(params["forward"], x)
    back, _, of_back = lstm.forward(params["backward"], _turn(x, reversal))
    h = np.concatenate([ahead, _turn(back, reversal)], axis=2)
    h, mask1 = dropout.forward(h, p, rng)
    x = x + h

    noise: Options = {"dropout_share": p, "rng": rng}
    x, _, lstm2 = recurrent_blocks.lstm_forward(params["lstm2"], x, **noise)
    x, mixture = recurrent_blocks.mixture_forward(
        params["mixture"],
        x,
        valid=valid,
        expert=mixture_layer.KINDS[config.expert],
        router=mixture_layer.router_of(config.router),
        options=config.options,
        training=training,
        ids=source.ravel(),
        **noise,
    )
    x, _, lstm3 = recurrent_blocks.lstm_forward(params["lstm3"], x, **noise)
    blocks = (of_ahead, of_back, reversal, lstm2, mixture, lstm3)
    return x, Cache(embedded, (mask0, mask1), *blocks, valid, p)


def backward(dmemory: ArrayBTD, cache: Cache, added: BalanceLoss | None = None) -> Tree:
    """dmemory (B, S, D) -> the gradients of the encoder's parameters."""
    p = cache.dropout
    dx, dlstm3 = recurrent_blocks.lstm_backward(dmemory, cache.lstm3)
    dx, dmixture = recurrent_blocks.mixture_backward(dx, cache.mixture, added)
    dx, dlstm2 = recurrent_blocks.lstm_backward(dx, cache.lstm2)

    dh = dropout.backward(dx, cache.masks[1], p)
    half = dh.shape[2] // 2
    dahead, _, dforward = lstm.backward(dh[:, :, :half], cache.forward)
    dback, _, dbackward = lstm.backward(_turn(dh[:, :, half:], cache.reversal), cache.backward)
    dx = dropout.backward(dx + dahead + _turn(dback, cache.reversal), cache.masks[0], p)
    return {
        "embed": embedding.backward(dx, cache.embedding),
        "forward": dforward,
        "backward": dbackward,
        "lstm2": dlstm2,
        "mixture": dmixture,
        "lstm3": dlstm3,
    }


def _reversal(valid):
    """(B, S, 1): the position that takes the place of each when the valid ones are turned round."""
    position = np.arange(valid.shape[1])
    length = valid.sum(axis=1, keepdims=True)
    return np.where(position < length, length - 1 - position, position)[:, :, None]


def _turn(x, reversal):
    """x (B, S, D) with the valid positions of each row turned round; twice, it is x."""
    return np.take_along_axis(x, reversal, axis=1)


def check_valid(name: str, valid: ArrayBT | None, ids: ArrayBT) -> ArrayBT:
    """The mask, all True for None. Raises InputError where a token comes after padding."""
    if valid is None:
        return np.ones(ids.shape, bool)
    valid = checks.mask(name, valid, ids.shape)
    late = (valid[:, 1:] & ~valid[:, :-1]).any(axis=1)
    if late.any():
        row = int(late.argmax())
        raise InputError(f"{name}: wanted padding at the end, got a token behind it in row {row}")
    return valid
