"""The three problems on which training methods are compared, each a `training.methods` Problem.

    vowels      Jacobs et al. 1991: two formants of four vowels, 4 logistic experts; the regions
                are the pairs [i]/[ɪ] and [ʌ]/[ɑ]
    piecewise   four straight lines with noise, 4 linear experts whose σ is known; the regions are
                the lines
    clusters    Chen et al. 2022, small: patches of 20 numbers, 4 cubic experts with one filter per
                class; the regions are the clusters

Each problem has one set of data, the same for all seeds, so that the losses of different runs can
be compared: a seed is an initialisation. Experts and gating network receive standardised inputs;
the gating network of the clusters receives the sum of the patches, as the paper's does.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base.checks import choice, integer
from moe_np.base.numerics import sigmoid, softmax
from moe_np.base.types import (
    Array,
    ArrayN,
    ArrayNC,
    ArrayND,
    ArrayNE,
    ArrayNEC,
    ArrayNPD,
    Params,
    Rng,
)
from moe_np.data import piecewise as piecewise_data
from moe_np.data import vowel_task
from moe_np.data.clusters import SCALE, clusters
from moe_np.layers.experts import cubic
from moe_np.mixtures import affine, irls, jacobs1991
from moe_np.mixtures.least_squares import weighted_least_squares
from moe_np.training.methods import densities
from moe_np.training.methods.method import MixtureParams, Problem

NAMES = ("vowels", "piecewise", "clusters")
E = 4
DATA_SEED = 0
# experts begin uniform in ±INIT_RANGE, the gate in a tenth of it: each expert has a like share
INIT_RANGE = 0.5
SIGMA = 0.2  # of the linear experts; the noise is .1
SIZES = {"piecewise": (300, 2000), "clusters": (600, 2000)}  # training and test cases
PATCH = 20  # numbers in a patch
FILTERS = 1  # of a cubic expert, per class


class Task(NamedTuple):
    """A problem with its test data, and what is known of the data for measuring."""

    problem: Problem
    x_test: Array
    y_test: ArrayNC
    region: ArrayN  # the region of each training case; no method but "true regions" receives it
    region_test: ArrayN
    measure: str  # what `quality` is


@functools.lru_cache(maxsize=16)
def task(name: str, n_experts: int = E) -> Task:
    """The task of this name for `n_experts` experts; it is kept once it was made."""
    n_experts = integer("n_experts", n_experts)
    makers = {"vowels": vowels, "piecewise": lines, "clusters": patches}
    return makers[choice("problem", name, NAMES)](n_experts)


# --- The gating network ---------------------------------------------------------------------------


def init_gate(rng: Rng, D: int, n_experts: int) -> Params:
    """A linear gate {"U": (D, E), "c": (E,)}: U uniform in a tenth of ±INIT_RANGE, c = 0."""
    U = rng.uniform(-INIT_RANGE, INIT_RANGE, (D, n_experts)) / 10
    return {"U": U, "c": np.zeros(n_experts)}


def gate_forward(params: Params, x: ArrayND) -> tuple[ArrayNE, jacobs1991.GateCache]:
    """The logits x U + c of a linear gate: (logits, cache)."""
    _, cache = jacobs1991.gate_forward(params, x)
    return cache.s, cache


gate_backward = jacobs1991.gate_backward_from_logits


def fit_gate(params: Params, x: ArrayND, resp: ArrayNE, max_steps: int = 1) -> tuple[Params, float]:
    """`max_steps` Newton steps of IRLS from `params`: (new, passes). One pass per step."""
    initial = np.vstack([params["U"], params["c"]])
    coef, info = irls.multinomial_irls(x, resp, initial=initial, max_steps=max_steps)
    return {"U": coef[:-1], "c": coef[-1]}, float(info.steps)


# --- How good an answer is ------------------------------------------------------------------------


def blend(
    problem: Problem, mean: Callable[[Array], Array], params: MixtureParams, x: Array, hard: bool
) -> ArrayNC:
    """The blend Σ_i p_i m_i (N, C) of the experts' means m_i = mean(o_i).

    With `hard`, the mean of the expert with the largest p alone.
    """
    means = mean(problem.experts_forward(params["experts"], x)[0])
    p = softmax(problem.gate_forward(params["gate"], x)[0])
    if hard:
        p = np.eye(p.shape[1])[p.argmax(axis=1)]
    return np.einsum("ne,nec->nc", p, means)


def percent_correct(
    problem: Problem, params: MixtureParams, x: Array, y: ArrayNC, hard: bool = False
) -> float:
    """Percent of the cases (y = 0 or 1) for which the blend is on the right side of ½."""
    y_hat = blend(problem, sigmoid, params, x, hard)
    return 100 * float(((y_hat > 0.5) == (y > 0.5)).mean())


def percent_explained(
    problem: Problem, params: MixtureParams, x: Array, y: ArrayNC, hard: bool = False
) -> float:
    """100 (1 − mean squared error / variance of y): negative where the mean of y is better."""
    error = ((blend(problem, np.asarray, params, x, hard) - y) ** 2).mean()
    return 100 * float(1 - error / y.var())


def _with_quality(problem, measure):
    """The problem with measure(problem, params, x, y, hard) as its quality."""
    return problem._replace(quality=functools.partial(measure, problem))


# --- Linear experts: vowels and lines -------------------------------------------------------------

linear_forward = functools.partial(jacobs1991.experts_forward, kind="linear")


def init_linear(rng: Rng, D: int, C: int, n_experts: int) -> MixtureParams:
    """Linear experts {"W": (E, D, C), "b": (E, C)}, uniform in ±INIT_RANGE, and their gate."""
    params = jacobs1991.init_mixture(rng, n_experts, D, C, init_range=INIT_RANGE)
    experts = {name: params[name] for name in ("W", "b")}
    return {"experts": experts, "gate": init_gate(rng, D, n_experts)}


def fit_logistic(
    params: Params, x: ArrayND, y: ArrayNC, resp: ArrayNE, max_steps: int = 1
) -> tuple[Params, float]:
    """`max_steps` Newton steps of weighted IRLS for every logistic expert: (new, passes).

    The expert's logit is that of class 1 less that of class 0, which is kept at 0.
    """
    logit = affine.pack(params)
    initial = np.concatenate([logit, 0 * logit], axis=2)
    target = np.hstack([y, 1 - y])
    coef, info = irls.multinomial_irls(x, target, resp, initial=initial, max_steps=max_steps)
    return affine.unpack(coef[:, :, :1]), float(info.steps)


def fit_lines(params: Params, x: ArrayND, y: ArrayNC, resp: ArrayNE) -> tuple[Params, float]:
    """Weighted least squares for every linear expert, the exact maximum: (new, 1 pass)."""
    coef = weighted_least_squares(x, y, resp, initial=affine.pack(params))
    return affine.unpack(coef), 1.0


def standardised(train: ArrayND, test: ArrayND) -> tuple[ArrayND, ArrayND]:
    """Both less the mean of the training set, over its standard deviation."""
    mean = train.mean(axis=0)
    sd = train.std(axis=0)
    return (train - mean) / sd, (test - mean) / sd


def _linear_problem(x, y, n_experts, density, fit_experts):
    return Problem(
        x=x,
        y=y,
        features=x,
        init=lambda rng: init_linear(rng, x.shape[1], 1, n_experts),
        experts_forward=linear_forward,
        experts_backward=jacobs1991.experts_backward,
        gate_forward=gate_forward,
        gate_backward=gate_backward,
        density_forward=density[0],
        density_backward=density[1],
        quality=None,
        fit_experts=fit_experts,
        fit_gate=fit_gate,
    )


BERNOULLI = (densities.bernoulli_forward, densities.bernoulli_backward)


def vowels(n_experts: int) -> Task:
    """The vowels of Jacobs et al. (1991) with logistic experts; y = 1 for [i] and [ʌ]."""
    data = vowel_task(coding="IY+AH")
    x, x_test = standardised(data.x_train, data.x_test)
    problem = _linear_problem(x, data.d_train, n_experts, BERNOULLI, fit_logistic)
    problem = _with_quality(problem, percent_correct)
    region, region_test = ((v >= 2).astype(int) for v in (data.vowel_train, data.vowel_test))
    return Task(problem, x_test, data.d_test, region, region_test, "% correct")


def lines(n_experts: int) -> Task:
    """Four straight lines with jumps (`moe_np.data.piecewise`), linear experts of known σ."""
    rng = np.random.default_rng(DATA_SEED)
    train, test = (piecewise_data.piecewise(rng, n) for n in SIZES["piecewise"])
    x, x_test = standardised(train.x, test.x)
    problem = _linear_problem(x, train.y, n_experts, densities.gaussian(SIGMA), fit_lines)
    problem = _with_quality(problem, percent_explained)
    return Task(problem, x_test, test.y, train.piece, test.piece, "% of the variance")


# --- Cubic experts: clusters ----------------------------------------------------------------------


def cubic_forward(params: Params, x: ArrayNPD) -> tuple[ArrayNEC, Any]:
    """All cubic experts on all samples (Chen et al. 2022): x (N, P, D) -> (o (N, E, 1), cache).

    o = f_i1 − f_i0 is the logit of class 1, which is all that the softmax over two classes needs.
    """
    f, cache = cubic.dense_forward(params, x)
    return f[:, :, 1:] - f[:, :, :1], cache


def cubic_backward(do: Annotated[Array, "N, E, 1"], cache: Any) -> tuple[None, Params]:
    """do (N, E, 1) -> (None, {"w", "b"}). The gradient with respect to x is not computed."""
    return None, cubic.dense_backward(np.concatenate([-do, do], axis=2), cache)


def patch_gate_forward(params: Params, x: ArrayNPD) -> tuple[ArrayNE, jacobs1991.GateCache]:
    """The linear gate on the sum of a sample's patches: (logits, cache)."""
    return gate_forward(params, x.sum(axis=1))


