"""Trees of experts: probabilities and posteriors worked another way, the gradient, and what a tree
is equal to.
"""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import pair_error
from moe_np.base.numerics import logsumexp, softmax
from moe_np.mixtures import hme, jacobs1991

N, D, C = 11, 3, 2
TREES = [(2,), (5,), (2, 2), (3, 2), (2, 3, 2), (2, 2, 2, 2), (1, 3), (3, 1)]
FAMILIES = ["shared", "expert", "full", None]


def problem(tree, like="shared", seed=0, N=N, D=D, C=C):
    """Parameters none of which is zero, inputs, and outputs or labels."""
    rng = np.random.default_rng(seed)
    params = hme.init(rng, tree, D, C, spread=1.0, like=like)
    if like == "expert":
        params["var"] = rng.uniform(0.3, 2, params["var"].shape)
    if like == "full":
        root = rng.normal(size=params["var"].shape)
        params["var"] = root @ root.transpose(0, 2, 1) + 0.5 * np.eye(C)
    y = rng.normal(size=(N, C)) if like else rng.integers(C, size=N)
    return params, rng.normal(size=(N, D)), y


def slow_likelihood(params, x, y):
    """Case by case and path by path, from the definition."""
    tree, out = hme.branching(params), np.zeros(len(x))
    for n, path in itertools.product(range(len(x)), itertools.product(*map(range, tree))):
        node, p = 0, 1.0
        for level, branch in enumerate(path, start=1):
            p *= softmax(x[n] @ params[f"U{level}"][:, node] + params[f"c{level}"][node])[branch]
            node = node * tree[level - 1] + branch
        mu = x[n] @ params["W"][node] + params["b"][node]
        if "var" not in params:
            p *= softmax(mu)[y[n]]
        else:
            var = params["var"] if params["var"].ndim == 0 else params["var"][node]
            S = var if var.ndim else var * np.eye(len(mu))
            r = y[n] - mu
            p *= np.exp(-0.5 * r @ np.linalg.solve(S, r)) / np.sqrt(np.linalg.det(2 * np.pi * S))
        out[n] += p
    return out


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("like", FAMILIES)
def test_the_likelihood_is_the_sum_over_paths(tree, like):
    params, x, y = problem(tree, like)
    loss, cache = hme.forward(params, x, y)
    np.testing.assert_allclose(np.exp(-loss), slow_likelihood(params, x, y), rtol=1e-10)
    np.testing.assert_allclose(cache.post.resp.sum(axis=1), 1)
    assert hme.log_likelihood(params, x, y) == pytest.approx(-loss.sum())


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("like", FAMILIES)
def test_gradient(tree, like):
    params, x, y = problem(tree, like, seed=3)
    forward = lambda p, x: hme.forward(p, x, y)  # noqa: E731
    errors = pair_error(forward, hme.backward, params, x, np.random.default_rng(1), step=3e-4)
    assert max(errors.values()) < 1e-6, errors


def test_posteriors_are_those_of_section_2():
    """Two levels, every formula as it stands in the paper."""
    params, x, y = problem((2, 3))
    _, cache = hme.forward(params, x, y)
    g_i, g_ji, P = cache.g[0][:, 0], cache.g[1], np.exp(cache.log_density).reshape(N, 2, 3)
    below = (g_ji * P).sum(axis=2)
    h_i = g_i * below / (g_i * below).sum(axis=1, keepdims=True)
    h_ji = g_ji * P / below[:, :, None]
    np.testing.assert_allclose(cache.post.h[0][:, 0], h_i)
    np.testing.assert_allclose(cache.post.h[1], h_ji)
    np.testing.assert_allclose(cache.post.resp.reshape(N, 2, 3), h_i[:, :, None] * h_ji)
    grads = hme.backward(np.ones(N), cache)[1]
    np.testing.assert_allclose(grads["U1"][:, 0], -x.T @ (h_i - g_i))
    np.testing.assert_allclose(grads["U2"][:, 1], -x.T @ (h_i[:, 1:] * (h_ji[:, 1] - g_ji[:, 1])))
    residual = y - cache.mu[:, 4]
    np.testing.assert_allclose(grads["W"][4], -x.T @ (cache.post.resp[:, 4:5] * residual))


