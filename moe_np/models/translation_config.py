"""What the translation model is made of: its configuration and the parameters of a new model. The
model itself is `moe_np.models.translation`.

    {"encoder": {"embed", "forward", "backward", "lstm2", "mixture", "lstm3"},
     "decoder": {"embed", "attentive", "mixture", "lstm2", "head"}}

"forward" and "backward" are the two directions of the encoder's first layer, "attentive" is the
first layer of the decoder.
"""

from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import DType, Options, Rng
from moe_np.layers import attentive_lstm, embedding, lstm, mixture_layer, router_options

Tree = dict[str, Any]  # nested parameters, or their gradients
NOISY_GATE: Options = {"k": 4}


class Config(NamedTuple):
    """Which model it is. All values are numbers, texts, and dicts of them."""

    source_vocabulary: int
    target_vocabulary: int  # V
    d_model: int  # D, even
    experts: int  # E, in encoder and decoder each; 1: dense layers
    expert_hidden: int  # H of an expert
    hidden: int  # units of each LSTM, which has a projection to D
    router: str = "noisy_top_k"  # of the encoder, a module of moe_np.routing
    options: Options = NOISY_GATE  # of its `route`
    init_options: Options | None = None  # of its `init`
    decoder_router: str = "noisy_top_k"  # a causal one
    decoder_options: Options = NOISY_GATE
    decoder_init_options: Options | None = None
    expert: str = "relu"
    dropout: float = 0.0


def check(config: Config) -> None:
    """Raise InputError for values that do not fit, and where the decoder's router is not causal."""
    if not isinstance(config, Config):
        raise InputError(f"config: wanted a translation.Config, got {checks.text(config)}")
    for name in ("source_vocabulary", "target_vocabulary", "d_model", "experts", "expert_hidden"):
        checks.size(f"config.{name}", getattr(config, name))
    checks.size("config.hidden", config.hidden)
    if config.d_model % 2:
        raise InputError(f"config.d_model: wanted an even number, got {config.d_model}")
    checks.number("config.dropout", config.dropout, minimum=0, less_than=1)
    checks.choice("config.expert", config.expert, tuple(mixture_layer.KINDS))
    mixture_layer.router_of(config.router)
    mixture_layer.causal_router(config.decoder_router)
    if config.experts > 1:
        router_options.check(config.router, config.options, config.init_options)
        decoder = (config.decoder_router, config.decoder_options, config.decoder_init_options)
        router_options.check(*decoder, "config.decoder_")


def init(rng: Rng, config: Config, *, dtype: DType = np.float32) -> Tree:
    """The parameters of a new model.

    Matrices are normal with standard deviation 1/√(number of inputs), the forget gates' biases 1,
    noisy top-k gates 0.
    """
    check(config)
    D, H = config.d_model, config.hidden
    head = rng.normal(size=(D, config.target_vocabulary)) / np.sqrt(D)
    encoder = {
        "embed": embedding.init(rng, config.source_vocabulary, D, dtype=dtype),
        "forward": lstm.init(rng, D, H, D // 2, dtype=dtype),
        "backward": lstm.init(rng, D, H, D // 2, dtype=dtype),
        "lstm2": lstm.init(rng, D, H, D, dtype=dtype),
        "mixture": _init_mixture(rng, config, True, dtype),
        "lstm3": lstm.init(rng, D, H, D, dtype=dtype),
    }
    decoder = {
        "embed": embedding.init(rng, config.target_vocabulary, D, dtype=dtype),
        "attentive": attentive_lstm.init(rng, D, D, H, D, dtype=dtype),
        "mixture": _init_mixture(rng, config, False, dtype),
        "lstm2": lstm.init(rng, 2 * D, H, D, dtype=dtype),
        "head": {"w": head.astype(dtype)},
    }
    return {"encoder": encoder, "decoder": decoder}


def _init_mixture(rng, config, in_encoder, dtype):
    router = config.router if in_encoder else config.decoder_router
    return mixture_layer.init(
        rng,
        config.d_model,
        config.experts,
        config.expert_hidden,
        kind=config.expert,
        router=router if config.experts > 1 else None,
        init_options=config.init_options if in_encoder else config.decoder_init_options,
        vocabulary=config.source_vocabulary if in_encoder else config.target_vocabulary,
        dtype=dtype,
    )
