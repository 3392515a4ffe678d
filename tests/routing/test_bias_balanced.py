"""Bias-balanced routing: the bias chooses and does not weigh; its update; groups."""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.routing import bias_balanced, contract
from tests.support.routers import Case

CASES = {
    "bias_balanced": Case(
        bias_balanced, {"k": 2, "renormalise": True, "routed_scale": 2.5}, fewest=2
    ),
    "bias_balanced groups": Case(
        bias_balanced, {"k": 2, "renormalise": False, "n_group": 2, "topk_group": 1}, fewest=4
    ),
}


def problem(seed=0, N=30, D=5, E=8):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(D, E)), "bias": 0.3 * rng.normal(size=E)}, rng.normal(size=(N, D))


def logit(s):
    return np.log(s) - np.log1p(-s)


def test_worked_by_hand():
    s = np.array([[0.8, 0.6, 0.5, 0.2]])
    params = {"w": np.eye(4), "bias": np.array([0.0, -0.2, 0.0, 0.25])}
    routing, _ = bias_balanced.route(params, logit(s), k=2, renormalise=True, routed_scale=2.5)
    # s + b = .8, .4, .5, .45: experts 0 and 2, weighed by s alone
    assert routing.expert.tolist() == [0, 2]
    np.testing.assert_allclose(routing.weight, [2.5 * 0.8 / 1.3, 2.5 * 0.5 / 1.3], rtol=1e-12)
    bare, _ = bias_balanced.route(params, logit(s), k=2, renormalise=False)
    np.testing.assert_allclose(bare.weight, [0.8, 0.5], rtol=1e-12)
    np.testing.assert_allclose(bare.probs, s, rtol=1e-12)


def test_errata_19_the_bias_is_in_the_selection_only():
    params, x = problem()
    for renormalise in (True, False):
        routing, cache = bias_balanced.route(params, x, k=3, renormalise=renormalise)
        s = numerics.sigmoid(x @ params["w"])
        assert np.array_equal(routing.expert.reshape(-1, 3), contract.top_k(s + params["bias"], 3))
        assert not np.array_equal(routing.expert.reshape(-1, 3), contract.top_k(s, 3))
        kept = s[routing.token, routing.expert].reshape(-1, 3)
        expected = kept / kept.sum(axis=1, keepdims=True) if renormalise else kept
        np.testing.assert_allclose(routing.weight.reshape(-1, 3), expected, rtol=1e-12)
        # a bias that moves no choice moves no weight, not by a bit
        moved, _ = bias_balanced.route(
            {**params, "bias": params["bias"] + 1e-9}, x, k=3, renormalise=renormalise
        )
        assert np.array_equal(moved.weight, routing.weight)
        _, grads = bias_balanced.route_backward(np.ones(90), np.ones((30, 8)), cache)
        assert (grads["bias"] == 0).all()


def test_errata_19_the_update_compares_counts_with_counts():
    demand = np.zeros((6, 4), bool)
    demand[:, 0] = True  # 6, 3, 2 and 1 tokens: the mean is 3
    demand[:3, 1] = demand[3:5, 2] = demand[5, 3] = True
    params, x = problem(N=6, E=4)
    routing = bias_balanced.route(params, x, k=2, renormalise=True)[0]._replace(demand=demand)
    params["bias"].flags.writeable = False
    moved = bias_balanced.update_bias(params, routing, speed=0.1)
    np.testing.assert_allclose(moved["bias"] - params["bias"], [-0.1, 0, 0.1, 0.1], atol=1e-15)
    assert moved["w"] is params["w"]
    # without the last two tokens: 4, 3, 1, 0 against a mean of 2
    moved = bias_balanced.update_bias(params, routing, speed=0.1, valid=np.arange(6) < 4)
    np.testing.assert_allclose(moved["bias"] - params["bias"], [-0.1, -0.1, 0.1, 0.1], atol=1e-15)


def test_the_update_evens_out_the_load():
    rng = np.random.default_rng(0)
    params = bias_balanced.init(rng, 8, 8)
    assert (params["bias"] == 0).all()
    params["w"][:, 0] += 1.0
    x = rng.normal(size=(2000, 8)) + 1
    spread = []
    for _ in range(300):
        routing, _ = bias_balanced.route(params, x, k=2, renormalise=True)
        load = routing.demand.sum(axis=0)
        spread.append(load.max() / load.mean())
        params = bias_balanced.update_bias(params, routing, speed=5e-3)
    assert spread[0] > 2 and np.mean(spread[-20:]) < 1.1


