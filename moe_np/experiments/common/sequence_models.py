"""Small decoders of whole sequences of token ids, dense and with experts: music, rows of pixels."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np import accounting
from moe_np.base.types import ArrayBT, Rng
from moe_np.experiments.common import small_decoders
from moe_np.experiments.common.dense_and_mixture import shape
from moe_np.layers import specialisation
from moe_np.models import decoder, decoder_config
from moe_np.training import loop

K = 2  # experts per token


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The decoder and its training. All values are ours."""

    d_model: int = 48
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 32  # of an expert
    experts: int = 8
    batch: int = 16
    updates: int = 1000
    learning_rate: float = 6e-3
    every: int = 50  # updates between validations


class Trained(NamedTuple):
    """A decoder with the least validation loss."""

    config: decoder.Config
    params: Any
    validation: list[float]  # nats per token, at the beginning and after every `every` updates


def config_of(sizes: Sizes, model: str, *, vocabulary: int, context: int) -> decoder.Config:
    """The decoder of one of `dense_and_mixture.MODELS`."""
    experts, hidden = shape(model, experts=sizes.experts, hidden=sizes.hidden, k=K)
    return decoder.Config(
        vocabulary=vocabulary,
        d_model=sizes.d_model,
        layers=sizes.layers,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        d_head=sizes.d_model // sizes.heads,
        experts=experts,
        hidden=hidden,
        context=context,
    )


def trained(
    config: decoder.Config,
    sizes: Sizes,
    minibatch_of: Callable[[Rng], tuple[ArrayBT, ArrayBT]],
    validation_of: Callable[[Any], float],
    seed: int,
) -> Trained:
    """Train a new decoder; what has the least validation loss is kept."""
    params = decoder_config.init(np.random.default_rng([seed, 1]), config)
    curve = small_decoders.further(
        params,
        small_decoders.ordinary(config),
        minibatch_of,
        validation_of,
        loop.Options(sizes.updates, sizes.learning_rate, seed=seed),
        every=sizes.every,
    )
    return Trained(config, curve.best, curve.validation)


def counts(config: decoder.Config) -> dict[str, int]:
    """{"experts", "hidden", "parameters", "active"}: sizes, and what a token passes."""
    counted = accounting.count(decoder_config.architecture(config))
    sizes = {"experts": config.experts, "hidden": config.hidden}
    return {**sizes, "parameters": int(counted.total), "active": int(counted.active)}


def first_experts(trained: Trained, ids: ArrayBT) -> Annotated[np.ndarray, "L, B, T"]:
    """The first expert of every token of ids (B, T), layer by layer."""
    _, cache = decoder.forward(trained.params, ids, trained.config)
    choice = [specialisation.choices(block.mixture.routing).expert[:, 0] for block in cache.blocks]
    return np.stack(choice).reshape(len(choice), *ids.shape)
