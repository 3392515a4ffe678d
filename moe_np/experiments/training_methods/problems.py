"""The three problems that the ways to train are compared on, as
`moe_np.training.methods.method.Problem`s.

    vowels      Jacobs et al. 1991: two formants of four vowels, 4 logistic experts; regions are [i]/[ɪ] and [ʌ]/[ɑ]
    piecewise   four straight lines and noise, 4 linear experts whose σ is known; regions are the lines
    clusters    Chen et al. 2022, small: patches of 20 numbers, 4 cubic experts, a filter a class; regions are clusters

One set of data each, the same for all seeds, so that losses of different runs compare: a seed is a
start. Experts and gate see standardised inputs; the gate of the clusters sees the sum of the
patches, as the paper's does.
"""

import functools
from typing import NamedTuple

import numpy as np

from moe_np.base.checks import choice, integer
from moe_np.base.numerics import sigmoid, softmax
from moe_np.data import piecewise as piecewise_data
from moe_np.data import vowel_task
from moe_np.data.clusters import SCALE, clusters
from moe_np.mixtures import em_families, irls, jacobs1991
from moe_np.training.methods import densities
from moe_np.training.methods.method import Problem

NAMES = ("vowels", "piecewise", "clusters")
E = 4
DATA_SEED = 0
SPREAD = 0.5  # of the experts' start, uniform; the gate's is a tenth of it, so that all experts begin with their share
SIGMA = 0.2  # of the linear experts; the noise is .1
SIZES = {"piecewise": (300, 2000), "clusters": (600, 2000)}  # cases to train and to test on
PATCH, FILTERS = 20, 1


class Task(NamedTuple):
    problem: Problem
    x_test: np.ndarray
    y_test: np.ndarray
    # (N,) which region of the data a training case comes from; for measuring only
    region: np.ndarray
    region_test: np.ndarray
    measure: str  # what `quality` is


@functools.lru_cache(maxsize=16)
def task(name, n_experts=E):
    """The task of that name with so many experts."""
    n_experts = integer("n_experts", n_experts)
    return {"vowels": vowels, "piecewise": lines, "clusters": patches}[
        choice("problem", name, NAMES)
    ](n_experts)


def answer(problem, experts_mean, params, x, hard=False):
    """The blend Σ_i p_i m_i (N, C) of the experts' means; with `hard`, the mean of the expert with
    the largest p.
    """
    means = experts_mean(problem.experts_forward(params["experts"], x)[0])
    p = softmax(problem.gate_forward(params["gate"], x)[0])
    if hard:
        p = np.eye(p.shape[1])[p.argmax(axis=1)]
    return np.einsum("ne,nec->nc", p, means)


def gate_forward(params, x):
    """A linear gate, x U + c."""
    _, cache = jacobs1991.gate_forward(params, x)
    return cache.s, cache


gate_backward = jacobs1991.gate_backward_from_totals


def fit_gate(params, x, resp, max_steps=1):
    """IRLS from where the gate is: `max_steps` of Newton's, a pass each."""
    coef, info = irls.multinomial_irls(
        x, resp, start=np.vstack([params["U"], params["c"]]), max_steps=max_steps
    )
    return {"U": coef[:-1], "c": coef[-1]}, float(info.steps)


def start_gate(rng, D, n_experts):
    return {"U": rng.uniform(-SPREAD, SPREAD, (D, n_experts)) / 10, "c": np.zeros(n_experts)}


# --- linear experts: vowels and lines -------------------------------------------------------------

linear_forward = functools.partial(jacobs1991.experts_forward, kind="linear")


def start_linear(rng, D, C, n_experts):
    start = jacobs1991.init_mixture(rng, n_experts, D, C, spread=SPREAD)
    return {"experts": {k: start[k] for k in ("W", "b")}, "gate": start_gate(rng, D, n_experts)}


def fit_logistic(params, x, y, resp, max_steps=1):
    """Weighted IRLS of every expert from where it is; the logit is that of class 1 against class 0."""
    start, target = em_families.pack(params), np.hstack([y, 1 - y])
    coef, info = irls.multinomial_irls(
        x, target, resp, start=np.concatenate([start, 0 * start], axis=2), max_steps=max_steps
    )
    return em_families.unpack(coef[:, :, :1]), float(info.steps)  # the logit of class 0 is 0


def fit_lines(params, x, y, resp):
    """Weighted least squares: the exact maximum in one pass."""
    return em_families.unpack(
        irls.weighted_least_squares(x, y, resp, start=em_families.pack(params))
    ), 1.0


def standard(train, test):
    """Both with the mean and deviation of the training set."""
    mean, sd = train.mean(axis=0), train.std(axis=0)
    return (train - mean) / sd, (test - mean) / sd


