"""The classifier: its gradients, its counts, and what its routers do in evaluation."""

import numpy as np
import pytest

from moe_np.experiments.generalisation import classifier
from moe_np.experiments.generalisation.classifier import SYSTEMS
from moe_np.experiments.generalisation.data_sets import Cases
from moe_np.layers import balance

FEATURES = 5
CLASSES = 4


def made(name, n=24):
    rng = np.random.default_rng(2)
    params = classifier.init(rng, name, FEATURES, CLASSES)
    x = rng.normal(size=(n, FEATURES)).astype(np.float32)
    x[:, -1] = 1
    return params, Cases(x, rng.integers(CLASSES, size=n))


def in_double(params):
    return {
        part: {k: p.astype(np.float64) if p.dtype.kind == "f" else p for k, p in arrays.items()}
        for part, arrays in params.items()
    }


@pytest.mark.parametrize("name", [n for n in SYSTEMS if not SYSTEMS[n].input_noise])
def test_gradients_are_those_of_the_loss(name):
    params, part = made(name)
    params = in_double(params)
    part = Cases(part.x.astype(np.float64), part.y)
    system = SYSTEMS[name]

    def objective():
        """The loss with the load-balancing loss, with the same noise on every call."""
        rng = np.random.default_rng(3)
        out, (routing, *_) = classifier.scores(system, params, part.x, rng)
        top = out - out.max(axis=1, keepdims=True)
        log_p = top - np.log(np.exp(top).sum(axis=1, keepdims=True))
        loss = -log_p[np.arange(len(part.y)), part.y].mean()
        if "router" in params and name not in ("expert choice", "at random"):
            balanced = balance.importance if name.startswith("sigmoid") else balance.switch
            loss += classifier.BALANCE * balanced(routing).value
        return loss

    _, grads = classifier.gradients(system, params, part, np.random.default_rng(3))
    rng = np.random.default_rng(4)
    for key, arrays in grads.items():
        for k, g in arrays.items():
            index = tuple(rng.integers(n) for n in g.shape)
            p = params[key][k]
            before = p[index]
            values = []
            for step in (1e-6, -1e-6):
                p[index] = before + step
                values.append(objective())
            p[index] = before
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(g[index], abs=2e-6), (key, k)


def test_every_part_that_is_learnt_has_a_gradient():
    for name, system in SYSTEMS.items():
        params, part = made(name)
        _, grads = classifier.gradients(system, params, part, np.random.default_rng(0))
        learnt = {key for key, arrays in params.items() if "table" not in arrays}
        assert set(grads) == learnt
        assert all(g.shape == params[key][k].shape for key in grads for k, g in grads[key].items())


def test_equal_operations_and_equal_size():
    operations = {name: classifier.operations(name, 7, 5) for name in SYSTEMS}
    gate = 7 * 8
    assert operations["top-2 of 8"] == operations["dense 32"] + gate
    assert operations["one shared expert"] == operations["top-2 of 8"] - 7
    sizes = {
        name: classifier.parameters(classifier.init(np.random.default_rng(0), name, 7, 5))
        for name in SYSTEMS
    }
    for mixture, net in (("top-2 of 8", "dense 128"), ("top-2 of 32", "dense 512")):
        assert sizes[net] == pytest.approx(sizes[mixture], rel=0.06)
    assert sizes["one shared expert"] == sizes["top-2 of 8"] - 7
    assert sizes["shared first layer"] == sizes["top-2 of 8"] - 7 * (7 * 16 + 16)


def test_an_initialisation_that_is_drawn_anew_differs():
    usual, again, anew = (
        made(name)[0]["experts"]["w1"] for name in (*2 * ("dense 128",), "dense 128, drawn anew")
    )
    assert not np.array_equal(usual, anew) and usual.shape == anew.shape
    assert np.array_equal(usual, again)


def test_the_weights_of_the_gate_of_sigmoids_are_shares_of_sigmoids():
    params, part = made("sigmoid top-2 of 8")
    routed, _ = classifier.route(SYSTEMS["sigmoid top-2 of 8"], params, part.x)
    gate = 1 / (1 + np.exp(-part.x @ params["router"]["w"]))
    largest = -np.sort(-gate, axis=1)[:, :2]
    shares = largest / largest.sum(axis=1, keepdims=True)
    assert routed.weight.reshape(-1, 2) == pytest.approx(shares, abs=1e-5)


def test_expert_choice_is_evaluated_in_batches_and_other_routers_are_not():
    for name, depends in (("expert choice", True), ("top-2 of 8", False)):
        params, part = made(name)
        losses = [classifier.losses_of(SYSTEMS[name], params, part, size) for size in (6, 24)]
        assert np.allclose(*losses) is not depends


def test_a_router_that_looks_at_no_feature_is_the_same_for_the_same_case():
    params, part = made("at random", 400)
    routed, _ = classifier.route(SYSTEMS["at random"], params, part.x)
    again, _ = classifier.route(SYSTEMS["at random"], params, part.x)
    assert np.array_equal(routed.expert, again.expert)
    assert np.bincount(routed.expert, minlength=8).min() > 20
