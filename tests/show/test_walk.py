"""Walks show what the package computes: the arrays of their states equal what its functions return."""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import balance, experts, sparse_layer
from moe_np.mixtures import jacobs1991 as model
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
from moe_np.show.steps import Steps
from moe_np.show.walk.em_walk import steps as em_steps
from tests.support import routers
from tests.training.methods import test_methods as ways


def by_phase(steps):
    return {s.phase: s for s in steps}


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


# --- The mixture of 1991 --------------------------------------------------------------------------


def mixture(seed=0, N=7, D=2, E=3, C=1):
    rng = np.random.default_rng(seed)
    params = {
        k: p + 0.3 * rng.normal(size=p.shape) for k, p in model.init_mixture(rng, E, D, C).items()
    }
    return params, rng.normal(size=(N, D)), rng.uniform(size=(N, C))


@pytest.mark.parametrize("error", model.ERRORS)
def test_pieces_of_an_epoch_are_those_of_the_mixture(error):
    params, x, d = mixture(C=2)
    states = by_phase(
        itertools.takewhile(
            lambda s: s.phase != "epoch 1: experts", walk.vowels(params, x, d, lr=0.1, error=error)
        )
    )
    loss, cache = model.system_forward(params, x, d, error)
    grads = model.system_backward(np.ones_like(loss), cache)[1]
    gate, blend = states["epoch 0: gate"], states["epoch 0: blend"]
    (
        same(states["epoch 0: experts"]["o"], cache.o),
        same(gate["s"], cache.gate.s),
        same(gate["p"], cache.p),
    )
    same(blend["y"], cache.y), same(states["epoch 0: error"]["loss"], loss)
    for k, g in grads.items():
        same(states["epoch 0: gradient"][f"d{k}"], g)
        same(states["epoch 0: update"][k], params[k] - 0.1 * g)
        same(states["epoch 1: start"][k], params[k] - 0.1 * g)
    back = states["epoch 0: backward, totals"]
    same(back["dtotals"].sum(axis=0), grads["b"]), same(x.T @ back["ds"], grads["U"])
    assert ("epoch 0: responsibilities" in states) == (error == "mixture")
    assert states["epoch 0: experts"].axes["o"] == ("N", "E", "C") and back.axes["ds"] == ("N", "E")


def test_whole_epochs_are_those_of_train_and_end_where_it_stops():
    params, x, d = mixture()
    steps = walk.vowels(params, x, d, lr=0.5, every=3)
    wanted = itertools.islice(model.train(params, x, d, lr=0.5), 7)
    for number, step in enumerate(wanted):
        if number % 3 == 0:
            now = next(steps)
            assert now.phase == f"epoch {number}" and now["squared_error"] == step.squared_error
            same(now["W"], step.params["W"]), same(now["resp"], step.cache.scores.resp)
            same(
                now["foot"], model.decision_foot(step.params["W"][..., 0], step.params["b"][..., 0])
            )
    stop = now["squared_error"]
    assert [s.phase for s in walk.vowels(params, x, d, lr=0.5, every=4, stop=stop)] == [
        "epoch 0",
        "epoch 4",
        "epoch 6",
    ]
    with pytest.raises(InputError, match="every"):
        walk.vowels(params, x, d, lr=0.5, every=0)
    with pytest.raises(InputError, match="wanted those of a mixture"):
        walk.vowels(model.init_net(np.random.default_rng(0), 3), x, d, lr=0.5)


# --- Routers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 3], ids=["evaluation", "noise"])
@pytest.mark.parametrize("name", routers.CASES)
def test_every_router_walks_there_and_back(name, seed):
    case = routers.CASES[name]
    params, x = routers.setup(case)
    rng = [
        np.random.default_rng(seed) if seed is not None and case.noisy else None for _ in range(2)
    ]
    routing, cache = case.router.route(params, x, **case.options, rng=rng[0])
    states = list(walk.route(case.router, params, x, **case.options, rng=rng[1]))
    phases = [s.phase for s in states]
    assert phases[0] == "input" and "routing" in phases and len(set(phases)) == len(phases)
    rows = states[phases.index("routing")]
    for field in ("token", "expert", "weight"):
        assert np.array_equal(rows[field], getattr(routing, field)), field
    if routing.logits is not None:
        assert np.array_equal(rows["probs"], routing.probs) and rows.axes["probs"] == ("N", "E")
    for state in states:
        assert len(state.arrays) and set(state.axes) == set(state.arrays)
        for field, value in getattr(cache, "_asdict", dict)().items():
            shown = (
                state.arrays.get(field)
                if state.phase != "routing" and not state.phase.startswith("back")
                else None
            )
            if shown is not None and isinstance(value, np.ndarray) and value.shape == shown.shape:
                assert np.array_equal(shown, value), field
    if hasattr(case.router, "route_backward"):
        last = states[-1]
        dx, grads = case.router.route_backward(last["dweight"], None, cache)
        same(last["dx"], dx)
        for k, g in grads.items():
            same(last[f"d{k}"], g)
        at_logits(name, params, x, cache, last)


