"""The few functions that every gate is made of, written so that no input overflows.

dtype follows the input; none of them changes its argument.
"""

import numpy as np


def logsumexp(logits, axis=-1, keepdims=False):
    """log Σ_j exp(logits_j) along `axis`, with the maximum taken out first.

    A slice of only −inf (every choice masked) gives −inf.
    """
    top = logits.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)  # −inf − (−inf) would be nan
    with np.errstate(divide="ignore"):  # log 0 = −inf is meant
        out = np.log(np.exp(logits - top).sum(axis=axis, keepdims=True)) + top
    return out if keepdims else np.squeeze(out, axis=axis)


def log_softmax(logits, axis=-1):
    """logits − logsumexp(logits): log probabilities that stay exact where softmax underflows to 0."""
    return logits - logsumexp(logits, axis=axis, keepdims=True)


def softmax(logits, axis=-1):
    """p_i = exp(x_i) / Σ_j exp(x_j). A masked choice (−inf) gets exactly 0."""
    e = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def softmax_backward(dprobs, probs, axis=-1):
    """dx_i = p_i (dp_i − Σ_j p_j dp_j), from the softmax's own output."""
    return probs * (dprobs - (dprobs * probs).sum(axis=axis, keepdims=True))


def sigmoid(x):
    """1 / (1 + exp(−x)) = ½ (1 + tanh(x/2)): the same function, and tanh never overflows."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def sigmoid_backward(dy, y):
    """dx = dy · y (1 − y), from the sigmoid's own output."""
    return dy * y * (1 - y)


def softplus(x):
    """log(1 + exp(x)), without overflow for large x and without loss for very negative x."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def softplus_backward(dy, x):
    """dx = dy · sigmoid(x)."""
    return dy * sigmoid(x)


def entropy(probs, axis=-1):
    """−Σ p log p in nats, with 0 log 0 = 0."""
    return -np.sum(probs * np.log(np.where(probs > 0, probs, 1)), axis=axis)
