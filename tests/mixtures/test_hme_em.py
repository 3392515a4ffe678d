"""EM for trees: the plain mixture as a limit, a likelihood that never falls, both algorithms, the
walk through it.
"""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.mixtures import em, hme, hme_em, irls
from moe_np.show.steps import Steps
from moe_np.show.walk.em_walk import steps as em_steps
from moe_np.show.walk.hme_em_walk import steps as hme_em_steps
from tests.mixtures.test_hme import FAMILIES, C, problem

FAMILY = {
    "shared": em.Gaussian("shared"),
    "expert": em.Gaussian("expert"),
    "full": em.Gaussian("full"),
    None: em.Categorical(2),
}
TREES = [(2,), (3,), (2, 2), (3, 2), (2, 3), (2, 2, 2)]


def run(params, x, y, n, **options):
    return list(itertools.islice(hme_em.train(params, x, y, **options), n + 1))


@pytest.mark.parametrize("like", FAMILIES)
@pytest.mark.parametrize("irls_steps", [1, 25])
def test_a_tree_of_depth_one_is_em(like, irls_steps):
    """The same start, the same steps: log likelihoods and parameters to rounding."""
    params, x, y = problem((4,), like, N=80)
    start = {"W": params["W"], "b": params["b"], "U": params["U1"][:, 0], "c": params["c1"][0]}
    if like:
        start["var"] = params["var"]
    walk = em_steps(
        x,
        y,
        4,
        family=FAMILY[like],
        rng=None,
        start=start,
        max_iter=8,
        tol=0,
        irls_steps=irls_steps,
    )
    theirs = [s for s in walk if s.phase == "E step"]
    for step, other in zip(run(params, x, y, 8, irls_steps=irls_steps), theirs, strict=True):
        assert -step.loss == pytest.approx(float(other["log_likelihood"]), rel=1e-9)
        np.testing.assert_allclose(step.cache.post.resp, other["resp"], atol=1e-7)
        np.testing.assert_allclose(step.params["W"], other["W"], rtol=1e-6, atol=1e-7)


def never_falls(like, seeds):
    for seed in seeds:
        tree = TREES[seed % len(TREES)]
        params, x, y = problem(tree, like, seed=seed, N=(12, 60)[seed % 2])
        for level in range(1, len(tree) + 1):
            params[f"U{level}"] = params[f"U{level}"] * (0.1, 1, 30)[seed % 3]
        losses = [step.loss for step in run(params, x, y, 12, irls_steps=1 + seed % 2)]
        slack = 1e-9 * (1 + abs(losses[0]))
        assert all(b <= a + slack for a, b in itertools.pairwise(losses)), (seed, losses)
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("like", FAMILIES)
def test_em_never_falls(like):
    """Random problems, from small and from large gates, with few cases and with many experts."""
    never_falls(like, range(18))


@pytest.mark.slow
@pytest.mark.parametrize("like", FAMILIES)
def test_em_never_falls_on_hundreds_of_problems(like):
    never_falls(like, range(18, 118))


def test_least_squares_gates_may_fall():
    """Algorithm 2 raises the likelihood on the whole, but some of its steps lower it, and none of
    Algorithm 1's.
    """
    falls = dict.fromkeys(hme_em.GATES, 0)
    for seed in range(6):
        params, x, y = problem((2, 2), "shared", seed=seed, N=60)
        for gates in hme_em.GATES:
            losses = [step.loss for step in run(params, x, y, 20, gates=gates)]
            falls[gates] += sum(b > a + 1e-7 for a, b in itertools.pairwise(losses))
            assert losses[-1] < losses[0]
    assert falls["irls"] == 0 < falls["least squares"]


