"""EM for mixtures of experts: it never falls, ends where the gradient is 0, and one expert alone is
a plain regression.
"""

import re
import warnings

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.base.checks import InputError
from moe_np.mixtures import em
from tests.support.mixtures import FAMILIES, each_family, random_data, random_params
from tests.support.signatures import defaults


def fit_to_the_end(name, x, y, E=3, **options):
    """A fit with a tolerance near rounding."""
    defaults = {
        "family": FAMILIES[name],
        "rng": np.random.default_rng(0),
        "tol": 1e-13,
        "max_iter": 20_000,
        "restarts": 2,
    }
    return em.fit(x, y, E, **{**defaults, **options})


# --- It never falls -------------------------------------------------------------------------------


@pytest.mark.parametrize("gate_size", [0.01, 1.0, 30.0])
@each_family
def test_no_step_lowers_the_likelihood(name, gate_size):
    """15 settings with 24 random problems each: few cases and many, doubled rows, ridges, one and
    more IRLS steps.
    """
    for seed in range(24):
        rng = np.random.default_rng([seed, int(100 * gate_size)])
        N = int(rng.integers(4, 60))
        E = int(rng.integers(1, 5))
        x, y = random_data(name, seed, N)
        if seed % 3 == 0:
            twice = rng.integers(N, size=N)
            x, y = x[twice], y[twice]
        options = {"ridge": [0.0, 0.0, 0.01, 3.0][seed % 4], "irls_steps": 1 + seed % 2}
        problem = em.prepare(x, y, E, family=FAMILIES[name], **options)
        params = random_params(rng, name, E, gate_size=gate_size)
        before = em.e_step(problem, params)
        for _ in range(6):
            params = em.m_step(problem, params, before.resp)
            after = em.e_step(problem, params)
            slack = 1e-9 * max(1, abs(before.value))
            assert after.value >= before.value - slack, (seed, before.value, after.value)
            before = after


@pytest.mark.seconds
def test_fewer_cases_than_an_expert_has_slopes():
    """Least squares alone, each time the smallest solution, fell by up to 2e-5 of the likelihood in
    9 of the 30.
    """
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
        problem = em.prepare(x, y, 4, family=em.Gaussian("shared"))
        params = em.initial_params(problem, rng)
        history = []
        for _ in range(20):
            expectation = em.e_step(problem, params)
            history.append(expectation.value)
            params = em.m_step(problem, params, expectation.resp)
        assert (np.diff(history) > -1e-10 * np.abs(history[1:])).all(), seed


