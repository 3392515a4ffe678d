"""EM's gate step and its use for labels, beside the ways in which public code gets them wrong
(errata 14 and 15).
"""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.mixtures import em
from moe_np.mixtures.irls import multinomial_irls
from tests.support.mixtures import with_ones

# --- 14 -------------------------------------------------------------------------------------------


def mixture_problem(seed, gate_size, N=80, D=2, E=3):
    """Data of a mixture, sensible experts for it, and a gate of the given size: em's problem and
    params.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D))
    params = {"W": rng.normal(size=(E, D, 1)), "b": rng.normal(size=(E, 1)), "var": np.full(E, 0.3)}
    truth = {"U": 2 * rng.normal(size=(D, E)), "c": rng.normal(size=E)}
    expert = (x @ truth["U"] + truth["c"] + rng.gumbel(size=(N, E))).argmax(axis=1)
    mean = np.einsum("nd,ndc->nc", x, params["W"][expert]) + params["b"][expert]
    y = mean + np.sqrt(0.3) * rng.normal(size=(N, 1))
    gate = {"U": gate_size * rng.normal(size=(D, E)), "c": gate_size * rng.normal(size=E)}
    return em.prepare(x, y, E, family=em.Gaussian()), {**params, **gate}


def newton_without_halving(x, resp, coef, steps):
    """Newton's method for the gate without halving, the last expert fixed at 0; None where it
    breaks down.
    """
    X = with_ones(x)
    K = resp.shape[1] - 1
    coef = coef[:, :K] - coef[:, K:]
    for _ in range(steps):
        p = numerics.softmax(np.column_stack([X @ coef, np.zeros(len(X))]))[:, :K]
        gradient = (X.T @ (resp[:, :K] - p)).T.ravel()
        curvature = np.einsum("nk,kl->nkl", p, np.eye(K)) - p[:, :, None] * p[:, None, :]
        hessian = np.einsum("nkl,ni,nj->kilj", curvature, X, X, optimize=True)
        hessian = hessian.reshape(len(gradient), -1)
        try:
            coef = coef + np.linalg.solve(hessian, gradient).reshape(K, -1).T
        except np.linalg.LinAlgError:
            return None
        if not np.abs(coef).max() < 1e6:
            return None
    return np.column_stack([coef, np.zeros(len(coef))])


def log_resp_least_squares(x, resp):
    """The short cut of Algorithm 2: least squares on log responsibilities."""
    target = np.log(np.maximum(resp, 1e-10))
    return np.linalg.lstsq(with_ones(x), target - target.mean(axis=1, keepdims=True), rcond=None)[0]


def rise(problem, params, coef):
    """The change of the likelihood by a new gate, in nats per case; −inf where it broke down."""
    if coef is None:
        return -np.inf
    after = em.e_step(problem, {**params, "U": coef[:-1], "c": coef[-1]}).log_likelihood
    return (after - em.e_step(problem, params).log_likelihood) / len(problem.y)


@pytest.mark.parametrize("size", [0.1, 10.0])
def test_errata_14_gate_step_by_irls_never_lowers_the_likelihood(size):
    """40 problems. From large gates Newton's method without halving lowers it: in many at once, in
    most in the end.
    """
    at_once = 0
    in_the_end = 0
    for seed in range(40):
        problem, params = mixture_problem(seed, size)
        x = inputs_of(problem)
        resp = em.e_step(problem, params).resp
        initial = np.vstack([params["U"], params["c"]])
        for steps in (1, 25):
            coef, _ = multinomial_irls(x, resp, initial=initial, max_steps=steps)
            assert rise(problem, params, coef) >= 0
        first = newton_without_halving(x, resp, initial, 1)
        last = newton_without_halving(x, resp, initial, 25)
        at_once += rise(problem, params, first) < -1e-6
        in_the_end += rise(problem, params, last) < -1e-6
    if size > 1:
        assert at_once >= 10 and in_the_end >= 30


@pytest.mark.seconds
def test_errata_14_least_squares_on_log_responsibilities_lowers_the_likelihood():
    """Another estimate, not a step of EM: near EM's solution it takes the gate away from it, in all
    of 40 problems.
    """
    lowered = 0
    for seed in range(40):
        problem, params = mixture_problem(seed, 0.1)
        for _ in range(15):
            params = em.m_step(problem, params, em.e_step(problem, params).resp)
        resp = em.e_step(problem, params).resp
        lowered += rise(problem, params, log_resp_least_squares(inputs_of(problem), resp)) < -1e-6
    assert lowered == 40


def inputs_of(problem):
    return problem.inputs.xt[:-1].T + problem.inputs.mean


def test_errata_14_inverse_weights_crawl_and_stop_early():
    """Curvature 1 / (p (1 − p)) in place of p (1 − p), and the stop rule of the implementation that
    has it.
    """
    rng = np.random.default_rng(14)
    x = rng.normal(size=200)
    label = (rng.random(200) < 1 / (1 + np.exp(-2 * x))).astype(float)
    right, info = multinomial_irls(x[:, None], np.column_stack([label, 1 - label]), tol=1e-12)
    X = with_ones(x[:, None])
    w = np.zeros(2)
    steps = 0
    change = 1.0
    while change > 0.002:
        p = numerics.sigmoid(X @ w)
        delta = np.linalg.solve((X / (p * (1 - p))[:, None]).T @ X, X.T @ (label - p))
        w = w + delta
        steps += 1
        change = np.abs(delta).sum()
    assert info.steps <= 8 and steps > 10 * info.steps
    assert w[0] < 0.9 * right[0, 0]


# --- 15 -------------------------------------------------------------------------------------------


def labelled(seed, N=60, E=3, C=4):
    """rng, x, labels y, and parameters of categorical experts."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(N, 2)), rng.integers(C, size=N)
    params = {"W": rng.normal(size=(E, 2, C)), "b": rng.normal(size=(E, C))}
    gate = {"U": rng.normal(size=(2, E)), "c": rng.normal(size=E)}
    return rng, x, y, {**params, **gate}


def test_errata_15_responsibility_is_the_gate_times_the_probability_of_the_label():
    """By hand, for every case; experts and classes differ in number, so a label cannot name an
    expert.
    """
    _, x, y, params = labelled(15)
    problem = em.prepare(x, y, 3, family=em.Categorical(4))
    resp = em.e_step(problem, params).resp
    for n in range(len(x)):
        g = numerics.softmax(x[n] @ params["U"] + params["c"])
        p = [numerics.softmax(x[n] @ params["W"][e] + params["b"][e])[y[n]] for e in range(3)]
        np.testing.assert_allclose(resp[n], g * p / (g * p).sum(), rtol=1e-10)


def test_errata_15_names_of_the_classes_do_not_matter():
    rng, x, y, params = labelled(16)
    order = rng.permutation(4)
    renamed = {**params, "W": params["W"][:, :, order], "b": params["b"][:, order]}
    options = {"family": em.Categorical(4), "rng": None, "max_iter": 20, "tol": 1e-9}
    with pytest.warns(em.ConvergenceWarning):
        fit = em.fit(x, y, 3, initial=params, **options)
    with pytest.warns(em.ConvergenceWarning):
        fit_renamed = em.fit(x, np.argsort(order)[y], 3, initial=renamed, **options)
    np.testing.assert_allclose(fit.history, fit_renamed.history, rtol=1e-9)
    np.testing.assert_allclose(fit.resp, fit_renamed.resp, atol=1e-7)