@pytest.mark.parametrize("branches", [2, 3])
def test_least_squares_gates_are_what_lstsq_finds(branches):
    rng = np.random.default_rng(0)
    x, h, weight = (
        rng.normal(size=(50, 3)),
        rng.dirichlet(np.ones(branches), (50, 2)),
        rng.uniform(0.1, 1, (50, 2)),
    )
    coef = hme_em.least_squares_gates(irls.design(x), h, weight, clip=100.0)
    inputs = np.column_stack([x, np.ones(50)])
    for p in range(2):
        root = np.sqrt(weight[:, p : p + 1])
        own = np.linalg.lstsq(root * inputs, root * np.log(h[:, p]), rcond=None)[0]
        np.testing.assert_allclose(coef[p], own - own.mean(axis=1, keepdims=True), atol=1e-10)
    if branches == 2:  # the gate of a binary split is the fit of the log ratio
        ratio = np.linalg.lstsq(
            root * inputs, root * np.log(h[:, 1, :1] / h[:, 1, 1:]), rcond=None
        )[0]
        np.testing.assert_allclose(coef[1, :, 0] - coef[1, :, 1], ratio[:, 0], atol=1e-10)


def test_a_log_ratio_is_clipped():
    ratio = hme_em.log_ratio(np.array([[1.0, 0.0], [0.5, 0.5], [0.9, 0.1]]), 10.0)
    np.testing.assert_allclose(ratio[:, 0] - ratio[:, 1], [10, 0, np.log(9)])


