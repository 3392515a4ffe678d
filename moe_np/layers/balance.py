"""Load-balancing losses: the auxiliary losses that keep the experts of a router evenly used.

A load-balancing loss, also written "load balancing loss", is added to the loss of the task. Here
are the importance loss and the load loss of Shazeer et al., the losses of GShard, Switch and
DeepSeek, two entropies, and the router z-loss of ST-MoE, which is often listed with them and does
not balance. Each is returned and never stored:

    loss(routing, ...) -> BalanceLoss(value, dweight, dlogits, dload, dthreshold)

Every layer has a loss. The caller multiplies it by the coefficient of its paper (`total` does so,
and adds up several losses), reports it apart from the loss of the task, and gives the gradients to
the router's `route_backward`. `valid` (N,) bool marks the tokens that count: padding is left out of
every sum and mean, and its gradient is 0. Without a token the value is 0.

    loss             value                                  at balance  gradient    coefficient
    importance       Var / mean² of the importance          0           dweight     .1
    load             Var / mean² of the expected load       0           dload       .1
    switch           E Σ_i f_i P_i                          1           dlogits     1e-2
    gshard           (1/E) Σ_i f_i P_i, first choices only  1/E²        dlogits
    expert_level     as switch                              1           dlogits
    device_level     Σ_d f'_d P'_d                          1           dlogits
    sequence_wise    E Σ_i f_i P_i, mean over sequences     1           dlogits     1e-4
    token_entropy    mean over tokens of H(p_n), nats       -           dlogits     1e-4
    mean_entropy     H(P), nats; the caller subtracts it    ln E        dlogits
    z_loss           mean over tokens of (log Z_n)²         -           dlogits     1e-3

Every value is a mean over tokens or does not depend on their number, so that a coefficient keeps
its meaning for another batch size. (The loss of the thresholds of the strictly balanced gate, in
routing/strictly_balanced.py, is a sum over tokens, as in its paper.)

    paper                                  here        shape
    Shazeer   Importance(X)                importance  (E,)    summed weights of each expert
    Shazeer   Load(X)                      load        (E,)    from routing/noisy_top_k.py
    Switch    f_i, GShard c_e/S            f           (E,)    share of the choices, held constant
    Switch    P_i, GShard m_e              P           (E,)    mean over tokens of the full softmax
    DeepSeek  s_{i,t}                      p           (N, E)  softmax (DeepSeekMoE),
                                                               sigmoid (DeepSeek-V3)

f counts what tokens asked for, before any capacity: an expert that drops half of its tokens must
still be relieved. f is a count and has no gradient. Balance is not the minimum of Σ f P: f jumps
where P hardly moves. With two experts, nine tokens at (.51, .49) and one at (0, 1), Switch's loss
is .934 with loads .9 and .1; at perfect balance it is 1.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayE, ArrayN
from moe_np.layers import diagnostics
from moe_np.routing import contract, noisy_top_k
from moe_np.routing.contract import BalanceLoss, Routing


def total(pairs: Iterable[tuple[float, BalanceLoss]]) -> BalanceLoss:
    """Σ coefficient · loss, of the values and of the gradients: what one layer's losses add up to.

        total([(0.01, switch(routing)), (1e-3, z_loss(routing))])

    A gradient that no loss has stays None; of no loss at all the value is 0. The dtype of the
    gradients is kept.
    """
    sums: dict[str, Any] = {"value": 0.0}
    for coefficient, loss in pairs:
        coefficient = checks.number("coefficient", coefficient)
        for field, part in loss._asdict().items():
            if part is not None:
                sums[field] = sums.get(field, 0) + coefficient * part
    return BalanceLoss(**sums)


# --- Shazeer et al. 2017 (arXiv 1701.06538) -------------------------------------------------------


def cv_squared(x: ArrayE) -> tuple[float, ArrayE]:
    """CV² = Var(x) / mean(x)², of importance or load, population variance (Shazeer, eqs. 7 and 11).

    x (E,) -> value, dx (E,):  dx_i = 2 (x_i − m − Var/m) / (E m²).  0, with no gradient, for one
    expert and for a sum of 0.
    """
    x = checks.array("x", x, ("E",))
    if np.abs(x).max(initial=0) > np.sqrt(np.finfo(x.dtype).max) / 16:
        raise InputError(f"x: wanted numbers whose squares are finite, got {np.abs(x).max():g}")
    m = x.mean(dtype=np.float64) if len(x) else 0.0
    if m == 0:
        return 0.0, np.zeros_like(x)
    # the variance, and not the square of the root, whose gradient is 0/0 at balance
    var = np.square(x - m).mean()
    return float(var / m**2), (2 * (x - m - var / m) / (len(x) * m**2)).astype(x.dtype)


def importance(routing: Routing, *, valid: ArrayN | None = None) -> BalanceLoss:
    """Importance loss: CV² of the importance (Shazeer, eqs. 6 and 7). 0 at balance.

    The coefficient is .1, for translation .01. The gradient is dweight (A,): the weights are what
    G(x) is, so it goes into `route_backward` with the task's, through noise and kept logits.
    """
    routing = contract.check_routing(routing)
    summed = diagnostics.importance(routing, valid=valid)
    value, dsummed = cv_squared(summed)
    counted = contract.check_valid(valid, len(routing.probs))[routing.token]
    dweight = np.where(counted, dsummed[routing.expert], 0).astype(routing.weight.dtype)
    return BalanceLoss(value, dweight=dweight)


def load(cache: noisy_top_k.Cache) -> BalanceLoss:
    """Load loss: CV² of the expected load (Shazeer, eqs. 10 and 11). 0 at balance.

    Of the cache of `noisy_top_k.route`, in which padding is left out already. The gradient is dload
    (E,), for `noisy_top_k.route_backward`. InputError for the cache of another router.
    """
    if not isinstance(cache, noisy_top_k.Cache):
        raise InputError(f"cache: wanted that of noisy_top_k.route, got {type(cache).__name__}")
    value, dload = cv_squared(noisy_top_k.load_forward(cache)[0])
    return BalanceLoss(value, dload=dload)


# --- what the losses of the logits share ----------------------------------------------------------


def _counted(routing, valid):
    """Logits and demand of the tokens that count, and the checked mask of them, None for all."""
    routing = contract.check_routing(routing)
    if routing.logits is None:
        raise InputError(
            "routing: wanted one with logits, got None: this router learns none, "
            "and no loss balances it"
        )
    logits = checks.array("routing.logits", routing.logits, ("N", "E"))
    if logits.dtype == np.float16:
        raise InputError(
            "routing.logits: wanted float32 or float64, got float16, in which the gradient of a "
            "mean over many tokens is 0"
        )
    demand = routing.demand
    if logits.shape != demand.shape:
        raise InputError(f"routing.logits: wanted shape {demand.shape}, got {logits.shape}")
    if valid is not None:
        valid = contract.check_valid(valid, len(logits))
        logits, demand = logits[valid], demand[valid]
    return logits, demand, valid


def _in_place(dlogits, valid):
    """Gradients of the counted tokens -> dlogits (N, E), with rows of 0 for the padding."""
    if valid is None:
        return dlogits
    out = np.zeros((len(valid), dlogits.shape[1]), dlogits.dtype)
    out[valid] = dlogits
    return out


def _f_times_P(f, logits, valid):
    """Σ_i f_i P_i, and  dlogits = p (f − Σ_i f_i p_i) / N  with f (E,) held constant."""
    p = numerics.softmax(logits)
    N = max(len(logits), 1)
    f = f.astype(p.dtype)
    expected_f = (p @ f)[:, None]  # Σ_i f_i p_i of each token; the value is the mean of it
    value = float(expected_f.sum(dtype=np.float64)) / N
    return BalanceLoss(value, dlogits=_in_place(p * ((f - expected_f) / N), valid))


def _share(demand):
    """The share of all choices that fell on each expert: (N, E) bool -> (E,), sum 1."""
    choices = np.count_nonzero(demand, axis=0)
    return choices / max(choices.sum(), 1)


# --- Switch, GShard, ST-MoE -----------------------------------------------------------------------


def switch(
    routing: Routing, *, valid: ArrayN | None = None, divide_by_k: bool = True
) -> BalanceLoss:
    """Switch's loss E Σ_i f_i P_i (Fedus et al. 2021, arXiv 2101.03961, eqs. 4 to 6); α = 1e-2.

    f sums to 1 (choices of an expert / all choices), so that the value is 1 at balance for every k.
    divide_by_k=False takes choices / tokens, as Transformers does for Mixtral; the value is then k
    at balance. For Switch itself, k = 1, the two are the same.
    """
    logits, demand, valid = _counted(routing, valid)
    f = _share(demand) if divide_by_k else np.count_nonzero(demand, axis=0) / max(len(demand), 1)
    return _f_times_P(logits.shape[1] * f, logits, valid)


def gshard(routing: Routing, *, valid: ArrayN | None = None) -> BalanceLoss:
    """(1/E) Σ_e (c_e/S) m_e (Lepikhin et al. 2020, arXiv 2006.16668, Algorithm 1, line 13).

    1/E² at balance. c_e counts first choices alone, before capacity, whatever the second one was.
    """
    logits, _, valid = _counted(routing, valid)
    first = np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])
    return _f_times_P(first / (max(len(logits), 1) * logits.shape[1]), logits, valid)


def z_loss(routing: Routing, *, valid: ArrayN | None = None) -> BalanceLoss:
    """Router z-loss (1/N) Σ_n (log Σ_j exp logits_nj)² (Zoph et al. 2022, arXiv 2202.08906, eq. 5).

    The coefficient is 1e-3. It draws log Z to 0, not the logits, and does not look at the loads: at
    zero logits the value is (ln E)². dlogits = 2 log Z · p / N.
    """
    logits, _, valid = _counted(routing, valid)
    log_z = numerics.logsumexp(logits, keepdims=True)
    N = max(len(logits), 1)
    value = float(np.square(log_z).sum(dtype=np.float64)) / N
    return BalanceLoss(value, dlogits=_in_place(2 * log_z * numerics.softmax(logits) / N, valid))


# --- entropies ------------------------------------------------------------------------------------


def token_entropy(routing: Routing, *, valid: ArrayN | None = None) -> BalanceLoss:
    """Mean over tokens of H(p_n) = −Σ_i p_ni ln p_ni, in nats (Huang et al. 2024, for top-p).

    ln E for a router without preference, 0 for one that is certain: added to the loss it makes each
    choice sharper. The coefficient is 1e-4. dlogits = −p (ln p + H) / N.
    """
    logits, _, valid = _counted(routing, valid)
    log_p = numerics.log_softmax(logits)
    N = max(len(logits), 1)
    p = np.exp(log_p)
    H = -(p * log_p).sum(axis=1, keepdims=True)
    value = float(H.sum(dtype=np.float64)) / N
    return BalanceLoss(value, dlogits=_in_place(-p * (log_p + H) / N, valid))


def mean_entropy(routing: Routing, *, valid: ArrayN | None = None) -> BalanceLoss:
    """H(P) of the mean distribution P = (1/N) Σ_n p_n, in nats: ln E at balance on average.

    Subtract it from the loss to balance: a negative coefficient. H(P) − mean H(p_n) is the
    information that the router has about its tokens. dlogits = p (g − Σ_i g_i p_i) / N, g = −ln P.
    """
    logits, _, valid = _counted(routing, valid)
    P = numerics.softmax(logits).mean(axis=0) if len(logits) else np.zeros(logits.shape[1])
    # P underflows only where every p does: such an expert has no gradient
    g = -np.log(np.where(P > 0, P, 1))
    return _f_times_P(g, logits, valid)


# --- DeepSeek -------------------------------------------------------------------------------------


def expert_level(routing: Routing, *, valid: ArrayN | None = None) -> BalanceLoss:
    """Σ_i f_i P_i with f_i = E/(kN) · choices of i (DeepSeekMoE, arXiv 2401.06066, eqs. 12 to 14).

    1 at balance. E and k are N' and K', the routed experts without the shared ones. The same as
    Switch's loss.
    """
    return switch(routing, valid=valid)


def device_level(routing: Routing, device: ArrayE, *, valid: ArrayN | None = None) -> BalanceLoss:
    """Σ_d f'_d P'_d (DeepSeekMoE, eqs. 15 to 17): 1 at balance of the devices.

    f'_d is the mean of f and P'_d the sum of P over the experts of device d, f as in expert_level.
    device (E,) integers: the device of each expert. Experts of the same device may differ.
    """
    logits, demand, valid = _counted(routing, valid)
    E = logits.shape[1]
    device = checks.array("device", device, (E,), kind="i")
    if device.min(initial=0) < 0:
        raise InputError(f"device: wanted numbers from 0, got {device.min()}")
    mean_f = np.bincount(device, E * _share(demand)) / np.maximum(np.bincount(device), 1)
    return _f_times_P(mean_f[device], logits, valid)


def sequence_wise(
    routing: Routing, sequence: ArrayN, *, k: int, valid: ArrayN | None = None
) -> BalanceLoss:
    """Σ_i f_i P_i within each sequence (DeepSeek-V3, arXiv 2412.19437, eqs. 17 to 20); α = 1e-4.

    sequence (N,) integers, the sequence of each token. p = s / Σ_j s_j with s = sigmoid(logits);
    f_i = E/(kT) · how often s_i is in the top k of s, T the length. The selection bias of
    DeepSeek-V3's router is not in this f, so routing.demand is not used. 1 at balance. The mean
    over sequences is not in the paper, which has one sequence.
    """
    logits, _, valid = _counted(routing, valid)
    E = logits.shape[1]
    k = contract.check_k(k, E)
    sequence = checks.array("sequence", sequence, (len(routing.demand),), kind="i")
    sequence = sequence if valid is None else sequence[valid]
    _, row, T = np.unique(sequence, return_inverse=True, return_counts=True)
    S = len(T)
    choice = contract.top_k(logits, k)  # of the logits, because s has ties at 1
    choices = np.bincount((row[:, None] * E + choice).ravel(), minlength=S * E).reshape(S, E)
    f = choices * E / (k * T[:, None])
    # one row per token, with the mean over the sequence and the mean over sequences in it
    f = (f / (T[:, None] * max(S, 1)))[row].astype(logits.dtype)
    p = numerics.softmax(-numerics.softplus(-logits))  # s / Σ s from ln s, which cannot be 0/0
    dlog_s = numerics.softmax_backward(f, p)
    dlogits = dlog_s * numerics.sigmoid(-logits)  # d(ln s)/dlogits = sigmoid(−logits)
    return BalanceLoss(float((f * p).sum(dtype=np.float64)), dlogits=_in_place(dlogits, valid))
