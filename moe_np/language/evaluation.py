"""Perplexity and bits per byte of a language model on a text.

    perplexity     = exp(Σ −log p(token) / number of tokens)          errata 26
    bits per byte  = Σ −log₂ p(token) / number of bytes of the text

Perplexities of models with different tokenisers cannot be compared, bits per byte can. The loss is
that of the task alone, without load-balancing losses. Every token but the first is predicted once,
from at least half a window before it (`moe_np.data.text.windows`); an encoder-decoder does not
predict the first half of the first window.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base.checks import InputError
from moe_np.data.text import tokenisers
from moe_np.data.text.windows import UNCOUNTED, covering_windows
from moe_np.layers import cross_entropy

Windows = Annotated[np.ndarray, "B, T"]


class Evaluation(NamedTuple):
    """What a model loses on a text."""

    nats: float  # Σ −log p over the tokens
    tokens: int
    bytes: int  # of these tokens

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp of the loss; infinity where that is too large."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for a byte of the text."""
        return tokenisers.bits_per_byte(self.nats, self.bytes)


def evaluate(
    predict: Callable[[Windows, Windows], tuple[Annotated[np.ndarray, "B, P, V"], Windows]],
    tokens: Annotated[np.ndarray, "n"],
    tokeniser: Any,
    *,
    length: int,
    batch: int = 8,
    first_whole: bool = True,
) -> Evaluation:
    """The loss over a sequence of tokens, in windows of `length`, `batch` at a time.

    predict       ids and targets (B, T) -> the logits (B, P, V) of P of the targets, and these
    tokeniser     of the tokens; a character that they cut in two counts as the three bytes of
                  U+FFFD
    first_whole   as in `covering_windows`

    Raises InputError for a text of which no token is predicted.
    """
    nats = 0.0
    count = 0
    windows = covering_windows(tokens, batch=batch, length=length, first_whole=first_whole)
    for ids, targets in windows:
        logits, targets = predict(ids, targets)
        rows = logits.reshape(-1, logits.shape[-1])
        _, cache = cross_entropy.forward(rows, targets.ravel(), ignore=UNCOUNTED)
        nats += cache.total
        count += cache.n_valid
    if not count:
        raise InputError(f"tokens: wanted more than half a window of {length}, got {len(tokens)}")
    n_bytes = len(tokeniser.decode(tokens[-count:]).encode("utf-8"))  # they are the last ones
    return Evaluation(nats, count, n_bytes)
