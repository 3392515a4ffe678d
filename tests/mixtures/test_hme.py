"""Hierarchical mixtures: the likelihood worked out path by path, posteriors, the gradient, and the
mixtures that trees are equal to.
"""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error, pair_error
from moe_np.base.numerics import logsumexp, softmax
from moe_np.mixtures import hme, jacobs1991
from tests.support.mixtures import TREES, C, N, each_covariance, random_tree


def likelihood_by_paths(params, x, y):
    """Case by case and path by path, from the definition."""
    tree = hme.branching(params)
    likelihood = np.zeros(len(x))
    for n, path in itertools.product(range(len(x)), itertools.product(*map(range, tree))):
        node, p = 0, 1.0
        for level, branch in enumerate(path, start=1):
            p *= softmax(x[n] @ params[f"U{level}"][:, node] + params[f"c{level}"][node])[branch]
            node = node * tree[level - 1] + branch
        likelihood[n] += p * density_at_leaf(params, node, x[n], y[n])
    return likelihood


def density_at_leaf(params, leaf, x, y):
    mu = x @ params["W"][leaf] + params["b"][leaf]
    if "var" not in params:
        return softmax(mu)[y]
    var = params["var"] if params["var"].ndim == 0 else params["var"][leaf]
    cov = var if var.ndim else var * np.eye(len(mu))
    distance = (y - mu) @ np.linalg.solve(cov, y - mu)
    return np.exp(-0.5 * distance) / np.sqrt(np.linalg.det(2 * np.pi * cov))


@pytest.mark.parametrize("tree", TREES)
@each_covariance
def test_the_likelihood_is_the_sum_over_paths(tree, covariance):
    params, x, y = random_tree(tree, covariance)
    loss, cache = hme.forward(params, x, y)
    np.testing.assert_allclose(np.exp(-loss), likelihood_by_paths(params, x, y), rtol=1e-10)
    np.testing.assert_allclose(cache.post.resp.sum(axis=1), 1)
    assert hme.log_likelihood(params, x, y) == pytest.approx(-loss.sum())


@pytest.mark.parametrize("tree", TREES)
@each_covariance
def test_gradient(tree, covariance):
    params, x, y = random_tree(tree, covariance, seed=3)

    def forward(params, x):
        return hme.forward(params, x, y)

    errors = pair_error(forward, hme.backward, params, x, np.random.default_rng(1), step=3e-4)
    assert max(errors.values()) < 1e-6, errors


@each_covariance
def test_gradient_of_the_density(covariance):
    params, x, y = random_tree((2, 2), covariance, seed=4)
    rng = np.random.default_rng(2)
    linear = hme.linear_outputs(params, x)
    dlog_p = rng.normal(size=linear.shape[:2])
    mu = hme.outputs(params, linear)
    dlinear, grads = hme.log_density_backward(dlog_p, params, mu, y)

    def value(p):
        arrays = {**params, **({"var": p["var"]} if covariance else {})}
        return (hme.log_density(arrays, p["linear"], y) * dlog_p).sum()

    inputs = {"linear": linear, **({"var": params["var"]} if covariance else {})}
    errors = gradient_error(value, inputs, {"linear": dlinear, **grads}, rng, step=3e-4)
    assert max(errors.values()) < 1e-7, errors


def test_posteriors_are_those_of_the_paper():
    """Two levels, every formula as it stands in section 3 of the paper."""
    params, x, y = random_tree((2, 3))
    _, cache = hme.forward(params, x, y)
    g_i = cache.g[0][:, 0]
    g_ji = cache.g[1]
    P = np.exp(cache.log_density).reshape(N, 2, 3)
    evidence = (g_ji * P).sum(axis=2)
    h_i = g_i * evidence / (g_i * evidence).sum(axis=1, keepdims=True)
    h_ji = g_ji * P / evidence[:, :, None]
    np.testing.assert_allclose(cache.post.h[0][:, 0], h_i)
    np.testing.assert_allclose(cache.post.h[1], h_ji)
    np.testing.assert_allclose(cache.post.resp.reshape(N, 2, 3), h_i[:, :, None] * h_ji)
    grads = hme.backward(np.ones(N), cache)[1]
    np.testing.assert_allclose(grads["U1"][:, 0], -x.T @ (h_i - g_i))
    np.testing.assert_allclose(grads["U2"][:, 1], -x.T @ (h_i[:, 1:] * (h_ji[:, 1] - g_ji[:, 1])))
    residual = y - cache.mu[:, 4]
    np.testing.assert_allclose(grads["W"][4], -x.T @ (cache.post.resp[:, 4:5] * residual))


@pytest.mark.parametrize("tree", TREES)
@each_covariance
def test_the_evidence_of_a_gate_is_the_likelihood_of_its_subtree(tree, covariance):
    params, x, y = random_tree(tree, covariance)
    subtrees = [params]
    _, cache = hme.forward(params, x, y)
    assert len(cache.post.evidence) == len(tree)
    for evidence, branches in zip(cache.post.evidence, tree, strict=True):
        losses = [hme.forward(subtree, x, y)[0] for subtree in subtrees]
        np.testing.assert_allclose(evidence, -np.transpose(losses), rtol=1e-10, atol=1e-12)
        subtrees = [hme.subtree(p, branch) for p in subtrees for branch in range(branches)]


