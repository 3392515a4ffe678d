"""On-line learning of hierarchical mixtures of experts (HME), case by case: recursive least squares
(RLS) or the gradient.

Jordan and Jacobs (1994), Hierarchical mixtures of experts and the EM algorithm, Neural Computation
6:181-214, on-line algorithm. Every expert and every gate has a matrix, the inverse of the weighted
sum of x xᵀ over the cases so far. One case of weight h changes it by

    R ← (1/λ) [R − R x xᵀ R / (λ/h + xᵀ R x)]      λ: forgetting factor

and then the parameters by

    U_ij ← U_ij + h_ij R_ij x (y − μ_ij)ᵀ          experts: h = h_ij
    v_ij ← v_ij + h_i S_i x (log h_j|i − ξ_j|i)    gates: h = h_i, the posterior of the gate itself

The weight h belongs in the denominator: without it R shrinks as if every expert had the whole case,
and an expert stops learning before it has specialised. Siblings have the same cases with the same
weights, so a gate has one matrix S for all its branches. As in Algorithm 2 (hme_em.py), log h is
taken about its mean over the branches and clipped.

    here    shape        meaning
    R       (E, K, K)    matrices of the experts, K = D + 1, the constant input last
    S[l]    (P, K, K)    matrices of the gates on level l + 1
    n       () or (E,)   the number of cases that the variances represent; they are forgotten too
"""

import itertools
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks
from moe_np.base.optim import gradient_descent
from moe_np.base.types import Array, ArrayC, ArrayD, ArrayE, ArrayN, ArrayNC, ArrayND, Params, Rng
from moe_np.mixtures import hme
from moe_np.mixtures.hme_em import CLIP, log_ratio

ArrayEKK = Annotated[np.ndarray, "E, K, K"]
METHODS = ("rls", "gradient")


class Options(NamedTuple):
    """The settings of an on-line step; the first three are those of Jordan and Jacobs (1994)."""

    forgetting: float = 0.99  # λ at the beginning
    shrink: float = 0.4  # 1 − λ is multiplied by this number ...
    shrink_every: int = (
        1000  # ... after this many cases; with a constant λ < 1 idle experts forget all
    )
    clip: float = CLIP
    weighted: bool = True  # False: h is left out of the denominator, to show its effect
    hold_variance: bool = False  # the variances keep their values


DEFAULT = Options()


class Memory(NamedTuple):
    """The state of on-line learning besides the parameters."""

    cases: int
    R: ArrayEKK
    S: list[Annotated[np.ndarray, "P, K, K"]]
    n: Array


def init_memory(params: Params, *, width: float = 1.0, cases: float = 100.0) -> Memory:
    """Matrices width · I, equal to a ridge of 1/width on all coefficients.

    cases    the number of cases that the initial variances represent
    """
    K = len(params["U1"]) + 1
    identity = width * np.eye(K)
    levels = range(1, hme.depth(params) + 1)
    S = [np.tile(identity, (len(params[f"c{level}"]), 1, 1)) for level in levels]
    R = np.tile(identity, (len(params["W"]), 1, 1))
    return Memory(0, R, S, np.full(np.shape(params.get("var", 0.0)), float(cases)))


# --- One case -------------------------------------------------------------------------------------


def rls_update(
    R: ArrayEKK,
    x: Annotated[np.ndarray, "K"],
    h: ArrayE,
    forgetting: float = 1.0,
    weighted: bool = True,
) -> ArrayEKK:
    """R after a case x (K,) with weights h (E,). With λ = 1: (R⁻¹ + h x xᵀ)⁻¹."""
    Rx = R @ x
    h_below = h if weighted else np.ones_like(h)
    gain = h_below / (forgetting + h_below * (Rx @ x))
    return (R - gain[:, None, None] * Rx[:, :, None] * Rx[:, None, :]) / forgetting


