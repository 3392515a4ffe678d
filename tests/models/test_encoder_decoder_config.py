"""The configuration of an encoder-decoder: layers with experts, initialisation, checks."""

import numpy as np
import pytest

from moe_np import accounting
from moe_np.base import params as nested
from moe_np.base.checks import InputError
from moe_np.models import encoder_decoder_config
from moe_np.models.encoder_decoder_config import Config, is_dense, router_of
from tests.support.encoder_decoders import LAYOUTS, SMALL, TOP_K, params


def test_every_other_layer_has_experts():
    config = SMALL._replace(encoder_layers=6)
    assert [is_dense(config, "encoder", i) for i in range(6)] == [True, False] * 3
    named = config._replace(encoder_dense=(1, 2), decoder_dense=())
    assert [is_dense(named, "encoder", i) for i in range(4)] == [False, True, True, False]
    assert not is_dense(named, "decoder", 0)
    assert is_dense(named._replace(experts=1), "decoder", 0)


def test_the_router_of_a_stack():
    config = SMALL._replace(options={"jitter": 0.1}, init_options={"scale": 1.0})
    for stack in ("encoder", "decoder"):
        assert router_of(config, stack) == ("switch", {"jitter": 0.1}, {"scale": 1.0})
    other = config._replace(**TOP_K)
    assert router_of(other, "encoder") == ("switch", {"jitter": 0.1}, {"scale": 1.0})
    assert router_of(other, "decoder") == ("top_k", TOP_K["decoder_options"], None)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "biases"])
def test_the_counts_of_accounting_are_those_of_the_leaves(layout):
    config = LAYOUTS[layout]
    if layout == "swiglu":
        assert config.options["k"] == 2
    counts = accounting.count(encoder_decoder_config.architecture(config))
    assert counts.total == sum(a.size for a in nested.leaves(params(config)).values())
    assert (counts.active < counts.total) == (config.experts > 1)


def test_the_counts_of_switch_base():
    config = Config(32128, 768, 12, 12, heads=12, d_head=64, experts=128, hidden=3072)
    counts = accounting.count(encoder_decoder_config.architecture(config))
    assert counts.parts == accounting.count("switch-base").parts
    dense = accounting.count(encoder_decoder_config.architecture(config._replace(experts=1)))
    assert dense.parts == accounting.count("t5-base").parts
    with pytest.raises(InputError, match="wanted one k in both stacks, got 1 and 2"):
        encoder_decoder_config.architecture(config._replace(**TOP_K))


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_initialisation(scale):
    """Variances of Switch and T5, of matrices large enough to see them."""
    config = SMALL._replace(vocabulary=300, d_model=96, d_head=16, hidden=64, experts=8)
    config = config._replace(tied=False, encoder_layers=1, decoder_layers=2, heads=6)
    p = encoder_decoder_config.init(np.random.default_rng(0), config, scale=scale)
    leaves = nested.leaves(p)
    assert all(a.dtype == np.float32 for a in leaves.values())
    dense, sparse = "decoder.layers.0.", "decoder.layers.1."
    variances = {
        "embed.w": 1.0,
        "head.w": 1 / 96,
        "encoder.layers.0.attention.wq": scale / 96 / 16,
        dense + "attention.wk": scale / 96,
        dense + "cross.wq": scale / 96 / 16,
        dense + "cross.wo": scale / 96,
        dense + "experts.w1": scale / 96,
        sparse + "experts.w1": scale / 96,
        sparse + "experts.w2": scale / 64,
    }
    for path, variance in variances.items():
        assert leaves[path].var() == pytest.approx(variance, rel=0.08), path
    cut = 0.774  # the variance of a normal distribution that ends at two deviations
    assert leaves[sparse + "router.w"].var() == pytest.approx(cut * scale / 96, rel=0.1)
    assert 0.2 < leaves["decoder.position.w"].var() / (scale / 96) < 3
    for path, a in leaves.items():
        if path.endswith(".g"):
            np.testing.assert_array_equal(a, 1)
    assert not any(".b1" in path or ".b2" in path for path in leaves)
    wide = encoder_decoder_config.init(np.random.default_rng(0), config, dtype=np.float64)
    assert wide["embed"]["w"].dtype == np.float64


def test_values_that_do_not_fit():
    for change, message in [
        ({"heads": 0}, "config.heads: wanted"),
        ({"experts": 2.5}, "config.experts: wanted"),
        ({"tied": 1}, "config.tied: wanted"),
        ({"expert": "cubic"}, "config.expert: wanted"),
        ({"start": 17}, "config.start: wanted"),
        ({"dropout": 1.0}, "config.dropout: wanted"),
        ({"decoder_dense": (2,)}, "config.decoder_dense: wanted"),
        ({"router": "nobody"}, "router: wanted"),
        ({"decoder_options": {"k": 1}}, "config.decoder_options: wanted a decoder_router"),
    ]:
        with pytest.raises(InputError, match=message):
            encoder_decoder_config.check(SMALL._replace(**change))
    with pytest.raises(InputError, match=r"wanted an encoder_decoder\.Config, got 3"):
        encoder_decoder_config.check(3)


def test_parameters_that_do_not_fit():
    p = params(SMALL)
    decoder = p["decoder"]
    first, second = decoder["layers"]
    for change, message in [
        ({"embed": {"w": p["embed"]["w"][:5]}}, r"params\['embed'\]\['w'\]: wanted shape"),
        ({"head": {"w": p["embed"]["w"].T}}, "wanted no 'head' with"),
        ({"decoder": {**decoder, "layers": [first]}}, r"\['layers'\]: wanted 2 layers, got 1"),
        ({"decoder": {**decoder, "layers": [first, first]}}, "router"),
        ({"decoder": {**decoder, "layers": [second, second]}}, "no other keys, got router"),
        ({"decoder": p["encoder"]}, "norm_cross"),
        ({"decoder": {**decoder, "position": {"w": np.ones((4, 3))}}}, r"\['position'\]\['w'\]"),
    ]:
        with pytest.raises(InputError, match=message):
            encoder_decoder_config.check_params({**p, **change}, SMALL)
    with pytest.raises(InputError, match="wanted a 'head' with"):
        encoder_decoder_config.check_params(p, SMALL._replace(tied=False))
