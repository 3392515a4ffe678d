"""Two gates, one above the other."""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.layers import diagnostics
from moe_np.routing import hierarchical, top_k
from tests.support.routers import Case

CASES = {
    "hierarchical": Case(
        hierarchical,
        {"k_primary": 2, "k_secondary": 2, "renormalise": True},
        {"groups": 2},
        fewest=4,
    ),
    "hierarchical not renormalised": Case(
        hierarchical,
        {"k_primary": 1, "k_secondary": 1, "renormalise": False},
        {"groups": 2},
        fewest=2,
    ),
}


def problem(seed=0, N=8, D=4, groups=3, E=12):
    rng = np.random.default_rng(seed)
    return hierarchical.init(rng, D, E, groups=groups), rng.normal(size=(N, D))


def test_hand_worked():
    params = {"w_primary": np.log([[1.0, 3.0]]), "w_secondary": np.log([[1.0, 4.0, 2.0, 3.0]])}
    routing, _ = hierarchical.route(
        params, np.ones((1, 1)), k_primary=1, k_secondary=1, renormalise=False
    )
    assert routing.expert.tolist() == [3]
    np.testing.assert_allclose(routing.weight, [3 / 4 * 3 / 5])
    np.testing.assert_allclose(routing.probs, [[1 / 20, 4 / 20, 6 / 20, 9 / 20]])
    routing, _ = hierarchical.route(
        params, np.ones((1, 1)), k_primary=2, k_secondary=1, renormalise=False
    )
    assert routing.expert.tolist() == [3, 1]
    np.testing.assert_allclose(routing.weight, [9 / 20, 4 / 20])


@pytest.mark.parametrize("renormalise", [True, False])
def test_it_equals_a_naive_loop(renormalise):
    params, x = problem()
    routing, _ = hierarchical.route(params, x, k_primary=2, k_secondary=3, renormalise=renormalise)
    rows = []
    for n, token in enumerate(x):
        outer, _ = top_k.route(
            {"w": params["w_primary"]}, token[None], k=2, renormalise=renormalise
        )
        for i, g in zip(outer.expert, outer.weight, strict=True):
            w = params["w_secondary"][:, 4 * i : 4 * i + 4]
            inner, _ = top_k.route({"w": w}, token[None], k=3, renormalise=renormalise)
            rows += [
                (n, 4 * i + j, g * gj) for j, gj in zip(inner.expert, inner.weight, strict=True)
            ]
    assert list(zip(routing.token, routing.expert, strict=True)) == [(n, e) for n, e, _ in rows]
    np.testing.assert_allclose(routing.weight, [g for *_, g in rows], rtol=1e-12)


@pytest.mark.parametrize("renormalise", [True, False])
def test_all_choices_are_the_two_level_mixture(renormalise):
    params, x = problem()
    routing, _ = hierarchical.route(params, x, k_primary=3, k_secondary=4, renormalise=renormalise)
    gates = np.zeros((8, 12))
    gates[routing.token, routing.expert] = routing.weight
    outer = numerics.softmax(x @ params["w_primary"])
    inner = numerics.softmax((x @ params["w_secondary"]).reshape(8, 3, 4))
    np.testing.assert_allclose(gates, (outer[:, :, None] * inner).reshape(8, 12), rtol=1e-12)
    np.testing.assert_allclose(routing.probs, gates, rtol=1e-12)
    np.testing.assert_allclose(numerics.softmax(routing.logits), gates, rtol=1e-12)


def test_one_group_is_a_flat_top_k_gate():
    params, x = problem(groups=1, E=5)
    routing, cache = hierarchical.route(params, x, k_primary=1, k_secondary=2, renormalise=True)
    flat, flat_cache = top_k.route({"w": params["w_secondary"]}, x, k=2, renormalise=True)
    assert np.array_equal(routing.expert, flat.expert)
    np.testing.assert_allclose(routing.weight, flat.weight, rtol=1e-12)
    dweight = np.arange(16.0)
    dx, grads = hierarchical.route_backward(dweight, None, cache)
    dx0, grads0 = top_k.route_backward(dweight, None, flat_cache)
    np.testing.assert_allclose(dx, dx0, atol=1e-13)
    np.testing.assert_allclose(grads["w_secondary"], grads0["w"], atol=1e-13)
    assert (grads["w_primary"] == 0).all()


def test_permuting_groups_and_the_experts_inside_them():
    params, x = problem()
    rng = np.random.default_rng(1)
    groups = rng.permutation(3)
    inside = np.array([rng.permutation(4) for _ in range(3)])
    leaves = (groups[:, None] * 4 + inside[groups]).ravel()
    moved = {
        "w_primary": params["w_primary"][:, groups],
        "w_secondary": params["w_secondary"][:, leaves],
    }
    options = {"k_primary": 2, "k_secondary": 2, "renormalise": True}
    a = hierarchical.route(params, x, **options)[0]
    b = hierarchical.route(moved, x, **options)[0]
    assert np.array_equal(leaves[b.expert], a.expert)
    np.testing.assert_allclose(b.weight, a.weight, rtol=1e-12)


def test_importance_and_load_of_the_leaves():
    params, x = problem(N=50)
    routing, cache = hierarchical.route(params, x, k_primary=2, k_secondary=3, renormalise=True)
    importance = diagnostics.importance(routing)
    load = diagnostics.load(routing)
    np.testing.assert_allclose(importance.sum(), 50)
    assert load.sum() == 50 * 6
    # eq. (14) term by term: the group's load, its experts' loads among the tokens it got, over
    # their number
    for i in range(3):
        inside_group = (cache.outer.choice == i).any(axis=1)
        w = params["w_secondary"][:, 4 * i : 4 * i + 4]
        inside = np.bincount(
            top_k.route({"w": w}, x[inside_group], k=3, renormalise=True)[0].expert, minlength=4
        )
        np.testing.assert_allclose(
            load[4 * i : 4 * i + 4], inside_group.sum() * inside / inside_group.sum()
        )


def test_errata_04_a_renormalised_single_choice_of_several_is_refused():
    params, x = problem()
    with pytest.raises(InputError, match="k_primary: wanted at least 2 with renormalise=True"):
        hierarchical.route(params, x, k_primary=1, k_secondary=2, renormalise=True)
    with pytest.raises(InputError, match="k_secondary: wanted at least 2 with renormalise=True"):
        hierarchical.route(params, x, k_primary=2, k_secondary=1, renormalise=True)


def test_bad_arguments():
    params, x = problem()
    with pytest.raises(InputError, match="k_primary: wanted at most the 3 there are, got 4"):
        hierarchical.route(params, x, k_primary=4, k_secondary=2, renormalise=True)
    with pytest.raises(InputError, match="groups: wanted a divisor of the 12 experts, got 5"):
        hierarchical.init(np.random.default_rng(0), 4, 12, groups=5)
    with pytest.raises(TypeError, match="renormalise"):
        hierarchical.route(params, x, k_primary=2, k_secondary=2)


def test_the_initialisation_is_normal_with_deviation_scale_over_the_root_of_d():
    rng = np.random.default_rng(0)
    drawn = {"w_primary": rng.normal(size=(4, 3)), "w_secondary": rng.normal(size=(4, 6))}
    first = hierarchical.init(np.random.default_rng(0), 4, 6, groups=3)
    scaled = hierarchical.init(np.random.default_rng(0), 4, 6, groups=3, scale=3.0)
    for name in drawn:
        np.testing.assert_array_equal(first[name], drawn[name] / 2)
        np.testing.assert_allclose(scaled[name], drawn[name] * 1.5, rtol=1e-14)