def forgetting_factor(options: Options, cases: int) -> float:
    """λ after this many cases."""
    return 1 - (1 - options.forgetting) * options.shrink ** (cases // options.shrink_every)


def rls_step(
    params: Params, memory: Memory, x: ArrayD, y: ArrayC, options: Options = DEFAULT
) -> tuple[Params, Memory, float]:
    """Learn from one case by RLS: (params, memory, loss before). The arguments are not changed."""
    loss, cache = hme.forward(params, x[None], y[None])
    post = cache.post
    z = np.append(x, 1.0)
    lam = forgetting_factor(options, memory.cases)
    resp = post.resp[0]
    residual = y - cache.mu[0]
    R = rls_update(memory.R, z, resp, lam, options.weighted)
    change = (resp[:, None] * (R @ z))[:, :, None] * residual[:, None, :]
    new = {**params, "W": params["W"] + change[:, :-1], "b": params["b"] + change[:, -1]}
    S = []
    weight = np.ones(1)  # posterior of the gates of this level
    for level, (h, S_before) in enumerate(zip(post.h, memory.S, strict=True), start=1):
        U = params[f"U{level}"]
        c = params[f"c{level}"]
        S.append(rls_update(S_before, z, weight, lam, options.weighted))
        miss = log_ratio(h[0], options.clip) - (np.einsum("d,dpb->pb", x, U) + c)
        change = (weight[:, None] * (S[-1] @ z))[:, :, None] * miss[:, None, :]
        new[f"U{level}"] = U + change[:, :-1].transpose(1, 0, 2)
        new[f"c{level}"] = c + change[:, -1]
        weight = post.joint[level - 1][0].reshape(-1)
    n = memory.n
    if not options.hold_variance:
        square = (residual**2).mean(axis=1)
        new["var"], n = update_variance(params["var"], n, square, resp, lam)
    return new, Memory(memory.cases + 1, R, S, n), float(loss[0])


def update_variance(
    var: Array, n: Array, square: ArrayE, resp: ArrayE, forgetting: float
) -> tuple[Array, Array]:
    """(var, n) after one more case with the mean squared errors `square`: a running mean."""
    weight, value = (resp, square) if n.ndim else (1.0, resp @ square)
    n = forgetting * n + weight
    return var + weight * (value - var) / n, n


def gradient_step(
    params: Params, memory: Memory, x: ArrayD, y: ArrayC, lr: float, options: Options = DEFAULT
) -> tuple[Params, Memory, float]:
    """The same by gradient descent with learning rate `lr`; the variances are running means."""
    loss, cache = hme.forward(params, x[None], y[None])
    grads = hme.backward(np.ones(1), cache)[1]
    learned = {name: value for name, value in params.items() if name != "var"}
    new = {**params, **gradient_descent(learned, grads, lr=lr)}
    n = memory.n
    if "var" in params and not options.hold_variance:
        square = ((y - cache.mu[0]) ** 2).mean(axis=1)
        lam = forgetting_factor(options, memory.cases)
        new["var"], n = update_variance(params["var"], n, square, cache.post.resp[0], lam)
    return new, memory._replace(cases=memory.cases + 1, n=n), float(loss[0])


# --- Passes over the data -------------------------------------------------------------------------


def train(
    params: Params,
    x: ArrayND,
    y: ArrayNC | ArrayN,
    *,
    rng: Rng,
    method: str = "rls",
    lr: float | None = None,
    options: Options = DEFAULT,
    memory: Memory | None = None,
) -> Iterator[hme.Iteration]:
    """Passes over the cases, each in a new random order: yields a `hme.Iteration` before each pass.

    method  "rls", or "gradient" with learning rate `lr`

    The loss of an iteration is that of all cases at its parameters, its cache the E step there. The
    passes are compiled where Numba is available. "gradient" also serves categorical experts and
    covariance matrices that are held, without being compiled. Raises InputError for bad arguments.
    """
    checks.choice("method", method, METHODS)
    params, x, y = hme.check(params, x, y)
    lr = _check_options(params, rng, method, lr, options)
    memory = init_memory(params) if memory is None else memory
    for number in itertools.count():
        loss, cache = hme.forward(params, x, y)
        yield hme.Iteration(number, float(loss.sum()), params, cache)
        order = rng.permutation(len(x))
        params, memory, _ = run_pass(params, memory, x, y, order, lr, options)


def _check_options(params, rng, method, lr, options):
    """lr as a float or None, after checking all options of `train`."""
    is_categorical = "var" not in params
    is_full = np.ndim(params.get("var", 0.0)) > 1
    if (is_categorical and method == "rls") or (is_full and not options.hold_variance):
        raise checks.InputError(
            "params: wanted Gaussian experts with one variance, or one per expert"
        )
    for level in range(1, hme.depth(params) + 1):  # a posterior of 0 has no logarithm to learn
        checks.array(f"params['c{level}']", params[f"c{level}"], ("P", "b"))
    if (method == "gradient") != (lr is not None):
        raise checks.InputError("lr: wanted a learning rate with the gradient, and none with rls")
    checks.generator("rng", rng)
    checks.number("options.forgetting", options.forgetting, greater_than=0, maximum=1)
    checks.number("options.shrink", options.shrink, minimum=0, maximum=1)
    checks.number("options.clip", options.clip, greater_than=0)
    checks.integer("options.shrink_every", options.shrink_every)
    return None if lr is None else checks.number("lr", lr, greater_than=0)


def run_pass(
    params: Params,
    memory: Memory,
    x: ArrayND,
    y: ArrayNC | ArrayN,
    order: Annotated[np.ndarray, "N"],
    lr: float | None = None,
    options: Options = DEFAULT,
) -> tuple[Params, Memory, float]:
    """`compiled_pass` with Numba, x in float64 and variances () or (E,); otherwise `numpy_pass`."""
    params, x, y = hme.check(params, x, y)
    memory = _check_memory(params, memory)
    order = checks.array("order", order, ("N",), kind="i")
    if order.min(initial=0) < 0 or order.max(initial=-1) >= len(x):
        got = f"{order.min()} to {order.max()}"
        raise checks.InputError(f"order: wanted numbers from 0 to {len(x) - 1}, got {got}")
    is_simple = x.dtype == np.float64 and np.ndim(params.get("var", [[]])) < 2
    compiled = is_simple and kernels.compiled(x.dtype)
    return (compiled_pass if compiled else numpy_pass)(params, memory, x, y, order, lr, options)


def _check_memory(params, memory):
    """The memory with arrays that fit the parameters: the compiled loop takes for granted that they
    do.
    """
    if not isinstance(memory, Memory):
        got = type(memory).__name__
        raise checks.InputError(f"memory: wanted a Memory, as from init_memory, got {got}")
    K = len(params["U1"]) + 1
    R = checks.array("memory.R", memory.R, (len(params["W"]), K, K))
    gates = [len(params[f"c{level}"]) for level in range(1, hme.depth(params) + 1)]
    if not isinstance(memory.S, (list, tuple)) or len(memory.S) != len(gates):
        raise checks.InputError(f"memory.S: wanted one array for each of the {len(gates)} levels")
    S = [checks.array("memory.S", s, (P, K, K)) for s, P in zip(memory.S, gates, strict=True)]
    n = checks.array("memory.n", memory.n, np.shape(params.get("var", 0.0)))
    return Memory(checks.integer("memory.cases", memory.cases, minimum=0), R, S, n)


def numpy_pass(
    params: Params,
    memory: Memory,
    x: ArrayND,
    y: ArrayNC | ArrayN,
    order: Annotated[np.ndarray, "N"],
    lr: float | None,
    options: Options,
) -> tuple[Params, Memory, float]:
    """Learn from the cases one by one: (params, memory, Σ of the losses before each case).

    lr    the learning rate of the gradient; None: RLS
    """
    total = 0.0
    for i in order:
        if lr is None:
            params, memory, loss = rls_step(params, memory, x[i], y[i], options)
        else:
            params, memory, loss = gradient_step(params, memory, x[i], y[i], lr, options)
        total += loss
    return params, memory, total


def compiled_pass(
    params: Params,
    memory: Memory,
    x: ArrayND,
    y: ArrayNC,
    order: Annotated[np.ndarray, "N"],
    lr: float | None,
    options: Options,
) -> tuple[Params, Memory, float]:
    """`numpy_pass` by the compiled loop of `moe_np.kernels.hme_online`; arguments as there."""
    tree = np.array(hme.branching(params))
    levels = range(1, len(tree) + 1)
    E = len(params["W"])
    V = np.concatenate([_rows(params[f"U{level}"], params[f"c{level}"]) for level in levels])
    W = np.concatenate([params["W"], params["b"][:, None]], axis=1)
    W = np.ascontiguousarray(W.transpose(0, 2, 1))
    R = memory.R.copy()
    S = np.concatenate(memory.S)
    var, n = (np.array(np.broadcast_to(a, E), dtype=float) for a in (params["var"], memory.n))
    inputs = np.column_stack([x, np.ones(len(x))])
    loops = kernels.hme_online
    variance = loops.VARIANCE_PER_EXPERT if params["var"].ndim else loops.VARIANCE_SHARED
    rule = loops.Rule(
        learn=loops.RLS if lr is None else loops.GRADIENT,
        variance=loops.VARIANCE_HELD if options.hold_variance else variance,
        forgetting=float(options.forgetting),
        shrink=float(options.shrink),
        shrink_every=int(options.shrink_every),
        clip=float(options.clip),
        weighted=bool(options.weighted),
        lr=0.0 if lr is None else float(lr),
    )
    rows = loops.Tree(tree, V, W, var)
    y = np.ascontiguousarray(y, float)
    total = loops.hme_epoch(inputs, y, order, rows, loops.Memory(R, S, n), memory.cases, rule)
    new, S_levels = _gates_of_rows(V, S, params, levels)
    new["W"] = W[:, :, :-1].transpose(0, 2, 1).copy()
    new["b"] = W[:, :, -1].copy()
    new["var"], n = (a.copy() if params["var"].ndim else a[0].copy() for a in (var, n))
    return new, Memory(memory.cases + len(order), R, S_levels, np.asarray(n)), total


def _rows(U, c):
    """The gates of a level, one row per branch, the constant last: (P·b, K)."""
    return np.concatenate([U.reshape(len(U), -1), c.reshape(1, -1)]).T


def _gates_of_rows(V, S, params, levels):
    """The inverse of `_rows` for all levels: ({"U1", "c1", ...}, [matrices of a level])."""
    gates = {}
    S_levels = []
    first_row = 0
    first_gate = 0
    for level in levels:
        P, b = params[f"c{level}"].shape
        rows = V[first_row : first_row + P * b]
        gates[f"U{level}"] = rows[:, :-1].T.reshape(-1, P, b).copy()
        gates[f"c{level}"] = rows[:, -1].reshape(P, b).copy()
        S_levels.append(S[first_gate : first_gate + P])
        first_row += P * b
        first_gate += P
    return gates, S_levels
