"""The weights of the chosen experts, forward and backward: pieces that many routers share.

paper                         here           shape
–                             choice         (N, k)    the chosen experts of each token
softmax over the kept logits  renormalised   (N, k)    Mixtral, GShard, Shazeer et al.
the probabilities as they are probs          (N, E)    Switch, DeepSeekMoE
–                             rows           (A,)      the weights of all assignments, in a list
"""

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.types import ArrayA, ArrayN, ArrayNE, ArrayNK


def rows(choice: ArrayNK, weight: ArrayNK, valid: ArrayN | None) -> tuple[ArrayA, ArrayA, ArrayA]:
    """The assignments of the valid tokens, token by token: -> token, expert, weight, each (A,)."""
    k = choice.shape[1]
    if valid is None:
        return np.repeat(np.arange(len(choice)), k), choice.ravel(), weight.ravel()
    token = np.repeat(np.flatnonzero(valid), k)
    return token, choice[valid].ravel(), weight[valid].ravel()


def rows_backward(dweight: ArrayA, shape: tuple[int, int], valid: ArrayN | None) -> ArrayNK:
    """dweight (A,) of `rows` -> (N, k), 0 for padding."""
    n_tokens = shape[0] if valid is None else int(np.count_nonzero(valid))
    dweight = check_dweight(dweight, n_tokens * shape[1])
    if valid is None:
        return dweight.reshape(shape)
    dchosen = np.zeros(shape, dweight.dtype)
    dchosen[valid] = dweight.reshape(-1, shape[1])
    return dchosen


def renormalised(logits: ArrayNE, choice: ArrayNK) -> ArrayNK:
    """Softmax over the chosen logits alone, which is the chosen probabilities over their sum."""
    return numerics.softmax(np.take_along_axis(logits, choice, axis=1))


def renormalised_backward(
    dweight: ArrayNK, weight: ArrayNK, choice: ArrayNK, n_experts: int
) -> ArrayNE:
    """dweight (N, k) -> dlogits (N, E), exactly 0 at the logits that are not chosen."""
    dlogits = np.zeros((len(choice), n_experts), weight.dtype)
    np.put_along_axis(dlogits, choice, numerics.softmax_backward(dweight, weight), axis=1)
    return dlogits


def probs_backward(dweight: ArrayA, token: ArrayA, expert: ArrayA, probs: ArrayNE) -> ArrayNE:
    """Backward of weight = probs[token, expert], through the softmax over all E: dweight -> dlogits
    (N, E). Every logit of a chosen token gets a gradient.

    The three first arguments have one shape, (A,), or shapes that broadcast to one, as (N, k).
    """
    shape = np.broadcast_shapes(np.shape(token), np.shape(expert))
    dweight = checks.array("dweight", dweight, shape, finite=False)
    dprobs = np.zeros_like(probs)
    dprobs[token, expert] = dweight
    return numerics.softmax_backward(dprobs, probs)


def with_dlogits(dscore: ArrayNE, dlogits: ArrayNE | None, valid: ArrayN | None) -> ArrayNE:
    """The gradient that came through the weights plus that of the losses on the logits (None: there
    is none); padding gets 0.
    """
    if dlogits is None:
        return dscore
    return dscore + without_padding(check_dlogits(dlogits, dscore.shape), valid)


def without_padding(dlogits: ArrayNE, valid: ArrayN | None) -> ArrayNE:
    """dlogits with rows of 0 for padding."""
    return dlogits if valid is None else np.where(valid[:, None], dlogits, 0)


def check_dweight(dweight: ArrayA, n_assignments: int) -> ArrayA:
    """Check the gradient of the weights (A,) that comes from the layer; return it as an array."""
    return checks.array("dweight", dweight, (n_assignments,), finite=False)


def check_dlogits(dlogits: ArrayNE, shape: tuple[int, ...]) -> ArrayNE:
    """Check the gradient of the logits (N, E) that comes from losses; return it as an array."""
    return checks.array("dlogits", dlogits, shape, finite=False)