@pytest.mark.parametrize("gates", hme_em.GATES)
def test_subtrees_can_be_exchanged_in_training(gates):
    params, x, y = problem((3, 2), N=60)
    order = [2, 0, 1]
    moved = hme.join(
        params["U1"][:, 0, order], params["c1"][0, order], [hme.subtree(params, i) for i in order]
    )
    a, b = (run(p, x, y, 5, gates=gates)[-1] for p in (params, moved))
    assert b.loss == pytest.approx(a.loss, rel=1e-8)
    np.testing.assert_allclose(
        hme.predict(b.params, x), hme.predict(a.params, x), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("like", FAMILIES)
def test_a_sure_gate_leaves_a_subtree_to_itself(like):
    """A top gate that is sure of branch 0: that subtree climbs as it would alone, a mixture in an
    expert's place.
    """
    params, x, y = problem((2, 3), like, N=60)
    if like == "shared":
        params["var"] = np.array(0.8)
    params["U1"], params["c1"] = 1e-3 * params["U1"], np.array([[400.0, -400.0]])
    alone = run(hme.subtree(params, 0), x, y, 4)
    whole = run(params, x, y, 4, hold=("U1", "c1"))
    for a, b in zip(alone, whole, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-9)


def test_held_parameters_stay():
    params, x, y = problem((2, 2), N=40)
    end = run(params, x, y, 3, hold=("var", "U1"))[-1].params
    assert (
        end["var"] == params["var"]
        and end["U1"] is params["U1"]
        and (end["W"] != params["W"]).all()
    )
    with pytest.raises(
        InputError, match="hold: wanted one of U1, c1, U2, c2, W, b, var; got 'variance'"
    ):
        run(params, x, y, 1, hold=("variance",))


def test_a_fixed_point_has_no_gradient():
    """Where EM stands still, the gradient of the likelihood is 0, the variance's too."""
    rng = np.random.default_rng(0)
    params, x, _ = problem((2, 2), "shared", N=300)
    params = {**params, "W": 4 * params["W"]}
    weight = np.exp(hme.leaves(hme.gates(params, x)))
    leaf = (weight.cumsum(axis=1) < rng.random((300, 1))).sum(axis=1)
    y = hme.experts(params, x)[np.arange(300), leaf] + 0.2 * rng.normal(size=(300, C))
    end = run(params, x, y, 250)[-1]
    grads = hme.backward(np.ones(len(x)), end.cache)[1]
    assert max(abs(g).max() for g in grads.values()) < 5e-3, {
        k: abs(g).max() for k, g in grads.items()
    }


@pytest.mark.parametrize("gates", hme_em.GATES)
def test_walking_is_training(gates):
    params, x, y = problem((2, 3), N=40)
    walk = list(Steps(hme_em_steps(params, x, y, max_iter=2, gates=gates)))
    one_round = [
        "E step: experts",
        "E step: level 2",
        "E step: level 1",
        "E step: leaves",
        "M step: experts",
    ]
    one_round += ["M step: level 1", "M step: level 2"]
    assert [s.phase for s in walk] == ["start", *one_round, *one_round, *one_round[:4]]
    ends = [s for s in walk if s.phase == "E step: leaves"]
    for step, seen in zip(run(params, x, y, 2, gates=gates), ends, strict=True):
        assert float(seen["log_likelihood"]) == pytest.approx(-step.loss, rel=1e-12)
        np.testing.assert_array_equal(seen["resp"], step.cache.post.resp)
        np.testing.assert_array_equal(seen["U2"], step.params["U2"])
    experts = next(s for s in walk if s.phase == "M step: experts")
    assert set(experts.changed) == {"W", "b", "var"}
    np.testing.assert_allclose(
        np.exp(ends[0]["evidence1"][:, 0]).prod(), np.exp(float(ends[0]["log_likelihood"]))
    )


def test_inputs_are_checked():
    params, x, y = problem((2, 2))
    for option, words in (
        ({"gates": "newton"}, "gates: wanted one of irls, least squares; got 'newton'"),
        ({"ridge": -1.0}, "ridge: wanted a finite number of at least 0, got -1"),
        ({"irls_steps": 0}, "irls_steps: wanted a whole number of at least 1"),
        ({"clip": 0}, "clip: wanted a finite number above 0"),
        ({"hold": ("w",)}, "hold: wanted one of U1"),
    ):
        with pytest.raises(InputError, match=words):
            run(params, x, y, 1, **option)
        with pytest.raises(InputError, match=words):
            next(hme_em_steps(params, x, y, **option))
    with pytest.raises(InputError, match="max_iter: wanted a whole number"):
        next(hme_em_steps(params, x, y, max_iter=-1))


def test_lists_and_float32_are_inputs_too():
    params, x, y = problem((2, 2))
    wanted = [step.loss for step in run(params, x, y, 2)]
    assert [step.loss for step in run(params, x.tolist(), y.tolist(), 2)] == wanted
    rough = [step.loss for step in run(params, x.astype(np.float32), y.astype(np.float32), 2)]
    np.testing.assert_allclose(rough, wanted, rtol=1e-4)
    assert len(list(hme_em_steps(params, x.tolist(), y.tolist(), max_iter=1))) > 3


@pytest.mark.parametrize("gates", hme_em.GATES)
@pytest.mark.parametrize("like", ["shared", None])
def test_branches_that_are_not_there(gates, like):
    """(2, 3) without the last branches learns as (2, 2); an uneven tree keeps its shape and, by
    IRLS, never falls.
    """
    params, x, y = problem((2, 3), like, N=60)
    params["c2"][:, 2] = -np.inf
    keep = [0, 1, 3, 4]
    small = {
        **params,
        "U2": params["U2"][:, :, :2],
        "c2": params["c2"][:, :2],
        "W": params["W"][keep],
        "b": params["b"][keep],
    }
    for a, b in zip(
        run(params, x, y, 4, gates=gates), run(small, x, y, 4, gates=gates), strict=True
    ):
        assert a.loss == pytest.approx(b.loss, rel=1e-9)
    params["c2"][0] = [0.3, -np.inf, -np.inf]
    walk = run(params, x, y, 15, gates=gates)
    assert np.isneginf(walk[-1].params["c2"]).tolist() == [
        [False, True, True],
        [False, False, True],
    ]
    assert (walk[-1].cache.post.resp[:, [1, 2, 5]] == 0).all() and (
        walk[-1].cache.post.resp[:, [0, 3, 4]] > 0
    ).any(0).all()
    if gates == "irls":
        assert all(b.loss <= a.loss + 1e-9 * abs(a.loss) for a, b in itertools.pairwise(walk))
