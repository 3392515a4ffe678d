"""Competing experts: the mixture of 1991 with a width σ, and a gate that may see something else
than the experts do.

S. J. Nowlan and G. E. Hinton (1991), Evaluation of adaptive mixtures of competing experts, Advances
in Neural Information Processing Systems 3:774-780. The error of a case is minus the log likelihood
of a mixture of Gaussians of width σ about the experts' outputs (their σ is .25; eq. 3 of Jacobs et
al. 1991 has σ = 1),

    E = −log Σ_i p_i(z) exp(−‖d − o_i(x)‖² / 2σ²).

    paper       here     shape      meaning
                x        (N, D)     what the experts see: the formants
                z        (N, Z)     what the gate sees: the same, or the context, such as who speaks
    d           d        (N, C)     wanted output
    o_i         o        (N, E, C)  output of expert i
    p_i         p        (N, E)     the gate's output
    σ           sigma    number     how near is near: a smaller one makes the competition harder

Parameters: W (E, D, C), b (E, C) of the experts and U (Z, E), c (E,) of the gate. The pieces are
those of `moe_np.mixtures.jacobs1991`; dividing o and d by σ turns its eq. 3 into this error.
"""

import functools
from typing import NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.mixtures import jacobs1991 as model


class Cache(NamedTuple):
    experts: model.ExpertsCache
    gate: model.GateCache
    scores: model.MixtureCache
    sigma: float
    o: np.ndarray  # (N, E, C)
    p: np.ndarray  # (N, E)


def system_forward(params, x, z, d, *, sigma, kind="softmax"):
    """Experts on x, gate on z, and the error above. Returns (loss (N,), cache); cache.scores.resp
    the posteriors.
    """
    o, experts = model.experts_forward(params, x, kind)
    p, gate = model.gate_forward(params, z)
    loss, scores = model.mixture_forward(o / sigma, p, d / sigma)
    return loss, Cache(experts, gate, scores, sigma, o, p)


def system_backward(dloss, cache):
    """(dx, dz, {"W", "b", "U", "c"}): ∂E/∂o_i = −resp_i (d − o_i) / σ², ∂E/∂s_i = p_i − resp_i."""
    do, _ = model.mixture_backward(dloss, cache.scores)
    dx, grads = model.experts_backward(do / cache.sigma, cache.experts)
    ds = dloss[:, None] * (cache.p - cache.scores.resp)
    dz, gate_grads = model.gate_backward_from_totals(ds, cache.gate)
    return dx, dz, {**grads, **gate_grads}


def init(rng, E, D, Z, C, *, spread=0.05):
    """Experts with weights and biases uniform in ±spread, the gate at 0."""
    for name, value in (("E", E), ("D", D), ("Z", Z), ("C", C)):
        checks.integer(name, value)
    params = model.init_mixture(checks.generator("rng", rng), E, D, C, spread=spread)
    return {**params, "U": np.zeros((Z, E))}


def mean_loss(params, x, z, d, *, sigma, kind="softmax"):
    """(mean error, its gradients by the parameters): what a minimiser asks for."""
    loss, cache = system_forward(params, x, z, d, sigma=sigma, kind=kind)
    return float(loss.mean()), system_backward(np.full(len(x), 1 / len(x)), cache)[2]


def mean_loss_of(x, z, d, *, sigma, kind="softmax"):
    """`mean_loss` as a function of the parameters alone, compiled where it can be: for loops over
    fixed cases.
    """
    if (
        kernels.backend() == "numba"
        and kind == "softmax"
        and d.shape[1] > 1
        and x.dtype == np.float64
    ):
        return kernels.nowlan1991.mean_loss_of(x, z, d, float(sigma))
    return functools.partial(mean_loss, x=x, z=z, d=d, sigma=sigma, kind=kind)


def log_likelihood(loss, sigma, C):
    """log p(d | x, z) of each case: what E leaves out is the Gaussians' factor, −C log(σ √(2π))."""
    return -loss - C * np.log(sigma * np.sqrt(2 * np.pi))


def refit_sigma(d, cache):
    """The σ of highest likelihood if responsibilities and outputs are held: σ² = Σ resp_i ‖d −
    o_i‖² / (N C).
    """
    distance = ((d[:, None, :] - cache.o) ** 2).sum(axis=2)
    return float(np.sqrt((cache.scores.resp * distance).sum() / d.size))


def predict(params, x, z, *, kind="softmax"):
    """(blend Σ_i p_i o_i (N, C), the output of the expert with the largest p (N, C), that expert
    (N,)).
    """
    o, p = model.experts_forward(params, x, kind)[0], model.gate_forward(params, z)[0]
    top = p.argmax(axis=1)
    return np.einsum("ne,nec->nc", p, o), o[np.arange(len(o)), top], top


def check(params, x, z, d, sigma):
    """The public door for training: shapes that fit together, finite numbers, σ above 0. Returns
    (x, z, d).
    """
    if not isinstance(params, dict) or set(params) != {"W", "b", "U", "c"}:
        raise InputError(f"params: wanted a dict with W, b, U and c, got {params!r}")
    _, D, C = np.shape(params["W"])
    x = checks.array("x", x, ("N", D))
    z, d = (
        checks.array("z", z, (len(x), np.shape(params["U"])[0])),
        checks.array("d", d, (len(x), C)),
    )
    if len(x) == 0:
        raise InputError(f"x: wanted at least one case, got shape (0, {D})")
    checks.number("sigma", sigma, above=0)
    return x, z, d
