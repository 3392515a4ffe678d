"""Weighted least squares and logistic regression: against plain formulas, at the maximum, and where
there is none.
"""

import re

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_np.base import gradcheck, numerics
from moe_np.base.checks import InputError
from moe_np.base.machine import blas_threads
from moe_np.mixtures import irls


def with_ones(x):
    return np.column_stack([x, np.ones(len(x))])


def softmax_problem(seed, N=60, D=2, K=3, M=None):
    """x, soft targets and weights; everything read-only."""
    rng = np.random.default_rng(seed)
    shape = (N, K) if M is None else (N, M, K)
    x, target = rng.normal(size=(N, D)), rng.dirichlet(np.full(K, 0.5), size=shape[:-1])
    weight = rng.uniform(0.1, 2, size=shape[:-1])
    for a in (x, target, weight):
        a.flags.writeable = False
    return rng, x, target, weight


def objective(coef, x, target, weight, ridge=0.0):
    """The penalised log likelihood, written out."""
    logp = numerics.log_softmax(with_ones(x) @ coef)
    slopes = coef[:-1] - coef[:-1].mean(axis=1, keepdims=True)
    return (weight * (target * logp).sum(axis=1)).sum() - 0.5 * ridge * (slopes**2).sum()


def gradient(coef, x, target, weight, ridge=0.0):
    p = numerics.softmax(with_ones(x) @ coef)
    g = with_ones(x).T @ (weight[:, None] * (target - p))
    g[:-1] -= ridge * (coef[:-1] - coef[:-1].mean(axis=1, keepdims=True))
    return g


# --- least squares --------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 3.0])
@pytest.mark.parametrize("keep", [True, False])
def test_least_squares_equals_lstsq_on_rows_times_root_of_weight(ridge, keep, monkeypatch):
    monkeypatch.setattr(irls, "KEEP", irls.KEEP if keep else 0)
    rng = np.random.default_rng(1)
    x, y, weight = rng.normal(3, 1, (50, 4)), rng.normal(size=(50, 2)), rng.uniform(0, 1, (50, 3))
    assert (irls.design(x).products is None) != keep
    coef = irls.weighted_least_squares(x, y, weight, ridge)
    assert coef.shape == (3, 5, 2)
    for m in range(3):
        root = np.sqrt(weight[:, m])[:, None]
        # ridge as so many more cases, and none for the constant
        extra = np.sqrt(ridge) * np.eye(5)[:4]
        wanted = np.linalg.lstsq(
            np.vstack([root * with_ones(x), extra]),
            np.vstack([root * y, np.zeros((4, 2))]),
            rcond=None,
        )[0]
        np.testing.assert_allclose(coef[m], wanted, rtol=1e-10, atol=1e-12)


def test_least_squares_survives_collinear_inputs_few_cases_and_no_weight():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, 2))
    x = np.column_stack([x, x[:, 0] - 2 * x[:, 1], np.full(30, 7.0)])
    truth = rng.normal(size=(5, 1))
    y = with_ones(x) @ truth
    weight = np.zeros((30, 3))
    weight[:, 0], weight[:2, 1] = 1, 1
    coef = irls.weighted_least_squares(x, y, weight)
    np.testing.assert_allclose(with_ones(x) @ coef[0], y, atol=1e-9)
    np.testing.assert_allclose(
        with_ones(x[:2]) @ coef[1], y[:2], atol=1e-9
    )  # two cases are met exactly
    assert np.abs(coef[1]).max() < 100 and not coef[2].any()
    start = rng.normal(size=(3, 5, 1))
    coef = irls.weighted_least_squares(x, y, weight, start=start)
    np.testing.assert_allclose(with_ones(x) @ coef[0], y, atol=1e-9)
    np.testing.assert_allclose(with_ones(x[:2]) @ coef[1], y[:2], atol=1e-9)
    np.testing.assert_allclose(
        coef[2], start[2], rtol=1e-12
    )  # where there is nothing to learn from it stays


@pytest.mark.parametrize("value", [0.1, 1e8 / 3, -1e-9])
def test_an_input_that_never_changes_is_not_a_constant_by_rounding(value):
    """Its mean is off by a rounding; divided by that, the slope was 1e16."""
    rng = np.random.default_rng(20)
    x = rng.normal(size=(41, 1))
    y, target = x + rng.normal(size=x.shape), np.eye(2)[rng.integers(2, size=41)]
    more = np.column_stack([x, np.full(41, value)])
    for coef, alone in (
        (irls.weighted_least_squares(z, y, np.ones((41, 1)))[0] for z in (more, x)),
        (irls.multinomial_irls(z, target)[0] for z in (more, x)),
    ):
        assert not coef[1].any()
        np.testing.assert_allclose(coef[[0, 2]], alone, rtol=1e-9)


