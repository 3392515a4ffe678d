"""Losses that keep the experts evenly used, from Shazeer et al. 2017 to DeepSeek-V3. Each is
returned, never stored.

    loss(routing, ...) -> (value, dlogits)      value a number, dlogits (N, E) for the router's route_backward

The caller multiplies both by the paper's coefficient and adds them, once for each layer. `valid`
(N,) bool marks the tokens that count; padding is left out of every mean, and its gradient is 0.
Without a token the value is 0.

    paper                                  here            shape
    Shazeer   Importance(X)                importance      (E,)    weights given to each expert, summed
    Shazeer   Load(X)                      load            (E,)    from routing/noisy_top_k.py
    Switch    f_i, GShard c_e/S            f               (E,)    share of the choices, a constant of the gradient
    Switch    P_i, GShard m_e              P               (E,)    mean over tokens of the full softmax of the logits
    DeepSeek  s_{i,t}                      p               (N, E)  softmax (DeepSeekMoE), sigmoid (DeepSeek-V3)

f counts what tokens asked for, before any capacity: an expert that drops half of its tokens must
still be relieved. Balance is not the minimum of Σ f P: f jumps where P hardly moves. With two
experts, nine tokens at (.51, .49) and one at (0, 1), Switch's loss is .934 with loads .9 and .1; at
perfect balance it is 1.
"""

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.routing import contract


def _counted(routing, valid):
    """The logits and the demand of the tokens that count, and the mask that says which, None for
    all.
    """
    if routing.logits is None:
        raise InputError(
            "routing: wanted one with logits, got None: this router learns none, and no loss balances it"
        )
    logits, demand = routing.logits, routing.demand
    if valid is not None:
        valid = contract.check_valid(valid, len(logits))
        logits, demand = logits[valid], demand[valid]
    return checks.array("routing.logits", logits, ("N", "E")), demand, valid


def _in_place(dlogits, valid):
    """Gradients of the counted tokens -> dlogits (N, E), with rows of 0 for the others."""
    if valid is None:
        return dlogits
    out = np.zeros((len(valid), dlogits.shape[1]), dlogits.dtype)
    out[valid] = dlogits
    return out


def _f_times_P(f, logits, valid):
    """Σ_i f_i P_i and its gradient  dlogits = p (f − Σ_i f_i p_i) / N,  f held; f (E,) in any normalisation."""
    p, N = numerics.softmax(logits), max(len(logits), 1)
    f = f.astype(p.dtype)
    own = (p @ f)[:, None]  # Σ_i f_i p_i of each token; their mean is the value
    return float(own.sum(dtype=np.float64)) / N, _in_place(p * ((f - own) / N), valid)


def _share(demand):
    """The share of all choices that fell on each expert: (N, E) bool -> (E,), sum 1."""
    choices = np.count_nonzero(demand, axis=0)
    return choices / max(choices.sum(), 1)


# --- Shazeer et al. 2017 (arXiv 1701.06538) -------------------------------------------------------


def cv_squared(x):
    """CV² = Var(x) / mean(x)² with the population variance, of importance or load (Shazeer, eqs. 7
    and 11).

    x (E,) -> (value, dx (E,)):  dx_i = 2 (x_i − m − Var/m) / (E m²).  0, with no gradient, for one expert and for a
    sum of 0. The loss of the load is this, followed by the backward pass of the load in routing/noisy_top_k.py.
    """
    x = checks.array("x", x, ("E",))
    m = x.mean(dtype=np.float64) if len(x) else 0.0
    if m == 0:
        return 0.0, np.zeros_like(x)
    var = np.square(
        x - m
    ).mean()  # the variance, not the root squared: that one's gradient is 0/0 at balance
    return float(var / m**2), (2 * (x - m - var / m) / (len(x) * m**2)).astype(x.dtype)


def importance(routing, *, valid=None):
    """CV² of the summed weights of each expert (Shazeer, eqs. 6 and 7); w = .1, for translation
    .01.

    Returns (value, dweight (A,)): the weights are what G(x) is, so the gradient goes into the
    router's route_backward with the task's, through noise and kept logits alike, and not by way of
    dlogits.
    """
    valid = contract.check_valid(valid, len(routing.probs))
    counts = valid[routing.token]
    total = np.bincount(
        routing.expert[counts], routing.weight[counts], minlength=routing.probs.shape[1]
    )
    value, dtotal = cv_squared(total)
    return value, np.where(counts, dtotal[routing.expert], 0).astype(routing.weight.dtype)


# --- Switch, GShard, ST-MoE -----------------------------------------------------------------------


def switch(routing, *, valid=None, divide_by_k=True):
    """E Σ_i f_i P_i (Fedus et al. 2021, arXiv 2101.03961, eqs. 4 to 6); α = 1e-2.

    f sums to 1 (choices of an expert / all choices), so the value is 1 at balance whatever k is;
    divide_by_k=False takes choices / tokens, as Transformers does for Mixtral, and gives k. For
    Switch itself, k = 1, the two are one.
    """
    logits, demand, valid = _counted(routing, valid)
    f = _share(demand) if divide_by_k else np.count_nonzero(demand, axis=0) / max(len(demand), 1)
    return _f_times_P(logits.shape[1] * f, logits, valid)


