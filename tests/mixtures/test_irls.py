"""IRLS, logistic regression by Newton's method: at the maximum, step by step, and where there is no
maximum.
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
from moe_np.mixtures.irls import multinomial_irls
from moe_np.mixtures.least_squares import make_design
from tests.support.mixtures import with_ones
from tests.support.signatures import defaults


def softmax_problem(seed, N=60, D=2, K=3, M=None):
    """rng, x, soft targets and weights; the arrays are read-only."""
    rng = np.random.default_rng(seed)
    shape = (N, K) if M is None else (N, M, K)
    x = rng.normal(size=(N, D))
    target = rng.dirichlet(np.full(K, 0.5), size=shape[:-1])
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


# --- The maximum ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("K", [2, 4])
def test_it_ends_where_the_gradient_is_zero(K, ridge):
    _, x, target, weight = softmax_problem(4, K=K)
    coef, info = multinomial_irls(x, target, weight, ridge=ridge)
    assert info.converged and info.steps < 10
    assert np.abs(gradient(coef, x, target, weight, ridge)).max() < 1e-5
    assert info.value == pytest.approx(objective(coef, x, target, weight, ridge), rel=1e-12)
    assert not coef[:, -1].any()

    def negative(c):
        return -objective(c.reshape(3, K), x, target, weight, ridge)

    best = scipy.optimize.minimize(negative, np.zeros(3 * K), method="BFGS")
    assert info.value >= -best.fun - 1e-9


@pytest.mark.parametrize("max_steps", [0, 1, 3])
def test_the_number_of_steps_is_kept(max_steps):
    _, x, target, weight = softmax_problem(4)
    coef, info = multinomial_irls(x, target, weight, max_steps=max_steps)
    assert info.steps == max_steps and not info.converged
    assert coef.any() == (max_steps > 0)


def test_derivatives_by_projection():
    """Of the objective as the file has it, about the mean of x: gradient, and the Hessian as the
    gradient's.
    """
    rng, x, target, weight = softmax_problem(5, K=3, M=2)
    stack = irls.make_stack(make_design(x), target, weight, 0.5)
    theta = rng.normal(size=irls.initial_theta(stack, None).shape)
    g, h = irls.derivatives(stack, irls.evaluate(stack, theta))

    def value(p):
        return irls.evaluate(stack, p["theta"]).value.sum()

    errors = gradcheck.gradient_error(value, {"theta": theta}, {"theta": g}, rng)
    assert errors["theta"] < 1e-8
    v = rng.normal(size=theta.shape)

    def projected(p):
        return (irls.derivatives(stack, irls.evaluate(stack, p["theta"]))[0] * v).sum()

    hv = -np.einsum("klmde,lme->kmd", h, v)
    errors = gradcheck.gradient_error(projected, {"theta": theta}, {"theta": hv}, rng)
    assert errors["theta"] < 1e-8


def test_step_halving():
    """The first size that raises the value; a step down, or of nothing, is not made."""
    rng, x, target, weight = softmax_problem(5, K=3, M=4)
    stack = irls.make_stack(make_design(x), target, weight, 0.5)
    theta = 0.1 * rng.normal(size=irls.initial_theta(stack, None).shape)
    point = irls.evaluate(stack, theta)
    gradient, hessian = irls.derivatives(stack, point)
    uphill = irls.newton_step(hessian, gradient)
    delta = uphill.copy()
    delta[:, 1] *= 0
    delta[:, 2] *= -1
    new, moved = irls.halve(stack, point, delta, np.array([True, True, True, False]))
    assert moved.tolist() == [True, False, False, False]
    np.testing.assert_array_equal(new.theta[:, 1:], theta[:, 1:])
    np.testing.assert_array_equal(new.value[1:], point.value[1:])
    np.testing.assert_allclose(new.theta[:, 0], (theta + uphill)[:, 0], rtol=1e-12)
    assert new.value[0] > point.value[0]
    np.testing.assert_allclose(irls.evaluate(stack, new.theta).value, new.value, rtol=1e-14)


def test_the_bound_is_never_below_the_curvature():
    """The difference of the two matrices has no negative eigenvalue, wherever it is evaluated."""
    rng, x, target, weight = softmax_problem(5, K=3, M=2)
    stack = irls.make_stack(make_design(x), target, weight, 0.5)
    bound = irls.curvature_bound(stack)
    for size in (0.1, 1.0, 10.0):
        theta = size * rng.normal(size=irls.initial_theta(stack, None).shape)
        _, hessian = irls.derivatives(stack, irls.evaluate(stack, theta))
        gap = (bound - hessian).transpose(2, 0, 3, 1, 4).reshape(2, 6, 6)
        assert np.linalg.eigvalsh(gap).min() > -1e-9


@pytest.mark.parametrize("K", [2, 5])
def test_the_bound_is_reached_where_two_classes_have_probability_one_half(K):
    """Along the line that moves these two apart; for two classes everywhere."""
    _, x, target, weight = softmax_problem(5, K=K)
    stack = irls.make_stack(make_design(x), target, weight, 0.5)
    theta = np.zeros((K - 1, 1, 3))
    theta[1:, :, -1] = -100
    if K > 2:  # the last class, whose logit is 0, has nothing of it
        theta[:2, :, -1] = 100
    _, hessian = irls.derivatives(stack, irls.evaluate(stack, theta))
    gap = (irls.curvature_bound(stack) - hessian)[:, :, 0]
    apart = np.array([1.0, -1, 0, 0])[: K - 1]
    np.testing.assert_allclose(np.einsum("k,klde,l->de", apart, gap, apart), 0, atol=1e-9)


def test_a_stack_is_the_same_as_its_problems_separately():
    rng, x, target, weight = softmax_problem(6, M=3)
    initial = rng.normal(size=(3, 3, 3))
    options = {"ridge": 0.1, "max_steps": 3}
    design = make_design(x)
    coef, info = multinomial_irls(design, target, weight, initial=initial, **options)
    for m in range(3):
        single, single_info = multinomial_irls(
            x, target[:, m], weight[:, m], initial=initial[m], **options
        )
        np.testing.assert_allclose(coef[m], single, rtol=1e-9, atol=1e-12)
        assert info.value[m] == pytest.approx(single_info.value)
    shared, _ = multinomial_irls(design, target[:, 0], weight)  # one target for all problems
    single, _ = multinomial_irls(design, target[:, 0], weight[:, 2])
    np.testing.assert_allclose(shared[2], single, rtol=1e-7)


def test_classes_can_be_permuted_also_with_a_ridge():
    rng, x, target, weight = softmax_problem(7, K=4)
    initial = rng.normal(size=(3, 4))
    order = np.array([2, 0, 3, 1])
    options = {"ridge": 2.0, "max_steps": 2}
    coef, _ = multinomial_irls(x, target, weight, initial=initial, **options)
    permuted, _ = multinomial_irls(
        x, target[:, order], weight, initial=initial[:, order], **options
    )
    coef = coef[:, order] - coef[:, order[-1:]]
    np.testing.assert_allclose(permuted, coef, rtol=1e-8, atol=1e-10)


def test_without_inputs_the_probabilities_are_the_mean_targets():
    _, x, target, weight = softmax_problem(8)
    coef, _ = multinomial_irls(x[:, :0], target, weight)
    np.testing.assert_allclose(numerics.softmax(coef[0]), weight @ target / weight.sum(), rtol=1e-6)


# --- It never falls -------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([0.0, 1e-3, 1.0]), st.floats(-2, 3)
)
def test_no_step_lowers_the_objective(seed, K, ridge, log_size):
    rng, x, target, weight = softmax_problem(seed, N=25, K=K)
    if seed % 2:
        target = np.eye(K)[target.argmax(axis=1)]
    initial = 10**log_size * rng.normal(size=(3, K))
    coef = initial - initial[:, -1:]
    before = objective(initial, x, target, weight, ridge)
    for _ in range(4):
        coef, info = multinomial_irls(x, target, weight, initial=coef, ridge=ridge, max_steps=1)
        after = objective(coef, x, target, weight, ridge)
        assert after >= before - 1e-12 * abs(before)
        assert info.value == pytest.approx(after, rel=1e-9)
        before = after


@pytest.mark.parametrize("size", [1e2, 2e3])
def test_from_saturated_softmaxes_to_the_maximum(size):
    """All softmaxes 0 or 1 to rounding: no curvature for Newton, and the bound's steps lead out."""
    rng, x, target, weight = softmax_problem(9, K=2)
    initial = size * rng.normal(size=(3, 2))
    best, _ = multinomial_irls(x, target, weight)
    coef, info = multinomial_irls(x, target, weight, initial=initial, max_steps=10_000)
    assert info.value > info.initial_value
    np.testing.assert_allclose(coef, best, atol=1e-4)


