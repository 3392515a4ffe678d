"""The router zoo and the associative memory it is run on."""

import dataclasses
import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error, pair_error
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.router_zoo import experiment as zoo
from moe_np.layers import diagnostics
from moe_np.models import associative_memory
from moe_np.models.associative_memory import Gate
from moe_np.routing import base_assignment, expert_choice, top_k

TINY = zoo.Config(
    n_keys=128, d_model=6, n_values=5, n_experts=16, hidden=3, batch=64, epochs=1, lr=0.01
)
TRUE_GRADIENT = [
    name for name in zoo.GATES if name not in ("straight-through", "REINFORCE", "soft mixture")
]


def small(gate, seed=0, n_experts=16, n=40):
    """A start away from zero in float64, and a minibatch: params, x, y, ids."""
    rng = np.random.default_rng(seed)
    keys, labels = associative_memory.associations(rng, n, 6, 5, dtype=np.float64)
    params = associative_memory.init(rng, gate, keys, 5, n_experts=n_experts, hidden=3)
    for part in params.values():
        for name, p in part.items():
            if p.dtype.kind == "f":
                part[name] = p + 0.3 * rng.normal(size=p.shape)
    return params, keys, labels, np.arange(n)


@pytest.fixture
def sweep():
    with Sweep(jobs=1, progress=False) as one:
        yield one


# --- the memory -----------------------------------------------------------------------------------


def test_keys_and_labels():
    a, b = (
        associative_memory.associations(np.random.default_rng(3), 4000, 8, 5, common=c)
        for c in (0.0, 2.0)
    )
    assert a[0].dtype == np.float32 and a[0].shape == (4000, 8) and np.array_equal(a[1], b[1])
    assert set(a[1]) == set(range(5))
    shift = (b[0] - a[0]).astype(float)
    np.testing.assert_allclose(np.linalg.norm(shift, axis=1), 2, rtol=1e-5)
    np.testing.assert_allclose(shift, shift[:1].repeat(4000, axis=0), atol=1e-5)
    assert np.linalg.norm(a[0].mean(axis=0)) < 0.15


def test_values_gradient():
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=7)
    params = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}
    forward = lambda p, h: associative_memory.values_forward(p, h, y)  # noqa: E731
    errors = pair_error(
        forward, associative_memory.values_backward, params, rng.normal(size=(7, 3)), rng
    )
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("name", TRUE_GRADIENT)
def test_the_gradient_of_a_whole_step(name):
    """Task and balance losses together, through layer, router and values, on one scale (errata 16)."""
    gate = zoo.GATES[name]
    if (
        name == "strictly balanced"
    ):  # its loss is for the thresholds alone, and no gradient of the whole
        gate = gate._replace(losses=())
    params, x, y, ids = small(gate)

    def loss(part, moved):
        # `gradients` calls every loss; its value and the token losses make up what is
        # differentiated
        _, token_loss, push, routing = associative_memory.gradients(
            gate, {**params, part: {**params[part], **moved}}, x, y, ids, np.random.default_rng(1)
        )
        assert np.array_equal(routing.expert, chosen.expert), "a tie"
        return token_loss.mean() + push

    grads, _, _, chosen = associative_memory.gradients(
        gate, params, x, y, ids, np.random.default_rng(1)
    )
    for part, own in grads.items():
        names = [k for k in own if k not in ("threshold", "bias")]  # no gradient by definition
        errors = gradient_error(
            lambda p, part=part: loss(part, p),
            {k: params[part][k] for k in names},
            {k: own[k] for k in names},
            np.random.default_rng(2),
            step=2e-5 if part == "experts" else 1e-4,
        )
        assert max(errors.values(), default=0) < 1e-7, (part, errors)


def test_nothing_is_changed_and_every_step_improves_on_one_batch():
    gate = zoo.GATES["top-2, Switch loss"]
    params, x, y, ids = small(gate)
    for part in params.values():
        for p in part.values():
            p.flags.writeable = False
    x.flags.writeable = False
    state, losses, rng = None, [], np.random.default_rng(0)
    for _ in range(40):
        step = associative_memory.train_step(gate, params, state, x, y, ids, lr=0.02, rng=rng)
        params, state = step.params, step.state
        losses.append(step.loss)
    assert losses[-1] < 0.5 * losses[0]
    assert [own.t for own in state.values()] == [40] * 3  # Adam's means go on


def test_every_gate_gets_the_same_minibatches():
    keys, labels = associative_memory.associations(np.random.default_rng(0), 32, 4, 3)
    seen = {}

    def recorder(name, draws):
        def step(gate, params, state, x, y, ids, *, lr, rng):
            rng.random(draws)
            seen.setdefault(name, []).append((ids.tolist(), lr))
            return associative_memory.Step(params, state, 0.0, 0.0, None)

        return step

    for name, draws in (("a", 0), ("b", 7)):
        gate = Gate(None, step=recorder(name, draws))
        options = {"epochs": 3, "batch": 10, "lr": 1.0, "rng": np.random.default_rng(5)}
        assert len(list(associative_memory.train(gate, {}, keys, labels, **options))) == 9
    assert seen["a"] == seen["b"]
    assert [lr for _, lr in seen["a"]] == pytest.approx([1 - n / 9 for n in range(9)])
    assert all(len(set(ids)) == 10 for ids, _ in seen["a"])