@each_family
def test_few_cases_double_rows_and_constant_columns(name):
    """Fewer cases than parameters, all of them twice, an input that never changes: everything stays
    finite.
    """
    x, y = random_data(name, 14, N=5)
    x = np.column_stack([x, np.full(5, 3.0)]).repeat(2, axis=0)
    y = y.repeat(2, axis=0)
    options = {"family": FAMILIES[name], "rng": np.random.default_rng(0), "restarts": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        fit = em.fit(x, y, 12, max_iter=25, **options)
    assert all(np.isfinite(v).all() for v in fit.params.values()) and np.isfinite(fit.history).all()
    np.testing.assert_allclose(fit.resp.sum(axis=1), 1)
    assert (np.diff(fit.history) > -1e-7).all()


# --- The gradient ---------------------------------------------------------------------------------


@each_family
def test_gradient_by_projection(name):
    """Of the log likelihood, against the formula with responsibilities (Fisher's identity)."""
    rng = np.random.default_rng(3)
    x, y = random_data(name, 3)
    gate_x = rng.normal(size=(len(x), 3))
    params = random_params(rng, name) | {"U": rng.normal(size=(3, 3))}
    if name == "full":  # then a step of the check leaves the matrix positive definite
        params["var"] = params["var"] + np.eye(2)
    family = FAMILIES[name]

    def log_likelihood(p):
        if name == "full":  # along symmetric directions
            p = {**p, "var": 0.5 * (p["var"] + p["var"].swapaxes(1, 2))}
        return em.gradient(p, x, y, family=family, gate_x=gate_x)[0]

    value, grads = em.gradient(params, x, y, family=family, gate_x=gate_x)
    assert value == pytest.approx(log_likelihood(params), rel=1e-12)
    errors = gradcheck.gradient_error(log_likelihood, params, grads, rng)
    assert max(errors.values()) < 1e-7, errors


@each_family
def test_gradient_is_zero_where_em_ends(name):
    x, y = random_data(name, 4)
    fit = fit_to_the_end(name, x, y, 2)
    assert fit.converged
    value, grads = em.gradient(fit.params, x, y, family=fit.family)
    assert value == pytest.approx(fit.log_likelihood)
    for key, g in grads.items():
        if key != "var" or name != "fixed":
            assert np.abs(g).max() < 2e-3, (key, g)


def test_a_gate_without_inputs_has_the_mean_responsibilities():
    x, y = random_data("shared", 5)
    fit = fit_to_the_end("shared", x, y, 2, gate_x=x[:, :0])
    np.testing.assert_allclose(fit.gate(x, x[:, :0])[0], fit.resp.mean(axis=0), atol=1e-5)


# --- Known solutions ------------------------------------------------------------------------------


def test_one_gaussian_expert_is_least_squares():
    x, y = random_data("full", 6)
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
    family = em.Gaussian("expert")
    spherical = em.fit(x, y, 1, family=family, rng=np.random.default_rng(0), restarts=1)
    assert spherical.params["var"][0] == pytest.approx(np.trace(cov) / 2)


def test_the_ridge_counts_as_further_cases():
    """Rows with 1 in one input, nothing else (no constant either) and y = 0: least squares of all
    of them.
    """
    x, y = random_data("shared", 7)
    X = np.vstack([np.column_stack([x, np.ones(len(x))]), np.sqrt(5.0) * np.eye(3)[:2]])
    coef = np.linalg.lstsq(X, np.vstack([y, np.zeros((2, 2))]), rcond=None)[0]
    fit = em.fit(x, y, 1, family=em.Gaussian("shared"), rng=np.random.default_rng(0), ridge=5.0)
    np.testing.assert_allclose(fit.params["W"][0], coef[:2], rtol=1e-9)
    unpenalised = fit_to_the_end("shared", x, y, 1)
    assert fit.history[-1] < fit.log_likelihood < unpenalised.log_likelihood


@each_family
def test_the_truth_is_recovered(name):
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
    if name != "labels":
        agreement = (fit.resp.argmax(axis=1) == expert).mean()
        assert agreement > 0.9 or agreement < 0.1  # the experts may be exchanged


@each_family
def test_order_of_experts_cases_and_origin_do_not_matter(name):
    rng = np.random.default_rng(9)
    x, y = random_data(name, 9)
    initial = random_params(rng, name)
    order = np.array([2, 0, 1])
    rows = rng.permutation(len(x))
    options = {"family": FAMILIES[name], "rng": None, "max_iter": 8, "tol": 0.0, "ridge": 0.1}
    exchanged = {
        k: v[..., order] if k in "Uc" else v[order] if np.ndim(v) else v for k, v in initial.items()
    }
    shifted = {
        **initial,
        "b": initial["b"] - 100 * initial["W"].sum(axis=1),
        "c": initial["c"] - 100 * initial["U"].sum(axis=0),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        fit = em.fit(x, y, 3, initial=initial, **options)
        of_experts = em.fit(x, y, 3, initial=exchanged, **options)
        of_cases = em.fit(x[rows], y[rows], 3, initial=initial, **options)
        of_origin = em.fit(x + 100, y, 3, initial=shifted, **options)
    np.testing.assert_allclose(of_experts.resp, fit.resp[:, order], atol=1e-8)
    np.testing.assert_allclose(of_cases.resp, fit.resp[rows], atol=1e-8)
    np.testing.assert_allclose(of_origin.resp, fit.resp, atol=1e-6)


# --- Restarts, convergence, collapse --------------------------------------------------------------


@pytest.mark.seconds
def test_restarts_keep_the_best_run_and_are_reproducible():
    x, y = random_data("expert", 10)
    problem = em.prepare(x, y, 4, family=em.Gaussian())
    rng = np.random.default_rng(1)
    runs = [em.run_em(problem, em.initial_params(problem, rng), 1e-6, 1000) for _ in range(6)]

    def fit_with(short):
        rng = np.random.default_rng(1)
        return em.fit(x, y, 4, family=em.Gaussian(), rng=rng, restarts=6, short=short)

    fit = fit_with(1000)
    repeated = fit_with(1000)
    best = max(runs, key=lambda run: em.rank(problem, run))
    assert fit.log_likelihood == best.log_likelihood > min(run.log_likelihood for run in runs)
    assert np.array_equal(fit.resp, repeated.resp)
    assert np.array_equal(fit.history, repeated.history)
    short = fit_with(5)
    assert short.converged and (np.diff(short.history) > -1e-9).all()


def test_an_interrupted_run_continues_as_if_it_had_not_been_interrupted():
    x, y = random_data("expert", 11)
    problem = em.prepare(x, y, 2, family=em.Gaussian())
    params = em.initial_params(problem, np.random.default_rng(2))
    whole = em.run_em(problem, params, 1e-6, 1000)
    continued = em.continue_em(problem, em.run_em(problem, params, 1e-6, 4), 1e-6, 1000)
    assert np.array_equal(whole.history, continued.history)
    assert np.array_equal(whole.resp, continued.resp)
    for run in (whole, em.run_em(problem, params, 1e-6, 4)):  # converged, or with all its steps
        assert em.continue_em(problem, run, 1e-6, 4) is run


def test_a_fit_that_is_stopped_warns():
    x, y = random_data("expert", 12)
    with pytest.warns(em.ConvergenceWarning, match="not converged after 3 steps") as caught:
        fit = em.fit(x, y, 3, family=em.Gaussian(), rng=np.random.default_rng(0), max_iter=3)
    assert not fit.converged and len(fit.history) == 4
    assert caught[0].filename == __file__, "the warning points to the caller"


def test_convergence_is_not_seen_where_the_rises_grow():
    assert not em.has_converged([0.0, 1.0], 1e9)
    assert not em.has_converged([0.0, 1e-9, 3e-9], 1.0)  # at the end of a plateau
    assert em.has_converged([0.0, 1.0, 1.5], 0.51)  # ½ + ¼ + ...: ½ is to come
    assert not em.has_converged([0.0, 1.0, 1.5], 0.49)
    assert em.has_converged([1.0, 2.0, 2.0], 0.0)


def test_the_extrapolated_rise_is_about_right():
    x, y = random_data("labels", 13, N=200)
    problem = em.prepare(x, y, 2, family=FAMILIES["labels"])
    initial = em.initial_params(problem, np.random.default_rng(0))
    end = fit_to_the_end("labels", x, y, 2, initial=initial)
    for tol in (1e-3, 1e-5):
        stopped = fit_to_the_end("labels", x, y, 2, initial=initial, tol=tol)
        rise = (end.log_likelihood - stopped.log_likelihood) / 200
        assert 0.1 * tol < rise < 10 * tol


@pytest.mark.parametrize("covariance", ["expert", "full"])
def test_floor_holds_and_a_collapsed_run_is_not_kept(covariance):
    """An expert on two cases, one of them twice: its likelihood is as large as its variance is
    small.
    """
    rng = np.random.default_rng(16)
    x = rng.uniform(-1, 1, (80, 1))
    y = np.abs(x) + 0.2 * rng.normal(size=(80, 1))
    x, y = np.vstack([x, x[:1]]), np.vstack([y, y[:1]])
    family = em.Gaussian(covariance, floor=1e-8)
    problem = em.prepare(x, y, 3, family=family)
    resp = np.full((81, 3), 0.25) * [1, 1, 0] + 0.25 * np.array([1, 1, 0])
    resp[[0, 1, 80]] = [0, 0, 1]
    collapsed = em.run_em(problem, em.m_step(problem, None, resp), 1e-6, 300)
    variances = np.reshape(collapsed.params["var"], (3, 1, 1))
    assert np.linalg.eigvalsh(variances).min() == pytest.approx(1e-8)
    assert not em.rank(problem, collapsed)[0]
    fit = em.fit(x, y, 3, family=family, rng=np.random.default_rng(0), restarts=6)
    assert em.rank(problem, fit)[0] and fit.params["var"].min() > 1e-4


# --- Input validation -----------------------------------------------------------------------------

ZERO_VARIANCE = {**random_params(np.random.default_rng(0), "expert", 2), "var": np.zeros(2)}
LABELS = {"family": em.Categorical(2), "y": np.arange(60)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((0, 2))}, "x: wanted at least one case"),
        ({"y": np.zeros(60)}, "y: wanted shape"),
        ({"y": np.zeros((3, 1))}, "y: wanted 60 cases"),
        ({"y": np.zeros((60, 0))}, "y: wanted at least one output, got shape (60, 0)"),
        ({"n_experts": 0}, "n_experts: wanted"),
        ({"family": "gaussian"}, "family: wanted Gaussian(...) or Categorical(...)"),
        ({"family": em.Gaussian("diagonal")}, "covariance: wanted one of"),
        ({"family": em.Gaussian(floor=-1.0)}, "floor: wanted a finite number above 0"),
        (LABELS, "y: wanted labels from 0 to 1, got 0 to 59"),
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
        ({"ridge": -1.0}, "ridge: wanted a finite number of at least 0, got -1.0"),
        ({"ridge": "much"}, "ridge: wanted a finite number of at least 0, got 'much'"),
        ({"tol": np.nan}, "tol: wanted a finite number of at least 0, got nan"),
        ({"short": 2.5, "restarts": 1}, "short: wanted a whole number"),
        ({"gate_x": np.zeros((4, 1))}, "gate_x: wanted shape (60, D)"),
        ({"restarts": 0}, "restarts: wanted"),
        ({"rng": None}, "rng: wanted a numpy.random.Generator"),
        ({"initial": ZERO_VARIANCE}, "initial['var']: wanted"),
        ({"initial": {"W": np.zeros(3)}}, "initial: wanted the keys W, b, U, c, var; got W"),
        ({"initial": 3}, "initial: wanted the keys W, b, U, c, var; got 3"),
    ],
)
def test_bad_input_is_named(change, message):
    x, y = random_data("expert")
    defaults = {"family": em.Gaussian(), "rng": np.random.default_rng(0)}
    args = {"x": x, "y": y, "n_experts": 2, **defaults, **change}
    with pytest.raises(InputError, match=re.escape(message)):
        em.fit(**args)


