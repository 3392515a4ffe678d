"""The two blocks of the recurrent models of Shazeer et al. 2017 (arXiv 1701.06538, appendices C and
E), each with dropout D and a residual connection around it:

    LSTM block       x + D(LSTM(x))
    mixture block    x + D(σ(Σ_i G(x)_i E_i(x)))

"After dropout, the output of the previous layer is added to the layer output." What the experts
return passes a sigmoid before it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from moe_np.base import numerics
from moe_np.base.types import Array, ArrayBT, ArrayBTD, Rng
from moe_np.layers import dropout, lstm, mixture_layer
from moe_np.routing.contract import BalanceLoss

Tree = dict[str, Any]  # nested parameters, or their gradients
Losses = tuple[tuple[float, Callable[..., BalanceLoss]], ...]  # (coefficient, of layers/balance.py)


class LstmBlock(NamedTuple):
    """What the backward pass of x + D(LSTM(x)) needs."""

    lstm: lstm.Cache
    mask: Array | None
    dropout: float


def lstm_forward(
    params: Tree,
    x: ArrayBTD,
    *,
    dropout_share: float = 0.0,
    rng: Rng | None = None,
    state: lstm.State | None = None,
) -> tuple[ArrayBTD, lstm.State, LstmBlock]:
    """x + D(LSTM(x)): x (B, T, D) -> (x (B, T, D), the state after the last step, cache)."""
    h, state, cache = lstm.forward(params, x, state)
    h, mask = dropout.forward(h, dropout_share, rng)
    return x + h, state, LstmBlock(cache, mask, dropout_share)


def lstm_backward(dx: ArrayBTD, cache: LstmBlock) -> tuple[ArrayBTD, Tree]:
    """dx goes down both arms of the residual. The gradient of the first state is left out."""
    dh, _, grads = lstm.backward(dropout.backward(dx, cache.mask, cache.dropout), cache.lstm)
    return dx + dh, grads


class MixtureBlock(NamedTuple):
    """What the backward pass of x + D(σ(mixture(x))) needs."""

    mixture: mixture_layer.Cache
    squashed: Array  # σ of the experts' output
    mask: Array | None
    dropout: float


def mixture_forward(
    params: Tree,
    x: ArrayBTD,
    *,
    dropout_share: float = 0.0,
    rng: Rng | None = None,
    valid: ArrayBT | None = None,
    **options: Any,
) -> tuple[ArrayBTD, MixtureBlock]:
    """x + D(σ(mixture(x))): x (B, T, D) -> (x (B, T, D), cache).

    valid     (B, T), False at padding, which gets no expert
    options   further ones of `mixture_layer.forward`
    """
    flat = None if valid is None else valid.ravel()
    rows = x.reshape(-1, x.shape[-1])
    m, cache = mixture_layer.forward(params, rows, valid=flat, rng=rng, **options)
    squashed = numerics.sigmoid(m).reshape(x.shape)
    h, mask = dropout.forward(squashed, dropout_share, rng)
    return x + h, MixtureBlock(cache, squashed, mask, dropout_share)


def mixture_backward(
    dx: ArrayBTD, cache: MixtureBlock, added: BalanceLoss | None = None
) -> tuple[ArrayBTD, Tree]:
    """dx goes down both arms of the residual; `added` as in `mixture_layer.backward`."""
    dsquashed = dropout.backward(dx, cache.mask, cache.dropout)
    dm = numerics.sigmoid_backward(dsquashed, cache.squashed).reshape(-1, dx.shape[-1])
    dh, grads = mixture_layer.backward(dm, cache.mixture, added)
    return dx + dh.reshape(dx.shape), grads


# --- load-balancing losses ------------------------------------------------------------------------


def balance_losses(
    losses: Losses, cache: mixture_layer.Cache, valid: ArrayBT | None
) -> tuple[BalanceLoss, dict[str, float]]:
    """Of one mixture layer: Σ coefficient · loss, and each loss by its name without coefficient."""
    flat = None if valid is None else valid.ravel()
    terms = {
        loss.__name__: mixture_layer.balance_loss([(1.0, loss)], cache, flat).value
        for _, loss in losses
    }
    return mixture_layer.balance_loss(losses, cache, flat), terms
