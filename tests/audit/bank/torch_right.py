"""The routers of `moe_np.routing`, written once more in PyTorch with their own options."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F


def top_mask(score, k, dim=1):
    return torch.zeros_like(score).scatter(dim, score.topk(k, dim=dim).indices, 1.0)


def masked_softmax(logits, mask):
    return torch.softmax(logits.masked_fill(mask == 0, -torch.inf), dim=1)


def in_order(mask, C):
    """The first C of each column."""
    return mask * (mask.cumsum(dim=0) <= C)


def dense(x, w):
    return torch.softmax(x @ w, dim=1)


def top_k(x, w, k):
    weights, indices = (x @ w).topk(k)
    return weights.softmax(dim=1), indices


def biased_top_k(x, w, bias, k):
    weights, indices = (x @ w + bias).topk(k)
    return weights.softmax(dim=1), indices


def capacity_top_k(x, w, k, capacity_factor):
    logits = x @ w
    chosen = top_mask(logits, k)
    C = max(1, -int(-capacity_factor * k * len(x) // w.shape[1]))
    return masked_softmax(logits, chosen) * in_order(chosen, C)


def noisy_top_k(x, w, w_noise, k, training=False):
    clean, sigma = x @ w, F.softplus(x @ w_noise)
    noisy = clean + sigma * torch.randn_like(clean) if training else clean
    ranked = noisy.topk(k + 1).values
    kept = top_mask(noisy, k)
    threshold = torch.where(kept > 0, ranked[:, k, None], ranked[:, k - 1, None])
    load = kept
    if training:
        load = torch.distributions.Normal(0.0, 1.0).cdf((clean - threshold) / sigma)
    return {"gate": masked_softmax(noisy, kept), "load": load.sum(dim=0)}


def switch(x, w, capacity_factor):
    probs = dense(x, w)
    C = max(1, -int(-capacity_factor * len(x) // w.shape[1]))
    return probs * in_order(top_mask(probs, 1), C)


def two_choices(x, w):
    """Probabilities, masks of first and second choice, both gates."""
    probs = dense(x, w)
    first, both = top_mask(probs, 1), top_mask(probs, 2)
    return probs, first, both - first, masked_softmax(x @ w, both)


def two_queues(first, second, capacity_factor):
    N, E = first.shape
    C = max(1, -int(-capacity_factor * 2 * N // E))
    placed = in_order(torch.cat([first, second]), C)
    return placed[:N], placed[N:]


def gshard(x, w, capacity_factor, training=False):
    _, first, second, gates = two_choices(x, w)
    placed, queue = two_queues(first, second, capacity_factor)
    if training:
        queue = queue * (2 * (gates * second).sum(dim=1) > torch.rand(len(x)))[:, None]
    return gates * (placed + queue)


def st_moe(x, w, capacity_factor, threshold=0.2):
    probs, first, second, gates = two_choices(x, w)
    share = (probs * second).sum(dim=1) / (probs * first).sum(dim=1)
    placed, queue = two_queues(first, second * (share > threshold)[:, None], capacity_factor)
    return gates * (placed + queue)


def expert_choice(x, w, capacity_factor):
    probs = dense(x, w)
    C = min(len(x), max(1, -int(-capacity_factor * len(x) // w.shape[1])))
    return probs * top_mask(probs, C, dim=0)


def hashing(x, ids, table):
    return F.one_hot(table[ids], 4).to(x.dtype)


def kmeans(x, centroids, k):
    distances = ((x[:, None] - centroids) ** 2).sum(dim=2)
    probs = torch.softmax(-distances, dim=1)
    return {"gate": probs * top_mask(probs, k), "logits": -distances}


def top_p(x, w, p):
    probs = dense(x, w)
    larger = probs[:, None, :] > probs[:, :, None]
    index = torch.arange(w.shape[1])
    larger = larger | ((probs[:, None, :] == probs[:, :, None]) & (index[None] < index[:, None]))
    return probs * ((probs[:, None, :] * larger).sum(dim=2) < p - 1e-9)


def bias_balanced(x, w, bias, k):
    scores = torch.sigmoid(x @ w)
    kept = scores * top_mask(scores + bias, k)
    return kept / kept.sum(dim=1, keepdim=True)


def gradient_estimators(x, w, training=False):
    """Straight-through."""
    probs = dense(x, w)
    index = torch.multinomial(probs, 1) if training else probs.argmax(dim=1, keepdim=True)
    onehot = torch.zeros_like(probs).scatter(1, index, 1.0)
    return onehot + (probs - probs.detach()) * onehot


def hierarchical(x, w_primary, w_secondary, k_primary, k_secondary):
    outer, inner = x @ w_primary, x @ w_secondary
    N, a = outer.shape
    inner = inner.reshape(N * a, -1)
    first = masked_softmax(outer, top_mask(outer, k_primary))
    second = masked_softmax(inner, top_mask(inner, k_secondary))
    return (first[:, :, None] * second.reshape(N, a, -1)).reshape(N, -1)


def strictly_balanced(x, w, threshold, k, training=False):
    probs = dense(x, w)
    m = min(len(x), -(-k * len(x) // w.shape[1]))
    mask = top_mask(probs, m, dim=0) if training else (probs > threshold).to(x.dtype)
    kept = probs * mask
    total = kept.sum(dim=1, keepdim=True)
    return kept / torch.where(total > 0, total, torch.ones_like(total))


def base_assignment(x, w, training=False):
    logits = x @ w
    if not training:
        return torch.sigmoid(logits) * top_mask(logits, 1)
    N, E = logits.shape
    repeats = -(-N // E)
    scores = np.tile(logits.detach().numpy(), (1, repeats))
    missing = repeats * E - N
    if missing:
        absent = np.full((missing, scores.shape[1]), -1e9)
        absent[:, -E:] = 0
        scores = np.concatenate([scores, absent])
    expert = torch.tensor(linear_sum_assignment(scores, maximize=True)[1][:N] % E)
    return torch.sigmoid(logits) * F.one_hot(expert, E)
