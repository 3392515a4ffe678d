"""Noisy top-k gating and its load estimator: Shazeer et al. 2017 (arXiv 1701.06538), section 2.1
and appendix A.

    G(x) = Softmax(KeepTopK(H(x), k))                                                     (3)
    H(x)_i = (x·W_g)_i + StandardNormal() · Softplus((x·W_noise)_i)                       (4)
    P(x, i) = Φ( ((x·W_g)_i − kth_excluding(H(x), k, i)) / Softplus((x·W_noise)_i) )      (9)
    Load(X)_i = Σ_x P(x, i)                                                               (10)

    paper                 here        shape       meaning
    W_g, W_noise          w, w_noise  (D, E)      gate and noise scale; both are 0 at first
    x·W_g                 clean       (N, E)
    x·W_noise             raw         (N, E)
    Softplus(x·W_noise)   sigma       (N, E)      standard deviation of the noise
    StandardNormal()      noise       (N, E)
    H(x)                  noisy       (N, E)      the routing's logits
    KeepTopK              choice      (N, k)      best first
    –                     runner_up   (N,)        the expert next to the kept ones; None if k = E
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
from moe_np.base.types import (
    ArrayA,
    ArrayDE,
    ArrayE,
    ArrayN,
    ArrayND,
    ArrayNE,
    ArrayNK,
    DType,
    Options,
    Params,
    Rng,
)
from moe_np.routing import contract, linear_map, stages, weighting
from moe_np.routing.contract import Routing, Stage

CAUSAL = True
EXAMPLE: Options = {"k": 2}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    w_noise: ArrayDE
    clean: ArrayNE
    raw: ArrayNE | None  # None at evaluation, like the next two
    sigma: ArrayNE | None
    noise: ArrayNE | None
    noisy: ArrayNE  # the clean logits at evaluation
    choice: ArrayNK
    runner_up: ArrayN | None
    weight: ArrayNK
    valid: ArrayN

    @property
    def P(self) -> ArrayNE:
        """The probabilities of eq. (9), computed when asked for."""
        return load_forward(self)[1]

    @property
    def load(self) -> ArrayE:
        """The expected load of eq. (10), computed when asked for."""
        return load_forward(self)[0]


class LogitsGradient(NamedTuple):
    """The gradients at x·w and x·w_noise; the second is None at evaluation."""

    dclean: ArrayNE
    draw: ArrayNE | None


def init(
    rng: Rng, d_model: int, n_experts: int, *, scale: float = 0.0, dtype: DType = np.float64
) -> Params:
    """{"w": (D, E), "w_noise": (D, E)}: normal with standard deviation scale/√D.

    scale 0 is appendix A: no signal and some noise.
    """
    shape = contract.check_init(rng, d_model, n_experts, scale, dtype)
    return {
        name: (rng.normal(size=shape) * scale / np.sqrt(shape[0])).astype(dtype)
        for name in ("w", "w_noise")
    }


def route(
    params: Params,
    x: ArrayND,
    *,
    k: int,
    noise_epsilon: float = 0.0,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Send each token to its k largest noisy logits, weighted by their softmax: x (N, D) ->
    (Routing, cache).

    In evaluation the logits are the clean ones. Raises InputError for k = 1 of several experts,
    whose weight is always 1.
    """
    x, w, w_noise = contract.check_inputs(params, x, {"w": ("D", "E"), "w_noise": ("D", "E")})
    checks.not_long_double("x", x)
    noise_epsilon = checks.number("noise_epsilon", noise_epsilon, minimum=0)
    E = w.shape[1]
    k = contract.check_k(k, E)
    if k == 1 < E:
        raise InputError(
            "k: wanted at least 2, got 1: the softmax of one kept logit is 1 and the gate learns "
            "nothing"
        )
    _, rng = contract.check_training(training, rng, "the noise on the logits")
    valid = contract.check_valid(valid, len(x))
    clean = linear_map.linear(x, w)
    raw = sigma = noise = None
    noisy = clean
    if rng is not None:
        raw = linear_map.linear(x, w_noise, "w_noise")
        sigma = numerics.softplus(raw) + x.dtype.type(noise_epsilon)
        noise = np.zeros_like(clean)
        noise[valid] = rng.normal(size=(valid.sum(), E))
        noisy = clean + noise * sigma
        linear_map.check_logits(noisy, "w_noise")
    ranked = contract.top_k(noisy, min(k + 1, E))
    choice = ranked[:, :k]
    runner_up = ranked[:, k] if k < E else None
    weight = weighting.renormalised(noisy, choice)
    demand = contract.demand_of(choice, E, valid)
    probs = numerics.softmax(noisy)
    routing = Routing(*weighting.rows(choice, weight, valid), noisy, probs, demand)
    cache = Cache(x, w, w_noise, clean, raw, sigma, noise, noisy, choice, runner_up, weight, valid)
    return routing, cache


