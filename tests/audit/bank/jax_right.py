"""The routers of `moe_np.routing`, written once more in JAX with their own options."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from scipy.optimize import linear_sum_assignment


def top_mask(score, k):
    return jax.nn.one_hot(jax.lax.top_k(score, k)[1], score.shape[1]).sum(axis=1)


def softmax(logits):
    return jax.nn.softmax(logits, axis=1)


def masked_softmax(logits, mask):
    return softmax(jnp.where(mask > 0, logits, -jnp.inf))


def in_order(mask, C):
    return mask * (jnp.cumsum(mask, axis=0) <= C)


def places(factor, N, E):
    return max(1, -int(-factor * N // E))


def dense(x, w):
    return softmax(x @ w)


def top_k(x, w, k):
    weights, indices = jax.lax.top_k(x @ w, k)
    return softmax(weights), indices


def biased_top_k(x, w, bias, k):
    weights, indices = jax.lax.top_k(x @ w + bias, k)
    return softmax(weights), indices


def capacity_top_k(x, w, k, capacity_factor):
    logits = x @ w
    chosen = top_mask(logits, k)
    C = places(k * capacity_factor, len(x), w.shape[1])
    return masked_softmax(logits, chosen) * in_order(chosen, C)


def noisy_top_k(x, w, w_noise, k, key=None):
    clean, sigma = x @ w, jax.nn.softplus(x @ w_noise)
    noisy = clean if key is None else clean + sigma * jax.random.normal(key, clean.shape)
    ranked = jax.lax.top_k(noisy, k + 1)[0]
    kept = top_mask(noisy, k)
    threshold = jnp.where(kept > 0, ranked[:, k, None], ranked[:, k - 1, None])
    load = kept if key is None else norm.cdf((clean - threshold) / sigma)
    return {"gate": masked_softmax(noisy, kept), "load": load.sum(axis=0)}


def switch(x, w, capacity_factor):
    probs = softmax(x @ w)
    return probs * in_order(top_mask(probs, 1), places(capacity_factor, len(x), w.shape[1]))


def two_gates(x, w, threshold, capacity_factor, key=None):
    logits = x @ w
    probs = softmax(logits)
    first, both = top_mask(probs, 1), top_mask(probs, 2)
    second = both - first
    gates = masked_softmax(logits, both)
    share = (probs * second).sum(axis=1) / (probs * first).sum(axis=1)
    second = second * (share > threshold)[:, None]
    C = places(2 * capacity_factor, len(x), w.shape[1])
    placed = in_order(jnp.concatenate([first, second]), C)
    queue = placed[len(x) :]
    if key is not None:
        sent = 2 * (gates * second).sum(axis=1) > jax.random.uniform(key, (len(x),))
        queue = queue * sent[:, None]
    return gates * (placed[: len(x)] + queue)


def gshard(x, w, capacity_factor, key=None):
    return two_gates(x, w, 0.0, capacity_factor, key)


def st_moe(x, w, capacity_factor, threshold=0.2):
    return two_gates(x, w, threshold, capacity_factor)


def expert_choice(x, w, capacity_factor):
    probs = softmax(x @ w)
    C = min(len(x), places(capacity_factor, len(x), w.shape[1]))
    return probs * (top_mask(probs.T, C).T if len(x) else 1.0)


def hashing(x, ids, table):
    return jax.nn.one_hot(table[ids], 4, dtype=x.dtype)


def kmeans(x, centroids, k):
    logits = -jnp.square(x[:, None] - centroids).sum(axis=2)
    probs = softmax(logits)
    return {"gate": probs * top_mask(probs, k), "logits": logits}


def top_p(x, w, p):
    probs = softmax(x @ w)
    order = jnp.argsort(-probs, axis=1, stable=True)
    ranked = jnp.take_along_axis(probs, order, axis=1)
    kept = jnp.cumsum(ranked, axis=1) - ranked < p - 1e-9
    return probs * jnp.take_along_axis(kept, jnp.argsort(order, axis=1), axis=1)


def bias_balanced(x, w, bias, k):
    scores = jax.nn.sigmoid(x @ w)
    kept = scores * top_mask(scores + bias, k)
    return kept / kept.sum(axis=1, keepdims=True)


def gradient_estimators(x, w, key=None):
    """Straight-through."""
    logits = x @ w
    probs = softmax(logits)
    index = probs.argmax(axis=1) if key is None else jax.random.categorical(key, logits)
    onehot = jax.nn.one_hot(index, w.shape[1])
    return onehot + (probs - jax.lax.stop_gradient(probs)) * onehot


def hierarchical(x, w_primary, w_secondary, k_primary, k_secondary):
    outer, inner = x @ w_primary, x @ w_secondary
    N, a = outer.shape
    inner = inner.reshape(N * a, w_secondary.shape[1] // a)
    first = masked_softmax(outer, top_mask(outer, k_primary))
    second = masked_softmax(inner, top_mask(inner, k_secondary))
    return (first[:, :, None] * second.reshape(N, a, -1)).reshape(N, w_secondary.shape[1])


def strictly_balanced(x, w, threshold, k, training=False):
    probs = softmax(x @ w)
    m = min(len(x), -(-k * len(x) // w.shape[1]))
    kept = probs * (top_mask(probs.T, m).T if training else probs > threshold)
    total = kept.sum(axis=1, keepdims=True)
    return kept / jnp.where(total > 0, total, 1.0)


def base_assignment(x, w, training=False):
    logits = x @ w
    if not training:
        return jax.nn.sigmoid(logits) * top_mask(logits, 1)
    N, E = logits.shape
    repeats = -(-N // E)
    scores = np.tile(np.asarray(logits), (1, repeats))
    if repeats * E > N:
        absent = np.full((repeats * E - N, scores.shape[1]), -1e9)
        absent[:, -E:] = 0
        scores = np.concatenate([scores, absent])
    expert = linear_sum_assignment(scores, maximize=True)[1][:N] % E
    return jax.nn.sigmoid(logits) * jax.nn.one_hot(jnp.asarray(expert), E)
