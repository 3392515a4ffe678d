"""The patch networks and the sparse mixture of Chen, Deng, Wu, Gu and Li 2022 (arXiv 2208.02813).

A sample is a few patches. An expert applies its filters to each patch, raises the responses to the
third power (or not: the linear expert), and sums. A linear router (the gating network) reads the
sum of the patches and sends the sample to one expert.

    paper               here      shape         meaning
    x⁽¹⁾ .. x⁽ᴾ⁾        x         (N, P, D)     patches of a sample
    y                   y         (N,)          class 0 or 1 (the paper writes −1 and +1)
    w_{m,j}             w         (E, 2J, D)    filters of expert m: J of class 0, J of class 1
    –                   b         (E, 2J)       biases (in the authors' code, not in the paper)
    f_m(x; W)           f         (N, 2)        outputs of the expert that the sample went to
    θ_m                 theta     (E, D)        router
    h_m(x; Θ)           h         (N, E)        logits of the router
    r_m                 noise     (N, E)        uniform on [0, 1), added to choose the expert
    argmax_m h_m + r_m  expert    (N,)          the expert of each sample
    π_m(x; Θ)           weight    (N,)          mixture weight of the chosen expert

The paper and the authors' code differ, so `gate` and `loss` are arguments without a default:

    gate  "softmax"  π = softmax(h) of the chosen expert, without the noise (paper)
          "raw"      π = h + r of the chosen expert, with the noise, of either sign (code)
    loss  "once"     −log softmax(out)_y, the logistic loss of out₁ − out₀ (paper)
          "twice"    −log softmax(softmax(out))_y: never below ln(1 + e⁻¹) = .3133 (code)

The choice of the expert is not differentiated. The router learns through π alone.
"""

from typing import Annotated, NamedTuple, TypeAlias

import numpy as np

from moe_np.base import numerics
from moe_np.base.types import ArrayN, ArrayND, ArrayNE, ArrayNPD, DType, Params, Rng
from moe_np.layers.experts import cubic
from moe_np.layers.sparse_layer import by_expert

ACTIVATIONS = ("cubic", "linear")
GATES = ("raw", "softmax")
LOSSES = ("once", "twice")
ArrayN2: TypeAlias = Annotated[np.ndarray, "N, 2"]


def init(
    rng: Rng,
    n_experts: int,
    filters: int,
    patch_len: int,
    *,
    scale: float = 1.0,
    dtype: DType = np.float64,
) -> Params:
    """{"w": (E, 2J, D), "b": (E, 2J), "theta": (E, D)}: random experts and a router of zeros.

    Weights and biases are U(−1/√D, 1/√D) times `scale`, D = patch_len. `filters` is J, those of one
    class. Raises InputError for a size below 1.
    """
    experts = cubic.init(rng, patch_len, n_experts, filters, scale=scale, dtype=dtype)
    return {**experts, "theta": np.zeros((n_experts, patch_len), dtype)}


# --- experts --------------------------------------------------------------------------------------


class ExpertCache(NamedTuple):
    """What the backward pass of the experts needs."""

    order: ArrayN  # the samples, sorted by their expert
    experts: cubic.Cache


def expert_forward(
    params: Params, x: ArrayNPD, expert: ArrayN, *, activation: str
) -> tuple[ArrayN2, ExpertCache]:
    """f_c = Σ_p Σ_{j in class c} σ(w_j·x_p + b_j), σ(z) = z³ or z, for the expert of each sample.

    x (N, P, D), expert (N,) with whole numbers below E -> f (N, 2), cache. A single network is
    E = 1 and expert = 0.
    """
    order, offsets = by_expert(expert, len(params["w"]))
    f_sorted, cache = cubic.forward(params, x[order], offsets, activation=activation)
    f = np.empty_like(f_sorted)
    f[order] = f_sorted
    return f, ExpertCache(order, cache)


def expert_backward(df: ArrayN2, cache: ExpertCache) -> tuple[ArrayNPD, Params]:
    """df (N, 2) -> dx (N, P, D), {"w", "b"}."""
    drows, grads = cubic.backward(df[cache.order], cache.experts)
    dx = np.empty_like(drows)
    dx[cache.order] = drows
    return dx, grads


# --- router ---------------------------------------------------------------------------------------


class RouterCache(NamedTuple):
    """What the backward pass of the router needs."""

    x: ArrayNPD
    xsum: ArrayND  # the sum of the patches
    theta: Annotated[np.ndarray, "E, D"]


def router_forward(params: Params, x: ArrayNPD) -> tuple[ArrayNE, RouterCache]:
    """h_m = Σ_p θ_m·x_p (paper, section 3): x (N, P, D) -> h (N, E), cache."""
    xsum = x.sum(axis=1)
    return xsum @ params["theta"].T, RouterCache(x, xsum, params["theta"])


def router_backward(dh: ArrayNE, cache: RouterCache) -> tuple[ArrayNPD, Params]:
    """dh (N, E) -> dx (N, P, D), {"theta"}. All patches of a sample have the same gradient."""
    dx = np.broadcast_to((dh @ cache.theta)[:, None, :], cache.x.shape)
    return dx, {"theta": dh.T @ cache.xsum}


