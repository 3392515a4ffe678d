"""Decoders of whole sequences: equal sizes, and the first expert of every token."""

import numpy as np

from moe_np.experiments.common import sequence_models
from moe_np.experiments.common.dense_and_mixture import MIXTURE, SAME_OPERATIONS, SAME_SIZE
from moe_np.experiments.common.sequence_models import Sizes, Trained
from moe_np.models import decoder, decoder_config

SIZES = Sizes(d_model=16, layers=2, heads=2, kv_heads=1, hidden=8, experts=4, updates=2, batch=2)


def config_of(model):
    return sequence_models.config_of(SIZES, model, vocabulary=11, context=12)


def test_operations_and_sizes_are_equal_but_for_the_router():
    counts = {
        model: sequence_models.counts(config_of(model))
        for model in (SAME_OPERATIONS, MIXTURE, SAME_SIZE)
    }
    router = SIZES.layers * SIZES.d_model * SIZES.experts
    assert counts[MIXTURE]["active"] == counts[SAME_OPERATIONS]["active"] + router
    assert counts[MIXTURE]["parameters"] == counts[SAME_SIZE]["parameters"] + router


def test_the_first_expert_has_the_largest_weight():
    config = config_of(MIXTURE)
    params = decoder_config.init(np.random.default_rng(0), config)
    ids = np.random.default_rng(1).integers(0, 11, (3, 12))
    first = sequence_models.first_experts(Trained(config, params, []), ids)
    _, cache = decoder.forward(params, ids, config)
    for layer, block in zip(first, cache.blocks, strict=True):
        assert (layer.ravel() == block.mixture.routing.probs.argmax(axis=1)).all()


def test_training_keeps_the_least_validation_loss():
    config = config_of(SAME_OPERATIONS)
    losses = iter([3.0, 1.0, 2.0])
    kept = []

    def validation_of(params):
        kept.append(params["head"]["w"].copy() if "head" in params else params["embed"]["w"].copy())
        return next(losses)

    def minibatch_of(rng):
        rows = rng.integers(0, 11, (2, 9))
        return rows[:, :-1], rows[:, 1:]

    sizes = SIZES.__class__(**{**SIZES.__dict__, "every": 1})
    model = sequence_models.trained(config, sizes, minibatch_of, validation_of, 0)
    assert model.validation == [3.0, 1.0, 2.0]
    last = model.params["head"]["w"] if "head" in model.params else model.params["embed"]["w"]
    np.testing.assert_array_equal(last, kept[1])