def test_a_batch_larger_than_the_memory_is_refused():
    keys, labels = associative_memory.associations(np.random.default_rng(0), 8, 4, 3)
    with pytest.raises(InputError, match="batch: wanted at most the 8 keys there are, got 9"):
        next(
            associative_memory.train(
                Gate(top_k),
                {},
                keys,
                labels,
                epochs=1,
                batch=9,
                lr=1.0,
                rng=np.random.default_rng(0),
            )
        )


def test_what_has_no_gradient_moves_only_as_it_should():
    table, bias = zoo.GATES["hash"], zoo.GATES["bias-balanced"]
    params, x, y, ids = small(table)
    after = associative_memory.train_step(table, params, None, x, y, ids, lr=0.1, rng=None).params
    assert np.array_equal(after["router"]["table"], params["router"]["table"])
    params, x, y, ids = small(bias)
    step = associative_memory.train_step(bias, params, None, x, y, ids, lr=0.1, rng=None)
    moved = step.params["router"]["bias"] - params["router"]["bias"]
    count = diagnostics.demand(step.routing)
    np.testing.assert_allclose(moved, 1e-3 * np.sign(count.mean() - count), atol=1e-12)


def test_the_baseline_of_reinforce_leaves_out_the_token_itself():
    gate = zoo.GATES["REINFORCE"]
    params, x, _, ids = small(gate)
    routing, cache = gate.router.route(
        params["router"], x, **gate.train, rng=np.random.default_rng(0)
    )
    loss = np.random.default_rng(1).random(len(ids))
    push = associative_memory.reinforce(routing, cache, loss)
    others = np.array([np.delete(loss, n).mean() for n in ids])
    expected = ((loss - others) / len(ids))[:, None] * (routing.demand - routing.probs)
    np.testing.assert_allclose(push.dlogits, expected, rtol=1e-12)


def test_losses_are_added_with_their_coefficients():
    gate = zoo.GATES["ST-MoE"]
    params, x, y, _ = small(gate)
    routing, cache = gate.router.route(params["router"], x)
    one = [associative_memory.total((pair,), routing, cache, y) for pair in gate.losses]
    both = associative_memory.total(gate.losses, routing, cache, y)
    raw = [loss(routing, cache, y) for _, loss in gate.losses]
    assert both.value == pytest.approx(0.01 * raw[0].value + 1e-3 * raw[1].value)
    np.testing.assert_allclose(one[1].dlogits, 1e-3 * raw[1].dlogits, rtol=1e-12)
    np.testing.assert_allclose(both.dlogits, one[0].dlogits + one[1].dlogits, rtol=1e-12)
    assert (
        both.dweight is None
        and associative_memory.total((), routing, cache, y) == associative_memory.Push()
    )


def test_measure_by_hand():
    gate = Gate(top_k, {"k": 1, "renormalise": False})
    params, x, y, _ = small(gate, n_experts=4)
    params["values"] = {k: 0 * p for k, p in params["values"].items()}
    params["router"]["w"] = np.eye(6)[:, :4] * 50
    found = associative_memory.measure(gate, params, x, y, batch=16)  # the last batch is shorter
    assert found["perplexity"] == pytest.approx(5)
    parts = [np.bincount(x[i : i + 16, :4].argmax(axis=1), minlength=4) for i in (0, 16, 32)]
    assert found["cv"] == pytest.approx(np.mean([p.std() / p.mean() for p in parts]))
    assert found["max_mean"] == pytest.approx(np.mean([p.max() / p.mean() for p in parts]))
    assert found["experts"] == 1 and found["dropped"] == found["unserved"] == 0


# --- a router in groups ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 5, 12, 17])
def test_groups_are_routed_by_themselves(n):
    rng = np.random.default_rng(n)
    grouped = zoo.in_groups(base_assignment, 6)
    params, x = grouped.init(rng, 5, 3), rng.normal(size=(n, 5))
    routing, cache = grouped.route(params, x, training=True)
    dweight, dlogits = rng.normal(size=len(routing.token)), rng.normal(size=(n, 3))
    dx, grads = grouped.route_backward(dweight, dlogits, cache)
    assert routing.demand.shape == (n, 3) and sorted(routing.token) == list(range(n))
    total = 0
    for i in range(0, n, 6):
        own, own_cache = base_assignment.route(params, x[i : i + 6], training=True)
        here = (routing.token >= i) & (routing.token < i + 6)
        assert np.array_equal(routing.expert[here], own.expert) and np.array_equal(
            routing.token[here] - i, own.token
        )
        own_dx, own_grads = base_assignment.route_backward(
            dweight[here], dlogits[i : i + 6], own_cache
        )
        np.testing.assert_allclose(dx[i : i + 6], own_dx)
        total = total + own_grads["w"]
    np.testing.assert_allclose(grads["w"], total if n else np.zeros((5, 3)), atol=1e-12)


