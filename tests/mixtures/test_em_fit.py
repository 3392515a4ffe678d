"""What one asks of a fitted mixture, EM one step at a time, and what its door refuses."""

import re

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.mixtures import em
from moe_np.show.steps import Steps
from moe_np.show.walk.em_walk import steps as em_steps
from tests.mixtures.test_em import FAMILIES, data, each_family, random_params

# --- asking a fit ---------------------------------------------------------------------------------


def test_predictions_by_hand():
    rng = np.random.default_rng(17)
    x, y = data("labels", 17, N=4)
    fit = em.Fit(random_params(rng, "labels"), 0.0, None, None, True, em.Categorical(3))
    W, b, U, c = (fit.params[k] for k in ("W", "b", "U", "c"))
    for n in range(4):
        g = numerics.softmax(x[n] @ U + c)
        p = np.array([numerics.softmax(x[n] @ W[e] + b[e]) for e in range(3)])
        np.testing.assert_allclose(fit.gate(x)[n], g)
        np.testing.assert_allclose(fit.predict_proba(x)[n], g @ p)
        assert fit.predict(x)[n] == (g @ p).argmax()
        np.testing.assert_allclose(fit.responsibilities(x, y)[n], g * p[:, y[n]] / (g @ p[:, y[n]]))
        assert fit.score(x[n : n + 1], y[n : n + 1]) == pytest.approx(np.log(g @ p[:, y[n]]))
    fit = em.Fit(random_params(rng, "full"), 0.0, None, None, True, em.Gaussian("full"))
    W, b, var = (fit.params[k] for k in ("W", "b", "var"))
    x, y = data("full", 17, N=4)
    mean = np.einsum("nd,edc->nec", x, W) + b
    np.testing.assert_allclose(fit.predict(x), np.einsum("ne,nec->nc", fit.gate(x), mean))
    density = [
        [
            np.exp(-0.5 * (y[n] - m) @ np.linalg.solve(v, y[n] - m))
            / np.sqrt(np.linalg.det(2 * np.pi * v))
            for m, v in zip(mean[n], var, strict=True)
        ]
        for n in range(4)
    ]
    assert fit.score(x, y) == pytest.approx(np.log((fit.gate(x) * density).sum(axis=1)).mean())


@each_family
def test_score_on_the_data_is_the_likelihood_and_resp_the_responsibilities(name):
    x, y = data(name, 18)
    fit = em.fit(
        x, y, 2, family=FAMILIES[name], rng=np.random.default_rng(0), ridge=0.5, restarts=2
    )
    assert fit.score(x, y) * len(x) == pytest.approx(fit.log_likelihood)
    np.testing.assert_allclose(fit.responsibilities(x, y), fit.resp, atol=1e-10)


def test_samples_have_the_moments_of_their_expert():
    rng = np.random.default_rng(19)
    fit = em.Fit(random_params(rng, "full"), 0.0, None, None, True, em.Gaussian("full"))
    x = np.tile(rng.normal(size=(1, 2)), (20_000, 1))
    y, expert = fit.sample(x, rng)
    np.testing.assert_allclose(y.mean(axis=0), fit.predict(x[:1])[0], atol=0.15)
    own = y[expert == np.bincount(expert).argmax()]
    np.testing.assert_allclose(
        np.cov(own.T), fit.params["var"][np.bincount(expert).argmax()], rtol=0.2, atol=0.3
    )


# --- steps ----------------------------------------------------------------------------------------


@each_family
def test_steps_are_those_of_fit(name):
    x, y = data(name, 20)
    kwargs = {"family": FAMILIES[name], "tol": 1e-4}
    fit = em.fit(x, y, 2, rng=np.random.default_rng(3), restarts=1, **kwargs)
    states = list(em_steps(x, y, 2, rng=np.random.default_rng(3), max_iter=1000, **kwargs))
    assert [s.phase for s in states[:5]] == [
        "start",
        "E step",
        "M step: experts",
        "M step: gate",
        "E step",
    ]
    found = [s for s in states if s.phase == "E step"]
    assert [float(s["log_likelihood"]) for s in found] == fit.history.tolist()
    assert np.array_equal(found[-1]["resp"], fit.resp)
    assert all(np.array_equal(found[-1][k], fit.params[k]) for k in fit.params)
    assert all(len(s.axes[k]) == v.ndim for s in states for k, v in s.arrays.items())
    assert "W" in states[2].changed and "U" not in states[2].changed and "U" in states[3].changed


