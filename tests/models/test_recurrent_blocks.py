"""The blocks of the recurrent models: gradients, the residual, and dropout behind the sigmoid."""

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.layers import balance, lstm, mixture_layer
from moe_np.layers.experts import RELU
from moe_np.models import recurrent_blocks
from moe_np.routing import noisy_top_k

D = 5


def inputs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, D))
    x.flags.writeable = False
    return rng, x


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_lstm_block(backend, share):
    rng, x = inputs()
    params = lstm.init(rng, D, D)
    params["b"] = rng.normal(size=4 * D)

    def forward(params, x):
        noise = np.random.default_rng(1)
        y, _, cache = recurrent_blocks.lstm_forward(params, x, dropout_share=share, rng=noise)
        return y, cache

    errors = gradcheck.pair_error(forward, recurrent_blocks.lstm_backward, params, x, rng)
    assert max(errors.values()) < 1e-8
    y, cache = forward(params, x)
    added = (y - x) * (1 - share)
    mask = np.ones(x.shape, bool) if cache.mask is None else cache.mask
    np.testing.assert_allclose(added, lstm.forward(params, x)[0] * mask, atol=1e-14)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_mixture_block(backend, share):
    rng, x = inputs()
    params = mixture_layer.init(rng, D, 3, 4, kind="relu", router="noisy_top_k")
    options = {"expert": RELU, "router": noisy_top_k, "options": {"k": 2}, "training": True}
    flat = {
        f"{part}.{name}": rng.normal(size=p.shape)
        for part in ("router", "experts")
        for name, p in params[part].items()
    }

    def nested(flat):
        tree = {"router": {}, "experts": {}}
        for path, p in flat.items():
            part, name = path.split(".")
            tree[part][name] = p
        return tree

    def forward(flat, x):
        noise = np.random.default_rng(1)
        return recurrent_blocks.mixture_forward(
            nested(flat), x, dropout_share=share, rng=noise, **options
        )

    def backward(dy, cache):
        dx, grads = recurrent_blocks.mixture_backward(dy, cache)
        return dx, {f"{part}.{name}": g for part in grads for name, g in grads[part].items()}

    errors = gradcheck.pair_error(forward, backward, flat, x, rng, step=1e-4)
    assert max(errors.values()) < 1e-7
    y, cache = forward(flat, x)
    assert ((cache.squashed > 0) & (cache.squashed < 1)).all()
    mask = np.ones(x.shape, bool) if cache.mask is None else cache.mask
    np.testing.assert_allclose((y - x) * (1 - share), cache.squashed * mask, atol=1e-14)


def test_balance_losses_are_named_and_summed():
    rng, x = inputs()
    params = mixture_layer.init(
        rng, D, 3, 4, kind="relu", router="noisy_top_k", init_options={"scale": 1.0}
    )
    options = {"expert": RELU, "router": noisy_top_k, "options": {"k": 2}, "training": True}
    valid = np.ones((2, 4), bool)
    valid[1, 1:] = False
    _, cache = recurrent_blocks.mixture_forward(params, x, rng=rng, valid=valid, **options)
    losses = ((0.2, balance.importance), (0.3, balance.load))
    added, terms = recurrent_blocks.balance_losses(losses, cache.mixture, valid)
    routing = cache.mixture.routing
    assert terms == {
        "importance": balance.importance(routing, valid=valid.ravel()).value,
        "load": balance.load(cache.mixture.gate).value,
    }
    assert added.value == pytest.approx(0.2 * terms["importance"] + 0.3 * terms["load"])
