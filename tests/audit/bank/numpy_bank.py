"""Wrong routers in NumPy, at least one per erratum that a router or a layer can have."""

import time
from math import erf

import numpy as np


def softmax(z, axis=-1):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def best(scores, k):
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def softplus(z):
    return np.logaddexp(0, z)


def noisy(x, w, w_noise, rng):
    clean = x @ w
    sigma = softplus(x @ w_noise)
    noise = np.zeros_like(clean) if rng is None else rng.normal(size=clean.shape)
    return clean, sigma, noise, clean + noise * sigma


def phi(z):
    return 0.5 * (1 + np.vectorize(erf)(z / np.sqrt(2)))


def logsumexp(z):
    top = z.max(axis=1)
    return top + np.log(np.exp(z - top[:, None]).sum(axis=1))


def kept_weights(logits, k):
    index = best(logits, k)
    return softmax(np.take_along_axis(logits, index, axis=1)), index


# --- 1 and 2: the load estimator ----------------------------------------------------------------


def load_that_counts_itself(x, w, w_noise, k=2, rng=None):
    """The threshold is the k-th of all, the expert itself among them."""
    clean, sigma, _, logits = noisy(x, w, w_noise, rng)
    weights, indices = kept_weights(logits, k)
    threshold = -np.sort(-logits, axis=1)[:, k - 1 : k]
    load = phi((clean - threshold) / sigma).sum(axis=0)
    return {"weights": weights, "indices": indices, "load": load}


def load_with_thresholds_after_softmax(x, w, w_noise, k=2, rng=None):
    """Raw logits are compared with thresholds that are probabilities."""
    clean, sigma, _, logits = noisy(x, w, w_noise, rng)
    weights, indices = kept_weights(logits, k)
    ranked = -np.sort(-softmax(logits), axis=1)
    inside, outside = ranked[:, k : k + 1], ranked[:, k - 1 : k]
    is_in = logits > np.sort(logits, axis=1)[:, -k - 1][:, None]
    load = phi((clean - np.where(is_in, inside, outside)) / sigma).sum(axis=0)
    return {"weights": weights, "indices": indices, "load": load}


def load_with_constant_threshold(x, w, w_noise, k=2, rng=None):
    """The value is right; the gradient holds the threshold constant."""
    clean, sigma, noise, logits = noisy(x, w, w_noise, rng)
    weights, indices = kept_weights(logits, k)
    ranked = -np.sort(-logits, axis=1)
    is_in = logits > ranked[:, k : k + 1]
    z = (clean - np.where(is_in, ranked[:, k : k + 1], ranked[:, k - 1 : k])) / sigma

    def backward(dweights, dload=None):
        dz = (0 if dload is None else dload) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
        part = weights * (dweights - (weights * dweights).sum(axis=1, keepdims=True))
        dlogits = np.zeros_like(logits)
        np.put_along_axis(dlogits, indices, part, axis=1)
        dsigma = dlogits * noise - dz * z / sigma
        draw = dsigma / (1 + np.exp(-(x @ w_noise)))
        return {"dw": x.T @ (dlogits + dz / sigma), "dw_noise": x.T @ draw}

    load = phi(z).sum(axis=0)
    return {"weights": weights, "indices": indices, "load": load, "backward": backward}


# --- 3 and 4: weights ---------------------------------------------------------------------------


def softmax_twice(x, w, k=2):
    probs = softmax(x @ w)
    index = best(probs, k)
    return softmax(np.take_along_axis(probs, index, axis=1)), index


def masked_with_zero(x, w, k=2):
    """Unselected logits become 0, and the softmax gives their experts a weight."""
    logits = x @ w
    mask = np.zeros_like(logits)
    np.put_along_axis(mask, best(logits, k), 1.0, axis=1)
    return softmax(logits * mask)


def gradient_of_all_logits(x, w, k=2):
    """Renormalised weights with the backward pass of weights that are not."""
    logits = x @ w
    weights, index = kept_weights(logits, k)
    probs = softmax(logits)

    def backward(dweights):
        dprobs = np.zeros_like(probs)
        np.put_along_axis(dprobs, index, dweights, axis=1)
        dlogits = probs * (dprobs - (probs * dprobs).sum(axis=1, keepdims=True))
        return {"dlogits": dlogits, "dw": x.T @ dlogits}

    return {"weights": weights, "indices": index, "backward": backward}


