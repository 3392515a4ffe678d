"""Gaussian and categorical experts: M steps in extreme cases, numbers of parameters."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.mixtures import em
from moe_np.mixtures.em_families import draw_category
from moe_np.mixtures.least_squares import make_design
from tests.support.mixtures import FAMILIES, each_family, random_data, random_params


@each_family
def test_parameters_are_counted(name):
    x, y = random_data(name)
    fit = em.fit(x, y, 3, family=FAMILIES[name], rng=np.random.default_rng(0), tol=1e-2, restarts=1)
    experts = {"fixed": 18, "shared": 19, "expert": 21, "full": 27, "labels": 18}[name]
    assert fit.n_parameters() == experts + 2 * 3


def test_an_expert_without_cases_keeps_a_variance():
    """With weights of 1e-68 its scatter is rounding, and larger than its matrix can hold."""
    rng = np.random.default_rng(17)
    x, y = rng.normal(size=(18, 1)), rng.normal(size=(18, 2))
    family, y = em.Gaussian("full").resolve(y)
    resp = np.column_stack([np.full(18, 1e-68), np.ones(18)])
    params = random_params(rng, "full", 2, D=1)
    new = family.m_step(params, make_design(x), y, resp, ridge=0.01)
    eigenvalues = np.linalg.eigvalsh(new["var"])
    assert eigenvalues.max() < 10 and eigenvalues.min() > 0.01


@pytest.mark.parametrize("covariance", ["expert", "full"])
@pytest.mark.parametrize(("weight", "is_used"), [(1e-16, False), (1e-14, True)])
def test_an_expert_of_negligible_weight_has_the_common_variance(covariance, weight, is_used):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 1)), rng.normal(size=(8, 2))
    family, y = em.Gaussian(covariance, floor=1e-9).resolve(y)
    resp = np.zeros((8, 2))
    resp[0] = [weight, 0]  # it could fit its case exactly
    resp[1:, 1] = 1
    var = family.m_step(None, make_design(x), y, resp, ridge=0.0)["var"]
    common = var[1] if covariance == "expert" else np.diag(np.diag(var[1]))
    assert np.allclose(var[0], common, rtol=1e-9) != is_used


def test_missing_class_and_constant_output():
    x, y = random_data("labels", 15)
    options = {"restarts": 2}
    y = np.where(y == 1, 2, y)
    family = em.Categorical(4)
    fit = em.fit(x, y, 2, family=family, rng=np.random.default_rng(0), **options)
    proba = fit.predict_proba(x)
    assert proba.shape == (60, 4) and proba[:, [1, 3]].max() < 1e-3
    y = np.zeros(60, int)
    fit = em.fit(x, y, 2, family=em.Categorical(), rng=np.random.default_rng(0), **options)
    assert fit.log_likelihood == pytest.approx(0, abs=1e-2) and not fit.predict(x).any()
    y = np.ones((60, 1))
    fit = em.fit(x, y, 2, family=em.Gaussian(), rng=np.random.default_rng(0), **options)
    np.testing.assert_allclose(fit.predict(x), 1)
    np.testing.assert_allclose(fit.params["var"], 1e-6)


def test_categories_are_drawn_with_their_probabilities():
    probs = np.tile([0.2, 0.0, 0.5, 0.3], (20_000, 1))
    column = draw_category(probs, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(column, minlength=4) / 20_000, probs[0], atol=0.01)


def test_samples_are_the_mean_plus_the_deviation_times_a_normal_number():
    outputs = np.array([[1.0, 2], [3, 4], [5, 6]])
    expert = np.array([1, 0, 1])
    z = np.random.default_rng(5).normal(size=(3, 2))
    params = {"W": np.zeros((2, 1, 2)), "var": np.array([4.0, 9.0])}
    y = em.Gaussian("expert").draw(params, expert, outputs, np.random.default_rng(5))
    np.testing.assert_allclose(y, outputs + np.array([[3], [2], [3]]) * z, rtol=1e-14)
    params["var"] = np.array([[[4.0, 2], [2, 2]], [[1, 0], [0, 1]]])
    root = np.array([[2.0, 0], [1, 1]])  # root rootᵀ = var[0]
    y = em.Gaussian("full").draw(params, 0 * expert, outputs, np.random.default_rng(5))
    np.testing.assert_allclose(y, outputs + z @ root.T, rtol=1e-14)


def test_a_category_of_probability_0_is_never_drawn():
    """Numbers of a generator are at least 0 and below 1."""

    class Zero:
        def random(self, shape):
            return np.zeros(shape)

    assert draw_category(np.array([[0.0, 0.4, 0.6], [0.3, 0.7, 0]]), Zero()).tolist() == [1, 0]


def two_outputs(scale, rng):
    x = rng.normal(size=(400, 1))
    slope = np.where(rng.random(400) < 0.5, 1, -1)[:, None]
    y = np.hstack([slope * x, slope * x + 1]) + 0.1 * rng.normal(size=(400, 2))
    return x, y * [1, scale]


@pytest.mark.parametrize("scale", [1e-5, 1e3, 1e5])
def test_the_unit_of_an_output_does_not_matter_to_full_covariances(scale):
    """The floor of an output is in its own unit: it was the mean over the outputs, far above the
    variance of one in a small unit.
    """
    reference, scaled = (
        em.fit(
            *two_outputs(s, np.random.default_rng(0)),
            2,
            family=em.Gaussian("full"),
            rng=np.random.default_rng(0),
            restarts=4,
        )
        for s in (1, scale)
    )
    units = np.outer([1, scale], [1, scale])
    np.testing.assert_allclose(scaled.params["var"] / units, reference.params["var"], rtol=1e-4)
    np.testing.assert_allclose(np.sqrt(scaled.params["var"][:, 0, 0]), 0.1, rtol=0.2)
    np.testing.assert_allclose(scaled.resp, reference.resp, atol=1e-4)
    change = scaled.log_likelihood + 400 * np.log(scale) - reference.log_likelihood
    assert abs(change) < 1e-3


@pytest.mark.parametrize("covariance", ["shared", "expert", "full"])
@pytest.mark.parametrize("value", [0.37, 0.1, 1e6 / 3])
def test_a_constant_output_is_constant_within_rounding(covariance, value):
    """Its variance is rounding, and no floor: the log likelihood fell by 15."""
    x = np.random.default_rng(0).normal(size=(30, 1))
    family = em.Gaussian(covariance)
    for y in (np.full((30, 1), value), np.hstack([np.full((30, 1), value), x])):
        fit = em.fit(x, y, 2, family=family, rng=np.random.default_rng(1), restarts=3)
        assert (np.diff(fit.history) >= -1e-9 * np.abs(fit.history[1:])).all()
        assert np.min(fit.family.floor) > 1e6 * (value * np.finfo(float).eps) ** 2


def test_covariances_are_raised_to_the_floor_of_each_output():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 1)), np.empty((40, 2))
    y[:, 0] = x[:, 0]  # fitted exactly: its variance is the floor
    y[:, 1] = 1e4 * (x[:, 0] + rng.normal(size=40))
    fit = em.fit(x, y, 1, family=em.Gaussian("full"), rng=rng, restarts=1)
    floor = np.array(fit.family.floor)
    np.testing.assert_allclose(floor, 1e-6 * y.var(axis=0), rtol=1e-12)
    var = fit.params["var"][0]
    assert var[0, 0] == pytest.approx(floor[0], rel=1e-3)
    scaled = var / np.sqrt(np.outer(floor, floor))
    assert np.linalg.eigvalsh(scaled)[0] == pytest.approx(1, rel=1e-6)


def test_the_floor_of_a_constant_output_is_in_its_unit():
    y = np.column_stack([np.full(4, -3.0), np.zeros(4), [0.0, 2, 0, 2]])
    family, _ = em.Gaussian("full").resolve(y)
    np.testing.assert_allclose(family.floor, [9e-6, 1e-6, 1e-6], rtol=1e-12)


@pytest.mark.parametrize("floor", [(1.0,), (1.0, -1.0), (1.0, np.nan), -1.0, "1"])
def test_the_floor_is_checked(floor):
    with pytest.raises(InputError, match="floor"):
        em.Gaussian("full", floor=floor).resolve(np.ones((3, 2)))