@pytest.mark.parametrize("like", FAMILIES)
def test_a_mixture_as_an_expert_is_the_tree(like):
    """Gate over three mixtures, put together by hand from the mixtures' own likelihoods and
    gradients.
    """
    params, x, y = problem((3, 2, 2), like)
    parts = [hme.subtree(params, i) for i in range(3)]
    assert [hme.branching(p) for p in parts] == [(2, 2)] * 3
    log_g = hme.gates(params, x)[0][:, 0]
    runs = [hme.forward(part, x, y) for part in parts]
    shares = log_g - np.stack([loss for loss, _ in runs], axis=1)
    loss, cache = hme.forward(params, x, y)
    np.testing.assert_allclose(loss, -logsumexp(shares), rtol=1e-12)
    grads = hme.backward(np.ones(N), cache)[1]
    own = hme.backward(softmax(shares)[:, 2], runs[2][1])[
        1
    ]  # the mixture learns with its weight h_i
    got = hme.subtree({**params, **grads}, 2)
    for name in set(own) - ({"var"} if like == "shared" else set()):
        np.testing.assert_allclose(got[name], own[name], rtol=1e-10, atol=1e-12)
    again = hme.join(params["U1"][:, 0], params["c1"][0], parts)
    assert all(np.array_equal(again[name], params[name]) for name in params) and set(again) == set(
        params
    )


def test_depth_one_is_the_mixture_of_1991():
    """Eq. 3 with unit variance, but for the constant of the Gaussian."""
    params, x, y = problem((4,))
    old = {"W": params["W"], "b": params["b"], "U": params["U1"][:, 0], "c": params["c1"][0]}
    loss, cache = jacobs1991.system_forward(old, x, y, "mixture", "linear")
    mine, own = hme.forward(params, x, y)
    np.testing.assert_allclose(mine, loss + C / 2 * np.log(2 * np.pi))
    dx, grads = jacobs1991.system_backward(np.ones(N), cache)
    dx2, grads2 = hme.backward(np.ones(N), own)
    np.testing.assert_allclose(dx2, dx)
    for name, value in {"W": "W", "b": "b", "U1": "U", "c1": "c"}.items():
        np.testing.assert_allclose(grads2[name].reshape(grads[value].shape), grads[value])
    np.testing.assert_allclose(hme.predict(params, x), jacobs1991.predict(old, x, "linear"))


@pytest.mark.parametrize("like", FAMILIES)
def test_subtrees_can_be_exchanged(like):
    params, x, y = problem((3, 2), like)
    order = [2, 0, 1]
    U, c = params["U1"][:, 0, order], params["c1"][0, order]
    moved = hme.join(U, c, [hme.subtree(params, i) for i in order])
    np.testing.assert_allclose(
        hme.forward(moved, x, y)[0], hme.forward(params, x, y)[0], rtol=1e-12
    )
    np.testing.assert_allclose(hme.predict(moved, x), hme.predict(params, x), rtol=1e-12)


def test_a_branch_that_is_not_there():
    """c = −inf: the gate is 0, nothing reaches the expert, and the rest is the tree without it."""
    params, x, y = problem((2, 2))
    params["c2"][1, 1] = -np.inf
    loss, cache = hme.forward(params, x, y)
    assert (cache.post.resp[:, 3] == 0).all() and np.isfinite(loss).all()
    single = {**hme.subtree(params, 1), "U1": params["U2"][:, 1:, :1], "c1": params["c2"][1:, :1]}
    shares = hme.gates(params, x)[0][:, 0].copy()
    shares[:, 0] -= hme.forward(hme.subtree(params, 0), x, y)[0]
    shares[:, 1] += hme.log_density(params, cache.mu, y)[:, 2]
    np.testing.assert_allclose(loss, -logsumexp(shares), rtol=1e-12)
    assert hme.branching(single) == (1,)
    grads = hme.backward(np.ones(N), cache)[1]
    assert (
        (grads["W"][3] == 0).all()
        and (grads["U2"][:, 1] == 0).all()
        and all(np.isfinite(g).all() for g in grads.values())
    )
    hme.checked(params, x, y)


@pytest.mark.parametrize("like", FAMILIES)
def test_far_out_it_stays_finite(like):
    params, x, y = problem((2, 2), like)
    for name in ("U1", "U2", "W"):
        params[name] = params[name] * 1e4
    loss, cache = hme.forward(params, x, y)
    assert np.isfinite(loss).all() and (cache.g[0] == 0).any()
    assert all(np.isfinite(g).all() for g in hme.backward(np.ones(N), cache)[1].values())


