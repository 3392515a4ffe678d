"""EM for mixtures of experts: it never falls, ends where the gradient is 0, and does what one expert alone would do."""

import re
import warnings

import numpy as np
import pytest

from moe_np import gradcheck, numerics
from moe_np.checks import InputError
from moe_np.mixtures import em
from moe_np.steps import Steps

FAMILIES = {
    "fixed": em.Gaussian("fixed", variance=0.5),
    "shared": em.Gaussian("shared"),
    "expert": em.Gaussian("expert"),
    "full": em.Gaussian("full"),
    "labels": em.Categorical(3),
}
each_family = pytest.mark.parametrize("name", FAMILIES)


def data(name, seed=0, N=60, D=2, C=2):
    """x, y for a family, read-only."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D))
    if name == "labels":
        y = ((np.abs(x[:, 0]) > 0.7).astype(int) + (x.sum(axis=1) + 0.5 * rng.normal(size=N) > 0)).astype(int)
    else:
        y = np.abs(x @ rng.normal(size=(D, C))) + 0.3 * rng.normal(size=(N, C))
    x.flags.writeable = y.flags.writeable = False
    return x, y


def random_params(rng, name, E=3, D=2, C=2, gate_size=1.0):
    C = 3 if name == "labels" else C
    params = {"W": rng.normal(size=(E, D, C)), "b": rng.normal(size=(E, C))}
    params |= {"U": gate_size * rng.normal(size=(D, E)), "c": gate_size * rng.normal(size=E)}
    if name == "full":
        root = rng.normal(size=(E, C, C)) + 2 * np.eye(C)
        params["var"] = root @ root.swapaxes(1, 2)
    elif name != "labels":
        params["var"] = rng.uniform(0.5, 2, E) if name == "expert" else np.array(0.5)
    return params


def close(name, x, y, E=3, **kwargs):
    """A climb to the very end."""
    kwargs = {
        "family": FAMILIES[name],
        "rng": np.random.default_rng(0),
        "tol": 1e-13,
        "max_iter": 20_000,
        "restarts": 2,
        **kwargs,
    }
    return em.fit(x, y, E, **kwargs)


# --- it never falls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate_size", [0.01, 1.0, 30.0])
@each_family
def test_no_step_lowers_the_likelihood(name, gate_size):
    """15 settings with 24 random problems each: few cases and many, doubled rows, ridges, one and more IRLS steps."""
    for seed in range(24):
        rng = np.random.default_rng([seed, int(100 * gate_size)])
        N, E = int(rng.integers(4, 60)), int(rng.integers(1, 5))
        x, y = data(name, seed, N)
        if seed % 3 == 0:
            twice = rng.integers(N, size=N)
            x, y = x[twice], y[twice]
        problem = em._problem(x, y, E, FAMILIES[name], None, [0.0, 0.0, 0.01, 3.0][seed % 4], 1 + seed % 2)
        params = random_params(rng, name, E, gate_size=gate_size)
        before = em.e_step(problem, params)
        for _ in range(6):
            params = em.m_step(problem, params, before.resp)
            now = em.e_step(problem, params)
            assert now.value >= before.value - 1e-9 * max(1, abs(before.value)), (seed, before.value, now.value)
            before = now


# --- the gradient -----------------------------------------------------------------------------------------------------


@each_family
def test_gradient_by_projection(name):
    """Of the log likelihood itself, against the formula with responsibilities (Fisher's identity)."""
    rng = np.random.default_rng(3)
    x, y = data(name, 3)
    gate_x = rng.normal(size=(len(x), 3))
    params = random_params(rng, name) | {"U": rng.normal(size=(3, 3))}
    if name == "full":  # along symmetric directions a step of the check keeps the matrix one of covariances
        params["var"] = params["var"] + np.eye(2)
    family = FAMILIES[name]

    def log_likelihood(p):
        if p["var"].ndim == 3 if "var" in p else False:
            p = {**p, "var": 0.5 * (p["var"] + p["var"].swapaxes(1, 2))}
        return em.gradient(p, x, y, family=family, gate_x=gate_x)[0]

    value, grads = em.gradient(params, x, y, family=family, gate_x=gate_x)
    assert value == pytest.approx(log_likelihood(params), rel=1e-12)
    errors = gradcheck.gradient_error(log_likelihood, params, grads, rng)
    assert max(errors.values()) < 1e-7, errors


@each_family
def test_gradient_is_zero_where_em_ends(name):
    x, y = data(name, 4)
    fit = close(name, x, y, 2)
    assert fit.converged
    value, grads = em.gradient(fit.params, x, y, family=fit.family)
    assert value == pytest.approx(fit.log_likelihood)
    for key, g in grads.items():
        if key != "var" or name != "fixed":
            assert np.abs(g).max() < 2e-3, (key, g)


def test_gate_that_sees_nothing_has_the_mean_responsibilities():
    x, y = data("shared", 5)
    fit = close("shared", x, y, 2, gate_x=x[:, :0])
    np.testing.assert_allclose(fit.gate(x, x[:, :0])[0], fit.resp.mean(axis=0), atol=1e-5)


# --- what is known otherwise ------------------------------------------------------------------------------------------


def test_one_gaussian_expert_is_least_squares():
    x, y = data("full", 6)
    X = np.column_stack([x, np.ones(len(x))])
    coef = np.linalg.lstsq(X, y, rcond=None)[0]
    cov = (y - X @ coef).T @ (y - X @ coef) / len(x)
    fit = em.fit(x, y, 1, family=em.Gaussian("full"), rng=np.random.default_rng(0), restarts=1)
    np.testing.assert_allclose(fit.params["W"][0], coef[:2], rtol=1e-9)
    np.testing.assert_allclose(fit.params["var"][0], cov, rtol=1e-9)
    wanted = -0.5 * len(x) * (2 + 2 * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1])
    assert fit.log_likelihood == pytest.approx(wanted, rel=1e-10)
    assert fit.n_parameters() == 2 * 3 + 3
    assert fit.bic() == pytest.approx(-2 * wanted + 9 * np.log(60))
    each = em.fit(x, y, 1, family=em.Gaussian("expert"), rng=np.random.default_rng(0), restarts=1)
    assert each.params["var"][0] == pytest.approx(np.trace(cov) / 2)