def test_steps_can_be_walked_back_and_end_at_max_iter():
    x, y = data("expert", 21)
    walk = Steps(em_steps(x, y, 2, family=em.Gaussian(), rng=np.random.default_rng(0), max_iter=2))
    assert (
        walk.until("E step")["resp"].shape == (60, 2)
        and walk.until("M step").phase == "M step: experts"
    )
    assert walk.back().phase == "E step"
    assert [s.phase for s in walk][-1] == "E step" and sum(
        s.phase == "E step" for s in walk.seen
    ) == 3


# --- the door -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((0, 2))}, "x: wanted at least one case"),
        ({"y": np.zeros(60)}, "y: wanted shape"),
        ({"y": np.zeros((3, 1))}, "y: wanted 60 cases"),
        ({"n_experts": 0}, "n_experts: wanted"),
        ({"family": "gaussian"}, "family: wanted Gaussian(...) or Categorical(...)"),
        ({"family": em.Gaussian("diagonal")}, "covariance: wanted one of"),
        ({"family": em.Gaussian(floor=-1.0)}, "floor: wanted a finite number above 0"),
        (
            {"family": em.Categorical(2), "y": np.arange(60)},
            "y: wanted labels from 0 to 1, got 0 to 59",
        ),
        (
            {"family": em.Categorical(1), "y": np.zeros(60, int)},
            "n_classes: wanted a whole number of at least 2",
        ),
        (
            {"family": em.Categorical(), "y": np.full(60, 10**9)},
            "n_classes: wanted it given for labels up to 1000000000 of 60 cases, got None",
        ),
        (
            {"family": em.Categorical(), "y": np.full(60, -1)},
            "y: wanted labels from 0 to 1, got -1 to -1",
        ),
        ({"y": np.zeros((60, 0))}, "y: wanted at least one output, got shape (60, 0)"),
        ({"ridge": -1.0}, "ridge: wanted a finite number of at least 0, got -1.0"),
        ({"ridge": "much"}, "ridge: wanted a finite number of at least 0, got 'much'"),
        ({"tol": np.nan}, "tol: wanted a finite number of at least 0, got nan"),
        ({"short": 2.5, "restarts": 1}, "short: wanted a whole number"),
        ({"gate_x": np.zeros((4, 1))}, "gate_x: wanted shape (60, D)"),
        ({"restarts": 0}, "restarts: wanted"),
        ({"rng": None}, "rng: wanted a numpy.random.Generator"),
        (
            {"start": {**random_params(np.random.default_rng(0), "expert", 2), "var": np.zeros(2)}},
            "start['var']: wanted",
        ),
        ({"start": {"W": np.zeros(3)}}, "start: wanted the keys W, b, U, c, var; got W"),
        ({"start": 3}, "start: wanted the keys W, b, U, c, var; got 3"),
    ],
)
def test_bad_input_is_named(change, message):
    x, y = data("expert")
    args = {
        "x": x,
        "y": y,
        "n_experts": 2,
        "family": em.Gaussian(),
        "rng": np.random.default_rng(0),
        **change,
    }
    with pytest.raises(InputError, match=re.escape(message)):
        em.fit(args.pop("x"), args.pop("y"), args.pop("n_experts"), **args)


def test_the_gradient_names_bad_parameters():
    x, y = data("expert")
    params = random_params(np.random.default_rng(0), "expert", 2)
    for wrong, message in (
        (None, "params: wanted the keys W, b, U, c, var; got None"),
        ({"W": 3}, "params: wanted the keys W, b, U, c, var; got W"),
        ({**params, "c": None}, "params['W']: wanted shape"),
        ({**params, "var": np.zeros(2)}, "params['var']: wanted variances above 0"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            em.gradient(wrong, x, y, family=em.Gaussian())


def test_a_fit_says_what_it_was_not_made_for():
    x, y = data("expert")
    fit = em.fit(x, y, 2, family=em.Gaussian(), rng=np.random.default_rng(0), tol=0.1)
    with pytest.raises(InputError, match="predict_proba: wanted categorical experts"):
        fit.predict_proba(x)
    with pytest.raises(InputError, match="y: wanted shape"):
        fit.score(x, y[:, :1])
    with pytest.raises(InputError, match="x: wanted at least one case"):
        fit.score(x[:0], y[:0])
    with pytest.raises(InputError, match=r"rng: wanted a numpy\.random\.Generator"):
        fit.sample(x, 0)
