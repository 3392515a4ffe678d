"""The models of `moe-np train`: each of them can be made, and dense has mixtral's operations."""

import numpy as np
import pytest

from moe_np.base.params import leaves
from moe_np.language import kinds, objectives


@pytest.mark.parametrize("name", kinds.KINDS)
def test_a_model_of_each_kind_computes_its_loss(name):
    kind = kinds.KINDS[name]
    config = kinds.config_of(name, 50, 8, {})
    params = kind.model.init(np.random.default_rng(0), config)
    ids = np.random.default_rng(1).integers(0, 50, (2, 8))
    rng = np.random.default_rng(2)
    loss, grads = objectives.loss_and_grads(kind.model, params, ids, ids, config, rng)
    assert loss.task == pytest.approx(np.log(50), rel=0.3)
    assert set(leaves(grads)) == set(leaves(params))


def test_dense_has_the_active_parameters_of_mixtral():
    def active(name):
        config = kinds.config_of(name, 50, 8, {})
        params = kinds.KINDS[name].model.init(np.random.default_rng(0), config)
        total = 0
        for path, leaf in leaves(params).items():
            if ".experts." in path:
                total += leaf.size * min(2, len(leaf)) // len(leaf)
            elif "router" not in path:
                total += leaf.size
        return total

    assert active("dense") == active("mixtral")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": 3}, r"--set options: wanted a dict .* got 3"),
        ({"options": None}, r"--set options: wanted a dict .* got None"),
        ({"dense_layers": 1}, r"--set dense_layers: wanted a list .* got 1"),
        ({"options": {"k": 2}}, r"options of top_k, k \(needed\), renormalise \(needed\); got"),
        ({"options": {"k": 2, "renormalise": True, "depth": 1}}, "'depth': 1"),
        ({"router": "dense"}, "--set options: .* of dense, which has none; got {'k': 2"),
        ({"init_options": {"depth": 1}}, "--set init_options: .* of top_k, scale; got"),
    ],
)
def test_options_that_a_router_does_not_have_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        kinds.config_of("mixtral", 50, 8, changes)


def test_options_of_the_decoders_router_are_checked_too():
    router = {"decoder_router": "top_k", "decoder_options": {"k": 1}}
    with pytest.raises(ValueError, match=r"--set decoder_options: .* renormalise"):
        kinds.config_of("switch", 50, 8, router)
    options = {"router": "hashing", "options": {}}
    assert kinds.config_of("mixtral", 50, 8, options).router == "hashing"


def test_a_value_that_the_model_does_not_have_is_named():
    with pytest.raises(ValueError, match="--set: mixtral has no value 'depth'; it has vocabulary"):
        kinds.config_of("mixtral", 50, 8, {"depth": 3})
    with pytest.raises(ValueError, match="--model: wanted one of"):
        kinds.config_of("gpt", 50, 8, {})