def one_renormalised(x, w):
    probs = softmax(x @ w)
    index = best(probs, 1)
    chosen = np.take_along_axis(probs, index, axis=1)
    return chosen / chosen.sum(axis=1, keepdims=True), index


def one_renormalised_with_epsilon(x, w, k=1):
    probs = softmax(x @ w)
    index = best(probs, k)
    chosen = np.take_along_axis(probs, index, axis=1)
    return chosen / (chosen.sum(axis=1, keepdims=True) + 1e-6), index


# --- 5, 6, 7: losses ----------------------------------------------------------------------------


def with_loss(x, w, k, loss):
    logits = x @ w
    weights, index = kept_weights(logits, k)
    gate = np.zeros_like(logits)
    np.put_along_axis(gate, index, weights, axis=1)
    return weights, index, loss(logits, gate, index)


def importance_of_a_sample(x, w, k=2):
    def loss(logits, gate, index):
        return gate.sum(0).var(ddof=1) / gate.sum(0).mean() ** 2

    return with_loss(x, w, k, loss)


def importance_not_squared(x, w, k=2):
    return with_loss(x, w, k, lambda z, gate, index: gate.sum(0).std() / gate.sum(0).mean())


def importance_over_the_mean(x, w, k=2):
    return with_loss(x, w, k, lambda z, gate, index: gate.sum(0).var() / gate.sum(0).mean())


def switch_of_selected_weights(x, w, k=2):
    """P is the mean of the selected weights, not of the full softmax."""

    def loss(logits, gate, index):
        f = np.bincount(index.ravel(), minlength=logits.shape[1]) / index.size
        return 0.01 * logits.shape[1] * (f * gate.mean(axis=0)).sum()

    return with_loss(x, w, k, loss)


def switch_of_probabilities_only(x, w, k=2):
    def loss(logits, gate, index):
        return logits.shape[1] * (softmax(logits).mean(axis=0) ** 2).sum()

    return with_loss(x, w, k, loss)


def z_loss_of_probabilities(x, w, k=2):
    def loss(logits, gate, index):
        return np.mean(np.log(np.exp(softmax(logits)).sum(axis=1)) ** 2)

    return with_loss(x, w, k, loss)


def z_loss_with_padding(x, w, k=2, valid=None):
    """Padding is set to 0, where log Z is ln E and not absent."""
    valid = np.ones(len(x), bool) if valid is None else valid
    logits = x @ w * valid[:, None]
    weights, index = kept_weights(logits, k)
    log_z = logsumexp(logits)
    return weights * valid[:, None], index, np.mean(log_z**2)


# --- 8, 9: capacity -----------------------------------------------------------------------------


def switch_weights(x, w, C):
    """Weight and expert of each token, and which found a place."""
    probs = softmax(x @ w)
    expert = probs.argmax(axis=1)
    onehot = np.eye(w.shape[1])[expert]
    place = (onehot.cumsum(axis=0) * onehot).sum(axis=1)
    return probs, expert, place <= C


def dropped_to_expert_0(x, w, capacity_factor=1.0):
    """The arg-max of a mask that is zeroed reads as expert 0."""
    C = int(np.ceil(capacity_factor * len(x) / w.shape[1]))
    probs, expert, kept = switch_weights(x, w, C)
    mask = np.eye(w.shape[1])[expert] * kept[:, None]
    index = mask.argmax(axis=1)
    return probs.max(axis=1, initial=0), index


def layer_that_copies_dropped(x, w, experts, capacity_factor=1.0):
    """A dropped token gives p · x."""
    C = int(np.ceil(capacity_factor * len(x) / w.shape[1]))
    probs, expert, kept = switch_weights(x, w, C)
    out = x * probs.max(axis=1, keepdims=True, initial=0)
    for m, net in enumerate(experts):
        rows = kept & (expert == m)
        out[rows] = net(x[rows]) * probs[rows, m, None]
    return out


