"""The two-layer patch networks and the sparse mixture of Chen, Deng, Wu, Gu and Li 2022 (arXiv
2208.02813).

A sample is a handful of patches. An expert slides its filters over them, applies z³ (or nothing:
the linear expert), and sums; a linear router looks at the sum of the patches and sends the sample
to one expert.

    paper                  here       shape           meaning
    x⁽¹⁾ .. x⁽ᴾ⁾           x          (N, P, D)       patches of a sample
    y                      y          (N,)            class 0 or 1 (the paper writes −1 and +1)
    w_{m,j}                w          (E, 2J, D)      filters of expert m: first J for class 0, last J for class 1
    –                      b          (E, 2J)         biases (in the authors' code, not in the paper)
    f_m(x; W)              f          (N, 2)          outputs of the expert a sample went to
    θ_m                    theta      (E, D)          router
    h_m(x; Θ)              h          (N, E)          router logits
    r_m                    noise      (N, E)          uniform numbers on [0, 1), added to choose the expert
    argmax_m h_m + r_m     expert     (N,)            the expert of each sample
    π_m(x; Θ)              weight     (N,)            what multiplies the chosen expert's outputs

The paper and the authors' code differ, so `gate` and `loss` are arguments without a default:

    gate  "softmax"  π = softmax(h) at the chosen expert, without the noise (paper)
          "raw"      π = h + r of the chosen expert, noise and all, of either sign (code)
    loss  "once"     −log softmax(out)_y, which is the logistic loss of out₁ − out₀ (paper)
          "twice"    −log softmax(softmax(out))_y: never below ln(1 + e⁻¹) = .3133 (code)

Which expert is chosen is not differentiated; the router learns through π alone.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics

ACTIVATIONS = ("cubic", "linear")
GATES = ("raw", "softmax")
LOSSES = ("once", "twice")


def init(rng, n_experts, filters, patch_len, *, scale=1.0, dtype=np.float64):
    """Small random experts and a zero router: {"w": (E, 2J, D), "b": (E, 2J), "theta": (E, D)}.

    Weights and biases are U(−1/√D, 1/√D), PyTorch's default start of a convolution over D numbers,
    times `scale`. `filters` is J, the filters of one class.
    """
    E = checks.integer("n_experts", n_experts)
    F = 2 * checks.integer("filters", filters)
    D = checks.integer("patch_len", patch_len)
    bound = 1 / np.sqrt(D)
    w = scale * rng.uniform(-bound, bound, (E, F, D))
    b = scale * rng.uniform(-bound, bound, (E, F))
    return {"w": w.astype(dtype), "b": b.astype(dtype), "theta": np.zeros((E, D), dtype)}


# --- experts --------------------------------------------------------------------------------------


class ExpertCache(NamedTuple):
    x: np.ndarray  # (N, P, D)
    w: np.ndarray  # (E, 2J, D)
    expert: np.ndarray  # (N,)
    z: np.ndarray  # (N, P, 2J)  what each filter sees in each patch
    activation: str


def expert_forward(params, x, expert, *, activation):
    """Outputs of each sample's own expert: f_c = Σ_p Σ_{j in class c} σ(w_j·x_p + b_j), σ(z) = z³
    or z.

    x (N, P, D), expert (N,) with whole numbers below E -> f (N, 2). A single model is E = 1 and
    expert = 0.
    """
    w, b = params["w"], params["b"]
    z = np.empty((*x.shape[:2], w.shape[1]), x.dtype)
    for m in range(len(w)):
        mine = np.flatnonzero(expert == m)
        z[mine] = x[mine] @ w[m].T + b[m]
    s = z * z * z if activation == "cubic" else z
    f = s.sum(axis=1).reshape(len(x), 2, -1).sum(axis=2)
    return f, ExpertCache(x, w, expert, z, activation)


def expert_backward(df, cache):
    """df (N, 2) -> dx, {"w", "b"}: dz = df_class · 3z² (or df_class), dw_m = Σ dz x, over the
    samples of expert m.
    """
    x, w, expert, z, activation = cache
    ds = np.repeat(df, w.shape[1] // 2, axis=1)[
        :, None, :
    ]  # every filter of a class gets its output's gradient
    dz = ds * (3 * z * z) if activation == "cubic" else np.broadcast_to(ds, z.shape)
    dx, dw, db = np.empty_like(x), np.zeros_like(w), np.zeros(w.shape[:2], w.dtype)
    for m in range(len(w)):
        mine = np.flatnonzero(expert == m)
        dz_m = dz[mine].reshape(-1, w.shape[1])  # (samples · P, 2J)
        dw[m] = dz_m.T @ x[mine].reshape(-1, w.shape[2])
        db[m] = dz_m.sum(axis=0)
        dx[mine] = dz[mine] @ w[m]
    return dx, {"w": dw, "b": db}


# --- router ---------------------------------------------------------------------------------------


class RouterCache(NamedTuple):
    x: np.ndarray  # (N, P, D)
    xsum: np.ndarray  # (N, D)
    theta: np.ndarray  # (E, D)


def router_forward(params, x):
    """h_m = Σ_p θ_m·x_p (paper, section 3). x (N, P, D) -> h (N, E)."""
    xsum = x.sum(axis=1)
    return xsum @ params["theta"].T, RouterCache(x, xsum, params["theta"])


def router_backward(dh, cache):
    """dh (N, E) -> dx, {"theta"}: every patch gets the same gradient, because only their sum is
    looked at.
    """
    dx = np.broadcast_to((dh @ cache.theta)[:, None, :], cache.x.shape)
    return dx, {"theta": dh.T @ cache.xsum}


# --- gate -----------------------------------------------------------------------------------------


class GateCache(NamedTuple):
    expert: np.ndarray  # (N,)
    weight: np.ndarray  # (N,)
    probs: np.ndarray  # (N, E)  softmax(h), or None for the raw gate
    shape: tuple
    gate: str


def gate_forward(h, noise, *, gate):
    """Top-1 of h + noise (the lowest index wins a tie) and its weight π.

    h (N, E), noise (N, E) or None -> (expert (N,), weight (N,)). See the top of the file for
    `gate`.
    """
    return gate_weight(h, noise, (h if noise is None else h + noise).argmax(axis=1), gate=gate)


def gate_weight(h, noise, expert, *, gate):
    """`gate_forward` after the choice."""
    rows = np.arange(len(h))
    if gate == "raw":
        weight = h[rows, expert] if noise is None else h[rows, expert] + noise[rows, expert]
        return (expert, weight), GateCache(expert, weight, None, h.shape, gate)
    probs = numerics.softmax(h)
    weight = probs[rows, expert]
    return (expert, weight), GateCache(expert, weight, probs, h.shape, gate)


def gate_backward(dweight, cache):
    """dweight (N,) -> dh (N, E). Raw: only the chosen logit. Softmax: dh_m = dπ · π (1[m chosen] −
    softmax(h)_m).
    """
    rows = np.arange(len(dweight))
    if cache.gate == "raw":
        dh = np.zeros(cache.shape, dweight.dtype)
        dh[rows, cache.expert] = dweight
        return dh
    dlog = dweight * cache.weight  # of log π
    dh = -cache.probs * dlog[:, None]
    dh[rows, cache.expert] += dlog
    return dh


# --- mixture --------------------------------------------------------------------------------------


class MixtureCache(NamedTuple):
    h: np.ndarray  # (N, E)
    expert: np.ndarray  # (N,)
    weight: np.ndarray  # (N,)
    f: np.ndarray  # (N, 2)
    router: RouterCache
    gate: GateCache
    experts: ExpertCache


def mixture_forward(params, x, noise, *, activation, gate):
    """out = π · f of the chosen expert (paper, section 3). x (N, P, D), noise (N, E) or None -> out
    (N, 2).
    """
    h, router = router_forward(params, x)
    (expert, weight), gate_cache = gate_forward(h, noise, gate=gate)
    f, experts = expert_forward(params, x, expert, activation=activation)
    return weight[:, None] * f, MixtureCache(h, expert, weight, f, router, gate_cache, experts)


def mixture_backward(dout, cache):
    """dout (N, 2) -> dx, {"w", "b", "theta"}. The choice of the expert is held; π and f are
    differentiated.
    """
    df = cache.weight[:, None] * dout
    dweight = (dout * cache.f).sum(axis=1)
    dx_expert, grads = expert_backward(df, cache.experts)
    dx_router, router = router_backward(gate_backward(dweight, cache.gate), cache.router)
    return dx_expert + dx_router, {**grads, **router}


# --- loss -----------------------------------------------------------------------------------------


class LossCache(NamedTuple):
    probs: np.ndarray  # (N, 2)  softmax(out)
    again: np.ndarray  # (N, 2)  softmax(softmax(out)), or None
    y: np.ndarray  # (N,)


def loss_forward(out, y, *, loss):
    """Mean cross-entropy of the class, after one softmax or two. out (N, 2), y (N,) -> a number, in
    nats.
    """
    rows = np.arange(len(y))
    if loss == "once":
        value = -numerics.log_softmax(out)[rows, y].mean()
        return value, LossCache(numerics.softmax(out), None, y)
    probs = numerics.softmax(out)
    return -numerics.log_softmax(probs)[rows, y].mean(), LossCache(
        probs, numerics.softmax(probs), y
    )


def loss_backward(dloss, cache):
    """dloss, a number -> dout (N, 2). One softmax: (p − 1[y]) / N; two: through both."""
    probs, again, y = cache
    hit = np.eye(2, dtype=probs.dtype)[y]
    scale = probs.dtype.type(dloss / max(len(y), 1))
    if again is None:
        return (probs - hit) * scale
    return numerics.softmax_backward((again - hit) * scale, probs)


def entropy(expert, cluster, n_experts, n_clusters):
    """Dispatch entropy Σ_m (n_m / n) H(cluster | expert m) in nats (paper, section 5).

    ln K when every expert gets all K clusters alike, 0 when no expert gets two.
    """
    counts = np.bincount(cluster * n_experts + expert, minlength=n_clusters * n_experts).reshape(
        n_clusters, n_experts
    )
    load = counts.sum(axis=0)
    return float(
        (load * numerics.entropy(counts / np.maximum(load, 1), axis=0)).sum() / max(load.sum(), 1)
    )
