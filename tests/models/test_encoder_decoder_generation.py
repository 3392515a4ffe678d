"""Generation with an encoder-decoder: steps equal the whole pass, greedy search, refusals."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.models import encoder_decoder, encoder_decoder_generation
from tests.support.encoder_decoders import LAYOUTS, SMALL, TOP_K, pairs, params, with_encoder_router

MODELS = {name: LAYOUTS[name] for name in ("switch", "dense", "biases", "swiglu")}
MODELS["expert choice in the encoder"] = with_encoder_router("expert_choice")


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("is_padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", MODELS)
def test_step_by_step_is_the_whole_pass(name, is_padded):
    config = MODELS[name]
    p = params(config)
    source, targets = pairs(config, B=3)
    targets[targets < 0] = 4
    valid = np.arange(9) < np.array([[9], [5], [7]]) if is_padded else None
    inputs = encoder_decoder.shift_right(targets, config.start)
    expected, cache = encoder_decoder.forward(p, source, inputs, config, source_valid=valid)
    logits, state = encoder_decoder_generation.prefill(
        p, source, config, room=7, source_valid=valid
    )
    for t in range(7):
        np.testing.assert_allclose(logits, expected[:, t], rtol=1e-10, atol=1e-12)
        for routing, block in zip(state.routings, cache.decoder.blocks, strict=True):
            whole = block.mixture.mixture.routing.demand.reshape(3, 7, -1)
            np.testing.assert_array_equal(routing.demand, whole[:, t])
        assert all(block.cross.length == 9 for block in state.kv), "the memory's are kept"
        assert all(block.attention.length == t + 1 for block in state.kv)
        if t < 6:
            logits, state = encoder_decoder_generation.step(p, targets[:, t], state, config)
    with pytest.raises(InputError, match="room for 8 positions, got 7"):
        encoder_decoder_generation.step(p, targets[:, 0], state, config)


def test_greedy_search_takes_the_largest_logit():
    p = params(SMALL)
    source, _ = pairs(SMALL)
    found = [token.ids for token in encoder_decoder_generation.generate(p, source, SMALL, tokens=6)]
    inputs = np.full((2, 1), SMALL.start)
    for ids in found:
        logits, _ = encoder_decoder.forward(p, source, inputs, SMALL)
        np.testing.assert_array_equal(ids, logits[:, -1].argmax(axis=1))
        inputs = np.concatenate([inputs, ids[:, None]], axis=1)
    assert len(found) == 6 and len(set(inputs.ravel().tolist())) > 2


def test_drawing_stopping_and_routing():
    p = params(SMALL)
    source, _ = pairs(SMALL)
    options = {"tokens": 8, "temperature": 1.0}

    def drawn(seed, **more_options):
        rng = np.random.default_rng(seed)
        generated = encoder_decoder_generation.generate(
            p, source, SMALL, rng=rng, **options, **more_options
        )
        return list(generated)

    first = np.stack([token.ids for token in drawn(0)], axis=1)
    np.testing.assert_array_equal(first, np.stack([token.ids for token in drawn(0)], axis=1))
    assert (first != np.stack([token.ids for token in drawn(1)], axis=1)).any()
    greedy = [token.ids.tolist() for token in drawn(2, top_k=1)]
    search = encoder_decoder_generation.generate(p, source, SMALL, tokens=8)
    assert greedy == [token.ids.tolist() for token in search]
    stopped = np.stack([token.ids for token in drawn(0, stop=(int(first[0, 1]),))], axis=1)
    assert (stopped[0, 1:] == first[0, 1]).all()
    with_routing = drawn(0, routing=True)
    assert all(len(token.routings) == 2 for token in with_routing)
    assert with_routing[0].routings[1].demand.shape == (2, 4)


def test_what_is_refused():
    p = params(SMALL)
    source, _ = pairs(SMALL)
    generate = encoder_decoder_generation.generate
    limited = SMALL._replace(options={"capacity_factor": 1.0})
    with pytest.raises(InputError, match=r"config.options: wanted no capacity_factor.*got 1\.0"):
        generate(p, source, limited, tokens=3)
    other = SMALL._replace(
        decoder_router="switch", decoder_options={"capacity_factor": 2.0}, options={}
    )
    with pytest.raises(InputError, match=r"config\.decoder_options: wanted no capacity_factor"):
        generate(p, source, other, tokens=3)
    free = limited._replace(**TOP_K)
    assert len(list(generate(p, source, free, tokens=3))) == 3, "the encoder may have a capacity"
    with pytest.raises(InputError, match="tokens: wanted"):
        generate(p, source, SMALL, tokens=33)
    with pytest.raises(InputError, match="rng: wanted"):
        generate(p, source, SMALL, tokens=3, temperature=1.0)
    with pytest.raises(InputError, match="source: wanted 1 to 32 positions"):
        generate(p, np.zeros((1, 0), int), SMALL, tokens=3)
    with pytest.raises(InputError, match="room: wanted"):
        encoder_decoder_generation.prefill(p, source, SMALL, room=33)
    assert list(generate(p, source, SMALL, tokens=0)) == []
