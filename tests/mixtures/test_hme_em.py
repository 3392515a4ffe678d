"""EM for trees: a mixture with one gate as the limit, a likelihood that never falls, both
algorithms, and trees with branches that are not there.
"""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.mixtures import em, hme, hme_em
from moe_np.mixtures.least_squares import make_design
from tests.support.mixtures import BAD_EM_OPTIONS, COVARIANCES, C, each_covariance, random_tree

FAMILY = {
    "shared": em.Gaussian("shared"),
    "expert": em.Gaussian("expert"),
    "full": em.Gaussian("full"),
    None: em.Categorical(2),
}
TREES = [(2,), (3,), (2, 2), (3, 2), (2, 3), (2, 2, 2)]


def iterations(params, x, y, n, **options):
    """The initial parameters and n iterations of EM."""
    return list(itertools.islice(hme_em.train(params, x, y, **options), n + 1))


@each_covariance
@pytest.mark.parametrize("irls_steps", [1, 25])
def test_a_tree_of_depth_one_is_em(covariance, irls_steps):
    """The same initial parameters, the same steps: log likelihoods and parameters to rounding."""
    params, x, y = random_tree((4,), covariance, N=80)
    mixture = {"W": params["W"], "b": params["b"], "U": params["U1"][:, 0], "c": params["c1"][0]}
    if covariance:
        mixture["var"] = params["var"]
    problem = em.prepare(x, y, 4, family=FAMILY[covariance], irls_steps=irls_steps)
    for iteration in iterations(params, x, y, 8, irls_steps=irls_steps):
        expectation = em.e_step(problem, mixture)
        assert -iteration.loss == pytest.approx(expectation.log_likelihood, rel=1e-9)
        np.testing.assert_allclose(iteration.cache.post.resp, expectation.resp, atol=1e-7)
        np.testing.assert_allclose(iteration.params["W"], mixture["W"], rtol=1e-6, atol=1e-7)
        mixture = em.m_step(problem, mixture, expectation.resp)


def check_that_em_never_falls(covariance, seeds):
    for seed in seeds:
        tree = TREES[seed % len(TREES)]
        params, x, y = random_tree(tree, covariance, seed=seed, N=(12, 60)[seed % 2])
        for level in range(1, len(tree) + 1):
            params[f"U{level}"] = params[f"U{level}"] * (0.1, 1, 30)[seed % 3]
        losses = [it.loss for it in iterations(params, x, y, 12, irls_steps=1 + seed % 2)]
        slack = 1e-9 * (1 + abs(losses[0]))
        assert all(b <= a + slack for a, b in itertools.pairwise(losses)), (seed, losses)
        assert losses[-1] < losses[0]


@each_covariance
def test_em_never_falls(covariance):
    """Random problems, from small and from large gates, with few cases and with many experts."""
    check_that_em_never_falls(covariance, range(18))


@pytest.mark.slow
@each_covariance
def test_em_never_falls_on_hundreds_of_problems(covariance):
    check_that_em_never_falls(covariance, range(18, 118))


def test_least_squares_gates_may_fall():
    """Algorithm 2 raises the likelihood on the whole, but some of its steps lower it, and none of
    Algorithm 1's.
    """
    falls = dict.fromkeys(hme_em.GATES, 0)
    for seed in range(6):
        params, x, y = random_tree((2, 2), "shared", seed=seed, N=60)
        for gates in hme_em.GATES:
            losses = [it.loss for it in iterations(params, x, y, 20, gates=gates)]
            falls[gates] += sum(b > a + 1e-7 for a, b in itertools.pairwise(losses))
            assert losses[-1] < losses[0]
    assert falls["irls"] == 0 < falls["least squares"]