def test_the_gradient_names_bad_parameters():
    x, y = random_data("expert")
    params = random_params(np.random.default_rng(0), "expert", 2)
    for bad_params, message in (
        (None, "params: wanted the keys W, b, U, c, var; got None"),
        ({"W": 3}, "params: wanted the keys W, b, U, c, var; got W"),
        ({**params, "c": None}, "params['W']: wanted shape"),
        ({**params, "var": np.zeros(2)}, "params['var']: wanted variances above 0"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            em.gradient(bad_params, x, y, family=em.Gaussian())


def test_a_masked_case_is_refused():
    """The mask was lost and the hidden outlier used: log likelihood −1040 in place of 142."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 1))
    y = np.ma.array(x.copy())
    y[3] = np.ma.masked
    with pytest.raises(InputError, match="y: wanted an array without masked entries, got 1 of 20"):
        em.fit(x, y, 2, family=em.Gaussian(), rng=rng)
    with pytest.raises(InputError, match="x: wanted an array without masked entries, got 1 of 20"):
        em.fit(y, x, 2, family=em.Gaussian(), rng=rng)


def test_numbers_whose_squares_overflow_are_named():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 1))
    for name, arguments in (("x", (x * 1e200, x)), ("y", (x, x * 1e200))):
        with pytest.raises(InputError, match=rf"^{name}: wanted numbers of at most 1e\+150, got"):
            em.fit(*arguments, 2, family=em.Gaussian(), rng=rng)
    fit = em.fit(x, x + rng.normal(size=(20, 1)), 2, family=em.Gaussian(), rng=rng, restarts=2)
    with pytest.raises(InputError, match=r"^y: wanted numbers of at most 1e\+150"):
        fit.responsibilities(x[:1], [[1e200]])
    assert np.isfinite(fit.responsibilities(x[:1], [[1e12]])).all()


def test_standardised_columns():
    x = np.array([[1.0, 7.1, 0], [3, 7.1, 0], [5, 7.1, 0], [7, 7.1, 0]])
    z = em.standardise(x)
    np.testing.assert_allclose(z[:, 0], np.array([-3, -1, 1, 3]) / np.sqrt(5), rtol=1e-14)
    assert (z[:, 1:] == 0).all()
    deviation = np.array([3e-12, 1.4e-12, 0.7e-12])  # the last is taken for rounding
    z = em.standardise(1 + deviation * np.array([[-1.0], [1.0]]))
    np.testing.assert_allclose(z, [[-1, -1, 0], [1, 1, 0]], rtol=1e-3)


def test_x_y_and_the_inputs_of_the_gate_count_alike_however_many_columns_they_have():
    rng = np.random.default_rng(0)
    x, y, gate_x = rng.normal(size=(40, 3)) * [1, 10, 100], rng.normal(size=(40, 2)), rng.random(40)
    problem = em.prepare(x, y, 2, family=em.Gaussian(), gate_x=gate_x[:, None])
    parts = np.split(em.coordinates(problem), [3, 5], axis=1)
    for part, width in zip(parts, (3, 2, 1), strict=True):
        np.testing.assert_allclose(part.mean(axis=0), 0, atol=1e-14)
        np.testing.assert_allclose(part.var(axis=0), 1 / width)


def test_runs_are_ranked_by_their_last_objective():
    x, y = random_data("labels", 4)
    problem = em.prepare(x, y, 2, family=em.Categorical(3))
    fit = em.Fit(
        random_params(np.random.default_rng(0), "labels"),
        0.0,
        [1.0, 3, 2],
        None,
        True,
        problem.family,
    )
    assert em.rank(problem, fit) == (True, 2.0)
    x, y = random_data("expert", 4)
    problem = em.prepare(x, y, 2, family=em.Gaussian("expert"))
    params = {**random_params(np.random.default_rng(0), "expert"), "var": np.array([1.0, 1.0])}
    fit = em.Fit(params, 0.0, [1.0, 3, 2], np.full((60, 2), 0.5), True, problem.family)
    assert em.rank(problem, fit) == (True, 2.0)
    collapsed = {**params, "var": np.array([1.0, 1.009 * problem.family.floor])}
    cases = len(params["W"][0]) + 1 + y.shape[1]  # as many as an expert can fit exactly
    for few, kept in ((cases, False), (cases + 1, True)):
        resp = np.zeros((60, 2))
        resp[:, 0] = 1
        resp[:few] = [0, 1]
        run = fit._replace(params=collapsed, resp=resp)
        assert em.rank(problem, run) == (kept, 2.0)
    resp = np.zeros((60, 2))
    resp[0] = [50, cases + 0.01]  # the bound belongs to the few
    assert em.rank(problem, run._replace(resp=resp)) == (False, 2.0)
    run = run._replace(params={**params, "var": np.array([1.0, 1.02 * problem.family.floor])})
    assert em.rank(problem, run._replace(resp=resp[::-1])) == (True, 2.0)


@pytest.mark.parametrize(("restarts", "wanted"), [(1, 1), (3, 1), (7, 3), (8, 3), (10, 4)])
def test_the_best_third_of_the_restarts_is_continued(restarts, wanted):
    x, y = random_data("expert", 4)
    problem = em.prepare(x, y, 2, family=em.Gaussian("expert"))
    rng = np.random.default_rng(0)
    runs = em.run_restarts(problem, rng, restarts, 1, 1e-9, 3)
    assert len(runs) == wanted and all(len(run.history) == 4 for run in runs)


def test_the_settings_of_a_fit_unless_given():
    """Numbers that have been published with them depend on each."""
    runs = {"restarts": 20, "short": 50, "tol": 1e-6, "max_iter": 1000}
    assert defaults(em.fit) == {**runs, "ridge": 0.0, "irls_steps": 1}


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_case_that_is_infinitely_far_from_every_expert_is_named():
    x, y = random_data("expert", 4)
    problem = em.prepare(x, y, 2, family=em.Gaussian("expert"))
    params = random_params(np.random.default_rng(0), "expert")
    params = {**params, "W": 1e50 * params["W"], "var": np.full(len(params["c"]), 1e-300)}
    with pytest.raises(InputError, match="y: wanted cases with a density above 0"):
        em.e_step(problem, params)