def test_ridge_is_so_many_more_cases():
    """Rows with 1 in one input, nothing else (no constant either) and y = 0: least squares of all of them."""
    x, y = data("shared", 7)
    X = np.vstack([np.column_stack([x, np.ones(len(x))]), np.sqrt(5.0) * np.eye(3)[:2]])
    coef = np.linalg.lstsq(X, np.vstack([y, np.zeros((2, 2))]), rcond=None)[0]
    fit = em.fit(x, y, 1, family=em.Gaussian("shared"), rng=np.random.default_rng(0), ridge=5.0)
    np.testing.assert_allclose(fit.params["W"][0], coef[:2], rtol=1e-9)
    assert fit.history[-1] < fit.log_likelihood < close("shared", x, y, 1).log_likelihood


@each_family
def test_parameters_are_counted(name):
    x, y = data(name)
    fit = em.fit(x, y, 3, family=FAMILIES[name], rng=np.random.default_rng(0), tol=1e-2, restarts=1)
    experts = {"fixed": 18, "shared": 19, "expert": 21, "full": 27, "labels": 18}[name]
    assert fit.n_parameters() == experts + 2 * 3


@each_family
def test_truth_is_found_again(name):
    """Drawn from a mixture, 2000 cases; fitted to them: the likelihood is that of the truth or a little more."""
    rng = np.random.default_rng(8)
    params = random_params(rng, name, 2, gate_size=3.0)
    params["b"] *= 3
    truth = em.Fit(params, 0.0, None, None, True, FAMILIES[name])
    x = rng.normal(size=(2000, 2))
    y, expert = truth.sample(x, rng)
    assert np.abs(np.bincount(expert) / 2000 - truth.gate(x).mean(axis=0)).max() < 0.03
    fit = em.fit(x, y, 2, family=FAMILIES[name], rng=rng, restarts=3, tol=1e-4)
    gain = fit.log_likelihood - 2000 * truth.score(x, y)
    assert -0.5 < gain < 3 * fit.n_parameters()
    assert np.abs(fit.predict(x) - truth.predict(x)).mean() < 0.15
    assert (
        ((fit.resp.argmax(axis=1) == expert).mean() > 0.9)
        or ((fit.resp.argmax(axis=1) != expert).mean() > 0.9)
        or name == "labels"
    )