def test_separable_cases_missing_classes_and_rows_without_weight():
    x = np.linspace(-1, 1, 20)[:, None]
    target = np.column_stack([x[:, 0] > 0, x[:, 0] <= 0, np.zeros(20)]).astype(float)
    coef, info = multinomial_irls(x, target, max_steps=100)
    assert info.converged and -1e-6 < info.value <= 0 and np.isfinite(coef).all()
    p = numerics.softmax(with_ones(x) @ coef)
    assert (p.argmax(axis=1) == target.argmax(axis=1)).all() and p[:, 2].max() < 1e-6
    coef, info = multinomial_irls(x, target, np.zeros(20))
    assert info.value == 0 and np.isfinite(coef).all()
    penalised, info = multinomial_irls(x, target, ridge=1.0, max_steps=100)
    assert info.converged and np.abs(penalised[0]).max() < 10  # with a ridge there is a maximum


def test_collinear_inputs():
    _, x, target, weight = softmax_problem(10)
    with_sum = np.column_stack([x, x @ [[1.0], [2.0]]])
    _, info = multinomial_irls(with_sum, target, weight)
    _, info_without = multinomial_irls(x, target, weight)
    assert info.converged and info.value == pytest.approx(info_without.value, rel=1e-10)


# --- Input validation -----------------------------------------------------------------------------

