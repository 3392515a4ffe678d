"""The walk through a router: its states are the arrays of the router, stage by stage, and back."""

import numpy as np
import pytest

from moe_np import routing as package
from moe_np.base.checks import InputError
from moe_np.layers import balance
from moe_np.routing import (
    contract,
    gradient_estimators,
    gshard,
    hashing,
    hierarchical,
    noisy_top_k,
    switch,
    top_k,
)
from moe_np.show import walk
from tests.support import routers

ROUTERS = package.routers()


def by_phase(steps):
    return {s.phase: s for s in steps}


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def generator(case, seed):
    return None if seed is None or not case.noisy else np.random.default_rng(seed)


@pytest.mark.parametrize("seed", [None, 3], ids=["evaluation", "noise"])
@pytest.mark.parametrize("name", routers.CASES)
def test_every_router_walks_there_and_back(name, seed):
    case = routers.CASES[name]
    params, x = routers.setup(case)
    options = routers.options(case, x)
    routing, cache = case.router.route(params, x, **options, rng=generator(case, seed))
    states = list(walk.route(case.router, params, x, **options, rng=generator(case, seed)))
    phases = [s.phase for s in states]
    assert phases[0] == "input" and "routing" in phases and len(set(phases)) == len(phases)
    rows = states[phases.index("routing")]
    for field in ("token", "expert", "weight"):
        assert np.array_equal(rows[field], getattr(routing, field)), field
    if routing.logits is not None:
        assert np.array_equal(rows["probs"], routing.probs) and rows.axes["probs"] == ("N", "E")
    for state in states:
        assert len(state.arrays) and set(state.axes) == set(state.arrays)
        before = state.phase != "routing" and not state.phase.startswith("back")
        for field, value in cache._asdict().items():
            shown = state.arrays.get(field) if before else None
            if shown is not None and isinstance(value, np.ndarray) and value.shape == shown.shape:
                assert np.array_equal(shown, value), field
    last = states[-1]
    dx, grads = case.router.route_backward(last["dweight"], None, cache)
    same(last["dx"], dx)
    for k, g in grads.items():
        same(last[f"d{k}"], g)
    at_logits = case.router.logits_backward(last["dweight"], None, cache)
    named = at_logits._asdict() if isinstance(at_logits, tuple) else {"dlogits": at_logits}
    for field, value in named.items():
        assert value is None or np.array_equal(last[field], value), field


LINEAR = {name: case for name, case in routers.CASES.items() if case.linear}


@pytest.mark.parametrize("case", LINEAR.values(), ids=LINEAR.keys())
def test_the_gradients_at_the_logits_give_those_of_parameters_and_tokens(case):
    """By xᵀ and wᵀ, from the last state alone."""
    params, x = routers.setup(case)
    options = routers.options(case, x)
    last = list(walk.route(case.router, params, x, **options, rng=generator(case, 3)))[-1]
    pairs = {
        noisy_top_k: {"w": "dclean", "w_noise": "draw"},
        hierarchical: {"w_primary": "dprimary", "w_secondary": "dsecondary"},
    }.get(case.router, {"w": "dlogits"})
    for w, d in pairs.items():
        same(last[f"d{w}"], last.arrays.get("seen", x).T @ last[d])
    back = sum(last[d] @ params[w].T for w, d in pairs.items())
    same(last["dx"], back * last.arrays.get("factor", 1.0))


@pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS.keys())
def test_every_router_shows_equations_and_names_all_axes(router):
    params = router.init(np.random.default_rng(0), 6, 4, **getattr(router, "EXAMPLE_INIT", {}))
    x = np.random.default_rng(1).normal(size=(8, 6))
    states = list(walk.route(router, params, x, **router.EXAMPLE))
    assert sum(bool(state.equation) for state in states) >= 2
    for state in states:
        for array, axes in state.axes.items():
            assert len(axes) == np.ndim(state[array]), f"{state.phase}: {array}"


