"""BASE: balanced assignment in training, greedy in evaluation."""

import itertools

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.routing import base_assignment
from tests.support.routers import Case

CASES = {
    "base_assignment balanced": Case(base_assignment, {"training": True}, causal=False),
    "base_assignment greedy": Case(base_assignment, {"training": False}),
}


def problem(seed=0, N=12, D=5, E=4):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(D, E))}, rng.normal(size=(N, D))


def test_worked_by_hand():
    scores = np.array([[5.0, 4], [3, 1.5], [2, 0], [4, 0]])
    greedy, _ = base_assignment.route({"w": np.eye(2)}, scores, training=False)
    assert greedy.expert.tolist() == [0, 0, 0, 0]
    # two tokens must go to expert 1: those that lose least by it, 1 and 1.5 against 2 and 4
    routing, _ = base_assignment.route({"w": np.eye(2)}, scores, training=True)
    assert routing.expert.tolist() == [1, 1, 0, 0] and routing.token.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(routing.weight, 1 / (1 + np.exp([-4, -1.5, -2, -4])), rtol=1e-12)
    np.testing.assert_allclose(routing.probs, numerics.sigmoid(scores), rtol=1e-12)


def brute_force(scores):
    N, E = scores.shape
    return max(
        sum(scores[n, m] for n, m in enumerate(plan))
        for plan in itertools.product(range(E), repeat=N)
        if set(np.bincount(plan, minlength=E)) <= {N // E, -(-N // E)}
    )


@pytest.mark.parametrize(
    ("N", "E"), [(4, 2), (6, 3), (5, 2), (5, 3), (7, 3), (2, 3), (1, 3), (3, 3), (4, 1)]
)
def test_the_assignment_is_the_best_of_all_balanced_ones(N, E):
    for seed in range(5):
        scores = np.random.default_rng(seed).normal(size=(N, E))
        scores[:, 0] += 3  # expert 0 is popular
        expert = base_assignment.assign(scores)
        assert set(np.bincount(expert, minlength=E)) <= {N // E, -(-N // E)}
        assert scores[np.arange(N), expert].sum() == pytest.approx(brute_force(scores), rel=1e-12)


def test_greedy_is_the_arg_max_and_the_lowest_index_wins_a_tie():
    params, x = problem()
    routing, _ = base_assignment.route(params, x, training=False)
    assert np.array_equal(routing.expert, (x @ params["w"]).argmax(axis=1))
    tied, _ = base_assignment.route({"w": np.zeros((5, 4))}, x, training=False)
    assert (tied.expert == 0).all() and (tied.weight == 0.5).all()
    tied, _ = base_assignment.route({"w": np.zeros((5, 4))}, x, training=True)
    assert (np.bincount(tied.expert) == 3).all()


def test_the_same_constant_for_every_token_moves_no_one():
    """A number added to a whole column cannot change a balanced plan: each expert takes as many
    tokens as before.
    """
    scores = problem()[1] @ problem()[0]["w"]
    assert np.array_equal(
        base_assignment.assign(scores), base_assignment.assign(scores + np.array([9.0, 0, -4, 1]))
    )


def test_only_the_chosen_score_has_a_task_gradient():
    params, x = problem()
    routing, cache = base_assignment.route(params, x, training=True)
    _, grads = base_assignment.route_backward(np.where(routing.token == 3, 1.0, 0.0), None, cache)
    m = routing.expert[3]
    slope = routing.weight[3] * (1 - routing.weight[3])
    np.testing.assert_allclose(grads["w"][:, m], slope * x[3], rtol=1e-12)
    assert (np.delete(grads["w"], m, axis=1) == 0).all()


def test_errata_13_balanced_looks_ahead_and_greedy_does_not():
    scores = np.array([[2.0, 1], [1, 0.5]])
    a = [
        base_assignment.route({"w": np.eye(2)}, scores, training=b)[0].expert[0]
        for b in (True, False)
    ]
    scores[1] = [5, 0]
    b = [
        base_assignment.route({"w": np.eye(2)}, scores, training=b)[0].expert[0]
        for b in (True, False)
    ]
    assert a[0] == 0 and b[0] == 1 and a[1] == b[1] == 0


@pytest.mark.parametrize(("D", "E"), [(16, 4), (4, 4), (3, 5), (6, 1)])
def test_the_start_is_orthogonal_with_gain_a_tenth(D, E):
    w = base_assignment.init(np.random.default_rng(0), D, E)["w"]
    gram = w.T @ w if D >= E else w @ w.T
    assert w.shape == (D, E)
    np.testing.assert_allclose(gram, 0.01 * np.eye(min(D, E)), atol=1e-15)


def test_the_start_has_no_preferred_direction():
    mean = np.mean(
        [base_assignment.init(np.random.default_rng(s), 3, 2)["w"] for s in range(2000)], axis=0
    )
    assert abs(mean).max() < 0.1 * 4.5 * (1 / 3 / 2000) ** 0.5  # each entry has variance gain²/D


def test_balanced_is_training_and_a_mask_is_checked():
    params, x = problem()
    rng = np.random.default_rng(0)
    balanced = base_assignment.route(params, x, training=True)[0].expert
    greedy = base_assignment.route(params, x, training=False)[0].expert
    assert not np.array_equal(balanced, greedy)
    assert np.array_equal(base_assignment.route(params, x, rng=rng)[0].expert, balanced)
    assert np.array_equal(base_assignment.route(params, x)[0].expert, greedy)
    with pytest.raises(InputError, match="valid: wanted bool"):
        base_assignment.route(*problem(), training=True, valid=np.ones(12))


def test_one_expert_takes_all():
    routing, _ = base_assignment.route(*problem(E=1), training=True)
    assert (routing.expert == 0).all() and len(routing.token) == 12


@pytest.mark.parametrize(("D", "E"), [(6, 4), (4, 6)])
def test_the_initialisation_is_orthonormal_times_the_scale(D, E):
    for options, scale in (({}, 0.1), ({"scale": 3.0}, 3.0)):
        w = base_assignment.init(np.random.default_rng(0), D, E, **options)["w"]
        assert w.shape == (D, E)
        product = w.T @ w if D >= E else w @ w.T
        np.testing.assert_allclose(product, scale**2 * np.eye(4), atol=1e-12)
