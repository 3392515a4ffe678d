"""EM for mixtures of experts: it never falls, ends where the gradient is 0, and does what one
expert alone would do.
"""

import warnings

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.mixtures import em, irls

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
        y = (
            (np.abs(x[:, 0]) > 0.7).astype(int) + (x.sum(axis=1) + 0.5 * rng.normal(size=N) > 0)
        ).astype(int)
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


# --- it never falls -------------------------------------------------------------------------------


@pytest.mark.parametrize("gate_size", [0.01, 1.0, 30.0])
@each_family
def test_no_step_lowers_the_likelihood(name, gate_size):
    """15 settings with 24 random problems each: few cases and many, doubled rows, ridges, one and
    more IRLS steps.
    """
    for seed in range(24):
        rng = np.random.default_rng([seed, int(100 * gate_size)])
        N, E = int(rng.integers(4, 60)), int(rng.integers(1, 5))
        x, y = data(name, seed, N)
        if seed % 3 == 0:
            twice = rng.integers(N, size=N)
            x, y = x[twice], y[twice]
        problem = em._problem(
            x, y, E, FAMILIES[name], None, [0.0, 0.0, 0.01, 3.0][seed % 4], 1 + seed % 2
        )
        params = random_params(rng, name, E, gate_size=gate_size)
        before = em.e_step(problem, params)
        for _ in range(6):
            params = em.m_step(problem, params, before.resp)
            now = em.e_step(problem, params)
            assert now.value >= before.value - 1e-9 * max(1, abs(before.value)), (
                seed,
                before.value,
                now.value,
            )
            before = now


# --- the gradient ---------------------------------------------------------------------------------


@each_family
def test_gradient_by_projection(name):
    """Of the log likelihood itself, against the formula with responsibilities (Fisher's identity)."""
    rng = np.random.default_rng(3)
    x, y = data(name, 3)
    gate_x = rng.normal(size=(len(x), 3))
    params = random_params(rng, name) | {"U": rng.normal(size=(3, 3))}
    if (
        name == "full"
    ):  # along symmetric directions a step of the check keeps the matrix one of covariances
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


# --- what is known otherwise ----------------------------------------------------------------------


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
    """Rows with 1 in one input, nothing else (no constant either) and y = 0: least squares of all
    of them.
    """
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
    """Drawn from a mixture, 2000 cases; fitted to them: the likelihood is that of the truth or a
    little more.
    """
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
        other = {
            k: v[..., order] if k in "Uc" else v[order] if np.ndim(v) else v
            for k, v in start.items()
        }
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


# --- restarts, stopping, collapse -----------------------------------------------------------------


