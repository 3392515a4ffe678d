"""Upcycling: equal to the dense model where the weights add up to 1, and not where they do not."""

import numpy as np
import pytest

from moe_np.adapt import upcycling
from moe_np.base.checks import InputError
from moe_np.base.optim import adamw
from moe_np.base.params import leaves, map_leaves
from moe_np.models import decoder
from tests.support.adapted import DENSE, SHARES, SPARSE, difference, ids_of, params_of

TOP_2 = {"k": 2, "renormalise": True}


def upcycled(config=DENSE, params=None, seed=0, **options):
    params = params_of(config) if params is None else params
    rng = np.random.default_rng(seed)
    return upcycling.upcycle(config, params, rng=rng, **{"experts": 4, **options})


@pytest.mark.parametrize("expert", ["swiglu", "gelu", "relu"])
@pytest.mark.parametrize(
    "options",
    [
        {"options": TOP_2},
        {"options": {"k": 4, "renormalise": True}},
        {"options": TOP_2, "router": "bias_balanced"},
        {"options": TOP_2, "layers": [1]},
    ],
)
def test_renormalised_it_equals_the_dense_model(expert, options):
    config = DENSE._replace(expert=expert)
    params = params_of(config)
    new = upcycled(config, params, **options)
    assert upcycling.exact(new[0])
    assert difference((config, params), new) < 1e-12
    decoder.check(new[0])


@pytest.mark.parametrize(
    "options",
    [
        {"router": "switch", "options": {}},
        {"options": {"k": 1, "renormalise": False}},
        {"options": SHARES},
    ],
)
def test_with_the_weight_of_switch_it_does_not(options):
    params = params_of(DENSE)
    new = upcycled(params=params, **options)
    assert not upcycling.exact(new[0])
    assert difference((DENSE, params), new) > 0.01


def test_with_the_weight_of_switch_a_layer_is_p_times_the_dense_one():
    params = params_of(DENSE)
    new = upcycled(params=params, router="switch", options={})
    _, cache = decoder.forward(new[1], ids_of(), new[0])
    _, dense = decoder.forward(params, ids_of(), DENSE)
    mixture = cache.blocks[0].mixture  # both first layers read the same
    weighted = np.zeros((21, 12))
    weighted[mixture.experts.token] = mixture.experts.weight[:, None] * mixture.experts.y
    p = mixture.routing.probs.max(axis=1)
    np.testing.assert_allclose(weighted, p[:, None] * dense.blocks[0].mixture.experts.y, atol=1e-12)


def test_a_token_that_a_capacity_drops_makes_it_differ():
    params = params_of(DENSE)
    whole = upcycled(params=params, router="switch", options={})
    dropped = whole[0]._replace(options={"capacity_factor": 0.5}), whole[1]
    assert difference(whole, dropped) > 1e-3


@pytest.mark.parametrize("options", [{"noise": 0.1}, {"redrawn": 0.5}])
def test_noise_and_units_drawn_anew_make_the_experts_differ(options):
    params = params_of(DENSE)
    new = upcycled(params=params, **options)
    assert difference((DENSE, params), new) > 1e-4
    w1 = new[1]["layers"][0]["experts"]["w1"]
    assert all(np.abs(w1[m] - w1[0]).max() > 0 for m in range(1, 4))


def test_a_share_of_the_hidden_units_is_drawn_anew_and_the_rest_is_copied():
    config = DENSE._replace(expert="gelu", hidden=40)
    params = params_of(config)
    new = upcycled(config, params, redrawn=0.25)[1]["layers"][0]["experts"]
    old = params["layers"][0]["experts"]
    for m in range(4):
        changed = (new["w1"][m] != old["w1"][0]).any(axis=0)
        assert changed.sum() == 10
        np.testing.assert_array_equal(changed, (new["w2"][m] != old["w2"][0]).any(axis=1))
        np.testing.assert_array_equal(changed, new["b1"][m] != old["b1"][0])
        np.testing.assert_array_equal(new["b2"][m], old["b2"][0])
    ratio = new["w1"][0][:, (new["w1"][0] != old["w1"][0]).any(axis=0)].std() / old["w1"].std()
    assert 0.7 < ratio < 1.3


