"""A new expert behind a closed gate changes nothing until the gate opens."""

import numpy as np
import pytest

from moe_np.adapt import adding
from moe_np.base.checks import InputError
from moe_np.models import decoder
from tests.support.adapted import DENSE, SHARES, SPARSE, difference, ids_of, params_of


def added(config, params, **options):
    return adding.add(config, params, rng=np.random.default_rng(5), **options)


@pytest.mark.parametrize("router", ["top_k", "biased_top_k", "bias_balanced"])
@pytest.mark.parametrize("options", [{"k": 2, "renormalise": True}, SHARES])
@pytest.mark.parametrize("source", [None, 1])
def test_behind_a_closed_gate_it_changes_nothing_until_that_opens(router, options, source):
    config = SPARSE._replace(router=router, options=options)
    params = params_of(config)
    new = added(config, params, experts=2, source=source)
    assert new[0].experts == 6
    assert difference((config, params), new) < 1e-12
    _, cache = decoder.forward(new[1], ids_of(), new[0])
    assert all(block.mixture.routing.expert.max() < 4 for block in cache.blocks)
    opened = adding.open_gates(*new)
    assert difference((config, params), opened) > 1e-4
    _, cache = decoder.forward(opened[1], ids_of(), opened[0])
    assert any(block.mixture.routing.expert.max() >= 4 for block in cache.blocks)


def test_a_closed_expert_gets_no_gradient():
    new = added(SPARSE, params_of(SPARSE))
    _, grads = decoder.loss_and_grads(new[1], ids_of(), ids_of(2), new[0])
    for layer in grads["layers"]:
        assert not layer["experts"]["w1"][4].any() and layer["experts"]["w1"][:4].any()
        assert not layer["router"]["w"][:, 4].any() and layer["router"]["bias"][4] == 0


def test_with_all_gates_open_the_router_is_top_k_again():
    params = params_of(SPARSE)
    biased = adding.with_bias(SPARSE, params)
    assert biased[0].router == "biased_top_k"
    assert difference((SPARSE, params), biased) < 1e-13
    back = adding.without_bias(*biased)
    assert back[0].router == "top_k"
    assert difference((SPARSE, params), back) == 0
    assert adding.open_gates(*added(SPARSE, params))[0].router == "top_k"
    later = adding.open_gates(*added(SPARSE, params), bias=-1.0)
    assert later[0].router == "biased_top_k"
    assert later[1]["layers"][0]["router"]["bias"].tolist() == [0, 0, 0, 0, -1]


def test_a_copy_of_an_expert_that_opens_with_an_equal_column_is_that_expert():
    params = params_of(SPARSE)
    new = added(SPARSE, params, source=2)[1]["layers"][1]
    np.testing.assert_array_equal(new["experts"]["w1"][4], params["layers"][1]["experts"]["w1"][2])
    np.testing.assert_array_equal(new["router"]["w"][:, 4], new["router"]["w"][:, 2])
    assert adding.is_closed(new).tolist() == [False] * 4 + [True]
    assert not adding.is_closed(params["layers"][1]).any()


def test_refusals():
    with pytest.raises(InputError, match="wanted a model with several experts"):
        added(DENSE, params_of(DENSE))
    with pytest.raises(InputError, match=r"source: wanted .*got 4"):
        added(SPARSE, params_of(SPARSE), source=4)
    switch = SPARSE._replace(router="switch", options={})
    with pytest.raises(InputError, match="where a gate can be closed; got switch"):
        added(switch, params_of(switch))
