"""What a window of text asks of a model: the next token, or the second half from the first.

    model               a window of T tokens and the T tokens that follow them
    decoder, LSTM       every next token
    encoder-decoder     prefix language modelling (Raffel et al. 2020, arXiv 1910.10683, section
                        3.2.1): the encoder reads the first half, the decoder writes the second

Both predict the tokens of a window's second half from at least half a window, so that `evaluation`
can compare them.
"""

from types import ModuleType
from typing import Annotated, Any

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import Rng
from moe_np.models import encoder_decoder, lstm_moe

Windows = Annotated[np.ndarray, "B, T"]
# numbers that are too large or NaN are told once, by the model or by the training loop
NO_WARNINGS: Any = {"over": "ignore", "invalid": "ignore"}


def loss_and_grads(
    model: ModuleType, params: Any, ids: Windows, targets: Windows, config: Any, rng: Rng, **options
) -> tuple[Any, Any]:
    """`loss_and_grads` of a model for windows: ids and targets (B, T) -> (losses, grads)."""
    if model is encoder_decoder:
        ids, targets = _halves(ids, targets)
    try:
        with np.errstate(**NO_WARNINGS):
            return model.loss_and_grads(params, ids, targets, config, rng=rng, **options)
    except InputError as error:
        if "finite" not in str(error) or "layer" in str(error) or model is lstm_moe:
            raise
        raise InputError(f"embedding, last norm or head: {error}") from None  # layers say theirs


def logits_and_targets(
    model: ModuleType, params: Any, ids: Windows, targets: Windows, config: Any
) -> tuple[Annotated[np.ndarray, "B, P, V"], Annotated[np.ndarray, "B, P"]]:
    """The logits of the P targets that the model predicts of a window, and these targets."""
    if model is encoder_decoder:
        source, rest = _halves(ids, targets)
        # the second half of the ids, also where a target is not counted
        start = np.full((len(ids), 1), config.start)
        inputs = np.concatenate([start, ids[:, source.shape[1] :]], axis=1)
        with np.errstate(**NO_WARNINGS):
            return model.forward(params, source, inputs, config)[0], rest
    with np.errstate(**NO_WARNINGS):
        return model.forward(params, ids, config)[0], targets


def predicts_all(model: ModuleType) -> bool:
    """Whether a model predicts the first half of a window too."""
    return model is not encoder_decoder


def _halves(ids, targets):
    """The first half of the tokens, and the targets from the token after them on."""
    half = max(1, ids.shape[1] // 2)
    return ids[:, :half], targets[:, half - 1 :]