# --- gate -----------------------------------------------------------------------------------------


class GateCache(NamedTuple):
    """What the backward pass of the gate needs."""

    expert: ArrayN
    weight: ArrayN
    probs: ArrayNE | None  # softmax(h); None for the raw gate
    shape: tuple[int, int]
    gate: str  # "raw" or "softmax"


def gate_forward(
    h: ArrayNE, noise: ArrayNE | None, *, gate: str
) -> tuple[tuple[ArrayN, ArrayN], GateCache]:
    """The expert argmax_m h_m + r_m (the lowest index wins a tie) and its mixture weight π.

    h (N, E), noise (N, E) or None -> (expert (N,), weight (N,)), cache. The docstring of this file
    says what `gate` is.
    """
    return gate_weight(h, noise, (h if noise is None else h + noise).argmax(axis=1), gate=gate)


def gate_weight(
    h: ArrayNE, noise: ArrayNE | None, expert: ArrayN, *, gate: str
) -> tuple[tuple[ArrayN, ArrayN], GateCache]:
    """`gate_forward` after the choice of the expert."""
    rows = np.arange(len(h))
    if gate == "raw":
        weight = h[rows, expert] if noise is None else h[rows, expert] + noise[rows, expert]
        return (expert, weight), GateCache(expert, weight, None, h.shape, gate)
    probs = numerics.softmax(h)
    weight = probs[rows, expert]
    return (expert, weight), GateCache(expert, weight, probs, h.shape, gate)


def gate_backward(dweight: ArrayN, cache: GateCache) -> ArrayNE:
    """dweight (N,) -> dh (N, E). Softmax: dh_m = dπ · π (1[m chosen] − softmax(h)_m).

    Raw: dπ for the chosen expert and 0 for the others.
    """
    rows = np.arange(len(dweight))
    if cache.probs is None:
        dh = np.zeros(cache.shape, dweight.dtype)
        dh[rows, cache.expert] = dweight
        return dh
    dlog = dweight * cache.weight  # of log π
    dh = -cache.probs * dlog[:, None]
    dh[rows, cache.expert] += dlog
    return dh


# --- mixture --------------------------------------------------------------------------------------


class MixtureCache(NamedTuple):
    """What the backward pass of the mixture needs."""

    h: ArrayNE
    expert: ArrayN
    weight: ArrayN
    f: ArrayN2
    router: RouterCache
    gate: GateCache
    experts: ExpertCache


def mixture_forward(
    params: Params, x: ArrayNPD, noise: ArrayNE | None, *, activation: str, gate: str
) -> tuple[ArrayN2, MixtureCache]:
    """out = π · f of the chosen expert (paper, section 3).

    x (N, P, D), noise (N, E) or None -> out (N, 2), cache.
    """
    h, router = router_forward(params, x)
    (expert, weight), gate_cache = gate_forward(h, noise, gate=gate)
    f, experts = expert_forward(params, x, expert, activation=activation)
    return weight[:, None] * f, MixtureCache(h, expert, weight, f, router, gate_cache, experts)


def mixture_backward(dout: ArrayN2, cache: MixtureCache) -> tuple[ArrayNPD, Params]:
    """dout (N, 2) -> dx (N, P, D), {"w", "b", "theta"}.

    π and f are differentiated, the choice of the expert is not.
    """
    df = cache.weight[:, None] * dout
    dweight = (dout * cache.f).sum(axis=1)
    dx_expert, grads = expert_backward(df, cache.experts)
    dx_router, router = router_backward(gate_backward(dweight, cache.gate), cache.router)
    return dx_expert + dx_router, {**grads, **router}


# --- loss -----------------------------------------------------------------------------------------


class LossCache(NamedTuple):
    """What the backward pass of the loss needs."""

    probs: ArrayN2  # softmax(out)
    probs_twice: ArrayN2 | None  # softmax(softmax(out)); None for the loss "once"
    y: ArrayN


def loss_forward(out: ArrayN2, y: ArrayN, *, loss: str) -> tuple[float, LossCache]:
    """Mean cross-entropy after one softmax or two: out (N, 2), y (N,) -> nats, cache."""
    rows = np.arange(len(y))
    probs = numerics.softmax(out)
    if loss == "once":
        return -numerics.log_softmax(out)[rows, y].mean(), LossCache(probs, None, y)
    value = -numerics.log_softmax(probs)[rows, y].mean()
    return value, LossCache(probs, numerics.softmax(probs), y)


def loss_backward(dloss: float, cache: LossCache) -> ArrayN2:
    """dloss, a number -> dout (N, 2): (softmax(out) − 1[y]) / N, or the same through both."""
    probs, probs_twice, y = cache
    target = np.eye(2, dtype=probs.dtype)[y]
    scale = probs.dtype.type(dloss / max(len(y), 1))
    if probs_twice is None:
        return (probs - target) * scale
    return numerics.softmax_backward((probs_twice - target) * scale, probs)
