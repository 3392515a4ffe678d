"""Competing experts: the mixture of 1991 with a width σ and a gating network with its own inputs.

S. J. Nowlan and G. E. Hinton (1991), Evaluation of adaptive mixtures of competing experts, Advances
in Neural Information Processing Systems 3:774-780. The mixture density is a sum of Gaussians with
means o_i and width σ, weighted by the gate (σ is .25 in the paper; eq. 3 of Jacobs et al. 1991 has
σ = 1). The error of a case is minus its log likelihood, up to a constant:

    E = −log Σ_i p_i(z) exp(−‖d − o_i(x)‖² / 2σ²)

    paper   here     shape      meaning
            x        (N, D)     inputs of the experts: the formants
            z        (N, Z)     inputs of the gate: the same, or the context, such as the speaker
    d       d        (N, C)     target
    o_i     o        (N, E, C)  output of expert i
    p_i     p        (N, E)     output of the gating network: the mixture weights
    σ       sigma    number     width of the Gaussians: a smaller σ makes the competition harder

Parameters: W (E, D, C), b (E, C) of the experts and U (Z, E), c (E,) of the gate. The pieces are
those of `moe_np.mixtures.jacobs1991`; dividing o and d by σ turns its eq. 3 into this error.
"""

import functools
from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayN, ArrayNC, ArrayND, ArrayNE, ArrayNEC, Params, Rng
from moe_np.mixtures import jacobs1991

ArrayNZ = Annotated[np.ndarray, "N, Z"]
SHAPES = {"W": ("E", "D", "C"), "b": ("E", "C"), "U": ("Z", "E"), "c": ("E",)}


class Cache(NamedTuple):
    experts: jacobs1991.ExpertsCache
    gate: jacobs1991.GateCache
    scores: jacobs1991.MixtureCache
    sigma: float
    o: ArrayNEC
    p: ArrayNE


def system_forward(
    params: Params, x: ArrayND, z: ArrayNZ, d: ArrayNC, *, sigma: float, kind: str = "softmax"
) -> tuple[ArrayN, Cache]:
    """Experts on x, gate on z, and the error E above: (loss (N,), cache).

    cache.scores.resp has the responsibilities.
    """
    o, experts = jacobs1991.experts_forward(params, x, kind)
    p, gate = jacobs1991.gate_forward(params, z)
    loss, scores = jacobs1991.mixture_forward(o / sigma, p, d / sigma)
    return loss, Cache(experts, gate, scores, sigma, o, p)


def system_backward(dloss: ArrayN, cache: Cache) -> tuple[ArrayND, ArrayNZ, Params]:
    """(dx, dz, grads): ∂E/∂o_i = −resp_i (d − o_i) / σ², and ∂E/∂s_i = p_i − resp_i for the logits.

    d and σ are not differentiated.
    """
    do, _ = jacobs1991.mixture_backward(dloss, cache.scores)
    dx, grads = jacobs1991.experts_backward(do / cache.sigma, cache.experts)
    ds = dloss[:, None] * (cache.p - cache.scores.resp)
    dz, gate_grads = jacobs1991.gate_backward_from_logits(ds, cache.gate)
    return dx, dz, {**grads, **gate_grads}


def init(rng: Rng, E: int, D: int, Z: int, C: int, *, init_range: float = 0.05) -> Params:
    """Initialisation: experts uniform in ±init_range, the gate at 0."""
    for name, value in (("E", E), ("D", D), ("Z", Z), ("C", C)):
        checks.size(name, value)
    rng = checks.generator("rng", rng)
    params = jacobs1991.init_mixture(rng, E, D, C, init_range=init_range)
    return {**params, "U": np.zeros((Z, E))}


def mean_loss(
    params: Params, x: ArrayND, z: ArrayNZ, d: ArrayNC, *, sigma: float, kind: str = "softmax"
) -> tuple[float, Params]:
    """(mean error, its gradient with respect to the parameters), as a minimiser needs them."""
    loss, cache = system_forward(params, x, z, d, sigma=sigma, kind=kind)
    return float(loss.mean()), system_backward(np.full(len(x), 1 / len(x)), cache)[2]