def gshard(routing, *, valid=None):
    """(1/E) Σ_e (c_e/S) m_e (Lepikhin et al. 2020, arXiv 2006.16668, Algorithm 1, line 13): 1/E² at
    balance.

    c_e counts first choices alone, before capacity, whatever the second one was.
    """
    logits, _, valid = _counted(routing, valid)
    first = np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])
    return _f_times_P(first / (max(len(logits), 1) * logits.shape[1]), logits, valid)


def z_loss(routing, *, valid=None):
    """(1/N) Σ_n (log Σ_j exp logits_nj)² (Zoph et al. 2022, arXiv 2202.08906, eq. 5); 1e-3.

    It draws log Z to 0, not the logits: at zero logits the value is (ln E)². dlogits = 2 log Z · p
    / N.
    """
    logits, _, valid = _counted(routing, valid)
    log_z, N = numerics.logsumexp(logits, keepdims=True), max(len(logits), 1)
    value = float(np.square(log_z).sum(dtype=np.float64)) / N
    return value, _in_place(2 * log_z * numerics.softmax(logits) / N, valid)


# --- entropies ------------------------------------------------------------------------------------


def token_entropy(routing, *, valid=None):
    """Mean over tokens of H(p_n) = −Σ_i p_ni ln p_ni, in nats: ln E for no preference, 0 for
    certainty.

    Added to the loss it makes each choice sharper (Huang et al. 2024 for top-p). dlogits = −p (ln p
    + H) / N.
    """
    logits, _, valid = _counted(routing, valid)
    log_p, N = numerics.log_softmax(logits), max(len(logits), 1)
    p = np.exp(log_p)
    H = -(p * log_p).sum(axis=1, keepdims=True)
    return float(H.sum(dtype=np.float64)) / N, _in_place(-p * (log_p + H) / N, valid)


def mean_entropy(routing, *, valid=None):
    """H(P) of the mean distribution P = (1/N) Σ_n p_n, in nats: ln E where the experts are used
    alike on average.

    Subtract it from the loss to balance. H(P) − mean H(p_n) is the information that the gate has
    about its tokens. dlogits = p (g − Σ_i g_i p_i) / N with g = −ln P.
    """
    logits, _, valid = _counted(routing, valid)
    P = numerics.softmax(logits).mean(axis=0) if len(logits) else np.zeros(logits.shape[1])
    g = -np.log(
        np.where(P > 0, P, 1)
    )  # P underflows only where every p does: such an expert has no gradient
    return _f_times_P(g, logits, valid)


# --- DeepSeek -------------------------------------------------------------------------------------


def expert_level(routing, *, valid=None):
    """Σ_i f_i P_i with f_i = E/(kN) · choices of i (DeepSeekMoE, arXiv 2401.06066, eqs. 12 to 14):
    1 at balance.

    E and k are N' and K', the routed experts without the shared ones. The same as Switch's, divided
    by k.
    """
    return switch(routing, valid=valid)


def device_level(routing, device, *, valid=None):
    """Σ_d f'_d P'_d, f' the mean of f and P' the sum of P over the experts of device d
    (DeepSeekMoE, eqs. 15 to 17).

    device (E,) integers: where each expert lives. f as in expert_level. 1 at balance; experts of
    one device may differ.
    """
    logits, demand, valid = _counted(routing, valid)
    E = logits.shape[1]
    device = checks.array("device", device, (E,), kind="i")
    if device.min(initial=0) < 0:
        raise InputError(f"device: wanted numbers from 0, got {device.min()}")
    mean_f = np.bincount(device, E * _share(demand)) / np.maximum(np.bincount(device), 1)
    return _f_times_P(mean_f[device], logits, valid)


def sequence_wise(routing, sequence, *, k, valid=None):
    """Σ_i f_i P_i within each sequence, mean over sequences (DeepSeek-V3, arXiv 2412.19437, eqs. 17
    to 20); α = 1e-4.

    sequence (N,) integers, the sequence of each token. p = s / Σ_j s_j with s = sigmoid(logits);
    f_i = E/(kT) · how often s_i is in the top k of s, T the length. The selection bias of
    DeepSeek-V3's router is not in this f, so routing.demand is not used. 1 at balance. The mean
    over sequences is not in the paper, which has one.
    """
    logits, _, valid = _counted(routing, valid)
    E, k = logits.shape[1], contract.check_k(k, logits.shape[1])
    sequence = checks.array("sequence", sequence, (len(routing.logits),), kind="i")
    _, row, T = np.unique(
        sequence if valid is None else sequence[valid], return_inverse=True, return_counts=True
    )
    choice = contract.top_k(logits, k)  # of the logits, because s has ties at 1
    f = (
        np.bincount((row[:, None] * E + choice).ravel(), minlength=len(T) * E).reshape(len(T), E)
        * E
        / (k * T[:, None])
    )
    f = (f / (T[:, None] * max(len(T), 1)))[row].astype(
        logits.dtype
    )  # (N, E), with both means in it
    p = numerics.softmax(-numerics.softplus(-logits))  # s / Σ s by way of ln s, which cannot be 0/0
    ds = numerics.softmax_backward(
        f, p
    )  # with respect to ln s, and d(ln s)/dlogits = sigmoid(−logits)
    return float((f * p).sum(dtype=np.float64)), _in_place(ds * numerics.sigmoid(-logits), valid)
