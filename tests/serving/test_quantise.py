"""Few bits: exact inverses, the bound of the error, sizes, and whole models."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.models import decoder
from moe_np.serving.quantise import BITS, dequantise, of_model, pack, quantise, unpack
from tests.support.decoders import LAYOUTS

every_width = pytest.mark.parametrize("bits", BITS)


def matrices(seed=0, shape=(3, 50, 7), dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@every_width
@pytest.mark.parametrize("n", [1, 7, 8, 33])
def test_packing_has_an_exact_inverse(bits, n):
    codes = np.random.default_rng(n).integers(0, 1 << bits, (2, n)).astype(np.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (2, -(-n * bits // 8))
    np.testing.assert_array_equal(unpack(packed, bits, n), codes)


@every_width
@pytest.mark.parametrize("group", [8, 16, 64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_was_rounded_once_stays(bits, group, dtype):
    """Rounding is a projection: the codes of rounded weights are the same, and so are they. (Not
    for groups whose range is below the rounding of their offset to float16.)
    """
    first = quantise(matrices(shape=(3, 64, 7), dtype=dtype), bits, group)
    weights = dequantise(first)
    second = quantise(weights, bits, group)
    assert weights.dtype == dtype
    for name in ("codes", "offset", "scale"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name), err_msg=name)
    np.testing.assert_array_equal(dequantise(second), weights)


@every_width
@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 100.0])
def test_no_weight_moves_by_more_than_half_a_step(bits, size):
    w = matrices(dtype=np.float64) * size
    q = quantise(w, bits, 16)
    scale = np.repeat(q.scale.astype(np.float64), 16, axis=1)[:, : w.shape[1]]
    assert (np.abs(dequantise(q) - w) <= scale * (0.5 + 1e-4)).all()
    assert (np.abs(dequantise(q) - w) > scale * 0.4).any()


@every_width
def test_weights_on_the_grid_are_exact(bits):
    """Offsets and scales that are powers of two: nothing is rounded."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1 << bits, (2, 32, 5))
    codes[:, ::8] = 0
    codes[:, 1::8] = (1 << bits) - 1
    w = (codes * 0.125 - 2.0).astype(np.float32)
    np.testing.assert_array_equal(dequantise(quantise(w, bits, 8)), w)


def test_equal_weights_are_exact():
    w = np.full((1, 8, 3), -0.75, np.float32)
    np.testing.assert_array_equal(dequantise(quantise(w, 2, 4)), w)
    assert not dequantise(quantise(0 * w, 2, 4)).any()


def test_the_error_halves_with_every_bit():
    w = matrices(shape=(4, 128, 32))
    errors = [np.abs(dequantise(quantise(w, bits)) - w).mean() for bits in BITS]
    steps = [1 / ((1 << bits) - 1) for bits in BITS]
    np.testing.assert_allclose(np.array(errors) / errors[0], np.array(steps) / steps[0], rtol=0.03)


@every_width
def test_sizes(bits):
    """Per weight b bits, and 32 more per group."""
    q = quantise(matrices(shape=(2, 128, 16)), bits, 64)
    assert q.nbytes / q.dtype.itemsize / (2 * 128 * 16) == (bits + 32 / 64) / 32


def test_a_matrix_of_some_experts():
    w = matrices()
    q = quantise(w, 4, 8)
    np.testing.assert_array_equal(dequantise(q, np.array([2, 0])), dequantise(q)[[2, 0]])


def test_refusals():
    with pytest.raises(InputError, match="bits: wanted one of 8, 4, 3, 2; got 5"):
        quantise(matrices(), 5)
    with pytest.raises(InputError, match="group: wanted a whole number of at least 1"):
        quantise(matrices(), 4, 0)
    with pytest.raises(InputError, match="w: wanted weights that float16 holds"):
        quantise(1e5 * matrices(), 4)
    with pytest.raises(InputError, match="w: "):
        quantise(np.nan * matrices(), 4)


# --- models ---------------------------------------------------------------------------------------


def model(layout="mixtral", dtype=np.float32):
    config = LAYOUTS[layout]
    return config, decoder.init(np.random.default_rng(0), config, dtype=dtype)


@pytest.mark.parametrize("layout", ["mixtral", "glam", "deepseek"])
def test_a_model_computes_with_the_rounded_experts(layout, backend):
    config, params = model(layout)
    small, sizes = of_model(params, 4, 4)
    ids = np.arange(16).reshape(2, 8)
    layers = [
        {**layer, "experts": rounded["experts"].read(np.arange(config.experts))}
        if "router" in layer
        else layer
        for layer, rounded in zip(params["layers"], small["layers"], strict=True)
    ]
    wanted, _ = decoder.forward({**params, "layers": layers}, ids, config)
    logits, _ = decoder.forward(small, ids, config)
    np.testing.assert_allclose(logits, wanted, rtol=2e-4, atol=1e-6)
    assert not np.allclose(logits, decoder.forward(params, ids, config)[0], rtol=1e-3)
    assert 0.2 < sizes.share < 0.6
    experts = [layer["experts"] for layer in params["layers"] if "router" in layer]
    assert sizes.before == sum(a.nbytes for layer in experts for a in layer.values())


def test_the_router_is_rounded_only_if_asked():
    config, params = model()
    kept, _ = of_model(params, 2)
    rounded, _ = of_model(params, 2, router_bits=2)
    for before, a, b in zip(params["layers"], kept["layers"], rounded["layers"], strict=True):
        assert a["router"]["w"] is before["router"]["w"]
        assert len(np.unique(b["router"]["w"][:, 0])) <= 4 < config.d_model
        np.testing.assert_array_equal(
            b["router"]["w"], dequantise(quantise(before["router"]["w"][None], 2))[0]
        )


def test_a_dense_model_is_refused():
    _, params = model("dense")
    with pytest.raises(InputError, match="params: wanted a model with routed experts, got none"):
        of_model(params, 4)