def test_least_squares_far_from_the_origin():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 1))
    y = 2 * x + 1
    coef = irls.weighted_least_squares(1e7 + x, y, np.ones((40, 1)))[0]
    assert coef[0, 0] == pytest.approx(2, rel=1e-7)


# --- the maximum ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("K", [2, 4])
def test_irls_ends_where_the_gradient_is_zero(K, ridge):
    _, x, target, weight = softmax_problem(4, K=K)
    coef, info = irls.multinomial_irls(x, target, weight, ridge=ridge)
    assert info.converged and info.steps < 10
    assert np.abs(gradient(coef, x, target, weight, ridge)).max() < 1e-5
    assert info.value == pytest.approx(objective(coef, x, target, weight, ridge), rel=1e-12)
    assert not coef[:, -1].any()
    best = scipy.optimize.minimize(
        lambda c: -objective(c.reshape(3, K), x, target, weight, ridge),
        np.zeros(3 * K),
        method="BFGS",
    )
    assert info.value >= -best.fun - 1e-9


def test_derivatives_by_projection():
    """Of the objective as the file has it, about the mean of x: gradient, and the Hessian as the
    gradient's.
    """
    rng, x, target, weight = softmax_problem(5, K=3, M=2)
    problem, theta = irls._problem(irls.design(x), target, weight, None, 0.5, True)
    theta = rng.normal(size=theta.shape)

    def logp(theta):
        return numerics.log_softmax(irls._logits(problem.design, theta), axis=0)

    g, h = irls._derivatives(problem, logp(theta), theta)

    def value(p):
        return irls._value(problem, logp(p["t"]), p["t"]).sum()

    assert gradcheck.gradient_error(value, {"t": theta}, {"t": g}, rng)["t"] < 1e-8
    v = rng.normal(size=theta.shape)

    def projected(p):
        return (irls._derivatives(problem, logp(p["t"]), p["t"])[0] * v).sum()

    hv = -np.einsum("klmde,lme->kmd", h, v)
    assert gradcheck.gradient_error(projected, {"t": theta}, {"t": hv}, rng)["t"] < 1e-8


def test_a_stack_is_the_same_as_one_after_the_other():
    rng, x, target, weight = softmax_problem(6, M=3)
    start = rng.normal(size=(3, 3, 3))
    kwargs = {"ridge": 0.1, "max_steps": 3}
    own = irls.design(x)
    coef, info = irls.multinomial_irls(own, target, weight, start=start, **kwargs)
    for m in range(3):
        alone, one = irls.multinomial_irls(x, target[:, m], weight[:, m], start=start[m], **kwargs)
        np.testing.assert_allclose(coef[m], alone, rtol=1e-9, atol=1e-12)
        assert info.value[m] == pytest.approx(one.value)
    same, _ = irls.multinomial_irls(own, target[:, 0], weight)  # one target for all
    alone, _ = irls.multinomial_irls(own, target[:, 0], weight[:, 2])
    np.testing.assert_allclose(same[2], alone, rtol=1e-7)


def test_classes_can_be_permuted_also_with_a_ridge():
    rng, x, target, weight = softmax_problem(7, K=4)
    start, order = rng.normal(size=(3, 4)), np.array([2, 0, 3, 1])
    coef, _ = irls.multinomial_irls(x, target, weight, start=start, ridge=2.0, max_steps=2)
    other, _ = irls.multinomial_irls(
        x, target[:, order], weight, start=start[:, order], ridge=2.0, max_steps=2
    )
    coef = coef[:, order] - coef[:, order[-1:]]
    np.testing.assert_allclose(other, coef, rtol=1e-8, atol=1e-10)


def test_without_inputs_the_probabilities_are_the_mean_targets():
    _, x, target, weight = softmax_problem(8)
    coef, _ = irls.multinomial_irls(x[:, :0], target, weight)
    np.testing.assert_allclose(numerics.softmax(coef[0]), weight @ target / weight.sum(), rtol=1e-6)