def at_logits(name, params, x, cache, last):
    """The gradients at the logits give, by xᵀ and wᵀ, those of parameters and tokens."""
    seen = getattr(cache, "seen", x)
    if name.startswith("kmeans"):
        pull = 2 / cache.temperature * last["dlogits"]
        same(last["dx"], pull @ params["centroids"] - x * pull.sum(axis=1, keepdims=True))
        return
    pairs = {"w": "dlogits"}
    if name.startswith("noisy"):
        pairs = {"w": "dclean", "w_noise": "draw"} if cache.noise is not None else {"w": "dclean"}
    if name.startswith("hierarchical"):
        pairs = {"w_primary": "dprimary", "w_secondary": "dsecondary"}
    for w, d in pairs.items():
        same(last[f"d{w}"], seen.T @ last[d])
    back = sum(last[d] @ params[w].T for w, d in pairs.items())
    same(last["dx"], back if getattr(cache, "factor", None) is None else back * cache.factor)


def test_a_hash_and_what_only_some_routers_have():
    x = np.random.default_rng(0).normal(size=(5, 3))
    states = by_phase(
        walk.route(
            hashing, {"table": np.array([1, 0])}, x, ids=np.array([0, 1, 1, 0, 1]), n_experts=2
        )
    )
    assert states["lookup"]["ids"].tolist() == [0, 1, 1, 0, 1] and states["routing"][
        "expert"
    ].tolist() == [
        1,
        0,
        0,
        1,
        0,
    ]
    assert not states["backward, parameters and tokens"]["dx"].any()
    params, x = routers.setup(routers.CASES["noisy_top_k"])
    _, cache = noisy_top_k.route(params, x, k=2, rng=np.random.default_rng(1))
    states = by_phase(walk.route(noisy_top_k, params, x, k=2, rng=np.random.default_rng(1)))
    same(states["expected load"]["P"], noisy_top_k.load_forward(cache)[1])
    assert states["selection"]["choice"].shape == (12, 2) and states["selection"][
        "runner_up"
    ].shape == (12,)
    states = by_phase(walk.route(switch, {"w": params["w"]}, x, capacity_factor=1.0))
    assert (
        r"\mathrm{logits} = x w" in states["logits"].equation
        and "seen" not in states["logits"].arrays
    )
    assert "seen" not in states["backward, parameters and tokens"].equation
    assert states["places"]["C"] == 3 and np.bincount(states["routing"]["expert"]).max() <= 3
    assert "found no place" in states["routing"].note
    states = by_phase(walk.route(gshard, {"w": params["w"]}, x, capacity_factor=0.5))
    assert states["places"]["kept"].shape == (12, 2) and states["places"].axes["kept"] == ("N", "2")
    states = by_phase(
        walk.route(
            hierarchical,
            hierarchical.init(np.random.default_rng(0), 5, 6, groups=3),
            x,
            k_primary=2,
            k_secondary=1,
            renormalise=False,
        )
    )
    assert states["weights"].axes["weight"] == ("N", "k1", "k2") and states["routing"].axes[
        "weight"
    ] == ("A",)


def test_gradients_that_are_given_are_used_and_checked():
    params, x = routers.setup(routers.CASES["top_k"])
    routing, cache = top_k.route(params, x, k=2, renormalise=False)
    dweight, dlogits = np.random.default_rng(1).normal(size=24), balance.switch(routing).dlogits
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
    assert (
        "as if the weights"
        in list(walk.route(gradient_estimators, params, x, estimator="straight_through"))[-2].note
    )


# --- The layer ------------------------------------------------------------------------------------


def layer(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, 4))
    routing, _ = top_k.route(top_k.init(rng, 4, 3), x, k=2, renormalise=True)
    return experts.SWIGLU.init(rng, 4, 3, 5), x, routing, rng.normal(size=(6, 4))