def test_restarts_keep_the_best_and_are_the_same_again():
    x, y = data("expert", 10)
    problem = em._problem(x, y, 4, em.Gaussian(), None, 0.0, 1)
    rng = np.random.default_rng(1)
    alone = [em._climb(problem, em.start_params(problem, rng), 1e-6, 1000) for _ in range(6)]
    fit, again = (
        em.fit(x, y, 4, family=em.Gaussian(), rng=np.random.default_rng(1), restarts=6, short=1000)
        for _ in range(2)
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
    assert em._settled([0.0, 1.0, 1.5], 0.51) and not em._settled(
        [0.0, 1.0, 1.5], 0.49
    )  # ½ + ¼ + ...: ½ to come
    assert em._settled([1.0, 2.0, 2.0], 0.0)


def test_the_rest_that_is_extrapolated_is_about_right():
    x, y = data("labels", 13, N=200)
    problem = em._problem(x, y, 2, FAMILIES["labels"], None, 0.0, 1)
    start = em.start_params(problem, np.random.default_rng(0))
    end = close("labels", x, y, 2, start=start)
    for tol in (1e-3, 1e-5):
        rest = (
            end.log_likelihood - close("labels", x, y, 2, start=start, tol=tol).log_likelihood
        ) / 200
        assert 0.1 * tol < rest < 10 * tol


@each_family
def test_few_cases_double_rows_and_constant_columns(name):
    """Fewer cases than parameters, all of them twice, an input that never changes: everything stays
    finite.
    """
    x, y = data(name, 14, N=5)
    x, y = np.column_stack([x, np.full(5, 3.0)]).repeat(2, axis=0), y.repeat(2, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        fit = em.fit(
            x, y, 12, family=FAMILIES[name], rng=np.random.default_rng(0), max_iter=25, restarts=1
        )
    assert all(np.isfinite(v).all() for v in fit.params.values()) and np.isfinite(fit.history).all()
    np.testing.assert_allclose(fit.resp.sum(axis=1), 1)
    assert (np.diff(fit.history) > -1e-7).all()


def test_fewer_cases_than_an_expert_has_slopes():
    """Least squares alone, each time the smallest solution, fell by up to 2e-5 of the likelihood in
    9 of the 30.
    """
    for seed in range(30):
        rng = np.random.default_rng(seed)
        problem = em._problem(
            rng.normal(size=(6, 3)), rng.normal(size=(6, 2)), 4, em.Gaussian("shared"), None, 0.0, 1
        )
        params, history = em.start_params(problem, rng), []
        for _ in range(20):
            now = em.e_step(problem, params)
            history.append(now.value)
            params = em.m_step(problem, params, now.resp)
        assert (np.diff(history) > -1e-10 * np.abs(history[1:])).all(), seed


def test_an_expert_that_nobody_needs_keeps_a_variance():
    """Of weights about 1e-68 its scatter is rounding, and larger than its matrix can hold."""
    rng = np.random.default_rng(17)
    x, y = rng.normal(size=(18, 1)), rng.normal(size=(18, 2))
    family, y = em.Gaussian("full").resolve(y)
    resp = np.column_stack([np.full(18, 1e-68), np.ones(18)])
    params = random_params(rng, "full", 2, D=1)
    new = family.m_step(params, irls.design(x), y, resp, ridge=0.01)
    assert np.linalg.eigvalsh(new["var"]).max() < 10 and np.linalg.eigvalsh(new["var"]).min() > 0.01


def test_missing_class_and_constant_output():
    x, y = data("labels", 15)
    fit = em.fit(
        x,
        np.where(y == 1, 2, y),
        2,
        family=em.Categorical(4),
        rng=np.random.default_rng(0),
        restarts=2,
    )
    proba = fit.predict_proba(x)
    assert proba.shape == (60, 4) and proba[:, [1, 3]].max() < 1e-3
    fit = em.fit(
        x, np.zeros(60, int), 2, family=em.Categorical(), rng=np.random.default_rng(0), restarts=2
    )
    assert fit.log_likelihood == pytest.approx(0, abs=1e-2) and not fit.predict(x).any()
    fit = em.fit(
        x, np.ones((60, 1)), 2, family=em.Gaussian(), rng=np.random.default_rng(0), restarts=2
    )
    np.testing.assert_allclose(fit.predict(x), 1)
    np.testing.assert_allclose(fit.params["var"], 1e-6)


@pytest.mark.parametrize("covariance", ["expert", "full"])
def test_floor_holds_and_a_collapsed_climb_is_not_kept(covariance):
    """An expert on two cases, one of them twice: its likelihood is as large as its variance is
    small.
    """
    rng = np.random.default_rng(16)
    x = rng.uniform(-1, 1, (80, 1))
    y = np.abs(x) + 0.2 * rng.normal(size=(80, 1))
    x, y = np.vstack([x, x[:1]]), np.vstack([y, y[:1]])
    family = em.Gaussian(covariance, floor=1e-8)
    problem = em._problem(x, y, 3, family, None, 0.0, 1)
    resp = np.full((81, 3), 0.25) * [1, 1, 0] + 0.25 * np.array([1, 1, 0])
    resp[[0, 1, 80]] = [0, 0, 1]
    collapsed = em._climb(problem, em.m_step(problem, None, resp), 1e-6, 300)
    assert np.linalg.eigvalsh(
        np.reshape(collapsed.params["var"], (3, 1, 1))
    ).min() == pytest.approx(1e-8)
    assert not em._rank(problem, collapsed)[0]
    fit = em.fit(x, y, 3, family=family, rng=np.random.default_rng(0), restarts=6)
    assert em._rank(problem, fit)[0] and fit.params["var"].min() > 1e-4