@each_covariance
def test_a_mixture_as_an_expert_is_the_tree(covariance):
    """Gate over three mixtures, put together by hand from the mixtures' likelihoods and
    gradients.
    """
    params, x, y = random_tree((3, 2, 2), covariance)
    passes = [hme.forward(hme.subtree(params, branch), x, y) for branch in range(3)]
    log_g = hme.log_gates(params, x)[0][:, 0]
    log_joint = log_g - np.stack([loss for loss, _ in passes], axis=1)
    loss, cache = hme.forward(params, x, y)
    np.testing.assert_allclose(loss, -logsumexp(log_joint), rtol=1e-12)
    grads = hme.backward(np.ones(N), cache)[1]
    h_2 = softmax(log_joint)[:, 2]  # the weight with which mixture 2 learns
    wanted = hme.backward(h_2, passes[2][1])[1]
    got = hme.subtree({**params, **grads}, 2)
    for name in set(wanted) - ({"var"} if covariance == "shared" else set()):
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-10, atol=1e-12)


def test_depth_one_is_the_mixture_of_1991():
    """Eq. 3 with unit variance, but for the constant of the Gaussian."""
    params, x, y = random_tree((4,))
    mixture = {"W": params["W"], "b": params["b"], "U": params["U1"][:, 0], "c": params["c1"][0]}
    mixture_loss, mixture_cache = jacobs1991.system_forward(mixture, x, y, "mixture", "linear")
    loss, cache = hme.forward(params, x, y)
    np.testing.assert_allclose(loss, mixture_loss + C / 2 * np.log(2 * np.pi))
    mixture_dx, mixture_grads = jacobs1991.system_backward(np.ones(N), mixture_cache)
    dx, grads = hme.backward(np.ones(N), cache)
    np.testing.assert_allclose(dx, mixture_dx)
    for name, mixture_name in {"W": "W", "b": "b", "U1": "U", "c1": "c"}.items():
        wanted = mixture_grads[mixture_name]
        np.testing.assert_allclose(grads[name].reshape(wanted.shape), wanted)
    np.testing.assert_allclose(hme.predict(params, x), jacobs1991.predict(mixture, x, "linear"))


@each_covariance
def test_subtrees_can_be_exchanged(covariance):
    params, x, y = random_tree((3, 2), covariance)
    order = [2, 0, 1]
    U, c = params["U1"][:, 0, order], params["c1"][0, order]
    exchanged = hme.join(U, c, [hme.subtree(params, branch) for branch in order])
    loss = hme.forward(params, x, y)[0]
    np.testing.assert_allclose(hme.forward(exchanged, x, y)[0], loss, rtol=1e-12)
    np.testing.assert_allclose(hme.predict(exchanged, x), hme.predict(params, x), rtol=1e-12)


def test_a_branch_that_is_not_there():
    """c = −inf: the gate is 0, nothing reaches the expert, and the tree is as without it."""
    params, x, y = random_tree((2, 2))
    params["c2"][1, 1] = -np.inf
    loss, cache = hme.forward(params, x, y)
    assert (cache.post.resp[:, 3] == 0).all() and np.isfinite(loss).all()
    log_joint = hme.log_gates(params, x)[0][:, 0].copy()
    log_joint[:, 0] -= hme.forward(hme.subtree(params, 0), x, y)[0]
    log_joint[:, 1] += hme.log_density(params, cache.mu, y)[:, 2]
    np.testing.assert_allclose(loss, -logsumexp(log_joint), rtol=1e-12)
    grads = hme.backward(np.ones(N), cache)[1]
    assert (grads["W"][3] == 0).all() and (grads["U2"][:, 1] == 0).all()
    assert all(np.isfinite(g).all() for g in grads.values())
    hme.check(params, x, y)


@each_covariance
def test_extreme_outputs_stay_finite(covariance):
    params, x, y = random_tree((2, 2), covariance)
    for name in ("U1", "U2", "W"):
        params[name] = params[name] * 1e4
    loss, cache = hme.forward(params, x, y)
    assert np.isfinite(loss).all() and (cache.g[0] == 0).any()
    assert all(np.isfinite(g).all() for g in hme.backward(np.ones(N), cache)[1].values())


@pytest.mark.parametrize("covariance", ["shared", None])
def test_gradient_descent_raises_the_likelihood(covariance):
    params, x, y = random_tree((2, 2), covariance, N=60)
    iterations = list(itertools.islice(hme.train(params, x, y, lr=1e-3), 40))
    losses = [iteration.loss for iteration in iterations]
    assert [iteration.number for iteration in iterations] == list(range(40))
    assert all(b < a for a, b in itertools.pairwise(losses))
    if covariance:
        assert all(iteration.params["var"] == params["var"] for iteration in iterations)
        _, second = itertools.islice(hme.train(params, x, y, lr=1e-4, hold=()), 2)
        assert second.params["var"] != params["var"]


def test_bad_arguments_are_named():
    params, x, y = random_tree((2, 2))
    with pytest.raises(InputError, match="y: wanted shape"):
        hme.log_likelihood(params, x, y[:5])
    with pytest.raises(InputError, match="x: wanted shape"):
        hme.predict(params, x[:, :1])
    with pytest.raises(InputError, match="lr: wanted a finite number above 0, got None"):
        next(hme.train(params, x, y, lr=None))