def test_the_counting_sort_place_by_place():
    _, x, routing, _ = layer()
    states = by_phase(walk.dispatch(routing, x, per_assignment=True))
    order, offsets = sparse_layer.by_expert(routing.expert, 3)
    assert np.array_equal(states["count"]["count"], np.bincount(routing.expert, minlength=3))
    assert np.array_equal(states["offsets"]["offsets"], offsets)
    assert np.array_equal(states["place assignment 11"]["order"], order), (
        "placing one by one gives the same order"
    )
    assert (states["place assignment 0"]["order"] == -1).sum() == 11
    gathered = states["gather"]
    assert np.array_equal(gathered["order"], order) and np.array_equal(
        gathered["rows"], x[routing.token[order]]
    )
    assert "sorted" in by_phase(walk.dispatch(routing)) and "gather" not in by_phase(
        walk.dispatch(routing)
    )


def test_the_layer_there_and_back():
    params, x, routing, dout = layer()
    states = list(walk.layer(params, x, routing, experts.SWIGLU, dout))
    out, cache = sparse_layer.forward(params, x, routing, experts.SWIGLU)
    dx, grads, dweight = sparse_layer.backward(dout, cache)
    last = states[-1]
    (
        same(last["out"], out),
        same(last["y"], cache.y),
        same(last["dx"], dx),
        same(last["dweight"], dweight),
    )
    for k, g in grads.items():
        same(last[f"d{k}"], g)
    combine = [s["out"] for s in states if s.phase.startswith("combine")]
    assert len(combine) == 3 and not np.array_equal(combine[0], combine[2])
    assert not any(
        s.phase.startswith("back") for s in walk.layer(params, x, routing, experts.SWIGLU)
    )
    with pytest.raises(InputError, match="dout: wanted the shape of out"):
        walk.layer(params, x, routing, experts.SWIGLU, dout[:2])


# --- Balance losses -------------------------------------------------------------------------------

OPTIONS = {
    "device_level": {"device": np.array([0, 1, 1, 0])},
    "sequence_wise": {"sequence": np.arange(12) // 6, "k": 2},
}


@pytest.mark.parametrize("padding", [False, True], ids=["all", "padding"])
@pytest.mark.parametrize("name", [n for n in walk.losses.NAMES if n != "load"])
def test_every_balance_loss(name, padding):
    params, x = routers.setup(routers.CASES["top_k"])
    routing, _ = top_k.route(params, x, k=2, renormalise=True)
    valid = np.arange(12) < 9 if padding else None
    options = OPTIONS.get(name, {})
    loss = getattr(balance, name)(routing, valid=valid, **options)
    states = list(walk.balance(name, routing, valid=valid, **options))
    last = states[-1]
    same(last["value"], loss.value)
    gradient = "dweight" if name == "importance" else "dlogits"
    same(last[gradient], getattr(loss, gradient))
    E, by = 4, by_phase(states)
    again = {  # the value from what was shown on the way to it
        "switch": lambda: E * (last["f"] * last["P"]).sum(),
        "expert_level": lambda: E * (last["f"] * last["P"]).sum(),
        "gshard": lambda: last["product"].sum() / E,
        "z_loss": lambda: np.square(last["log_z"]).mean(),
        "token_entropy": lambda: last["H"].mean(),
        "mean_entropy": lambda: -(last["P"] * np.log(last["P"])).sum(),
        "device_level": lambda: (last["mean_f"] * last["sum_P"]).sum(),
        "sequence_wise": lambda: np.mean(
            [
                (f * last["p"][last["sequence"] == s].mean(axis=0)).sum()
                for s, f in enumerate(last["f"])
            ]
        ),
        "importance": lambda: by["mean and variance"]["variance"] / last["mean"] ** 2,
    }[name]()
    same(again, loss.value)
    if name != "sequence_wise":
        assert all(s.equation for s in states[1:])


def test_the_load_loss_of_the_noisy_gate():
    params, x = routers.setup(routers.CASES["noisy_top_k"])
    routing, cache = noisy_top_k.route(params, x, k=2, rng=np.random.default_rng(0))
    last = list(walk.balance("load", routing, cache=cache))[-1]
    loss = balance.load(cache)
    same(last["value"], loss.value)
    same(last["dload"], loss.dload)
    same(last["dw_noise"], noisy_top_k.load_backward(loss.dload, cache)[1]["w_noise"])
    with pytest.raises(InputError, match="cache: wanted that of noisy_top_k"):
        walk.balance("load", routing)
    with pytest.raises(InputError, match="name: wanted one of switch, "):
        walk.balance("fairness", routing)


def test_divided_by_k_or_not():
    params, x = routers.setup(routers.CASES["top_k"])
    routing, _ = top_k.route(params, x, k=2, renormalise=True)
    for divide, total in ((True, 1), (False, 2)):
        last = list(walk.balance("switch", routing, divide_by_k=divide))[-1]
        assert last["f"].sum() == pytest.approx(total)
        assert last["value"] == balance.switch(routing, divide_by_k=divide).value


# --- Runs -----------------------------------------------------------------------------------------


def test_em_has_its_data_in_every_state():
    em = pytest.importorskip("moe_np.mixtures.em")
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (40, 1))
    y = np.where(x > 0, 2 * x, -x) + 0.1 * rng.normal(size=(40, 1))
    steps = walk.em(x, y, 2, family=em.Gaussian(), rng=np.random.default_rng(1), max_iter=3)
    wanted = list(em_steps(x, y, 2, family=em.Gaussian(), rng=np.random.default_rng(1), max_iter=3))
    states = list(steps)
    assert [s.phase for s in states] == [s.phase for s in wanted] and states[1].phase == "E step"
    assert np.array_equal(states[1]["resp"], wanted[1]["resp"]) and np.array_equal(
        states[1]["y"], y
    )
    assert states[1].axes["x"] == ("N", "D")