@pytest.mark.parametrize("branches", [2, 3])
def test_least_squares_gates_are_the_solution_of_lstsq(branches):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    h = rng.dirichlet(np.ones(branches), (50, 2))
    weight = rng.uniform(0.1, 1, (50, 2))
    coef = hme_em.least_squares_gates(make_design(x), h, weight, clip=100.0)
    inputs = np.column_stack([x, np.ones(50)])
    for p in range(2):
        root = np.sqrt(weight[:, p : p + 1])
        wanted = np.linalg.lstsq(root * inputs, root * np.log(h[:, p]), rcond=None)[0]
        wanted = wanted - wanted.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(coef[p], wanted, atol=1e-10)
    if branches == 2:  # the gate of a binary split is the regression of the log ratio
        log_ratio = np.log(h[:, 1, :1] / h[:, 1, 1:])
        wanted = np.linalg.lstsq(root * inputs, root * log_ratio, rcond=None)[0]
        np.testing.assert_allclose(coef[1, :, 0] - coef[1, :, 1], wanted[:, 0], atol=1e-10)


def test_a_log_ratio_is_clipped():
    ratio = hme_em.log_ratio(np.array([[1.0, 0.0], [0.5, 0.5], [0.9, 0.1]]), 10.0)
    np.testing.assert_allclose(ratio[:, 0] - ratio[:, 1], [10, 0, np.log(9)])


@pytest.mark.parametrize("gates", hme_em.GATES)
def test_subtrees_can_be_exchanged_in_training(gates):
    params, x, y = random_tree((3, 2), N=60)
    order = [2, 0, 1]
    U, c = params["U1"][:, 0, order], params["c1"][0, order]
    exchanged = hme.join(U, c, [hme.subtree(params, branch) for branch in order])
    a = iterations(params, x, y, 5, gates=gates)[-1]
    b = iterations(exchanged, x, y, 5, gates=gates)[-1]
    assert b.loss == pytest.approx(a.loss, rel=1e-8)
    predicted = hme.predict(a.params, x)
    np.testing.assert_allclose(hme.predict(b.params, x), predicted, rtol=1e-6, atol=1e-8)


@each_covariance
def test_a_subtree_below_a_saturated_gate_learns_as_if_it_were_the_whole_tree(covariance):
    """The top gate gives all cases to branch 0: the mixture there is an expert like any other."""
    params, x, y = random_tree((2, 3), covariance, N=60)
    if covariance == "shared":
        params["var"] = np.array(0.8)
    params["U1"] = 1e-3 * params["U1"]
    params["c1"] = np.array([[400.0, -400.0]])
    of_subtree = iterations(hme.subtree(params, 0), x, y, 4)
    of_tree = iterations(params, x, y, 4, hold=("U1", "c1"))
    for a, b in zip(of_subtree, of_tree, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-9)


def test_held_parameters_stay():
    params, x, y = random_tree((2, 2), N=40)
    last = iterations(params, x, y, 3, hold=("var", "U1"))[-1].params
    assert last["var"] == params["var"] and last["U1"] is params["U1"]
    assert (last["W"] != params["W"]).all()
    message = "hold: wanted one of U1, c1, U2, c2, W, b, var; got 'variance'"
    with pytest.raises(InputError, match=message):
        iterations(params, x, y, 1, hold=("variance",))


def test_a_fixed_point_has_no_gradient():
    """Where EM stands still, the gradient of the likelihood is 0, the variance's too."""
    rng = np.random.default_rng(0)
    params, x, _ = random_tree((2, 2), "shared", N=300)
    params = {**params, "W": 4 * params["W"]}
    weight = np.exp(hme.leaf_log_probs(hme.log_gates(params, x)))
    leaf = (weight.cumsum(axis=1) < rng.random((300, 1))).sum(axis=1)
    mean = hme.linear_outputs(params, x)[np.arange(300), leaf]
    y = mean + 0.2 * rng.normal(size=(300, C))
    last = iterations(params, x, y, 250)[-1]
    grads = hme.backward(np.ones(len(x)), last.cache)[1]
    sizes = {name: abs(g).max() for name, g in grads.items()}
    assert max(sizes.values()) < 5e-3, sizes


def test_inputs_are_checked():
    params, x, y = random_tree((2, 2))
    for option, words in BAD_EM_OPTIONS:
        with pytest.raises(InputError, match=words):
            iterations(params, x, y, 1, **option)


def test_lists_and_float32_are_inputs_too():
    params, x, y = random_tree((2, 2))
    wanted = [it.loss for it in iterations(params, x, y, 2)]
    assert [it.loss for it in iterations(params, x.tolist(), y.tolist(), 2)] == wanted
    rough = iterations(params, x.astype(np.float32), y.astype(np.float32), 2)
    np.testing.assert_allclose([it.loss for it in rough], wanted, rtol=1e-4)