def logits_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache, *, dload: ArrayE | None = None
) -> LogitsGradient:
    """dweight (A,), dlogits (N, E) or None, dload (E,) or None -> the gradients at both products.

    `dlogits` is with respect to the noisy logits, `dload` to the load of `load_forward`. The choice
    is held.
    """
    dchosen = weighting.rows_backward(dweight, cache.weight.shape, cache.valid)
    dnoisy = weighting.renormalised_backward(
        dchosen, cache.weight, cache.choice, cache.noisy.shape[1]
    )
    dclean = weighting.with_dlogits(dnoisy, dlogits, cache.valid)
    if cache.noise is None or cache.raw is None:
        return LogitsGradient(dclean, None)
    dsigma = dclean * cache.noise
    if dload is not None:
        dclean_of_load, dsigma_of_load = load_logits_backward(dload, cache)
        dclean = dclean + dclean_of_load
        dsigma = dsigma + dsigma_of_load
    return LogitsGradient(dclean, numerics.softplus_backward(dsigma, cache.raw))


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache, *, dload: ArrayE | None = None
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None, dload (E,) or None -> dx (N, D), {"w", "w_noise"}. The
    choice is held.
    """
    return _products_backward(logits_backward(dweight, dlogits, cache, dload=dload), cache)


def _products_backward(grad, cache):
    """Backward of clean = x·w and raw = x·w_noise."""
    dx, dw = linear_map.linear_backward(grad.dclean, cache.x, cache.w)
    if grad.draw is None:
        return dx, {"w": dw, "w_noise": np.zeros_like(cache.w_noise)}
    dx_noise, dw_noise = linear_map.linear_backward(grad.draw, cache.x, cache.w_noise)
    return dx + dx_noise, {"w": dw, "w_noise": dw_noise}


# --- the load estimator ---------------------------------------------------------------------------


def load_forward(cache: Cache) -> tuple[ArrayE, ArrayNE]:
    """The expected load of each expert, eqs. (9) and (10): cache of `route` -> load (E,), P (N, E).

    With k = E every expert is always kept and P = 1. The mean of a row of P over the noise is k.
    """
    if cache.noise is None or cache.runner_up is None:
        P = _kept(cache).astype(cache.noisy.dtype)
    else:
        P = ndtr(_distance(cache)[0])
    P = P * cache.valid[:, None]
    return P.sum(axis=0), P


def load_backward(dload: ArrayE, cache: Cache) -> tuple[ArrayND, Params]:
    """dload (E,) -> dx (N, D), {"w", "w_noise"}: through clean logits, noise scales, thresholds."""
    dclean, dsigma = load_logits_backward(dload, cache)
    draw = None if cache.raw is None else numerics.softplus_backward(dsigma, cache.raw)
    return _products_backward(LogitsGradient(dclean, draw), cache)


def load_logits_backward(dload: ArrayE, cache: Cache) -> tuple[ArrayNE, ArrayNE]:
    """dload (E,) -> dclean, dsigma (N, E); zeros where the load is a count.

    The threshold of every kept expert is the noisy logit of the runner-up, that of every other
    expert the noisy logit of the k-th.
    """
    if cache.noise is None or cache.runner_up is None:
        return np.zeros_like(cache.clean), np.zeros_like(cache.clean)
    dload = checks.array("dload", dload, (cache.clean.shape[1],), finite=False)
    z, inverse = _distance(cache)
    bell = np.exp(-0.5 * z * z)
    root = z.dtype.type(np.sqrt(2 * np.pi))
    dz = np.asarray(dload, z.dtype) * bell / root * cache.valid[:, None]
    dclean = dz * inverse
    dsigma = -dz * z * inverse
    kept = _kept(cache)
    rows = np.arange(len(z))
    dnoisy = np.zeros_like(dclean)
    dnoisy[rows, cache.runner_up] = -(dclean * kept).sum(axis=1)
    dnoisy[rows, cache.choice[:, -1]] = -(dclean * ~kept).sum(axis=1)
    return dclean + dnoisy, dsigma + dnoisy * cache.noise


def _kept(cache):
    """(N, E) bool: the k experts of each token."""
    return contract.demand_of(cache.choice, cache.noisy.shape[1])


def _distance(cache):
    """z = (clean − threshold)/sigma and 1/sigma, both (N, E).

    Where sigma has underflowed, P is a step: z is far out on the side of the choice and 1/sigma
    counts as 0.
    """
    far = 40.0  # Φ(−40) and its slope are 0 in float64
    kept = _kept(cache)
    rival = np.where(kept, cache.runner_up[:, None], cache.choice[:, -1:])
    threshold = np.take_along_axis(cache.noisy, rival, axis=1)
    step = cache.sigma < np.sqrt(np.finfo(cache.sigma.dtype).tiny)
    inverse = np.where(step, 0, 1 / np.where(step, 1, cache.sigma))
    z = np.where(step, np.where(kept, far, -far), (cache.clean - threshold) * inverse)
    return np.clip(z, -far, far).astype(cache.clean.dtype), inverse


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    Stage(
        "clean logits",
        r"\mathrm{clean} = x w",
        {"clean": "N E"},
        "Evaluation: no noise.",
        when=("noise", False),
    ),
    Stage("clean logits", r"\mathrm{clean} = x w", {"clean": "N E"}, when=("noise", True)),
    Stage(
        "scale",
        r"\sigma = \log(1 + e^{\mathrm{raw}}), \quad \mathrm{raw} = x w_\mathrm{noise}",
        {"raw": "N E", "sigma": "N E"},
        "Eq. 4.",
    ),
    Stage(
        "noise",
        r"\mathrm{noise} \sim \mathcal N(0, 1)",
        {"noise": "N E"},
        "From the generator that was passed in.",
    ),
    Stage(
        "logits",
        r"\mathrm{noisy} = \mathrm{clean} + \mathrm{noise} \cdot \sigma",
        {"noisy": "N E", "logits": "N E"},
        "Eq. 4.",
        when=("noise", True),
    ),
    Stage("logits", "", {"noisy": "N E", "logits": "N E"}, "Eq. 4.", when=("noise", False)),
    stages.largest("noisy", "The runner-up comes next.", runner_up="N"),
    Stage(
        "weights",
        stages.of_kept("noisy"),
        {"weight": "N k", "probs": "N E"},
        "Eq. 3: a softmax over the kept noisy logits.",
    ),
    Stage(
        "expected load",
        r"P_{ni} = \Phi\big((\mathrm{clean}_{ni} - \mathrm{kth\ of\ the\ others}) / \sigma_{ni}"
        r"\big), \quad \mathrm{load}_i = \sum_n P_{ni}",
        {"P": "N E", "load": "E"},
        "Eqs. 9, 10: the probability to be kept if the noise of this expert is drawn again.",
        when=("noise", True),
    ),
    Stage(
        "expected load",
        r"\mathrm{load}_i = \sum_n P_{ni}",
        {"P": "N E", "load": "E"},
        "Without noise: a count.",
        when=("noise", False),
    ),
)
BACKWARD: tuple[Stage, ...] = (
    stages.through_kept(logits="clean")._replace(when=("noise", False)),
    stages.through_kept(logits="clean")._replace(
        arrays={"dclean": "N E", "draw": "N E"},
        note=f"{stages.HELD} draw is the gradient at raw.",
        when=("noise", True),
    ),
    Stage(
        "parameters and tokens",
        "",
        {"dx": "N D", "dw": "D E", "dw_noise": "D E"},
        stages.BELOW,
    ),
)
