"""Weights of the cases in EM: a case of weight 2 is two equal cases, one of weight 0 is none."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.mixtures import em, em_problem
from moe_np.mixtures.least_squares import weighted_variance
from tests.support.mixtures import FAMILIES, each_family, random_data, random_params


@pytest.fixture(scope="module")
def weight():
    return np.random.default_rng(5).integers(0, 4, 60).astype(float)


def repeated(values, weight):
    return np.repeat(values, weight.astype(int), axis=0)


@each_family
def test_a_weight_repeats_a_case(name, weight):
    x, y = random_data(name)
    initial = random_params(np.random.default_rng(1), name)
    options = {"family": FAMILIES[name], "rng": None, "initial": initial, "ridge": 0.1}
    fit = em.fit(x, y, 3, weight=weight, **options)
    same = em.fit(repeated(x, weight), repeated(y, weight), 3, **options)
    assert fit.log_likelihood == pytest.approx(same.log_likelihood, rel=1e-9)
    assert fit.bic() == pytest.approx(same.bic(), rel=1e-9)
    np.testing.assert_allclose(fit.history, same.history, rtol=1e-8)
    np.testing.assert_allclose(repeated(fit.resp, weight), same.resp, atol=1e-5)


@each_family
def test_weights_of_1_change_nothing(name):
    x, y = random_data(name)
    options = {"family": FAMILIES[name], "restarts": 1, "max_iter": 5, "tol": 1e9}
    problems = [em.prepare(x, y, 3, family=FAMILIES[name], weight=w) for w in (None, np.ones(60))]
    resp = em.initial_responsibilities(problems[0], np.random.default_rng(0))
    without, ones = [em.m_step(problem, None, resp) for problem in problems]
    for key in without:
        np.testing.assert_allclose(ones[key], without[key], rtol=1e-12, atol=1e-14)
    fit = em.fit(x, y, 3, rng=np.random.default_rng(0), weight=np.ones(60), **options)
    assert fit.weight.sum() == 60


@each_family
def test_the_likelihood_never_falls_with_weights(name, weight):
    x, y = random_data(name)
    options = {"family": FAMILIES[name], "rng": np.random.default_rng(2), "restarts": 3}
    fit = em.fit(x, y, 3, weight=0.37 * weight, ridge=0.1, **options)
    assert (np.diff(fit.history) >= -1e-9 * np.abs(fit.history[:-1])).all()
    assert fit.aic() == -2 * fit.log_likelihood + 2 * fit.n_parameters()


@each_family
@pytest.mark.filterwarnings("ignore::moe_np.mixtures.em.ConvergenceWarning")
def test_gradient_with_weights(name, weight):
    x, y = random_data(name)
    params = random_params(np.random.default_rng(3), name)
    options = {"family": FAMILIES[name], "weight": weight}
    value, grads = em.gradient(params, x, y, **options)
    log_density = (
        em.fit(x, y, 3, family=FAMILIES[name], rng=None, initial=params, max_iter=1, tol=1e9)
        ._replace(params=params)
        .log_density(x, y)
    )
    assert value == pytest.approx(weight @ log_density)
    for key in ("W", "b", "U", "c"):
        direction = np.random.default_rng(4).normal(size=params[key].shape)
        ends = [
            em.gradient({**params, key: params[key] + h * direction}, x, y, **options)[0]
            for h in (1e-6, -1e-6)
        ]
        assert (grads[key] * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_variance_with_weights(weight):
    y = random_data("full")[1]
    np.testing.assert_allclose(weighted_variance(y, weight), repeated(y, weight).var(axis=0))


def test_cases_of_weight_0_are_no_centres():
    z = np.arange(6.0)[:, None]
    weight = np.array([0, 0, 1.0, 0, 0, 1.0])
    for seed in range(9):
        part = em.partition(z, 2, np.random.default_rng(seed), weight)
        assert len(set(part[:4])) == 1 and part[3] != part[5]
    assert set(em.partition(z, 3, np.random.default_rng(0), weight)) <= {0, 1, 2}
    assert em.partition(z, 2, np.random.default_rng(0), np.zeros(6)).shape == (6,)


BAD_WEIGHTS = (
    (-np.ones(60), "weight: wanted no negative numbers, got -1"),
    (np.zeros(60), "weight: wanted at least one number above 0, got only zeros"),
    (np.ones(59), r"weight: wanted shape \(60,\), got \(59,\)"),
    (np.full(60, np.nan), "weight: wanted finite numbers, got nan"),
)


@pytest.mark.parametrize(("bad", "message"), BAD_WEIGHTS)
def test_bad_weights(bad, message):
    x, y = random_data("shared")
    with pytest.raises(InputError, match=message):
        em_problem.prepare(x, y, 2, family=FAMILIES["shared"], weight=bad)
