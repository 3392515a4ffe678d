"""One position in generation, both kernels: the whole pass, nothing kept after an error."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.models import decoder, decoder_step, generation
from tests.support.decoders import LAYOUTS, ROUTERS, SMALL, params, text, with_router

MODELS = {**LAYOUTS, **{name: with_router(name) for name in ROUTERS}}
MODELS["switch"] = LAYOUTS["switch"]._replace(options={})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_pass_of_the_decoder(backend, name, dtype):
    config = MODELS[name]
    p = params(config, dtype=dtype)
    ids, _ = text(config, B=3, T=9)
    whole, cache = decoder.forward(p, ids, config, training=False)
    _, state = generation.prefill(p, ids[:, :4], config)
    size = np.abs(whole).max()
    for t in range(4, 9):
        logits, routings = decoder_step.forward(p, ids[:, t], config, state.kv)
        assert logits.dtype == dtype and state.kv[-1].length == t + 1
        tolerance = size * (3e-5 if dtype == np.float32 else 1e-12)
        np.testing.assert_allclose(logits, whole[:, t], atol=tolerance)
        for routing, block in zip(routings, cache.blocks, strict=True):
            demand = block.mixture.routing.demand.reshape(3, 9, -1)[:, t]
            np.testing.assert_array_equal(routing.demand, demand)
            assert routing.weight.dtype == dtype


def test_after_an_error_nothing_is_kept(backend):
    ids, _ = text(SMALL, B=2, T=6)
    p = params(SMALL)
    _, state = generation.prefill(p, ids, SMALL)
    p["layers"][1]["experts"]["w2"][:] = np.nan
    with pytest.raises(InputError, match="the logits are finite"):
        decoder_step.forward(p, ids[:, 0], SMALL, state.kv)
    p = params(SMALL)
    p["layers"][1]["attention"]["wk"][0] = np.inf
    with pytest.raises(InputError, match=r"layer 1: x: wanted numbers .* finite"):
        decoder_step.forward(p, ids[:, 0], SMALL, state.kv)
    for bad in (-1, SMALL.vocabulary):
        with pytest.raises(InputError, match="ids: wanted token numbers from 0 to 18"):
            decoder_step.forward(p, np.array([0, bad]), SMALL, state.kv)
    assert [kept.length for kept in state.kv] == [6, 6]


def test_the_context_is_the_end():
    config = SMALL._replace(context=7)
    ids, _ = text(config, B=1, T=7)
    p = params(config)
    _, state = generation.prefill(p, ids[:, :6], config)
    decoder_step.forward(p, ids[:, 6], config, state.kv)
    with pytest.raises(InputError, match="kv: wanted room for 8 positions, got 7"):
        decoder_step.forward(p, ids[:, 6], config, state.kv)