def test_the_noise_is_relative_to_each_array():
    params = params_of(DENSE)
    new = upcycled(params=params, noise=0.1)[1]["layers"][0]["experts"]
    for name, p in params["layers"][0]["experts"].items():
        assert (new[name] - p).std() / p.std() == pytest.approx(0.1, rel=0.2)


def test_the_gradients_of_the_copies_add_up_to_the_dense_gradient():
    params = params_of(DENSE)
    new = upcycled(params=params)
    ids, targets = ids_of(), ids_of(2)
    _, dense = decoder.loss_and_grads(params, ids, targets, DENSE, losses=())
    _, sparse = decoder.loss_and_grads(new[1], ids, targets, new[0], losses=())
    for number in range(2):
        for name, g in dense["layers"][number]["experts"].items():
            total = sparse["layers"][number]["experts"][name].sum(axis=0)
            np.testing.assert_allclose(total, g[0], atol=1e-12)


def test_copies_never_part_where_every_token_passes_all_with_equal_weights():
    new = upcycled(options={"k": 4, "renormalise": True})
    params = new[1]
    for layer in params["layers"]:
        layer["router"]["w"][:] = layer["router"]["w"][:, :1]
    _, grads = decoder.loss_and_grads(params, ids_of(), ids_of(2), new[0], losses=())
    g = grads["layers"][0]["experts"]["w1"]
    np.testing.assert_allclose(g, np.broadcast_to(g[:1], g.shape), atol=1e-14)


def test_the_optimisers_state_is_carried_over():
    params = params_of(DENSE)
    _, grads = decoder.loss_and_grads(params, ids_of(), ids_of(2), DENSE)
    _, state = adamw(params, grads, lr=0.1)
    config, new = upcycled(params=params)
    carried = upcycling.upcycled_optimiser(state, config, new)
    assert carried.t == 1
    for means, old in ((carried.m, state.m), (carried.v, state.v)):
        assert {n: p.shape for n, p in leaves(means).items()} == {
            n: p.shape for n, p in leaves(new).items()
        }
        layer, before = means["layers"][1], old["layers"][1]
        np.testing.assert_array_equal(layer["attention"]["wq"], before["attention"]["wq"])
        np.testing.assert_array_equal(layer["experts"]["w2"][3], before["experts"]["w2"][0])
        assert not layer["router"]["w"].any()
    adamw(new, map_leaves(np.ones_like, new), carried, lr=0.1)


def test_nothing_is_changed_in_place_and_nothing_is_shared():
    params = params_of(DENSE)
    before = map_leaves(np.array, params)
    new = upcycled(params=params, noise=0.1)[1]
    for path, p in leaves(new).items():
        p += 1
        assert path.endswith("router.w") or not np.shares_memory(p, leaves(params)[path])
    for path, p in leaves(params).items():
        np.testing.assert_array_equal(p, leaves(before)[path])


def test_refusals():
    with pytest.raises(InputError, match="wanted a dense model, got one of 4 experts"):
        upcycled(SPARSE)
    with pytest.raises(InputError, match=r"k: wanted .* at most 2, got 3"):
        upcycled(experts=2, options={"k": 3, "renormalise": True})
    with pytest.raises(InputError, match="layers: wanted at least one layer"):
        upcycled(layers=[])
    with pytest.raises(InputError, match=r"layers: wanted .*got 2"):
        upcycled(layers=[2])
    with pytest.raises(InputError, match="later tokens do not decide"):
        upcycled(router="expert_choice", options={"capacity_factor": 1.0})
    with pytest.raises(InputError, match="redrawn"):
        upcycled(redrawn=1.5)
