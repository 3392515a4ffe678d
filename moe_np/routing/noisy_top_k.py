"""Noisy top-k gate and its load estimator: Shazeer et al. 2017 (arXiv 1701.06538), section 2.1 and
appendix A.

    G(x) = Softmax(KeepTopK(H(x), k))                                                     (3)
    H(x)_i = (x·W_g)_i + StandardNormal() · Softplus((x·W_noise)_i)                       (4)
    P(x, i) = Φ( ((x·W_g)_i − kth_excluding(H(x), k, i)) / Softplus((x·W_noise)_i) )      (9)
    Load(X)_i = Σ_x P(x, i)                                                               (10)

    paper                 here        shape       meaning
    W_g, W_noise          w, w_noise  (D, E)      gate and noise scale, two matrices; both start at zero
    x·W_g                 clean       (N, E)
    x·W_noise             raw         (N, E)
    Softplus(x·W_noise)   sigma       (N, E)      standard deviation of the noise
    StandardNormal()      noise       (N, E)
    H(x)                  noisy       (N, E)      the routing's logits
    KeepTopK              choice      (N, k + 1)  best first; the last one, the runner-up, is not kept
    G(x)                  weight      (N, k)
    kth_excluding         rival       (N, E)      the expert whose noisy logit is the threshold
    P                     P           (N, E)
    Load                  load        (E,)

How many tokens an expert got is a count, and a count has no gradient. P is a probability instead:
that expert i is kept if its own noise is drawn again and all other noise stays. It is kept when it
beats the k-th best of the *others*: the (k + 1)-th of all if i is kept now, the k-th otherwise. The
threshold is another expert's noisy logit: the gradient goes on into that expert's clean logit and
its sigma.

The authors' code adds 1e-2 to sigma (`noise_epsilon`); the paper's equation has 0. At evaluation
there is no noise and sigma is not used; P is then 1 or 0, the load is the count, and neither has a
gradient.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.routing import contract
from moe_np.routing.contract import Routing


class Cache(NamedTuple):
    x: np.ndarray
    w: np.ndarray
    w_noise: np.ndarray
    clean: np.ndarray  # (N, E)
    raw: np.ndarray | None  # (N, E); None at evaluation, like the next two
    sigma: np.ndarray | None  # (N, E)
    noise: np.ndarray | None  # (N, E)
    noisy: np.ndarray  # (N, E); the clean logits at evaluation
    choice: np.ndarray  # (N, min(k + 1, E))
    weight: np.ndarray  # (N, k)
    valid: np.ndarray  # (N,) bool


def init(rng, d_model, n_experts, *, scale=0.0, dtype=np.float64):
    """{"w": (D, E), "w_noise": (D, E)}: zero as in appendix A (no signal and some noise), or normal
    with scale/√D.
    """
    shape = checks.integer("d_model", d_model), checks.integer("n_experts", n_experts)
    return {
        name: (rng.normal(size=shape) * scale / np.sqrt(shape[0])).astype(dtype)
        for name in ("w", "w_noise")
    }


def route(params, x, *, k, noise_epsilon=0.0, valid=None, training=None, rng=None):
    """Send each token to its k largest noisy logits, weighted by their softmax: x (N, D) ->
    (Routing, cache).

    Without `rng` the logits are the clean ones. Tokens outside `valid` (N,) get no row and add
    nothing to the load.
    """
    x, w, w_noise = contract.check_tokens(x, params), params["w"], params["w_noise"]
    E = w.shape[1]
    k = contract.check_k(k, E)
    if k == 1 < E:
        raise InputError(
            "k: wanted at least 2, got 1: the softmax of one kept logit is 1 and the gate learns nothing"
        )
    _, rng = contract.check_training(training, rng, "the noise on the logits")
    valid = contract.check_valid(valid, len(x))
    clean = x @ w
    raw = sigma = noise = None
    noisy = clean
    if rng is not None:
        raw = x @ w_noise
        sigma = numerics.softplus(raw) + x.dtype.type(noise_epsilon)
        noise = np.zeros_like(clean)
        noise[valid] = rng.normal(size=(valid.sum(), E))
        noisy = clean + noise * sigma
    choice = contract.top_k(noisy, min(k + 1, E))
    kept = choice[:, :k]
    weight = numerics.softmax(np.take_along_axis(noisy, kept, axis=1))
    token = np.repeat(np.flatnonzero(valid), k)
    demand = contract.demand_of(kept, E) & valid[:, None]
    routing = Routing(
        token, kept[valid].ravel(), weight[valid].ravel(), noisy, numerics.softmax(noisy), demand
    )
    return routing, Cache(x, w, w_noise, clean, raw, sigma, noise, noisy, choice, weight, valid)


def route_backward(dweight, dlogits, cache, *, dload=None):
    """dweight (A,), dlogits (N, E) or None, dload (E,) or None -> dx (N, D), {"w", "w_noise"}.

    `dlogits` is with respect to the noisy logits, `dload` to the load of `load_forward`. The choice
    is held.
    """
    spread = np.zeros_like(cache.weight)
    spread[cache.valid] = dweight.reshape(-1, spread.shape[1])
    dnoisy = np.zeros_like(cache.noisy)
    kept = cache.choice[:, : spread.shape[1]]
    np.put_along_axis(dnoisy, kept, numerics.softmax_backward(spread, cache.weight), axis=1)
    if dlogits is not None:
        dnoisy = dnoisy + dlogits
    dclean, dsigma = dnoisy, None if cache.noise is None else dnoisy * cache.noise
    if dload is not None and cache.noise is not None:
        more_clean, more_sigma = _load_to_logits(dload, cache)
        dclean, dsigma = dclean + more_clean, dsigma + more_sigma
    return _logits_to_params(dclean, dsigma, cache)


def load_forward(cache):
    """The expected load of each expert, eqs. (9) and (10): cache of `route` -> load (E,), P (N, E).

    With k = E every expert is always kept and P = 1. The mean of a row of P over the noise is k.
    """
    kept = _kept(cache)
    if cache.noise is None or kept.shape[1] == cache.weight.shape[1]:
        P = kept.astype(cache.noisy.dtype)
    else:
        P = ndtr(_distance(cache)[0])
    P = P * cache.valid[:, None]
    return P.sum(axis=0), P


def load_backward(dload, cache):
    """dload (E,) -> dx (N, D), {"w", "w_noise"}: through clean logits, noise scales and thresholds."""
    return _logits_to_params(*_load_to_logits(dload, cache), cache)


def _kept(cache):
    """(N, E) bool: the k experts of each token."""
    return contract.demand_of(cache.choice[:, : cache.weight.shape[1]], cache.noisy.shape[1])


def _distance(cache):
    """z = (clean − threshold)/sigma and 1/sigma, both (N, E).

    Where sigma has underflowed, P is a step: z is far out on the side that the choice shows and
    1/sigma counts as 0.
    """
    k, far = cache.weight.shape[1], 40.0  # Φ(−40) and its slope are 0 in float64
    kept = _kept(cache)
    rival = np.where(kept, cache.choice[:, k : k + 1], cache.choice[:, k - 1 : k])
    threshold = np.take_along_axis(cache.noisy, rival, axis=1)
    step = cache.sigma < np.sqrt(np.finfo(cache.sigma.dtype).tiny)
    inverse = np.where(step, 0, 1 / np.where(step, 1, cache.sigma))
    z = np.where(step, np.where(kept, far, -far), (cache.clean - threshold) * inverse)
    return np.clip(z, -far, far).astype(cache.clean.dtype), inverse


def _load_to_logits(dload, cache):
    """dload (E,) -> dclean, dsigma (N, E), or zeros where the load is a count."""
    k, E = cache.weight.shape[1], cache.noisy.shape[1]
    if cache.noise is None or k == E:
        return np.zeros_like(cache.clean), np.zeros_like(cache.clean)
    z, inverse = _distance(cache)
    dz = (
        np.asarray(dload, z.dtype)
        * np.exp(-0.5 * z * z)
        / z.dtype.type(np.sqrt(2 * np.pi))
        * cache.valid[:, None]
    )
    dclean = dz * inverse
    dsigma = -dz * z * inverse
    # every kept expert has the runner-up as its rival, every other one has the k-th
    kept, rows = _kept(cache), np.arange(len(z))
    dnoisy = np.zeros_like(dclean)
    dnoisy[rows, cache.choice[:, k]] = -(dclean * kept).sum(axis=1)
    dnoisy[rows, cache.choice[:, k - 1]] = -(dclean * ~kept).sum(axis=1)
    return dclean + dnoisy, dsigma + dnoisy * cache.noise


def _logits_to_params(dclean, dsigma, cache):
    """Backward of clean = x·w and sigma = softplus(x·w_noise) + ε."""
    dx, dw = contract.linear_backward(dclean, cache.x, cache.w)
    if cache.noise is None:
        return dx, {"w": dw, "w_noise": np.zeros_like(cache.w_noise)}
    dx_noise, dw_noise = contract.linear_backward(
        numerics.softplus_backward(dsigma, cache.raw), cache.x, cache.w_noise
    )
    return dx + dx_noise, {"w": dw, "w_noise": dw_noise}
