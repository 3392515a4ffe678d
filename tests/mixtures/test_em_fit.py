"""A fitted mixture: predictions, scores and samples, by hand, and what it refuses."""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.mixtures import em
from tests.support.mixtures import FAMILIES, each_family, random_data, random_params


def test_predictions_of_classes_by_hand():
    rng = np.random.default_rng(17)
    x, y = random_data("labels", 17, N=4)
    fit = em.Fit(random_params(rng, "labels"), 0.0, None, None, True, em.Categorical(3))
    W, b, U, c = (fit.params[k] for k in ("W", "b", "U", "c"))
    for n in range(4):
        g = numerics.softmax(x[n] @ U + c)
        p = np.array([numerics.softmax(x[n] @ W[e] + b[e]) for e in range(3)])
        np.testing.assert_allclose(fit.gate(x)[n], g)
        np.testing.assert_allclose(fit.outputs(x)[n], p)
        np.testing.assert_allclose(fit.predict_proba(x)[n], g @ p)
        assert fit.predict(x)[n] == (g @ p).argmax()
        np.testing.assert_allclose(fit.responsibilities(x, y)[n], g * p[:, y[n]] / (g @ p[:, y[n]]))
        assert fit.score(x[n : n + 1], y[n : n + 1]) == pytest.approx(np.log(g @ p[:, y[n]]))


def normal_density(y, mean, cov):
    distance = (y - mean) @ np.linalg.solve(cov, y - mean)
    return np.exp(-0.5 * distance) / np.sqrt(np.linalg.det(2 * np.pi * cov))


def test_predictions_of_numbers_by_hand():
    rng = np.random.default_rng(17)
    fit = em.Fit(random_params(rng, "full"), 0.0, None, None, True, em.Gaussian("full"))
    W, b, var = (fit.params[k] for k in ("W", "b", "var"))
    x, y = random_data("full", 17, N=4)
    mean = np.einsum("nd,edc->nec", x, W) + b
    np.testing.assert_allclose(fit.outputs(x), mean)
    np.testing.assert_allclose(fit.predict(x), np.einsum("ne,nec->nc", fit.gate(x), mean))
    density = [
        [normal_density(y[n], mean[n, e], var[e]) for e in range(len(var))] for n in range(4)
    ]
    assert fit.score(x, y) == pytest.approx(np.log((fit.gate(x) * density).sum(axis=1)).mean())


@each_family
def test_score_on_the_data_is_the_likelihood_and_resp_the_responsibilities(name):
    x, y = random_data(name, 18)
    options = {"family": FAMILIES[name], "ridge": 0.5, "restarts": 2}
    fit = em.fit(x, y, 2, rng=np.random.default_rng(0), **options)
    assert fit.score(x, y) * len(x) == pytest.approx(fit.log_likelihood)
    np.testing.assert_allclose(fit.responsibilities(x, y), fit.resp, atol=1e-10)


def test_samples_have_the_moments_of_their_expert():
    rng = np.random.default_rng(19)
    fit = em.Fit(random_params(rng, "full"), 0.0, None, None, True, em.Gaussian("full"))
    x = np.tile(rng.normal(size=(1, 2)), (20_000, 1))
    y, expert = fit.sample(x, rng)
    np.testing.assert_allclose(y.mean(axis=0), fit.predict(x[:1])[0], atol=0.15)
    largest = np.bincount(expert).argmax()
    covariance = np.cov(y[expert == largest].T)
    np.testing.assert_allclose(covariance, fit.params["var"][largest], rtol=0.2, atol=0.3)


def test_bad_input_is_named():
    x, y = random_data("expert")
    fit = em.fit(x, y, 2, family=em.Gaussian(), rng=np.random.default_rng(0), tol=0.1)
    with pytest.raises(InputError, match="predict_proba: wanted categorical experts"):
        fit.predict_proba(x)
    with pytest.raises(InputError, match="y: wanted shape"):
        fit.score(x, y[:, :1])
    with pytest.raises(InputError, match="x: wanted at least one case"):
        fit.score(x[:0], y[:0])
    with pytest.raises(InputError, match=r"rng: wanted a numpy\.random\.Generator"):
        fit.sample(x, 0)


def test_a_case_that_is_infinitely_far_from_every_expert_is_named():
    x, y = random_data("expert")
    params = random_params(np.random.default_rng(0), "expert")
    params = {**params, "var": np.full(len(params["c"]), 1e-300)}
    fit = em.Fit(params, 0.0, None, None, True, em.Gaussian("expert"))
    with pytest.raises(InputError, match="y: wanted cases with a density above 0"):
        fit.score(x, 1e100 * y)