def capacity_rounded_down(x, w, capacity_factor=1.0):
    C = int(capacity_factor * len(x) / w.shape[1])
    probs, expert, kept = switch_weights(x, w, C)
    return probs.max(axis=1, initial=0) * kept, expert


# --- 10: noise ----------------------------------------------------------------------------------


def noise_in_evaluation(x, w, k=2):
    logits = x @ w
    logits = logits + 0.1 * np.random.normal(size=logits.shape)  # noqa: NPY002
    return kept_weights(logits, k)


def noise_with_the_gate_matrix(x, w, k=2, rng=None):
    logits = x @ w
    if rng is not None:
        logits = logits + rng.normal(size=logits.shape) * softplus(logits)
    weights, index = kept_weights(logits, k)
    return {"weights": weights, "indices": index, "logits": logits}


def load_divides_by_zero(x, w, w_noise, k=2, rng=None):
    """In evaluation sigma is 0."""
    clean, sigma, _, logits = noisy(x, w, w_noise, rng)
    weights, indices = kept_weights(logits, k)
    ranked = -np.sort(-logits, axis=1)
    is_in = logits > ranked[:, k : k + 1]
    threshold = np.where(is_in, ranked[:, k : k + 1], ranked[:, k - 1 : k])
    with np.errstate(all="ignore"):
        load = phi((clean - threshold) / (sigma if rng is not None else 0.0 * sigma)).sum(axis=0)
        load = load + (0.0 if rng is not None else np.nan)
    return {"weights": weights, "indices": indices, "load": load}


def centres_in_place(x, w, k=2):
    x -= x.mean(axis=1, keepdims=True)
    return kept_weights(x @ w, k)


# --- 11, 12, 13 ---------------------------------------------------------------------------------


def threshold_takes_ties(x, w, k=2):
    logits = x @ w
    kth = np.sort(logits, axis=1)[:, -k, None]
    return softmax(np.where(logits >= kth, logits, -np.inf))


def layer_that_loses_duplicates(x, w, experts, k=2):
    """`out[token] += rows` keeps one of the rows of a token."""
    weights, index = kept_weights(x @ w, k)
    token = np.repeat(np.arange(len(x)), k)
    rows = np.stack([net(x) for net in experts])[index.ravel(), token]
    out = np.zeros_like(x)
    out[token] += weights.ravel()[:, None] * rows
    return out


def softmax_over_the_batch(x, w):
    return softmax(x @ w, axis=0)


def standardised_over_the_batch(x, w, k=2):
    logits = x @ w
    return kept_weights((logits - logits.mean(axis=0)) / (logits.std(axis=0) + 1e-6), k)


# --- 16, 17, 19, 20, 32 -------------------------------------------------------------------------


def summed_gradient_of_a_mean(x, w, k=2):
    """The loss is a mean over tokens, and its gradient is a sum."""
    logits = x @ w
    weights, index = kept_weights(logits, k)
    log_z = logsumexp(logits)

    def backward(dweights, dloss=0.0):
        part = weights * (dweights - (weights * dweights).sum(axis=1, keepdims=True))
        dlogits = np.zeros_like(logits)
        np.put_along_axis(dlogits, index, part, axis=1)
        dlogits += dloss * 2 * log_z[:, None] * softmax(logits)
        return {"dlogits": dlogits, "dw": x.T @ dlogits}

    return {"weights": weights, "indices": index, "loss": np.mean(log_z**2), "backward": backward}


def bias_in_the_weights(x, w, bias, k=2):
    scores = 1 / (1 + np.exp(-(x @ w))) + bias
    index = best(scores, k)
    chosen = np.take_along_axis(scores, index, axis=1)
    return chosen / chosen.sum(axis=1, keepdims=True), index


def masks_become_nan(logits, k=2):
    """A mask of −∞ times 0 is NaN."""
    index = best(logits, k)
    mask = np.zeros_like(logits)
    np.put_along_axis(mask, index, 1.0, axis=1)
    with np.errstate(invalid="ignore"):
        kept = np.exp(logits - logits.max(axis=1, keepdims=True)) * mask + 0 * logits
    return kept / kept.sum(axis=1, keepdims=True)


