"""Gaussian and categorical experts: M steps in extreme cases, numbers of parameters, packing."""

import numpy as np
import pytest

from moe_np.mixtures import em
from moe_np.mixtures.em_families import affine, affine_backward, draw_category, pack, unpack
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


def test_affine_is_about_the_origin_and_its_gradient_too():
    rng = np.random.default_rng(0)
    x = rng.normal(5, 1, (7, 2))
    params = random_params(rng, "labels")
    wanted = np.einsum("nd,edc->ecn", x, params["W"]) + params["b"][:, :, None]
    np.testing.assert_allclose(affine(params, make_design(x)), wanted)
    dout = rng.normal(size=wanted.shape)
    grads = affine_backward(dout, make_design(x))
    np.testing.assert_allclose(grads["W"], np.einsum("ecn,nd->edc", dout, x))
    np.testing.assert_allclose(grads["b"], dout.sum(axis=2))


def test_packing_and_back():
    params = random_params(np.random.default_rng(0), "labels")
    back = unpack(pack(params))
    assert np.array_equal(back["W"], params["W"]) and np.array_equal(back["b"], params["b"])
    assert pack(None) is None


def test_categories_are_drawn_with_their_probabilities():
    probs = np.tile([0.2, 0.0, 0.5, 0.3], (20_000, 1))
    column = draw_category(probs, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(column, minlength=4) / 20_000, probs[0], atol=0.01)
