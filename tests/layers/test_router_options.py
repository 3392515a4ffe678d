"""Options of routers in the Config of a model."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import balance, router_options
from moe_np.models import decoder, encoder_decoder, lstm_moe, translation
from tests.support.decoders import SMALL, params, text


def test_what_is_needed_and_what_may_be_given():
    assert router_options.names("top_k", "route") == {"k": True, "renormalise": True}
    assert router_options.names("dense", "route") == {}
    needed = router_options.names("switch", "route")
    assert not needed["capacity_factor"] and "rng" not in needed and "valid" not in needed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"router": "switch"}, r"config\.options: .* of switch, capacity_factor, jitter; got {'k'"),
        ({"options": {"k": 2, "renormalize": True}}, r"k \(needed\), renormalise \(needed\); got"),
        ({"router": "top_p", "options": {}}, r"options of top_p, p \(needed\)"),
        ({"init_options": {"depth": 1}}, r"config\.init_options: .* of top_k, scale; got"),
        ({"options": 3}, r"config\.options: wanted a dict, got 3"),
    ],
)
def test_a_decoder_says_which_options_its_router_has(changes, message):
    config = SMALL._replace(**changes)
    for call in (decoder.check, lambda config: decoder.init(np.random.default_rng(0), config)):
        with pytest.raises(InputError, match=message):
            call(config)


def test_so_do_the_other_models():
    sizes = {"vocabulary": 9, "d_model": 4, "experts": 4}
    lstm = lstm_moe.Config(**sizes, expert_hidden=4, options={})
    with pytest.raises(InputError, match=r"config\.options: .* of noisy_top_k, k \(needed\)"):
        lstm_moe.check(lstm)
    lstm_moe.check(lstm._replace(experts=1))
    layers = {"encoder_layers": 2, "decoder_layers": 2, "heads": 2, "d_head": 2, "hidden": 4}
    both = encoder_decoder.Config(**sizes, **layers, decoder_router="top_k", decoder_options={})
    with pytest.raises(InputError, match=r"config\.decoder_options: .* of top_k, k \(needed\)"):
        encoder_decoder.check(both)
    sizes = {"source_vocabulary": 9, "target_vocabulary": 9, "d_model": 4, "experts": 4}
    translator = translation.Config(**sizes, expert_hidden=4, hidden=4, decoder_options={"p": 1})
    with pytest.raises(InputError, match=r"config\.decoder_options: .* of noisy_top_k"):
        translation.check(translator)


@pytest.mark.parametrize("losses", ["switch", ["switch"], {"switch": 0.01}, None, [(0.1,)]])
def test_losses_are_pairs(losses):
    ids, targets = text(SMALL, B=1, T=4)
    with pytest.raises(
        InputError, match=r"losses: wanted pairs as \(0\.01, balance\.switch\), got"
    ):
        decoder.loss_and_grads(params(SMALL), ids, targets, SMALL, losses=losses)
    decoder.loss_and_grads(params(SMALL), ids, targets, SMALL, losses=[[0.1, balance.switch]])