@pytest.mark.parametrize("like", ["shared", None])
def test_descending_raises_the_likelihood(like):
    params, x, y = problem((2, 2), like, N=60)
    steps = list(itertools.islice(hme.train(params, x, y, lr=1e-3), 40))
    losses = [step.loss for step in steps]
    assert [step.number for step in steps] == list(range(40))
    assert all(b < a for a, b in itertools.pairwise(losses))
    if like:
        assert all(step.params["var"] == params["var"] for step in steps)
    moved = next(itertools.islice(hme.train(params, x, y, lr=1e-4, hold=()), 1, None))
    assert like is None or moved.params["var"] != params["var"]


def test_the_start_is_within_its_range_and_of_the_asked_shape():
    params = hme.init(np.random.default_rng(0), (2, 3), 4, 2, spread=0.1, like="full", var=0.5)
    assert {k: v.shape for k, v in params.items()} == {
        "U1": (4, 1, 2), "c1": (1, 2), "U2": (4, 2, 3), "c2": (2, 3), "W": (6, 4, 2), "b": (6, 2), "var": (6, 2, 2),
    }  # fmt: skip
    assert all(0 < abs(v).max() <= 0.1 for k, v in params.items() if k != "var")
    np.testing.assert_array_equal(params["var"], np.tile(0.5 * np.eye(2), (6, 1, 1)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"W": np.ones((3, D, C))}, r"params\['W'\]: wanted shape \(4, 3, 2\), got \(3, 3, 2\)"),
        ({"U2": np.full((D, 2, 2), np.nan)}, r"params\['U2'\]: wanted finite numbers"),
        (
            {"c2": np.full((2, 2), -np.inf)},
            r"params\['c2'\]: wanted numbers, or −inf for branches that are not there",
        ),
        ({"extra": np.ones(1)}, "params: wanted the keys U1, c1, U2, c2, W, b, var; got"),
        ({"var": np.ones((4, 2))}, r"params\['var'\]: wanted shape"),
        ({"var": np.array(0.0)}, r"params\['var'\]: wanted variances above 0"),
        (
            {"var": np.zeros((4, 2, 2))},
            r"params\['var'\]: wanted variances above 0, or positive definite matrices",
        ),
    ],
)
def test_bad_parameters_are_named(change, words):
    params, x, y = problem((2, 2))
    with pytest.raises(InputError, match=words):
        hme.log_likelihood({**params, **change}, x, y)


def test_bad_data_are_named():
    params, x, y = problem((2, 2))
    with pytest.raises(InputError, match="y: wanted shape"):
        hme.log_likelihood(params, x, y[:5])
    with pytest.raises(InputError, match="x: wanted at least one case"):
        hme.log_likelihood(params, x[:0], y[:0])
    params, x, y = problem((2, 2), None)
    with pytest.raises(InputError, match="y: wanted labels from 0 to 1, got 0 to 5"):
        hme.log_likelihood(params, x, np.where(y == 1, 5, y))
    with pytest.raises(InputError, match="x: wanted shape"):
        hme.predict(params, x[:, :1])
    with pytest.raises(InputError, match="params: wanted a dict of arrays, got NoneType"):
        hme.log_likelihood(None, x, y)
    with pytest.raises(InputError, match="params: wanted U1 and c1, got W, b"):
        hme.log_likelihood({"W": params["W"], "b": params["b"]}, x, y)
    with pytest.raises(InputError, match="lr: wanted a finite number above 0, got None"):
        next(hme.train(params, x, y, lr=None))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tree": (2, 0)}, r"tree\[1\]: wanted a whole number"),
        (
            {"tree": ()},
            r"tree: wanted numbers of branches, one a level, such as \(2, 2\); got \(\)",
        ),
        ({"tree": 4}, r"tree: wanted numbers of branches"),
        ({"rng": 0}, r"rng: wanted a numpy\.random\.Generator"),
        ({"var": -1.0}, "var: wanted a finite number above 0"),
        ({"spread": "wide"}, "spread: wanted a finite number of at least 0"),
    ],
)
def test_a_bad_start_is_named(change, words):
    with pytest.raises(InputError, match=words):
        hme.init(**{"rng": np.random.default_rng(0), "tree": (2,), "D": D, "C": C, **change})
