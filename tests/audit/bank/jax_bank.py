"""Wrong routers and layers in JAX, at least one per erratum that applies. Arrays of JAX cannot be
changed in place.
"""

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm


def kept_weights(logits, k):
    values, indices = jax.lax.top_k(logits, k)
    return jax.nn.softmax(values, axis=-1), indices


def right_top_k(x, w, k=2):
    return kept_weights(x @ w, k)


def noisy(x, w, w_noise, k, key, threshold):
    clean = x @ w
    sigma = jax.nn.softplus(x @ w_noise)
    noise = 0.0 if key is None else jax.random.normal(key, clean.shape)
    logits = clean + noise * sigma
    weights, indices = kept_weights(logits, k)
    load = norm.cdf((clean - threshold(logits, k)) / sigma).sum(axis=0)
    return {"weights": weights, "indices": indices, "load": load}


def of_the_others(logits, k):
    ranked = -jnp.sort(-logits, axis=1)
    is_in = logits > ranked[:, k, None]
    return jnp.where(is_in, ranked[:, k, None], ranked[:, k - 1, None])


def right_noisy(x, w, w_noise, k=2, key=None):
    return noisy(x, w, w_noise, k, key, of_the_others)


def load_that_counts_itself(x, w, w_noise, k=2, key=None):
    return noisy(x, w, w_noise, k, key, lambda z, k: -jnp.sort(-z, axis=1)[:, k - 1, None])


def load_with_stopped_gradient(x, w, w_noise, k=2, key=None):
    def threshold(z, k):
        return jax.lax.stop_gradient(of_the_others(z, k))

    return noisy(x, w, w_noise, k, key, threshold)


def softmax_twice(x, w, k=2):
    return kept_weights(jax.nn.softmax(x @ w, axis=-1), k)


def one_renormalised(x, w, k=1):
    weights, indices = jax.lax.top_k(jax.nn.softmax(x @ w, axis=-1), 1)
    return weights / (weights.sum(axis=-1, keepdims=True) + 1e-9), indices


def with_loss(x, w, k, loss):
    logits = x @ w
    weights, indices = kept_weights(logits, k)
    gates = (jax.nn.one_hot(indices, w.shape[1]) * weights[..., None]).sum(axis=1)
    return weights, indices, loss(logits, gates)


def importance_of_a_sample(x, w, k=2):
    def loss(logits, gates):
        return 0.1 * gates.sum(0).var(ddof=1) / gates.sum(0).mean() ** 2

    return with_loss(x, w, k, loss)


def switch_of_shares_only(x, w, k=2):
    """Counts times counts: no gradient."""

    def loss(logits, gates):
        return w.shape[1] * jnp.square((gates > 0).mean(axis=0)).sum()

    return with_loss(x, w, k, loss)


def z_loss_not_squared(x, w, k=2):
    return with_loss(x, w, k, lambda z, gates: jax.nn.logsumexp(z, axis=-1).mean())


def limited(x, w, experts, C, copies=False):
    probs = jax.nn.softmax(x @ w, axis=-1)
    onehot = jax.nn.one_hot(probs.argmax(axis=-1), w.shape[1])
    kept = onehot * (jnp.cumsum(onehot, axis=0) <= C)
    outputs = jnp.stack([net(x) for net in experts], axis=1)
    out = jnp.einsum("ne,ned->nd", kept * probs, outputs)
    if copies:
        out = out + x * (1 - kept.sum(axis=1, keepdims=True))
    return out


def right_layer(x, w, experts, capacity_factor=1.0):
    return limited(x, w, experts, -int(-capacity_factor * len(x) // w.shape[1]))


def dropped_are_copied(x, w, experts, capacity_factor=1.0):
    return limited(x, w, experts, -int(-capacity_factor * len(x) // w.shape[1]), copies=True)


def capacity_rounded_down(x, w, experts, capacity_factor=1.0):
    return limited(x, w, experts, int(capacity_factor * len(x) // w.shape[1]))


def noise_without_a_switch(x, w, key, k=2):
    """There is no mode without noise."""
    logits = x @ w
    return kept_weights(logits + 0.1 * jax.random.normal(key, logits.shape), k)


def threshold_takes_ties(x, w, k=2):
    logits = x @ w
    kth = jnp.sort(logits, axis=1)[:, -k, None]
    return jax.nn.softmax(jnp.where(logits >= kth, logits, -jnp.inf), axis=-1)


def layer_that_loses_duplicates(x, w, experts, k=2):
    """`.at[].set` keeps one of the rows of a token."""
    weights, indices = kept_weights(x @ w, k)
    outputs = jnp.stack([net(x) for net in experts], axis=1)
    out = jnp.zeros_like(x)
    rows = jnp.arange(len(x))
    for choice in range(k):
        out = out.at[rows].set(weights[:, choice, None] * outputs[rows, indices[:, choice]])
    return out


def softmax_over_the_batch(x, w):
    return jax.nn.softmax(x @ w, axis=0)


def bias_in_the_weights(x, w, bias, k=2):
    weights, indices = jax.lax.top_k(jax.nn.softmax(x @ w, axis=-1) + bias, k)
    return weights, indices


def masks_become_nan(logits, k=2):
    mask = jax.nn.one_hot(jax.lax.top_k(logits, k)[1], logits.shape[1]).sum(axis=1)
    return jax.nn.softmax(jnp.where(mask > 0, logits, -jnp.inf), axis=-1) + 0 * logits


def layer_with_jitter(x, w, experts, k=1, training=False, key=None):
    """The experts see the noise of the router."""
    if training:
        x = x * jax.random.uniform(key, x.shape, minval=0.9, maxval=1.1)
    return limited(x, w, experts, len(x))


def capacity_along_the_experts(x, w, capacity_factor=1.0):
    probs = jax.nn.softmax(x @ w, axis=-1)
    onehot = jax.nn.one_hot(probs.argmax(axis=-1), w.shape[1])
    C = -int(-capacity_factor * len(x) // w.shape[1])
    return onehot * (jnp.cumsum(onehot, axis=1) <= C) * probs


LOSSES = []


def loss_in_a_global_list(x, w, k=2):
    logits = x @ w
    LOSSES.append(jnp.square(jax.nn.logsumexp(logits, axis=-1)).mean())
    return kept_weights(logits, k)


WRONG = {
    "load_that_counts_itself": 1,
    "load_with_stopped_gradient": 2,
    "softmax_twice": 3,
    "one_renormalised": 4,
    "importance_of_a_sample": 5,
    "switch_of_shares_only": 6,
    "z_loss_not_squared": 7,
    "dropped_are_copied": 8,
    "capacity_rounded_down": 9,
    "noise_without_a_switch": 10,
    "threshold_takes_ties": 11,
    "layer_that_loses_duplicates": 12,
    "softmax_over_the_batch": 13,
    "loss_in_a_global_list": 17,
    "bias_in_the_weights": 19,
    "masks_become_nan": 20,
    "layer_with_jitter": 32,
    "capacity_along_the_experts": 32,
}
RIGHT = ("right_top_k", "right_noisy", "right_layer")