SUM_TO_1 = "target: wanted no negative numbers, and rows that sum to 1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros(5)}, "x: wanted shape"),
        ({"target": np.zeros((5, 2))}, "target: wanted shape"),
        ({"target": [[1, 0], [1]]}, "target: wanted an array"),
        ({"target": np.full((60, 3), 0.5)}, SUM_TO_1),
        ({"target": np.tile([1.5, -0.5], (60, 1))}, SUM_TO_1),
        ({"weight": -np.ones(60)}, "weight: wanted no negative"),
        ({"weight": np.full(60, np.nan)}, "weight: wanted finite"),
        ({"weight": 1.0}, "weight: wanted shape (60,), got ()"),
        (
            {"target": np.full((60, 2, 2), 0.5), "weight": np.ones((60, 3))},
            "weight: wanted 2 columns, one per problem of target, got 3",
        ),
        ({"initial": np.zeros((2, 3))}, "initial: wanted shape"),
        ({"ridge": -1}, "ridge: wanted a finite number of at least 0, got -1"),
        ({"max_steps": 2.5}, "max_steps: wanted a whole number"),
        ({"tol": np.nan}, "tol: wanted a finite number of at least 0"),
    ],
)
def test_bad_input_is_named(change, message):
    _, x, target, weight = softmax_problem(11)
    with pytest.raises(InputError, match=re.escape(message)):
        multinomial_irls(**{"x": x, "target": target, "weight": weight, **change})


def test_no_cases_and_no_problems():
    coef, info = multinomial_irls(np.zeros((0, 2)), np.zeros((0, 3)))
    assert not coef.any() and info.converged
    coef, info = multinomial_irls(np.zeros((5, 2)), np.full((5, 3), 1 / 3), np.ones((5, 0)))
    assert coef.shape == (0, 3, 3) and len(info.value) == 0


def test_blas_has_one_thread_inside_and_as_many_as_before_outside(monkeypatch):
    before = blas_threads()
    inside = []
    evaluate = irls.evaluate

    def watched(stack, theta):
        inside.append(blas_threads())
        return evaluate(stack, theta)

    monkeypatch.setattr(irls, "evaluate", watched)
    _, x, target, weight = softmax_problem(12)
    multinomial_irls(x, target, weight)
    assert set(inside) == {1} and blas_threads() == before


def test_the_settings_unless_given():
    assert defaults(multinomial_irls) == {"ridge": 0.0, "max_steps": 25, "tol": 1e-10}