def test_the_update_keeps_float32():
    params, x = problem()
    params = {k: p.astype(np.float32) for k, p in params.items()}
    routing, _ = bias_balanced.route(params, x.astype(np.float32), k=2, renormalise=True)
    assert bias_balanced.update_bias(params, routing)["bias"].dtype == np.float32


def test_scores_that_underflow_still_have_weights():
    for dtype, low in ((np.float32, -120.0), (np.float64, -900.0)):
        x = np.array([[low, low + 1, low - 50]], dtype)
        params = {"w": np.eye(3, dtype=dtype), "bias": np.array([0, 0, -1], dtype)}
        routing, cache = bias_balanced.route(params, x, k=2, renormalise=True)
        order = np.argsort(routing.expert)
        np.testing.assert_allclose(
            routing.weight[order], [1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-5
        )
        dx, _ = bias_balanced.route_backward(np.arange(2.0, dtype=dtype), None, cache)
        assert np.isfinite(dx).all() and (dx[0, :2] != 0).all()


# --- groups ---------------------------------------------------------------------------------------


def test_groups_worked_by_hand():
    s = np.array([[0.9, 0.1, 0.6, 0.55]])  # groups {0, 1} and {2, 3}: best-two sums 1.0 and 1.15
    params = {"w": np.eye(4), "bias": np.zeros(4)}
    groups = {"k": 2, "renormalise": True, "n_group": 2, "topk_group": 1}
    routing, _ = bias_balanced.route(params, logit(s), **groups)
    assert routing.expert.tolist() == [2, 3], "the best expert of all is in the worse group"
    routing, _ = bias_balanced.route(params, logit(s), **groups, group_best=1)
    assert routing.expert.tolist() == [0, 1]
    routing, _ = bias_balanced.route(
        {**params, "bias": np.array([0.2, 0.2, 0, 0])}, logit(s), **groups
    )
    assert routing.expert.tolist() == [0, 1], "the groups are compared with the bias too"


def test_groups_equal_a_naive_loop():
    params, x = problem(E=12)
    options = {"n_group": 4, "topk_group": 2}
    for k, best in ((4, 2), (3, 1), (2, 1)):
        routing, _ = bias_balanced.route(params, x, k=k, renormalise=True, **options)
        for n, score in enumerate(numerics.sigmoid(x @ params["w"]) + params["bias"]):
            value = [sum(sorted(score[3 * g : 3 * g + 3])[-best:]) for g in range(4)]
            kept = sorted(range(4), key=lambda g, value=value: -value[g])[:2]
            allowed = [m for m in range(12) if m // 3 in kept]
            expected = sorted(allowed, key=lambda m, score=score: -score[m])[:k]
            assert routing.expert[routing.token == n].tolist() == expected


def test_a_masked_expert_does_not_beat_a_negative_score():
    s = np.array([[0.5, 0.4, 0.3, 0.2]])
    params = {
        "w": np.eye(4),
        "bias": np.array([-0.6, -0.6, -0.9, -0.9]),
    }  # s + b = −.1, −.2, −.6, −.7
    routing, _ = bias_balanced.route(
        params, logit(s), k=2, renormalise=True, n_group=2, topk_group=1
    )
    assert routing.expert.tolist() == [0, 1]


def test_all_groups_are_no_groups():
    params, x = problem()
    a, _ = bias_balanced.route(params, x, k=3, renormalise=True)
    b, _ = bias_balanced.route(params, x, k=3, renormalise=True, n_group=4, topk_group=4)
    assert np.array_equal(a.expert, b.expert) and np.array_equal(a.weight, b.weight)


def test_k_of_e_weighs_every_expert_by_its_share_and_one_expert_by_its_score():
    params, x = problem()
    routing, _ = bias_balanced.route(params, x, k=8, renormalise=True)
    s = numerics.sigmoid(x @ params["w"])
    dense = np.zeros((30, 8))
    dense[routing.token, routing.expert] = routing.weight
    np.testing.assert_allclose(dense, s / s.sum(axis=1, keepdims=True), rtol=1e-12)
    routing, _ = bias_balanced.route(
        {"w": params["w"][:, :1], "bias": np.zeros(1)}, x, k=1, renormalise=False
    )
    np.testing.assert_allclose(routing.weight, s[:, 0], rtol=1e-12)


def test_errata_11_ties():
    tied = {"w": np.zeros((5, 6)), "bias": np.zeros(6)}
    routing, _ = bias_balanced.route(tied, np.ones((2, 5)), k=2, renormalise=True)
    assert routing.expert.tolist() == [0, 1, 0, 1] and (routing.weight == 0.5).all()
    routing, _ = bias_balanced.route(
        tied, np.ones((2, 5)), k=2, renormalise=True, n_group=3, topk_group=2
    )
    assert routing.expert.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 1, "renormalise": True}, "the task's gradient of the router is 0"),
        ({"k": 9, "renormalise": True}, "k: wanted at most the 8 experts there are, got 9"),
        (
            {"k": 2, "renormalise": True, "n_group": 3},
            "n_group: wanted a divisor of the 8 experts, got 3",
        ),
        (
            {"k": 3, "renormalise": True, "n_group": 4},
            "k: wanted at most the 2 experts of 1 groups, got 3",
        ),
        (
            {"k": 2, "renormalise": True, "n_group": 2, "topk_group": 3},
            "topk_group: .* at most 2, got 3",
        ),
        (
            {"k": 2, "renormalise": True, "n_group": 4, "topk_group": 2, "group_best": 3},
            "group_best: .* at most 2",
        ),
        (
            {"k": 2, "renormalise": True, "n_group": 0},
            "n_group: wanted a whole number of at least 1, got 0",
        ),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(InputError, match=words):
        bias_balanced.route(*problem(), **options)