@each_family
def test_order_of_experts_cases_and_origin_do_not_matter(name):
    rng = np.random.default_rng(9)
    x, y = data(name, 9)
    start, order, rows = random_params(rng, name), np.array([2, 0, 1]), rng.permutation(len(x))
    kwargs = {"family": FAMILIES[name], "rng": None, "max_iter": 8, "tol": 0.0, "ridge": 0.1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        fit = em.fit(x, y, 3, start=start, **kwargs)
        other = {k: v[..., order] if k in "Uc" else v[order] if np.ndim(v) else v for k, v in start.items()}
        permuted = em.fit(x, y, 3, start=other, **kwargs)
        shuffled = em.fit(x[rows], y[rows], 3, start=start, **kwargs)
        moved = {
            **start,
            "b": start["b"] - 100 * start["W"].sum(axis=1),
            "c": start["c"] - 100 * start["U"].sum(axis=0),
        }
        moved = em.fit(x + 100, y, 3, start=moved, **kwargs)
    np.testing.assert_allclose(permuted.resp, fit.resp[:, order], atol=1e-8)
    np.testing.assert_allclose(shuffled.resp, fit.resp[rows], atol=1e-8)
    np.testing.assert_allclose(moved.resp, fit.resp, atol=1e-6)


# --- restarts, stopping, collapse -------------------------------------------------------------------------------------


def test_restarts_keep_the_best_and_are_the_same_again():
    x, y = data("expert", 10)
    problem = em._problem(x, y, 4, em.Gaussian(), None, 0.0, 1)
    rng = np.random.default_rng(1)
    alone = [em._climb(problem, em.start_params(problem, rng), 1e-6, 1000) for _ in range(6)]
    fit, again = (
        em.fit(x, y, 4, family=em.Gaussian(), rng=np.random.default_rng(1), restarts=6, short=1000) for _ in range(2)
    )
    best = max(alone, key=lambda run: em._rank(problem, run))
    assert fit.log_likelihood == best.log_likelihood > min(run.log_likelihood for run in alone)
    assert np.array_equal(fit.resp, again.resp) and np.array_equal(fit.history, again.history)
    cut = em.fit(x, y, 4, family=em.Gaussian(), rng=np.random.default_rng(1), restarts=6, short=5)
    assert cut.converged and (np.diff(cut.history) > -1e-9).all()


def test_a_climb_cut_short_goes_on_as_if_it_had_not_been():
    x, y = data("expert", 11)
    problem = em._problem(x, y, 2, em.Gaussian(), None, 0.0, 1)
    start = em.start_params(problem, np.random.default_rng(2))
    whole = em._climb(problem, start, 1e-6, 1000)
    on = em._go_on(problem, em._climb(problem, start, 1e-6, 4), 1e-6, 1000)
    assert np.array_equal(whole.history, on.history) and np.array_equal(whole.resp, on.resp)


def test_it_warns_where_it_is_stopped():
    x, y = data("expert", 12)
    with pytest.warns(em.ConvergenceWarning, match="not converged after 3 steps"):
        fit = em.fit(x, y, 3, family=em.Gaussian(), rng=np.random.default_rng(0), max_iter=3)
    assert not fit.converged and len(fit.history) == 4


def test_end_is_not_taken_for_near_where_rises_grow():
    assert not em._settled([0.0, 1.0], 1e9)
    assert not em._settled([0.0, 1e-9, 3e-9], 1.0)  # a plateau that is being left
    assert em._settled([0.0, 1.0, 1.5], 0.51) and not em._settled([0.0, 1.0, 1.5], 0.49)  # ½ + ¼ + ...: ½ to come
    assert em._settled([1.0, 2.0, 2.0], 0.0)


def test_the_rest_that_is_extrapolated_is_about_right():
    x, y = data("labels", 13, N=200)
    problem = em._problem(x, y, 2, FAMILIES["labels"], None, 0.0, 1)
    start = em.start_params(problem, np.random.default_rng(0))
    end = close("labels", x, y, 2, start=start)
    for tol in (1e-3, 1e-5):
        rest = (end.log_likelihood - close("labels", x, y, 2, start=start, tol=tol).log_likelihood) / 200
        assert 0.1 * tol < rest < 10 * tol


@each_family
def test_few_cases_double_rows_and_constant_columns(name):
    """Fewer cases than parameters, all of them twice, an input that never changes: everything stays finite."""
    x, y = data(name, 14, N=5)
    x, y = np.column_stack([x, np.full(5, 3.0)]).repeat(2, axis=0), y.repeat(2, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        fit = em.fit(x, y, 12, family=FAMILIES[name], rng=np.random.default_rng(0), max_iter=25, restarts=1)
    assert all(np.isfinite(v).all() for v in fit.params.values()) and np.isfinite(fit.history).all()
    np.testing.assert_allclose(fit.resp.sum(axis=1), 1)
    assert (np.diff(fit.history) > -1e-7).all()


def test_missing_class_and_constant_output():
    x, y = data("labels", 15)
    fit = em.fit(x, np.where(y == 1, 2, y), 2, family=em.Categorical(4), rng=np.random.default_rng(0), restarts=2)
    proba = fit.predict_proba(x)
    assert proba.shape == (60, 4) and proba[:, [1, 3]].max() < 1e-3
    fit = em.fit(x, np.zeros(60, int), 2, family=em.Categorical(), rng=np.random.default_rng(0), restarts=2)
    assert fit.log_likelihood == pytest.approx(0, abs=1e-2) and not fit.predict(x).any()
    fit = em.fit(x, np.ones((60, 1)), 2, family=em.Gaussian(), rng=np.random.default_rng(0), restarts=2)
    np.testing.assert_allclose(fit.predict(x), 1)
    np.testing.assert_allclose(fit.params["var"], 1e-6)


@pytest.mark.parametrize("covariance", ["expert", "full"])
def test_floor_holds_and_a_collapsed_climb_is_not_kept(covariance):
    """An expert on two cases, one of them twice: its likelihood is as large as its variance is small."""
    rng = np.random.default_rng(16)
    x = rng.uniform(-1, 1, (80, 1))
    y = np.abs(x) + 0.2 * rng.normal(size=(80, 1))
    x, y = np.vstack([x, x[:1]]), np.vstack([y, y[:1]])
    family = em.Gaussian(covariance, floor=1e-8)
    problem = em._problem(x, y, 3, family, None, 0.0, 1)
    resp = np.full((81, 3), 0.25) * [1, 1, 0] + 0.25 * np.array([1, 1, 0])
    resp[[0, 1, 80]] = [0, 0, 1]
    collapsed = em._climb(problem, em.m_step(problem, None, resp), 1e-6, 300)
    assert np.linalg.eigvalsh(np.reshape(collapsed.params["var"], (3, 1, 1))).min() == pytest.approx(1e-8)
    assert not em._rank(problem, collapsed)[0]
    fit = em.fit(x, y, 3, family=family, rng=np.random.default_rng(0), restarts=6)
    assert em._rank(problem, fit)[0] and fit.params["var"].min() > 1e-4


# --- asking a fit -----------------------------------------------------------------------------------------------------


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
            np.exp(-0.5 * (y[n] - m) @ np.linalg.solve(v, y[n] - m)) / np.sqrt(np.linalg.det(2 * np.pi * v))
            for m, v in zip(mean[n], var, strict=True)
        ]
        for n in range(4)
    ]
    assert fit.score(x, y) == pytest.approx(np.log((fit.gate(x) * density).sum(axis=1)).mean())