def test_each_group_is_chosen_from_by_itself():
    grouped = zoo.in_groups(expert_choice, 4)
    rng = np.random.default_rng(0)
    params, x = grouped.init(rng, 5, 2), rng.normal(size=(8, 5))
    routing, cache = grouped.route(params, x, capacity_factor=1.0)
    assert np.bincount(routing.expert, minlength=2).tolist() == [4, 4]
    dx, _ = grouped.route_backward(np.ones(len(routing.token)), None, cache)
    assert dx.shape == x.shape


# --- the experiment -------------------------------------------------------------------------------


@pytest.mark.parametrize("system", zoo.GATES)
def test_every_system_runs_and_a_run_is_its_spec(system):
    spec = zoo.spec_of(TINY, system, 3)
    found = zoo.run_one(spec)
    assert to_json(found) == to_json(zoo.run_one(json.loads(json.dumps(spec))))
    assert found != zoo.run_one({**spec, "seed": 4})
    assert 1 < found["perplexity"] < 20
    assert ("drops" in found) == (system in zoo.WITH_CAPACITY)
    assert ("as trained" in found) == (system in ("BASE", "strictly balanced"))
    if system != "soft mixture":
        assert found["cv"] >= 0 and 1 <= found["max_mean"] <= 16 and 0 <= found["dropped"] < 1
        assert 0 < found["experts"] <= 16


def test_larger_capacity_drops_less():
    found = zoo.run_one(zoo.spec_of(TINY, "Switch, α = .01", 0))
    drops = [case["dropped"] for case in found["drops"]]
    assert drops[0] > drops[1] > drops[2] >= 0 and found["dropped"] == drops[1]


def test_the_result_and_its_table(sweep):
    result = zoo.run(TINY, seeds=2, sweep=sweep, quick=True)  # one pass, as TINY has anyway
    assert list(result["systems"]) == list(zoo.GATES) and result["seeds"] == [0, 1]
    values = [one["perplexity"] for one in result["systems"]["hash"]]
    assert result["summary"]["hash"]["perplexity"]["mean"] == pytest.approx(np.mean(values))
    assert result["summary"]["hash"]["perplexity"]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert all(0 < ms < 1e4 for ms in result["milliseconds"].values())
    few = zoo.run(TINY, seeds=1, sweep=sweep, quick=True)
    assert all(few["systems"][name] == own[:1] for name, own in result["systems"].items())
    for one in (result, few):
        text = zoo.table(json.loads(to_json(one)))
        assert all(f"| {name} |" in text for name in zoo.GATES)
        assert (
            "(9)" in text
            and "(4.95)" in text
            and "| the earlier program | 15 | 5.5 | 0.1 |" in text
        )


def test_quick_is_shorter():
    config, seeds, specs = zoo.plan(quick=True)
    assert config == dataclasses.replace(zoo.Config(), epochs=1)
    assert seeds == 1 and len(specs) == len(zoo.GATES)
    assert zoo.step_times(TINY, rounds=1, each=2).keys() == zoo.GATES.keys()
    assert len(zoo.plan()[2]) == zoo.SEEDS * len(zoo.GATES)


def test_by_chance_is_what_a_random_gate_has():
    rng, config = np.random.default_rng(0), {"n_experts": 32, "batch": 512}
    for k in (1, 2):
        loads = (
            np.bincount(rng.random((512, 32)).argsort(axis=1)[:, :k].ravel(), minlength=32)
            for _ in range(200)
        )
        assert zoo.by_chance(config, k) == pytest.approx(
            np.mean([diagnostics.cv(n) for n in loads]), rel=0.03
        )


@pytest.mark.parametrize(
    ("bad", "words"), [({"system": "none"}, "system: wanted one of"), ({"batch": 0}, "batch")]
)
def test_bad_specs(bad, words):
    with pytest.raises(InputError, match=words):
        zoo.run_one({**zoo.spec_of(TINY, "hash", 0), **bad})


def test_seeds_are_checked():
    with pytest.raises(InputError, match="seeds: wanted a whole number"):
        zoo.plan(seeds=0)


@pytest.mark.slow
def test_the_order_of_the_plainest_systems(sweep):
    """One seed at full length: memory without learning first, sparse before dense, chance behind."""
    names = (
        "hash",
        "top-2, Switch loss",
        "noisy top-2",
        "straight-through",
        "dense net, same active size",
    )
    specs = [zoo.spec_of(zoo.Config(), name, 0) for name in names]
    found = dict(zip(names, sweep.map(zoo.run_one, specs), strict=True))
    hashed, top, noisy, through, dense = (found[name]["perplexity"] for name in names)
    assert hashed < top < noisy < min(through, dense)
    assert top < 10 and dense > 35
    assert found["hash"]["cv"] == pytest.approx(zoo.by_chance(specs[0], 1), rel=0.15)