def layer_with_jitter_in_place(x, w, experts, training=False, rng=None):
    """The jitter multiplies x itself, and the experts see it."""
    if training:
        x *= rng.uniform(0.9, 1.1, size=x.shape)
    probs = softmax(x @ w)
    expert = probs.argmax(axis=1)
    rows = np.stack([net(x) for net in experts], axis=1)
    return rows[np.arange(len(x)), expert] * probs.max(axis=1, keepdims=True)


def capacity_along_the_experts(x, w, capacity_factor=1.0):
    """The running count goes along the experts, where it is never above 1."""
    C = int(np.ceil(capacity_factor * len(x) / w.shape[1]))
    probs = softmax(x @ w)
    onehot = np.eye(w.shape[1])[probs.argmax(axis=1)]
    kept = onehot * (onehot.cumsum(axis=1) <= C)
    return kept * probs


# --- without a number: code that fails ---------------------------------------------------------


def smallest_chosen(x, w, k=2):
    logits = x @ w
    index = np.argsort(logits, axis=1)[:, :k]
    return softmax(np.take_along_axis(logits, index, axis=1)), index


def raises_for_one_token(x, w, k=2):
    if len(x) == 1:
        raise ZeroDivisionError("a variance of one number")
    return kept_weights(x @ w, k)


def hangs_in_training(x, w, k=2, training=False):
    while training:
        time.sleep(0.05)
    return kept_weights(x @ w, k)


def nonsense(x, w, k=2):
    return np.full((len(x), w.shape[1]), np.nan)


def index_outside(x, w, k=2):
    weights, index = kept_weights(x @ w, k)
    return weights, index + 1


def softmax_that_overflows(x, w, k=2):
    e = np.exp(x @ w)
    index = best(e, k)
    chosen = np.take_along_axis(e, index, axis=1)
    return chosen / chosen.sum(axis=1, keepdims=True), index


WRONG = {  # name -> erratum, None where there is none
    "load_that_counts_itself": 1,
    "load_with_thresholds_after_softmax": 1,
    "load_with_constant_threshold": 2,
    "softmax_twice": 3,
    "masked_with_zero": 3,
    "gradient_of_all_logits": 3,
    "one_renormalised": 4,
    "one_renormalised_with_epsilon": 4,
    "importance_of_a_sample": 5,
    "importance_not_squared": 5,
    "importance_over_the_mean": 5,
    "switch_of_selected_weights": 6,
    "switch_of_probabilities_only": 6,
    "z_loss_of_probabilities": 7,
    "z_loss_with_padding": 7,
    "dropped_to_expert_0": 8,
    "layer_that_copies_dropped": 8,
    "capacity_rounded_down": 9,
    "noise_in_evaluation": 10,
    "noise_with_the_gate_matrix": 10,
    "load_divides_by_zero": 10,
    "centres_in_place": 10,
    "threshold_takes_ties": 11,
    "layer_that_loses_duplicates": 12,
    "softmax_over_the_batch": 13,
    "standardised_over_the_batch": 13,
    "summed_gradient_of_a_mean": 16,
    "bias_in_the_weights": 19,
    "masks_become_nan": 20,
    "layer_with_jitter_in_place": 32,
    "capacity_along_the_experts": 32,
    "smallest_chosen": None,
    "raises_for_one_token": None,
    "hangs_in_training": None,
    "nonsense": None,
    "index_outside": None,
    "softmax_that_overflows": None,
}


class StoredLoss:
    """The loss is left in an attribute, and nobody adds it (17)."""

    def __init__(self, d_model, n_experts, k=2):
        self.w = np.random.default_rng(0).normal(size=(d_model, n_experts))
        self.k = k
        self.aux_loss = None

    def __call__(self, x):
        logits = x @ self.w
        self.aux_loss = np.mean(logsumexp(logits) ** 2)
        return kept_weights(logits, self.k)


LOSSES = []


def loss_in_a_global_list(x, w, k=2):
    """Losses are collected in a list of the module (17)."""
    logits = x @ w
    LOSSES.append(np.mean(logsumexp(logits) ** 2))
    return kept_weights(logits, k)


WRONG |= {"StoredLoss": 17, "loss_in_a_global_list": 17}
