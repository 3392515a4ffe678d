"""The shapes of parameters from a config: those of what `init` makes, without making it."""

import tracemalloc

import numpy as np
import pytest

from moe_np.base import params as nested
from moe_np.base.checks import InputError
from moe_np.models import decoder, encoder_decoder, parameter_shapes
from tests.support import decoders, encoder_decoders

DECODERS = {
    **decoders.LAYOUTS,
    **{name: decoders.with_router(name) for name in decoders.ROUTERS},
    "shared and dense": decoders.LAYOUTS["deepseek"]._replace(dense_layers=(0, 1, 2)),
    "biases and norms": decoders.SMALL._replace(biases=True, qk_norm="head", expert="relu"),
}
ENCODER_DECODERS = {
    **encoder_decoders.LAYOUTS,
    **{name: encoder_decoders.with_encoder_router(name) for name in encoder_decoders.ENCODERS},
}


@pytest.mark.parametrize("name", DECODERS)
def test_the_leaves_of_a_decoder(name):
    same_as_made(decoder, DECODERS[name])


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_the_leaves_of_an_encoder_decoder(name):
    same_as_made(encoder_decoder, ENCODER_DECODERS[name])


def same_as_made(module, config):
    """Paths and shapes, in their order."""
    made = nested.leaves(module.init(np.random.default_rng(0), config))
    shapes = list(parameter_shapes.shapes(config).items())
    assert shapes == [(path, a.shape) for path, a in made.items()]


def test_nothing_large_is_made():
    """A tebibyte of experts, a vocabulary of ten million."""
    config = decoders.SMALL._replace(vocabulary=10**7, d_model=512, hidden=2**23, experts=64)
    tracemalloc.start()
    shapes = parameter_shapes.shapes(config)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert shapes["layers.1.experts.w2"] == (64, 2**23, 512) and peak < 5e6


def test_a_config_that_does_not_fit():
    for config in (decoders.SMALL, encoder_decoders.SMALL):
        with pytest.raises(InputError, match=r"config\.hidden: wanted a whole number"):
            parameter_shapes.shapes(config._replace(hidden=0))
