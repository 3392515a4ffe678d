"""One position in generation, both kernels: the whole pass, nothing kept after an error."""

import numpy as np
import pytest

from moe_np import kernels
from moe_np.base.checks import InputError
from moe_np.layers import few_tokens, rotary
from moe_np.models import decoder, decoder_step, generation
from tests.support.decoders import GENERATING, LAYOUTS, SMALL, params, text


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", GENERATING)
def test_it_is_the_pass_of_the_decoder(backend, name, dtype):
    config = GENERATING[name]
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


@pytest.mark.parametrize("name", ["mixtral", "dense", "glam"])
def test_a_compiled_block_is_the_block_in_pieces(name):
    pytest.importorskip("numba")
    config = LAYOUTS[name]._replace(tied=False)
    p = params(config)
    ids, _ = text(config, B=2, T=7)
    valid = np.arange(8) >= np.array([[0], [2]])
    _, state = generation.prefill(p, ids, config, valid=valid[:, :7])
    angles = rotary.angles(np.array([7]), config.d_head)
    x = np.random.default_rng(0).normal(size=(2, config.d_model))
    for i, (layer, kv) in enumerate(zip(p["layers"], state.kv, strict=True)):
        expected, wanted = decoder_step.block_numpy(
            layer, x, config, i, kv, angles, valid, ids[:, 0]
        )
        before = kv.keys.copy(), kv.values.copy()
        kv.keys[:, :, 7:] = kv.values[:, :, 7:] = 0
        w = kernels.decoder_step.weights_of(layer, config)
        y, gate = kernels.decoder_step.block(x, w, kv, angles, config.window, valid, config.eps)
        np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(kv.keys, before[0], rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(kv.values, before[1], rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(gate.weight.ravel(), wanted.weight, rtol=1e-11)
        np.testing.assert_array_equal(gate.choice.ravel(), wanted.expert)


@pytest.mark.parametrize(("B", "is_compiled"), [(2, True), (3, False)])
def test_blocks_are_compiled_for_few_assignments(monkeypatch, B, is_compiled):
    """Two experts per token, and at most four assignments are few."""
    pytest.importorskip("numba")
    monkeypatch.setenv("MOE_NP_KERNELS", "numba")
    monkeypatch.setattr(few_tokens, "MOST", 4)
    in_pieces = []
    block_numpy = decoder_step.block_numpy
    monkeypatch.setattr(
        decoder_step, "block_numpy", lambda *a: in_pieces.append(a[3]) or block_numpy(*a)
    )
    p = params(SMALL)
    ids, _ = text(SMALL, B=B, T=6)
    whole, _ = decoder.forward(p, ids, SMALL)
    _, state = generation.prefill(p, ids[:, :5], SMALL)
    logits, _ = decoder_step.forward(p, ids[:, 5], SMALL, state.kv)
    np.testing.assert_allclose(logits, whole[:, 5], rtol=1e-9, atol=1e-11)
    assert in_pieces == ([] if is_compiled else list(range(SMALL.layers)))


def test_what_a_compiled_block_does_not_know():
    pytest.importorskip("numba")
    weights_of = kernels.decoder_step.weights_of
    layer = params(SMALL)["layers"][0]
    assert weights_of(layer, SMALL) is not None
    wq = layer["attention"]["wq"]
    for strange in (
        np.asfortranarray(wq),
        wq.astype(np.float32),
        wq[None][0].view(np.ma.MaskedArray),
    ):
        other = {**layer, "attention": {**layer["attention"], "wq": strange}}
        assert weights_of(other, SMALL) is None
    assert weights_of(layer, SMALL._replace(clip_qkv=1.0)) is None
    for name in ("deepseek", "olmoe", "qwen2", "qwen3", "switch", "top_p"):
        config = GENERATING[name]
        assert weights_of(params(config)["layers"][-1], config) is None


def test_the_weights_of_many_steps(backend):
    """Found once or in each step, they are the same arrays: a change in place is seen."""
    ids, _ = text(SMALL, B=2, T=7)
    p = params(SMALL)
    blocks = decoder_step.weights(p, SMALL)
    assert len(blocks) == SMALL.layers
    assert all((block is None) == (backend == "numpy") for block in blocks)
    p["layers"][1]["experts"]["w2"] *= 2
    _, first = generation.prefill(p, ids[:, :5], SMALL)
    _, second = generation.prefill(p, ids[:, :5], SMALL)
    for t in (5, 6):
        logits, _ = generation.step(p, ids[:, t], first, SMALL)
        given, _ = generation.step(p, ids[:, t], second, SMALL, blocks=blocks)
        np.testing.assert_array_equal(given, logits)


def test_after_an_error_nothing_is_kept(backend):
    ids, _ = text(SMALL, B=2, T=6)
    p = params(SMALL)
    _, state = generation.prefill(p, ids, SMALL)
    p["layers"][1]["experts"]["w2"][:] = np.nan
    with pytest.raises(InputError, match="the logits are finite"):
        decoder_step.forward(p, ids[:, 0], SMALL, state.kv)
    p = params(SMALL)
    p["layers"][1]["attention"]["wk"][0] = np.inf
    # in the interpreter the loops warn of ∞ − ∞
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match=r"layer 1: x: .* finite"):
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