def patch_gate_backward(dlogits: ArrayNE, cache: jacobs1991.GateCache) -> tuple[None, Params]:
    """(None, grads). The gradient with respect to x is not computed."""
    return None, gate_backward(dlogits, cache)[1]


def fit_patch_gate(params: Params, x: ArrayNPD, resp: ArrayNE) -> tuple[Params, float]:
    """`fit_gate` on the sum of a sample's patches."""
    return fit_gate(params, x.sum(axis=1), resp)


def patches(n_experts: int) -> Task:
    """The clusters of Chen et al. (2022), small; the M step of the experts has no closed form."""
    rng = np.random.default_rng(DATA_SEED)
    train, test = clusters(1, *SIZES["clusters"], rng, n_clusters=E, patch_len=PATCH)
    x, x_test = (data.x.astype(np.float64) / SCALE for data in (train, test))
    y, y_test = (data.y[:, None].astype(np.float64) for data in (train, test))

    def init(rng):
        experts = cubic.init(rng, PATCH, n_experts, FILTERS)
        return {"experts": experts, "gate": init_gate(rng, PATCH, n_experts)}

    problem = Problem(
        x=x,
        y=y,
        features=x.sum(axis=1),
        init=init,
        experts_forward=cubic_forward,
        experts_backward=cubic_backward,
        gate_forward=patch_gate_forward,
        gate_backward=patch_gate_backward,
        density_forward=densities.bernoulli_forward,
        density_backward=densities.bernoulli_backward,
        quality=None,
        fit_experts=None,
        fit_gate=fit_patch_gate,
    )
    problem = _with_quality(problem, percent_correct)
    return Task(problem, x_test, y_test, train.cluster, test.cluster, "% correct")