@pytest.mark.parametrize("name", ["w", "bias"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_refused(name, bad):
    """A NaN in the bias was the first choice of every token, with finite weights."""
    rng = np.random.default_rng(0)
    params = bias_balanced.init(rng, 4, 8)
    params[name][..., 3] = bad
    with pytest.raises(InputError, match=rf"params\['{name}'\]: wanted finite numbers, got {bad}"):
        bias_balanced.route(params, rng.normal(size=(5, 4)), k=2, renormalise=True)


@pytest.mark.parametrize(
    ("bias", "logits"), [(12, [-18, -17, -16, -15]), (0, [20, 25, 30, 40]), (0, [25, 40, 20, 30])]
)
def test_scores_that_round_to_the_same_are_ordered_by_the_logit(bias, logits):
    x = np.array([logits], np.float32)
    params = {"w": np.eye(4, dtype=np.float32), "bias": np.full(4, bias, np.float32)}
    routing, _ = bias_balanced.route(params, x, k=2, renormalise=True)
    np.testing.assert_array_equal(routing.expert, np.argsort(-x[0], kind="stable")[:2])


def test_a_change_of_the_bias_that_rounding_would_lose_is_refused():
    rng = np.random.default_rng(0)
    params = bias_balanced.init(rng, 4, 4, dtype=np.float16)
    x = rng.normal(size=(5, 4)).astype(np.float16)
    routing, _ = bias_balanced.route(params, x, k=1, renormalise=False)
    params["bias"] += np.float16(4)
    with pytest.raises(InputError, match="the change is lost to rounding"):
        bias_balanced.update_bias(params, routing, speed=1e-3)
    for speed in (np.nan, np.inf, "1", None):
        with pytest.raises(InputError, match="speed: wanted a finite number"):
            bias_balanced.update_bias(params, routing, speed=speed)


def test_among_equal_scores_the_larger_logit_is_taken():
    scores = np.array([[0.9, 0.9, 0.5, 0.2, 0.1], [0.9, 0.5, 0.5, 0.2, 0.1]])
    logits = np.array([[0.0, 3, 0, 0, 0], [0, 1, 2, 9, 9]])
    assert bias_balanced.best(scores, logits, 1).tolist() == [[1], [0]]
    assert bias_balanced.best(scores, logits, 2).tolist() == [[1, 0], [0, 2]]


def test_the_initialisation():
    params = bias_balanced.init(np.random.default_rng(0), 4, 3)
    drawn = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_array_equal(params["w"], drawn / 2)
    assert params["bias"].tolist() == [0] * 3
    scaled = bias_balanced.init(np.random.default_rng(0), 4, 3, scale=3.0)["w"]
    np.testing.assert_allclose(scaled, drawn * 1.5, rtol=1e-14)
