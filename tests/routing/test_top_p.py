"""Top-p: how many experts a token takes, and the entropy loss."""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.layers import balance
from moe_np.routing import top_k, top_p
from tests.support.routers import Case

CASES = {"top_p": Case(top_p, {"p": 0.6})}


def problem(seed=0, N=40, D=5, E=6):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(D, E))}, rng.normal(size=(N, D))


def test_worked_by_hand():
    probs = np.array(
        [[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4], [0.97, 0.01, 0.01, 0.01], [0.25] * 4]
    )
    routing, _ = top_p.route({"w": np.eye(4)}, np.log(probs), p=0.6)
    # .5 + .3 crosses .6; .4 + .3; .97 alone; .25 three times: the one that crosses is in
    assert routing.token.tolist() == [0, 0, 1, 1, 2, 3, 3, 3]
    assert routing.expert.tolist() == [0, 1, 3, 2, 0, 0, 1, 2]
    np.testing.assert_allclose(
        routing.weight, [0.5, 0.3, 0.4, 0.3, 0.97, 0.25, 0.25, 0.25], rtol=1e-12
    )
    assert routing.demand.sum(axis=1).tolist() == [2, 2, 1, 3]


def test_equals_a_naive_loop():
    for seed, p in enumerate((0.05, 0.4, 0.75, 0.95)):
        params, x = problem(seed)
        routing, _ = top_p.route(params, x, p=p)
        rows = []
        for n, probs in enumerate(numerics.softmax(x @ params["w"])):
            reached = 0.0
            for m in sorted(range(6), key=lambda m, probs=probs: -probs[m]):
                if reached < p:
                    rows.append((n, m))
                    reached += probs[m]
        assert list(zip(routing.token, routing.expert, strict=True)) == rows


def test_it_is_the_fewest_that_reach_p():
    params, x = problem(N=200)
    routing, _ = top_p.route(params, x, p=0.7)
    kept = np.bincount(routing.token, routing.weight, minlength=200)
    least = np.full(200, np.inf)
    np.minimum.at(least, routing.token, routing.weight)
    assert (kept >= 0.7).all() and (kept - least < 0.7).all()
    assert len(set(routing.demand.sum(axis=1))) > 2, (
        "unsure tokens take more experts than sure ones"
    )


def test_a_small_p_is_top_1_and_p_of_1_the_dense_mixture():
    params, x = problem()
    small, cache = top_p.route(params, x, p=1e-9)
    other, other_cache = top_k.route(params, x, k=1, renormalise=False)
    assert np.array_equal(small.expert, other.expert)
    dweight = np.random.default_rng(0).normal(size=40)
    for a, b in zip(
        top_p.route_backward(dweight, None, cache),
        top_k.route_backward(dweight, None, other_cache),
        strict=True,
    ):
        np.testing.assert_allclose(
            a["w"] if isinstance(a, dict) else a, b["w"] if isinstance(b, dict) else b
        )
    routing, _ = top_p.route(params, 0.1 * x, p=1.0)
    dense = np.zeros((40, 6))
    dense[routing.token, routing.expert] = routing.weight
    np.testing.assert_allclose(dense, numerics.softmax(0.1 * x @ params["w"]), rtol=1e-12)


def test_errata_11_ties_and_one_expert():
    routing, _ = top_p.route({"w": np.zeros((5, 4))}, problem()[1][:1], p=0.5)
    assert routing.expert.tolist() == [0, 1]  # .25 + .25 reaches .5
    routing, _ = top_p.route({"w": np.ones((5, 1))}, problem()[1], p=0.3)
    assert len(routing.token) == 40 and (routing.weight == 1).all()


@pytest.mark.parametrize("p", [0, -0.1, 1.01, np.nan, "0.4", True, None])
def test_p_is_checked(p):
    with pytest.raises(InputError, match="p: wanted a finite number above 0 and at most 1"):
        top_p.route(*problem(), p=p)


# --- the entropy loss -----------------------------------------------------------------------------


def entropy_loss(routing, valid=None):
    """Loss_d of the paper: the mean entropy of the tokens' distributions."""
    loss = balance.token_entropy(routing, valid=valid)
    return loss.value, loss.dlogits


def test_entropy_loss_by_hand():
    probs = np.array([[0.5, 0.5], [0.9, 0.1]])
    routing, _ = top_p.route({"w": np.eye(2)}, np.log(probs), p=0.4)
    value, dlogits = entropy_loss(routing)
    assert value == pytest.approx(
        (np.log(2) - 0.9 * np.log(0.9) - 0.1 * np.log(0.1)) / 2, rel=1e-12
    )
    np.testing.assert_allclose(dlogits[0], 0, atol=1e-16)  # uniform: at the maximum
    assert dlogits[1, 0] < 0 < dlogits[1, 1], "a step downhill makes the sure token surer"


def test_entropy_loss_gradient_with_padding():
    params, x = problem(N=9)
    valid = np.arange(9) != 4

    def loss(p):
        return entropy_loss(top_p.route({"w": p["w"]}, p["x"], p=0.4)[0], valid)[0]

    routing, cache = top_p.route(params, x, p=0.4)
    value, dlogits = entropy_loss(routing, valid)
    dx, grads = top_p.route_backward(np.zeros(len(routing.token)), dlogits, cache)
    errors = gradient_error(loss, {**params, "x": x}, {**grads, "x": dx}, np.random.default_rng(0))
    assert max(errors.values()) < 1e-7, errors
    assert (dlogits[4] == 0).all()
    alone, _ = top_p.route(params, x[valid], p=0.4)
    assert entropy_loss(alone)[0] == pytest.approx(value, rel=1e-12)


def test_entropy_loss_of_nothing_and_of_huge_logits():
    params, x = problem()
    routing, _ = top_p.route(params, x, p=0.4)
    value, dlogits = entropy_loss(routing, np.zeros(40, bool))
    assert value == 0 and (dlogits == 0).all()
    huge, _ = top_p.route({"w": 1e5 * params["w"]}, x, p=0.4)
    value, dlogits = entropy_loss(huge)
    assert abs(value) < 1e-12 and np.isfinite(dlogits).all()


def test_the_entropy_loss_lowers_the_number_of_experts():
    params, x = problem(N=100)
    params = {"w": 0.5 * params["w"]}
    number = []
    for _ in range(60):
        routing, cache = top_p.route(params, x, p=0.6)
        number.append(len(routing.token) / 100)
        _, dlogits = entropy_loss(routing)
        _, grads = top_p.route_backward(np.zeros(len(routing.token)), dlogits, cache)
        params = {"w": params["w"] - 0.5 * grads["w"]}
    assert number[-1] < 1.3 < 2 < number[0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("probs", "p", "wanted"),
    [
        ([0.3, 0.1, 0.1, 0.5], 0.8, 2),
        ([1 / 12] * 12, 0.5, 6),
        ([0.1] * 10, 0.8, 8),
        ([0.1] * 10, 0.801, 9),
        ([0.7, 0.3], 1e-30, 1),
    ],
)
def test_a_sum_that_equals_p_is_enough(dtype, probs, p, wanted):
    """Rounding of the running sum does not add an expert."""
    logits = np.log([probs]).astype(dtype)
    routing, _ = top_p.route({"w": np.eye(len(probs), dtype=dtype)}, logits, p=p)
    assert len(routing.token) == wanted
    routing, _ = top_p.route({"w": np.eye(len(probs), dtype=dtype)}, logits, p=np.float64(p))
    assert len(routing.token) == wanted
