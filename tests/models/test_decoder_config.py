"""The configuration of a decoder, and the parameters of a new one."""

import json

import numpy as np
import pytest

from moe_np import accounting
from moe_np.base import params as nested
from moe_np.base.checks import InputError
from moe_np.models import decoder, decoder_config
from moe_np.models.decoder_config import Config
from tests.support.decoders import LAYOUTS, ROUTERS, SMALL, text, with_router

MODELS = {**LAYOUTS, **{name: with_router(name) for name in ROUTERS}}
every_model = pytest.mark.parametrize("name", MODELS)


def test_the_first_loss_is_that_of_chance():
    config = SMALL._replace(vocabulary=500, d_model=48, d_head=8, layers=6)
    for tied in (True, False):
        p = decoder_config.init(np.random.default_rng(0), config._replace(tied=tied))
        ids, targets = text(config, B=4, T=20)
        loss, _ = decoder.loss_and_grads(p, ids, targets, config._replace(tied=tied))
        assert abs(loss.task - np.log(500)) < 0.05


def test_the_residual_stream_does_not_grow_with_the_depth():
    sizes = []
    for n in (2, 16):
        config = SMALL._replace(layers=n, d_model=48, d_head=8)
        p = decoder_config.init(np.random.default_rng(0), config)
        _, cache = decoder.forward(p, text(config, B=4, T=20)[0], config)
        sizes.append(cache.norm.x.std())
    assert sizes[1] < 1.15 * sizes[0]


@every_model
def test_init_has_the_type_and_the_parts(name):
    config = MODELS[name]
    p = decoder_config.init(np.random.default_rng(0), config)
    kinds = {a.dtype for a in nested.leaves(p).values() if a.dtype.kind == "f"}
    assert kinds == {np.dtype(np.float32)}
    assert ("head" in p) != config.tied and len(p["layers"]) == config.layers
    for i, layer in enumerate(p["layers"]):
        dense = decoder_config.is_dense(config, i)
        assert ("router" in layer) != dense
        assert len(layer["experts"]["w2"]) == (1 if dense else config.experts)
        assert ("shared" in layer) == (config.shared > 0 and not dense)


@pytest.mark.parametrize("layout", [n for n, c in LAYOUTS.items() if c.expert == "swiglu"])
def test_the_count_is_that_of_the_arrays(layout):
    config = LAYOUTS[layout]
    p = decoder_config.init(np.random.default_rng(0), config)
    counts = accounting.count(decoder_config.architecture(config))
    assert counts.total == sum(a.size for a in nested.leaves(p).values())
    inactive = sum(
        a.size * (config.experts - config.options["k"]) // config.experts
        for i, layer in enumerate(p["layers"])
        for a in layer["experts"].values()
        if not decoder_config.is_dense(config, i)
    )
    assert counts.active == counts.total - inactive


def test_a_config_is_json():
    for config in MODELS.values():
        assert Config(**json.loads(json.dumps(config._asdict()))) == config._replace(
            dense_layers=list(config.dense_layers), full_layers=list(config.full_layers)
        )


BAD_CONFIGS = {
    "options": ({"options": 3}, "config.options: wanted a dict, got 3"),
    "dense_layers": ({"dense_layers": 3}, "config.dense_layers: wanted a list of layers, got 3"),
    "an unknown router": ({"router": "none"}, "router: wanted one of"),
    "no layer": ({"layers": 0}, "config.layers"),
    "heads": ({"heads": 5}, "heads: wanted a multiple of 3"),
    "a window of 0": ({"window": 0}, "window"),
    "k = 1 renormalised": ({"options": {"k": 1, "renormalise": True}}, "renormalise"),
    "a layer that is not there": ({"dense_layers": (2,)}, "number of a layer"),
    "an odd head": ({"d_head": 3}, "config.d_head: wanted an even number"),
    "expert": ({"expert": "cubic"}, "config.expert: wanted one of"),
    "tied": ({"tied": 1}, "config.tied"),
    "a gate of nothing": ({"shared_gate": True}, "shared_gate"),
    "norm": ({"qk_norm": "both"}, "norm: wanted one of"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_bad_configs(name):
    change, message = BAD_CONFIGS[name]
    config = SMALL._replace(**change)
    with pytest.raises(InputError, match=message):
        p = decoder_config.init(np.random.default_rng(0), config)
        decoder.forward(p, text(SMALL)[0], config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shared": -1}, "config.shared: wanted a whole number of at least 0, got -1"),
        ({"shared_hidden": 0}, "config.shared_hidden: wanted a whole number of at least 1"),
        ({"dense_hidden": 2.5}, "config.dense_hidden: wanted a whole number"),
        ({"window": 0}, "config.window: wanted a whole number of at least 1, got 0"),
        ({"dropout": 1.5}, "config.dropout: .* below 1, got 1.5"),
        ({"expert_dropout": -0.1}, "config.expert_dropout: .* at least 0 and"),
        ({"d_head": 5}, "config.d_head: wanted an even number, got 5"),
    ],
)
def test_values_are_checked_before_there_are_parameters(changes, message):
    with pytest.raises(InputError, match=message):
        decoder_config.check(SMALL._replace(**changes))