# --- it never falls -------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([0.0, 1e-3, 1.0]), st.floats(-2, 3)
)
def test_no_step_lowers_the_objective(seed, K, ridge, log_size):
    rng, x, target, weight = softmax_problem(seed, N=25, K=K)
    if seed % 2:
        target = np.eye(K)[target.argmax(axis=1)]
    start = 10**log_size * rng.normal(size=(3, K))
    coef, value = start - start[:, -1:], objective(start, x, target, weight, ridge)
    for _ in range(4):
        coef, info = irls.multinomial_irls(x, target, weight, start=coef, ridge=ridge, max_steps=1)
        now = objective(coef, x, target, weight, ridge)
        assert now >= value - 1e-12 * abs(value)
        assert info.value == pytest.approx(now, rel=1e-9)
        value = now


@pytest.mark.parametrize("size", [1e2, 2e3])
def test_from_a_saturated_start_to_the_maximum(size):
    """All softmaxes 0 or 1 to rounding: no curvature for Newton, and the bound's steps lead out."""
    rng, x, target, weight = softmax_problem(9, K=2)
    start = size * rng.normal(size=(3, 2))
    best, _ = irls.multinomial_irls(x, target, weight)
    coef, info = irls.multinomial_irls(x, target, weight, start=start, max_steps=10_000)
    assert info.value > info.start
    np.testing.assert_allclose(coef, best, atol=1e-4)


def test_separable_cases_missing_classes_and_rows_without_weight():
    x = np.linspace(-1, 1, 20)[:, None]
    target = np.column_stack([x[:, 0] > 0, x[:, 0] <= 0, np.zeros(20)]).astype(float)
    coef, info = irls.multinomial_irls(x, target, max_steps=100)
    assert info.converged and -1e-6 < info.value <= 0 and np.isfinite(coef).all()
    p = numerics.softmax(with_ones(x) @ coef)
    assert (p.argmax(axis=1) == target.argmax(axis=1)).all() and p[:, 2].max() < 1e-6
    coef, info = irls.multinomial_irls(x, target, np.zeros(20))
    assert info.value == 0 and np.isfinite(coef).all()
    ridged, info = irls.multinomial_irls(x, target, ridge=1.0, max_steps=100)
    assert info.converged and np.abs(ridged[0]).max() < 10  # the slopes have a maximum with a ridge


def test_collinear_inputs():
    _, x, target, weight = softmax_problem(10)
    _, info = irls.multinomial_irls(np.column_stack([x, x @ [[1.0], [2.0]]]), target, weight)
    _, alone = irls.multinomial_irls(x, target, weight)
    assert info.converged and info.value == pytest.approx(alone.value, rel=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros(5)}, "x: wanted shape"),
        ({"target": np.zeros((5, 2))}, "target: wanted shape"),
        ({"weight": -np.ones(60)}, "weight: wanted no negative"),
        ({"weight": np.full(60, np.nan)}, "weight: wanted finite"),
        ({"start": np.zeros((2, 3))}, "start: wanted shape"),
        (
            {"target": np.full((60, 3), 0.5)},
            "target: wanted no negative numbers, and rows that sum to 1",
        ),
        (
            {"target": np.tile([1.5, -0.5], (60, 1))},
            "target: wanted no negative numbers, and rows that sum to 1",
        ),
        (
            {"target": np.full((60, 2, 2), 0.5), "weight": np.ones((60, 3))},
            "weight: wanted 2 columns, one a problem of target, got 3",
        ),
        ({"weight": 1.0}, "weight: wanted shape (60,), got ()"),
        ({"ridge": -1}, "ridge: wanted a finite number of at least 0, got -1"),
        ({"max_steps": 2.5}, "max_steps: wanted a whole number"),
        ({"tol": np.nan}, "tol: wanted a finite number of at least 0"),
    ],
)
def test_bad_input_is_named(change, message):
    _, x, target, weight = softmax_problem(11)
    args = {"x": x, "target": target, "weight": weight, **change}
    with pytest.raises(InputError, match=re.escape(message)):
        irls.multinomial_irls(args.pop("x"), args.pop("target"), args.pop("weight"), **args)


def test_no_cases_and_no_problems():
    coef, info = irls.multinomial_irls(np.zeros((0, 2)), np.zeros((0, 3)))
    assert not coef.any() and info.converged
    coef, info = irls.multinomial_irls(np.zeros((5, 2)), np.full((5, 3), 1 / 3), np.ones((5, 0)))
    assert coef.shape == (0, 3, 3) and len(info.value) == 0


def test_one_blas_thread_inside_and_as_many_as_before_outside():
    before, inside = blas_threads(), []
    irls.one_thread(lambda: inside.append(blas_threads()))()
    assert inside == [1] and blas_threads() == before