@pytest.mark.parametrize("gates", hme_em.GATES)
@pytest.mark.parametrize("covariance", ["shared", None])
def test_branches_that_are_not_there(gates, covariance):
    """(2, 3) without the last branches learns as (2, 2); an uneven tree keeps its shape and, by
    IRLS, never falls.
    """
    params, x, y = random_tree((2, 3), covariance, N=60)
    params["c2"][:, 2] = -np.inf
    leaves = [0, 1, 3, 4]
    small = {**params, "U2": params["U2"][:, :, :2], "c2": params["c2"][:, :2]}
    small |= {"W": params["W"][leaves], "b": params["b"][leaves]}
    of_tree = iterations(params, x, y, 4, gates=gates)
    of_small = iterations(small, x, y, 4, gates=gates)
    for a, b in zip(of_tree, of_small, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-9)
    params["c2"][0] = [0.3, -np.inf, -np.inf]
    of_uneven = iterations(params, x, y, 15, gates=gates)
    absent = [[False, True, True], [False, False, True]]
    assert np.isneginf(of_uneven[-1].params["c2"]).tolist() == absent
    resp = of_uneven[-1].cache.post.resp
    assert (resp[:, [1, 2, 5]] == 0).all() and (resp[:, [0, 3, 4]] > 0).any(0).all()
    if gates == "irls":
        losses = [it.loss for it in of_uneven]
        assert all(b <= a + 1e-9 * abs(a) for a, b in itertools.pairwise(losses))


@pytest.mark.parametrize("gates", hme_em.GATES)
def test_a_gate_with_all_branches_beside_one_with_fewer(gates):
    """It learns as if it were beside a gate that has nothing to decide."""
    params, x, y = random_tree((2, 3), N=60)
    params["c2"][1, 2] = -np.inf
    _, cache = hme.forward(params, x, y)
    design = make_design(x)
    mixed = hme_em.fit_gates(params, design, cache.post, 2, gates=gates)
    alone = {**params, "c2": np.array([params["c2"][0], [0, -np.inf, -np.inf]])}
    alone = hme_em.fit_gates(alone, design, cache.post, 2, gates=gates)
    np.testing.assert_allclose(mixed["U2"][:, 0], alone["U2"][:, 0], rtol=1e-9)
    np.testing.assert_allclose(mixed["c2"][0], alone["c2"][0], rtol=1e-9)
    assert np.isneginf(mixed["c2"]).tolist() == [[False] * 3, [False, False, True]]
    assert np.isfinite(mixed["U2"]).all() and not np.allclose(mixed["U2"], alone["U2"])


def test_the_family_of_the_parameters():
    for covariance in COVARIANCES:
        params, _, y = random_tree((2, 2), covariance)
        family, _ = hme_em.family_of(params, y)
        assert type(family) is type(FAMILY[covariance])
        if covariance:
            assert family.covariance == covariance
            assert hme_em.family_of(params, y, ("var",))[0].covariance == "fixed"


def test_the_settings_of_an_m_step_unless_given():
    params, x, y = random_tree((2, 2), N=40)
    _, cache = hme.forward(params, x, y)
    design = make_design(x)
    family, _ = hme_em.family_of(params, y)
    usual = {"gates": "irls", "ridge": 0.0, "irls_steps": 1, "clip": 10.0}
    steps = [
        hme_em.m_step(params, design, y, cache.post, family=family, **options)
        for options in ({}, {**usual, "hold": ()})
    ]
    assert all(np.array_equal(steps[0][name], steps[1][name]) for name in params)
    for level in (1, 2):
        gates = hme_em.fit_gates(params, design, cache.post, level)
        given = hme_em.fit_gates(params, design, cache.post, level, **usual)
        for name in gates:
            assert np.array_equal(gates[name], given[name])
            assert np.array_equal(gates[name], steps[0][name])
    h, weight = cache.post.h[0], np.ones((40, 1))
    coef = hme_em.least_squares_gates(design, h, weight)
    given = hme_em.least_squares_gates(design, h, weight, ridge=0.0, clip=10.0)
    assert np.array_equal(coef, given)