def test_any_trainer_is_a_walk():
    params, x, d = mixture()
    steps = walk.training(model.train(params, x, d, lr=0.1), every=2, last=5, data={"x": x, "d": d})
    wanted = list(itertools.islice(model.train(params, x, d, lr=0.1), 6))
    states = list(steps)
    assert [s.phase for s in states] == ["step 0", "step 2", "step 4", "step 5"]
    for state, number in zip(states, (0, 2, 4, 5), strict=True):
        assert state["loss"] == wanted[number].loss
        same(state["W"], wanted[number].params["W"]), same(state["p"], wanted[number].cache.p)
    assert states[0].axes["U"] == ("D", "E") and list(states[0].arrays)[:2] == ["x", "d"]
    assert (
        isinstance(steps, Steps) and [s.phase for s in walk.training(iter(wanted))][-1] == "step 5"
    ), "and an end is an end"


@pytest.mark.parametrize("name", ways.TRAINERS)
def test_every_way_of_training_is_a_walk(name):
    problem = ways.small()
    wanted = ways.steps(ways.TRAINERS[name], problem, 4)
    steps = walk.training(
        ways.TRAINERS[name](problem, np.random.default_rng(0)),
        data={"x": problem.x, "y": problem.y},
    )
    for step in wanted:
        state = next(steps)
        assert (
            state.phase == f"step {step.number}"
            and state["loss"] == step.loss
            and state["passes"] == step.passes
        )
        for part in step.params.values():
            for k, value in part.items():
                assert np.array_equal(state[k], value), k
        for k, value in step.cache._asdict().items():
            if isinstance(value, np.ndarray) and k not in ("x", "y"):
                assert np.array_equal(state.arrays.get(k, state.arrays.get(f"cache.{k}")), value), k
        assert all(word in state.note for word in step.changed)


def test_a_trainer_of_parts():
    contract_of_training = pytest.importorskip("moe_np.training.methods.method")
    step = contract_of_training.Step(
        3, 0.5, ("experts",), {"experts": {"W": np.ones(2)}, "gate": {"W": np.zeros(2)}}, None, 6.0
    )
    (state,) = walk.training([step])
    assert state.phase == "step 3" and state.note == "Changed: experts." and state["loss"] == 0.5
    assert (
        state["W"].tolist() == [1, 1]
        and state["gate.W"].tolist() == [0, 0]
        and state["passes"] == 6
    )


def test_a_router_of_ones_own_has_phases_too():
    class Mine:
        @staticmethod
        def route(params, x, rng=None):
            logits = x @ params["w"]
            demand = contract.demand_of(contract.top_k(logits, 1), 3)
            token, expert = np.nonzero(demand)
            return contract.Routing(token, expert, np.ones(len(x)), logits, logits, demand), None

    x = np.random.default_rng(0).normal(size=(4, 2))
    phases = [s.phase for s in walk.route(Mine, {"w": np.ones((2, 3))}, x)]
    assert phases == ["input", "logits", "probabilities", "selection", "routing"]