def mean_loss_of(
    x: ArrayND, z: ArrayNZ, d: ArrayNC, *, sigma: float, kind: str = "softmax"
) -> Callable[[Params], tuple[float, Params]]:
    """`mean_loss` of fixed cases as a function of the parameters, for loops over the same cases.

    Compiled with Numba for softmax experts in float64.
    """
    checks.choice("kind", kind, jacobs1991.OUTPUT_UNITS)
    x = checks.array("x", x, ("N", "D"))
    z = checks.array("z", z, (len(x), "Z"))
    d = checks.array("d", d, (len(x), "C"))
    sigma = checks.number("sigma", sigma, greater_than=0)
    in_float64 = x.dtype == z.dtype == d.dtype == np.float64
    has_kernel = kind == "softmax" and d.shape[1] > 1 and in_float64
    if has_kernel and kernels.compiled(x.dtype):
        loss_of = kernels.nowlan1991.mean_loss_of(x, z, d, sigma)
    else:
        loss_of = functools.partial(mean_loss, x=x, z=z, d=d, sigma=sigma, kind=kind)
    checked = set()  # the shapes that were checked: a minimiser calls with the same ones again

    def mean_loss_of_params(params):
        checks.mapping("params", params, ("W", "b", "U", "c"))
        is_known = all(isinstance(p, np.ndarray) for p in params.values())
        shapes = tuple((name, p.shape, p.dtype) for name, p in params.items()) if is_known else None
        if shapes not in checked:
            check(params, x, z, d, sigma)
            params = checks.params("params", params, SHAPES)
            checked.update({shapes} - {None})
        return loss_of(params)

    return mean_loss_of_params


def log_likelihood(loss: ArrayN, sigma: float, C: int) -> ArrayN:
    """log p(d | x, z) of each case: minus E, and the Gaussians' factor −C log(σ √(2π))."""
    return -loss - C * np.log(sigma * np.sqrt(2 * np.pi))


def refit_sigma(d: ArrayNC, cache: Cache) -> float:
    """The σ that maximises the likelihood for these responsibilities and outputs.

    σ² = Σ_n Σ_i resp_i ‖d − o_i‖² / (N C)
    """
    distance = ((d[:, None, :] - cache.o) ** 2).sum(axis=2)
    return float(np.sqrt((cache.scores.resp * distance).sum() / d.size))


def predict(
    params: Params, x: ArrayND, z: ArrayNZ, *, kind: str = "softmax"
) -> tuple[ArrayNC, ArrayNC, ArrayN]:
    """(blend Σ_i p_i o_i, output of the expert with the largest p, number of that expert)."""
    o, _ = jacobs1991.experts_forward(params, x, kind)
    p, _ = jacobs1991.gate_forward(params, z)
    top = p.argmax(axis=1)
    return np.einsum("ne,nec->nc", p, o), o[np.arange(len(o)), top], top


def check(
    params: Params, x: ArrayND, z: ArrayNZ, d: ArrayNC, sigma: float
) -> tuple[ArrayND, ArrayNZ, ArrayNC]:
    """(x, z, d) as arrays, after checking that all shapes fit together and that σ is above 0."""
    if not isinstance(params, dict) or set(params) != {"W", "b", "U", "c"}:
        raise InputError(f"params: wanted a dict with W, b, U and c, got {checks.text(params)}")
    arrays = checks.params("params", params, SHAPES)
    E, D, C = arrays["W"].shape
    if E == 0 or C == 0:
        raise InputError(f"params['W']: wanted experts with outputs, got shape {(E, D, C)}")
    x = checks.array("x", x, ("N", D))
    z = checks.array("z", z, (len(x), np.shape(params["U"])[0]))
    d = checks.array("d", d, (len(x), C))
    if len(x) == 0:
        raise InputError(f"x: wanted at least one case, got shape (0, {D})")
    checks.number("sigma", sigma, greater_than=0)
    return x, z, d
