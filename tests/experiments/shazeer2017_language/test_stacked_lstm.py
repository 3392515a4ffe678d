"""The LSTM baselines: gradient of the whole, residual connections, and causality."""

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.base.params import leaves, map_leaves
from moe_np.experiments.shazeer2017_language import stacked_lstm
from moe_np.layers import lstm

CONFIGS = {
    "four": stacked_lstm.Config(vocabulary=7, d_model=4, layers=4),
    "projection": stacked_lstm.Config(vocabulary=7, d_model=4, layers=1, hidden=8, dropout=0.3),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def problem(config):
    rng = np.random.default_rng(0)
    params = stacked_lstm.init(rng, config, dtype=np.float64)
    params = map_leaves(lambda p: p + 0.4 * rng.normal(size=p.shape), params)
    ids, targets = rng.integers(0, config.vocabulary, (2, 3, 5))
    return params, ids, targets


@every_config
def test_gradient_of_the_whole(backend, config):
    params, ids, targets = problem(config)

    def run(params):
        rng = np.random.default_rng(1)
        return stacked_lstm.loss_and_grads(params, ids, targets, config, rng=rng)

    grads = leaves(run(params)[1])
    assert set(grads) == set(leaves(params))

    def loss(arrays):
        values = iter(arrays.values())
        return run(map_leaves(lambda _: next(values), params))[0].task

    errors = gradcheck.gradient_error(loss, leaves(params), grads, np.random.default_rng(2))
    assert max(errors.values()) < 1e-7, errors


@every_config
def test_every_layer_is_added_to_its_input(config):
    params, ids, _ = problem(config)
    x = params["embed"]["w"][ids]
    for layer in params["layers"]:
        x = x + lstm.forward(layer, x)[0]
    logits, _ = stacked_lstm.forward(params, ids, config)
    np.testing.assert_allclose(logits, x @ params["head"]["w"], rtol=1e-12)


@every_config
def test_later_tokens_do_not_decide_on_earlier_logits(config):
    params, ids, _ = problem(config)
    changed = ids.copy()
    changed[:, 3:] = (changed[:, 3:] + 1) % config.vocabulary
    before, after = (stacked_lstm.forward(params, i, config)[0] for i in (ids, changed))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] != after[:, 3:]).any()