def test_a_hash_and_what_only_some_routers_have():
    x = np.random.default_rng(0).normal(size=(5, 3))
    ids = np.array([0, 1, 1, 0, 1])
    table = {"table": np.array([1, 0])}
    states = by_phase(walk.route(hashing, table, x, ids=ids, n_experts=2))
    assert states["lookup"]["ids"].tolist() == [0, 1, 1, 0, 1]
    assert states["routing"]["expert"].tolist() == [1, 0, 0, 1, 0]
    assert not states["backward, parameters and tokens"]["dx"].any()
    params, x = routers.setup(routers.CASES["noisy_top_k"])
    _, cache = noisy_top_k.route(params, x, k=2, rng=np.random.default_rng(1))
    states = by_phase(walk.route(noisy_top_k, params, x, k=2, rng=np.random.default_rng(1)))
    same(states["expected load"]["P"], noisy_top_k.load_forward(cache)[1])
    assert states["selection"]["choice"].shape == (12, 2)
    assert states["selection"]["runner_up"].shape == (12,)
    states = by_phase(walk.route(gshard, {"w": params["w"]}, x, capacity_factor=0.5))
    assert states["places"]["kept"].shape == (12, 2) and states["places"].axes["kept"] == ("N", "2")
    tree = hierarchical.init(np.random.default_rng(0), 5, 6, groups=3)
    options = {"k_primary": 2, "k_secondary": 1, "renormalise": False}
    states = by_phase(walk.route(hierarchical, tree, x, **options))
    assert states["weights"].axes["weight"] == ("N", "k1", "k2")
    assert states["routing"].axes["weight"] == ("A",)


def test_a_stage_that_does_not_hold_is_not_shown():
    params, x = routers.setup(routers.CASES["switch"])
    states = by_phase(walk.route(switch, params, x, capacity_factor=1.0))
    assert "jitter" not in states and r"\mathrm{logits} = x w" in states["logits"].equation
    assert "seen" not in states["backward, parameters and tokens"].equation
    assert states["places"]["C"] == 3 and np.bincount(states["routing"]["expert"]).max() <= 3
    assert "found no place" in states["routing"].note
    noisy = {"jitter": 0.1, "rng": np.random.default_rng(0)}
    states = by_phase(walk.route(switch, params, x, **noisy))
    assert "places" not in states and "seen" in states["jitter"].arrays
    assert "seen" in states["logits"].equation
    assert "factor" in states["backward, parameters and tokens"].equation


def test_gradients_that_are_given_are_used_and_checked():
    params, x = routers.setup(routers.CASES["top_k"])
    routing, cache = top_k.route(params, x, k=2, renormalise=False)
    dweight = np.random.default_rng(1).normal(size=24)
    dlogits = balance.switch(routing).dlogits
    steps = walk.route(top_k, params, x, k=2, renormalise=False, dweight=dweight, dlogits=dlogits)
    last = list(steps)[-1]
    same(last["dw"], top_k.route_backward(dweight, dlogits, cache)[1]["w"])
    same(last["dw"], x.T @ last["dlogits"])
    assert np.array_equal(last["dlogits_of_losses"], dlogits)
    with pytest.raises(InputError, match="dweight: wanted one for each of the 24 rows"):
        walk.route(top_k, params, x, k=2, renormalise=False, dweight=dweight[:3])
    with pytest.raises(InputError, match="renormalise"):
        walk.route(top_k, params, x, k=1, renormalise=True)
    states = list(walk.route(gradient_estimators, params, x, estimator="reinforce"))
    assert not states[-1]["dw"].any(), "nothing of dweight reaches it"
    assert "dweight is not used" in states[-2].note
    states = list(walk.route(gradient_estimators, params, x, estimator="straight_through"))
    assert "as if the weights" in states[-2].note


# --- routers from elsewhere -----------------------------------------------------------------------


class Forward:
    """A router that has only a forward pass, and states nothing."""

    @staticmethod
    def route(params, x, rng=None):
        logits = x @ params["w"]
        demand = contract.demand_of(contract.top_k(logits, 1), 3)
        token, expert = np.nonzero(demand)
        return contract.Routing(token, expert, np.ones(len(x)), logits, logits, demand), None


class Both(Forward):
    @staticmethod
    def route_backward(dweight, dlogits, cache):
        return np.zeros((4, 2)), {"w": np.zeros((2, 3))}


def test_a_router_that_states_no_stages_has_phases_too():
    x = np.random.default_rng(0).normal(size=(4, 2))
    phases = [s.phase for s in walk.route(Forward, {"w": np.ones((2, 3))}, x)]
    assert phases == ["input", "logits", "probabilities", "selection", "routing"]
    states = list(walk.route(Both, {"w": np.ones((2, 3))}, x))
    expected = ["backward, what arrives", "backward, parameters and tokens"]
    assert [s.phase for s in states[-2:]] == expected and states[-1].axes["dw"] == ("D", "E")