def vowels(n_experts):
    data = vowel_task(coding="IY+AH")
    x, x_test = standard(data.x_train, data.x_test)

    def quality(params, x, y, hard=False):
        return 100 * float(((answer(problem, sigmoid, params, x, hard) > 0.5) == (y > 0.5)).mean())

    problem = Problem(
        x,
        data.d_train,
        x,
        lambda rng: start_linear(rng, 2, 1, n_experts),
        linear_forward,
        jacobs1991.experts_backward,
        gate_forward,
        gate_backward,
        densities.bernoulli_forward,
        densities.bernoulli_backward,
        quality,
        fit_logistic,
        fit_gate,
    )
    region, region_test = ((v >= 2).astype(int) for v in (data.vowel_train, data.vowel_test))
    return Task(problem, x_test, data.d_test, region, region_test, "% correct")


def lines(n_experts):
    rng = np.random.default_rng(DATA_SEED)
    train, test = (piecewise_data.piecewise(rng, n) for n in SIZES["piecewise"])
    x, x_test = standard(train.x, test.x)

    def quality(params, x, y, hard=False):
        error = ((answer(problem, np.asarray, params, x, hard) - y) ** 2).mean()
        return 100 * float(1 - error / y.var())

    problem = Problem(
        x,
        train.y,
        x,
        lambda rng: start_linear(rng, 1, 1, n_experts),
        linear_forward,
        jacobs1991.experts_backward,
        gate_forward,
        gate_backward,
        *densities.gaussian(SIGMA),
        quality,
        fit_lines,
        fit_gate,
    )
    return Task(problem, x_test, test.y, train.piece, test.piece, "% of the variance")


# --- cubic experts --------------------------------------------------------------------------------


class CubicCache(NamedTuple):
    x: np.ndarray  # (N, P, D)
    w: np.ndarray  # (E, 2J, D)
    z: np.ndarray  # (N, P, E, 2J)


def cubic_forward(params, x):
    """All cubic experts on all samples (Chen et al. 2022): f_ic = Σ_p Σ_{j in class c} (w_ij·x_p +
    b_ij)³.

    Returns (o (N, E, 1), cache) with o = f_i1 − f_i0, the logit of class 1: all that the softmax
    over classes looks at.
    """
    w, b = params["w"], params["b"]
    (N, P, D), (M, F) = x.shape, b.shape
    z = (x.reshape(N * P, D) @ w.reshape(M * F, D).T).reshape(N, P, M, F) + b
    o = (z * z * z).sum(axis=1) @ signs(F)
    return o[:, :, None], CubicCache(x, w, z)


def signs(n_filters):
    """−1 for the filters of class 0, which come first, and +1 for those of class 1."""
    return np.repeat([-1.0, 1.0], n_filters // 2)


def cubic_backward(do, cache):
    """do (N, E, 1) -> (None, {"w", "b"}): dz = 3 z² do, its sign that of the filter's class; no dx."""
    x, w, z = cache
    (N, P, D), (M, F, _) = x.shape, w.shape
    dz = 3 * z * z * (do * signs(F))[:, None]
    flat = dz.reshape(N * P, M * F)
    return None, {"w": (flat.T @ x.reshape(N * P, D)).reshape(w.shape), "b": dz.sum(axis=(0, 1))}


def patch_gate_forward(params, x):
    """The linear gate on the sum of a sample's patches."""
    return gate_forward(params, x.sum(axis=1))


def patch_gate_backward(dlogits, cache):
    return None, gate_backward(dlogits, cache)[1]


def patches(n_experts):
    rng = np.random.default_rng(DATA_SEED)
    train, test = clusters(1, *SIZES["clusters"], rng, n_clusters=E, patch_len=PATCH)
    x, x_test = (data.x.astype(np.float64) / SCALE for data in (train, test))
    y, y_test = (data.y[:, None].astype(np.float64) for data in (train, test))

    def start(rng):
        bound = 1 / np.sqrt(PATCH)
        w = rng.uniform(-bound, bound, (n_experts, 2 * FILTERS, PATCH))
        b = rng.uniform(-bound, bound, (n_experts, 2 * FILTERS))
        return {"experts": {"w": w, "b": b}, "gate": start_gate(rng, PATCH, n_experts)}

    def quality(params, x, y, hard=False):
        return 100 * float(((answer(problem, sigmoid, params, x, hard) > 0.5) == (y > 0.5)).mean())

    problem = Problem(
        x,
        y,
        x.sum(axis=1),
        start,
        cubic_forward,
        cubic_backward,
        patch_gate_forward,
        patch_gate_backward,
        densities.bernoulli_forward,
        densities.bernoulli_backward,
        quality,
        None,
        lambda params, x, resp: fit_gate(params, x.sum(axis=1), resp),
    )
    return Task(problem, x_test, y_test, train.cluster, test.cluster, "% correct")