@each_family
def test_score_on_the_data_is_the_likelihood_and_resp_the_responsibilities(name):
    x, y = data(name, 18)
    fit = em.fit(x, y, 2, family=FAMILIES[name], rng=np.random.default_rng(0), ridge=0.5, restarts=2)
    assert fit.score(x, y) * len(x) == pytest.approx(fit.log_likelihood)
    np.testing.assert_allclose(fit.responsibilities(x, y), fit.resp, atol=1e-10)


def test_samples_have_the_moments_of_their_expert():
    rng = np.random.default_rng(19)
    fit = em.Fit(random_params(rng, "full"), 0.0, None, None, True, em.Gaussian("full"))
    x = np.tile(rng.normal(size=(1, 2)), (20_000, 1))
    y, expert = fit.sample(x, rng)
    np.testing.assert_allclose(y.mean(axis=0), fit.predict(x[:1])[0], atol=0.15)
    own = y[expert == np.bincount(expert).argmax()]
    np.testing.assert_allclose(np.cov(own.T), fit.params["var"][np.bincount(expert).argmax()], rtol=0.2, atol=0.3)


# --- steps ------------------------------------------------------------------------------------------------------------


@each_family
def test_steps_are_those_of_fit(name):
    x, y = data(name, 20)
    kwargs = {"family": FAMILIES[name], "tol": 1e-4}
    fit = em.fit(x, y, 2, rng=np.random.default_rng(3), restarts=1, **kwargs)
    states = list(em.steps(x, y, 2, rng=np.random.default_rng(3), max_iter=1000, **kwargs))
    assert [s.phase for s in states[:5]] == ["start", "E step", "M step: experts", "M step: gate", "E step"]
    found = [s for s in states if s.phase == "E step"]
    assert [float(s["log_likelihood"]) for s in found] == fit.history.tolist()
    assert np.array_equal(found[-1]["resp"], fit.resp)
    assert all(np.array_equal(found[-1][k], fit.params[k]) for k in fit.params)
    assert all(len(s.axes[k]) == v.ndim for s in states for k, v in s.arrays.items())
    assert "W" in states[2].changed and "U" not in states[2].changed and "U" in states[3].changed


