"""Softmax, logsumexp, sigmoid, softplus and entropy, written so that no input overflows.

The functions of which every gating network and router is made. The dtype follows the input; no
function changes its argument.
"""

import numpy as np

from moe_np.base.types import Array


def logsumexp(logits: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """log Σ_j exp(logits_j) along `axis`; the maximum is subtracted first and added again.

    A slice of only −inf (every choice masked) gives −inf.
    """
    top = logits.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)  # −inf − (−inf) would be nan
    with np.errstate(divide="ignore"):  # log 0 = −inf is meant
        out = np.log(np.exp(logits - top).sum(axis=axis, keepdims=True)) + top
    return out if keepdims else np.squeeze(out, axis=axis)


def log_softmax(logits: Array, axis: int = -1) -> Array:
    """logits − logsumexp(logits): log probabilities, exact where softmax underflows to 0."""
    return logits - logsumexp(logits, axis=axis, keepdims=True)


def softmax(logits: Array, axis: int = -1) -> Array:
    """p_i = exp(x_i) / Σ_j exp(x_j). A masked choice (−inf) gets exactly 0, also where all are."""
    top = logits.max(axis=axis, keepdims=True)
    masked = top == -np.inf  # −inf − (−inf) would be nan, and so would 0/0
    e = np.exp(logits - np.where(masked, 0, top))
    return e / np.where(masked, 1, e.sum(axis=axis, keepdims=True))


def softmax_backward(dprobs: Array, probs: Array, axis: int = -1) -> Array:
    """dx_i = p_i (dp_i − Σ_j p_j dp_j), from the output of the softmax."""
    return probs * (dprobs - (dprobs * probs).sum(axis=axis, keepdims=True))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x)) = ½ (1 + tanh(x/2)): the same function, and tanh never overflows."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def sigmoid_backward(dy: Array, y: Array) -> Array:
    """dx = dy · y (1 − y), from the output of the sigmoid."""
    return dy * y * (1 - y)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow for large x, and exact for very negative x."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def softplus_backward(dy: Array, x: Array) -> Array:
    """dx = dy · sigmoid(x)."""
    return dy * sigmoid(x)


def entropy(probs: Array, axis: int = -1) -> Array:
    """−Σ p log p in nats, with 0 log 0 = 0."""
    return -np.sum(probs * np.log(np.where(probs > 0, probs, 1)), axis=axis)
