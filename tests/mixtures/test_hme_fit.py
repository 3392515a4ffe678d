"""EM for a tree from several initialisations: the search, the result, weights of the cases."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.data.piecewise import piecewise
from moe_np.mixtures import em, hme, hme_em, hme_fit
from tests.support.mixtures import FAMILIES, each_family, random_data, random_tree
from tests.support.signatures import defaults

OPTIONS = {"restarts": 3, "ridge": 0.01}


def fitted(name, tree=(2, 2), seed=0, **options):
    x, y = random_data(name)
    options = {"family": FAMILIES[name], **OPTIONS, **options}
    return hme_fit.fit(x, y, tree, rng=np.random.default_rng(seed), **options), x, y


@each_family
def test_the_objective_never_falls_and_is_that_of_the_parameters(name):
    fit, x, y = fitted(name, restarts=1)
    assert fit.converged
    assert (np.diff(fit.history) >= -1e-9 * np.abs(fit.history[:-1])).all()
    assert fit.log_likelihood == pytest.approx(hme.log_likelihood(fit.params, x, y))
    assert fit.log_likelihood == pytest.approx(fit.log_density(x, y).sum())
    np.testing.assert_array_equal(fit.resp, fit.responsibilities(x, y))


@each_family
def test_one_level_is_the_mixture_with_one_gate(name):
    x, y = random_data(name)
    options = {"family": FAMILIES[name], "ridge": 0.01, "rng": None}
    mixture = em.fit(x, y, 3, **options | {"rng": np.random.default_rng(0)}, restarts=1, tol=1e-9)
    tree = {key: mixture.params[key] for key in mixture.params if key not in "Uc"}
    tree |= {"U1": mixture.params["U"][:, None], "c1": mixture.params["c"][None]}
    fit = hme_fit.fit(x, y, (3,), initial=tree, **options)
    assert fit.history[0] == pytest.approx(mixture.history[-1])
    assert fit.n_parameters() == mixture.n_parameters()
    np.testing.assert_allclose(fit.gate(x), mixture.gate(x), atol=1e-3)


@each_family
def test_a_weight_repeats_a_case(name):
    x, y = random_data(name)
    weight = np.random.default_rng(5).integers(0, 4, len(x))
    initial = hme_fit.initial_params(
        em.prepare(x, y, 4, family=FAMILIES[name]), (2, 2), np.random.default_rng(1)
    )
    options = {"family": FAMILIES[name], "rng": None, "initial": initial, "ridge": 0.1}
    fit = hme_fit.fit(x, y, (2, 2), weight=weight, **options)
    rows = np.repeat(np.arange(len(x)), weight)
    same = hme_fit.fit(x[rows], y[rows], (2, 2), **options)
    np.testing.assert_allclose(fit.history, same.history, rtol=1e-8)
    assert fit.bic() == pytest.approx(same.bic())


@pytest.mark.parametrize("gates", hme_em.GATES)
def test_weights_in_a_run_without_restarts(gates):
    params, x, y = random_tree((2, 2), "expert", N=30)
    weight = np.random.default_rng(0).integers(0, 3, 30)
    rows = np.repeat(np.arange(30), weight)
    steps = hme_em.train(params, x, y, gates=gates, ridge=1.0, weight=weight)
    same = hme_em.train(params, x[rows], y[rows], gates=gates, ridge=1.0)
    for _ in range(4):
        assert next(steps).loss == pytest.approx(next(same).loss)


def test_a_short_run_goes_on_as_if_it_had_not_been_interrupted():
    x, y = random_data("expert")
    problem = em.prepare(x, y, 4, family=FAMILIES["expert"])
    params = hme_fit.initial_params(problem, (2, 2), np.random.default_rng(1))
    whole = hme_fit.advance(problem, hme_fit.begin(problem, x, params), 1e-6, 100).fit
    short = hme_fit.advance(problem, hme_fit.begin(problem, x, params), 1e-6, 7)
    assert len(short.fit.history) == 8 and not short.fit.converged
    continued = hme_fit.advance(problem, short, 1e-6, 100).fit
    np.testing.assert_array_equal(continued.history, whole.history)


def test_the_third_that_is_best_after_a_short_run_goes_on():
    x, y = random_data("expert")
    settings = {"family": FAMILIES["expert"], "ridge": 0.01, "tol": 1e-3}
    problem = em.prepare(x, y, 4, family=FAMILIES["expert"], ridge=0.01)
    rng = np.random.default_rng(2)
    starts = [hme_fit.initial_params(problem, (2, 2), rng) for _ in range(6)]

    def run(params, **options):
        return hme_fit.fit(x, y, (2, 2), rng=None, initial=params, **settings, **options)

    with pytest.warns(em.ConvergenceWarning):
        short = [run(params, max_iter=3).history[-1] for params in starts]
    ends = np.array([run(params).history[-1] for params in starts])
    first, second = np.argsort(short)[::-1][:2]
    assert max(first, second) > 1 and ends[:2].max() < max(ends[first], ends[second]) < ends.max()
    options = {**settings, "restarts": 6, "short": 3}
    fit = hme_fit.fit(x, y, (2, 2), rng=np.random.default_rng(2), **options)
    assert fit.history[-1] == max(ends[first], ends[second])


def test_leaves_below_one_gate_begin_as_neighbours():
    z = np.linspace(0, 1, 40)[:, None]
    for seed in range(5):
        leaf = hme_fit.partition_by_tree(z, (2, 2), np.random.default_rng(seed))
        assert (np.diff(leaf // 2) != 0).sum() == 1  # the top gate cuts the line at one place
        assert (np.diff(leaf) != 0).sum() == 3 and len(set(leaf)) == 4


def test_the_pieces_are_found_by_a_tree():
    cases = piecewise(np.random.default_rng(0), 200)
    options = {"family": em.Gaussian("shared"), "restarts": 6}
    fit = hme_fit.fit(cases.x, cases.y, (2, 2), rng=np.random.default_rng(0), **options)
    assert np.sqrt(fit.params["var"]) == pytest.approx(0.1, rel=0.15)
    leaf = fit.resp.argmax(axis=1)
    for piece in range(4):
        assert np.bincount(leaf[cases.piece == piece]).max() > 0.85 * (cases.piece == piece).sum()


@pytest.mark.seconds
@each_family
def test_samples_have_the_distribution_of_the_fit(name):
    fit, x, _ = fitted(name, restarts=1)
    rows = np.repeat(x[:3], 4000, axis=0)
    y, leaf = fit.sample(rows, np.random.default_rng(0))
    share = np.stack([np.bincount(part, minlength=4) / 4000 for part in leaf.reshape(3, -1)])
    np.testing.assert_allclose(share, fit.gate(x[:3]), atol=0.03)
    if name == "labels":
        share = np.stack([np.bincount(part, minlength=3) / 4000 for part in y.reshape(3, -1)])
        np.testing.assert_allclose(share, hme.predict(fit.params, x[:3]), atol=0.03)
        assert (fit.predict(x) == hme.predict(fit.params, x).argmax(axis=1)).all()
    else:
        means = y.reshape(3, 4000, -1).mean(axis=1)
        np.testing.assert_allclose(means, fit.predict(x[:3]), atol=0.1)


def test_counts_and_criteria():
    fit, _, _ = fitted("expert", tree=(3, 2))
    assert fit.n_parameters() == 3 * (2 + 3 * 1) + 6 * 3 * 2 + 6
    assert fit.aic() == -2 * fit.log_likelihood + 2 * fit.n_parameters()
    assert fit.bic() == pytest.approx(fit.aic() + (np.log(60) - 2) * fit.n_parameters())


def test_what_is_stopped_gives_a_warning():
    with pytest.warns(em.ConvergenceWarning, match="not converged after 2 steps"):
        fit, _, _ = fitted("expert", max_iter=2)
    assert len(fit.history) == 3


BAD = (
    ({"tree": ()}, r"tree: wanted numbers of branches, one per level, such as \(2, 2\); got \(\)"),
    ({"tree": (2, 0)}, r"tree\[1\]: wanted a whole number of at least 1, got 0"),
    ({"family": em.Gaussian(floor=0.1)}, "family: wanted floor None for a tree, got 0.1"),
    ({"restarts": 0}, "restarts: wanted a whole number of at least 1"),
    ({"tol": -1.0}, "tol: wanted a finite number of at least 0"),
    ({"initial": {"c1": 0}}, "initial: wanted the keys c1, c2; got c1"),
    ({"weight": np.zeros(60)}, "weight: wanted at least one number above 0"),
)


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_arguments(bad, message):
    with pytest.raises(InputError, match=message):
        fitted("expert", **bad)


def test_an_initial_tree_has_the_shape_that_is_wanted():
    fit, _, _ = fitted("expert", tree=(2, 3))
    with pytest.raises(InputError, match=r"initial: wanted the tree \(3, 2\)"):
        fitted("expert", tree=(3, 2), initial=fit.params)


def test_the_settings_of_a_fit_unless_given():
    """Numbers that have been published with them depend on each."""
    runs = {"restarts": 20, "short": 50, "tol": 1e-6, "max_iter": 1000}
    assert defaults(hme_fit.fit) == {**runs, "ridge": 0.0, "irls_steps": 1}


def test_a_case_that_is_infinitely_far_from_every_expert_is_named():
    x, y = random_data("expert")
    problem = hme_fit.prepare(x, y, 4, family=FAMILIES["expert"], ridge=0.0, irls_steps=1)
    params, _, _ = random_tree((2, 2), "expert")
    iteration = hme.Iteration(0, np.inf, params, None)
    with pytest.raises(InputError, match="y: wanted cases with a density above 0"):
        hme_fit.fit_of(problem, iteration, np.zeros(0))
