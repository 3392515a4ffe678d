"""The models that `moe-np train --model NAME` knows: which module, its values, and the
load-balancing losses to which `--set balance=` gives another coefficient.

They are small: about four million parameters, of which a mixture uses two fifths per token. `dense`
has the same operations per token as `mixtral`, which is the comparison that papers make.
"""

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.layers import balance
from moe_np.models import decoder, encoder_decoder, encoder_decoder_config, lstm_moe
from moe_np.routing.contract import BalanceLoss


class Kind(NamedTuple):
    """A model by its name on the command line."""

    help: str
    model: ModuleType  # with Config, check, init, forward and loss_and_grads
    values: dict[str, Any]  # of its Config
    losses: tuple[Callable[..., BalanceLoss], ...] = (balance.switch,)  # with one coefficient


DECODER = {
    "d_model": 128,
    "layers": 4,
    "heads": 4,
    "kv_heads": 2,
    "d_head": 32,
    "experts": 8,
    "hidden": 256,
    "tied": True,
}
KINDS = {
    "mixtral": Kind("decoder, 2 of 8 experts in every layer", decoder, DECODER),
    "dense": Kind(
        "decoder with the operations of mixtral and no experts",
        decoder,
        {**DECODER, "experts": 1, "hidden": 512},
    ),
    "glam": Kind(
        "decoder, experts in every other layer",
        decoder,
        {**DECODER, "dense_layers": (0, 2), "dense_hidden": 512},
    ),
    "deepseek": Kind(
        "decoder, 3 of 16 smaller experts and one that every token passes, a dense first layer",
        decoder,
        {
            **DECODER,
            "experts": 16,
            "hidden": 128,
            "options": {"k": 3, "renormalise": False},
            "shared": 1,
            "dense_layers": (0,),
            "dense_hidden": 512,
        },
    ),
    "olmoe": Kind(
        "decoder, 4 of 16 smaller experts, weights not renormalised, norms of queries and keys",
        decoder,
        {
            **DECODER,
            "experts": 16,
            "hidden": 128,
            "options": {"k": 4, "renormalise": False},
            "qk_norm": "whole",
        },
    ),
    "switch": Kind(
        "encoder-decoder, 1 of 8 experts in every other layer; it writes what follows a prompt",
        encoder_decoder,
        {
            "d_model": 128,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "heads": 4,
            "d_head": 32,
            "experts": 8,
            "hidden": 512,
            "tied": False,
        },
    ),
    "lstm": Kind(
        "LSTM, 4 of 16 experts by noisy top-k gating, LSTM (Shazeer et al. 2017)",
        lstm_moe,
        {"d_model": 128, "experts": 16, "expert_hidden": 256},
        (balance.importance, balance.load),
    ),
}


def config_of(name: str, vocabulary: int, context: int, changes: dict[str, Any]) -> Any:
    """The Config of a kind, with some of its values changed.

    Raises InputError for a name that its Config does not have, and for values that do not fit.
    """
    kind = KINDS[checks.choice("--model", name, tuple(KINDS))]
    fields = kind.model.Config._fields
    for field in changes:
        if field not in fields:
            raise InputError(f"--set: {name} has no value {field!r}; it has {', '.join(fields)}")
    check_containers(kind.model.Config, changes)
    common = {"vocabulary": vocabulary, "context": context}
    common = {name: value for name, value in common.items() if name in fields}
    config = kind.model.Config(**{**common, **kind.values, **changes})
    try:
        check(config)
    except InputError as error:  # the person has written --set
        raise InputError(re.sub(r"^config(\.|: )", "--set ", str(error))) from None
    return config


DICTS = ("options", "init_options", "decoder_options", "decoder_init_options")
LISTS = ("dense_layers", "full_layers", "encoder_dense", "decoder_dense")


def check_containers(config_type: Any, values: dict[str, Any], where: str = "--set") -> None:
    """Raise InputError for what is no dict or no list of layers where the Config has one."""
    for name, value in values.items():
        if value is None and config_type._field_defaults.get(name, 0) is None:
            continue
        if name in DICTS and not isinstance(value, dict):
            raise InputError(
                f'{where} {name}: wanted a dict as {{"k": 2}}, got {checks.text(value)}'
            )
        if name in LISTS and not isinstance(value, (list, tuple)):
            raise InputError(f"{where} {name}: wanted a list as [0, 2], got {checks.text(value)}")


def check(config: Any) -> None:
    """Raise InputError for a Config whose values do not fit, of any of the models."""
    if isinstance(config, encoder_decoder.Config):
        encoder_decoder_config.check(config)
    elif isinstance(config, lstm_moe.Config):
        lstm_moe.check(config)
    else:
        decoder.check(config)