def test_steps_can_be_walked_back_and_end_at_max_iter():
    x, y = data("expert", 21)
    walk = Steps(em.steps(x, y, 2, family=em.Gaussian(), rng=np.random.default_rng(0), max_iter=2))
    assert walk.until("E step")["resp"].shape == (60, 2) and walk.until("M step").phase == "M step: experts"
    assert walk.back().phase == "E step"
    assert [s.phase for s in walk][-1] == "E step" and sum(s.phase == "E step" for s in walk.seen) == 3


# --- the door ---------------------------------------------------------------------------------------------------------


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
        ({"family": em.Categorical(2), "y": np.arange(60)}, "n_classes: wanted a whole number of at least 60"),
        ({"family": em.Categorical(), "y": np.full(60, -1)}, "y: wanted labels from 0 up"),
        ({"ridge": -1.0}, "ridge: wanted"),
        ({"gate_x": np.zeros((4, 1))}, "gate_x: wanted shape (60, D)"),
        ({"restarts": 0}, "restarts: wanted"),
        ({"rng": None}, "rng: wanted a numpy.random.Generator"),
        (
            {"start": {**random_params(np.random.default_rng(0), "expert", 2), "var": np.zeros(2)}},
            "start['var']: wanted",
        ),
        ({"start": {"W": np.zeros(3)}}, "start: wanted the keys W, b, U, c, var"),
    ],
)
def test_bad_input_is_named(change, message):
    x, y = data("expert")
    args = {"x": x, "y": y, "n_experts": 2, "family": em.Gaussian(), "rng": np.random.default_rng(0), **change}
    with pytest.raises(InputError, match=re.escape(message)):
        em.fit(args.pop("x"), args.pop("y"), args.pop("n_experts"), **args)


def test_a_fit_says_what_it_was_not_made_for():
    x, y = data("expert")
    fit = em.fit(x, y, 2, family=em.Gaussian(), rng=np.random.default_rng(0), tol=0.1)
    with pytest.raises(InputError, match="predict_proba: wanted categorical experts"):
        fit.predict_proba(x)
    with pytest.raises(InputError, match="y: wanted shape"):
        fit.score(x, y[:, :1])
