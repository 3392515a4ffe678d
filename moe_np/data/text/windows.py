"""Windows of a long sequence of tokens: random ones for training, covering ones for evaluation.

A window of T tokens has T targets, each the token that follows: ids = tokens[i : i + T] and targets
= tokens[i + 1 : i + 1 + T].

For evaluation, windows follow each other by T/2, and only the second half of each counts, but for
the first window, which counts whole. So every token but the first is predicted once, from at least
T/2 tokens before it or from all that there are. With windows that do not overlap, the first targets
of each would be predicted from nearly nothing, and perplexity would be that of short contexts.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Rng

Tokens = Annotated[np.ndarray, "n"]
Windows = Annotated[np.ndarray, "B, T"]

UNCOUNTED = -1  # a target that is not evaluated; the `ignore` of the loss


def random_windows(tokens: Tokens, rng: Rng, *, batch: int, length: int) -> tuple[Windows, Windows]:
    """`batch` windows at random places: -> ids (B, T), targets (B, T).

    Raises InputError for a sequence without one whole window.
    """
    tokens = checks.array("tokens", tokens, ("n",), kind="i")
    batch = checks.size("batch", batch)
    length = checks.size("length", length)
    if len(tokens) <= length:
        raise InputError(f"tokens: wanted more than a window of {length}, got {len(tokens)}")
    starts = checks.generator("rng", rng).integers(0, len(tokens) - length, batch)
    places = starts[:, None] + np.arange(length)
    return tokens[places], tokens[places + 1]


def covering_windows(
    tokens: Tokens, *, batch: int, length: int, first_whole: bool = True
) -> Iterator[tuple[Windows, Windows]]:
    """Windows in which every token but the first is a target exactly once, `batch` at a time:
    ids (B, T), targets (B, T) with UNCOUNTED where another window counts the token.

    first_whole   whether the first window counts whole; otherwise its second half alone, for a
                  model that predicts from the first half

    Tokens after the end are 0 and do not count. Raises InputError for less than two tokens.
    """
    tokens = checks.array("tokens", tokens, ("n",), kind="i")
    batch = checks.size("batch", batch)
    length = checks.size("length", length)
    if len(tokens) < 2:
        raise InputError(f"tokens: wanted at least two, got {len(tokens)}")
    stride = max(1, length // 2)
    n_targets = len(tokens) - 1
    starts = np.arange(0, max(1, n_targets - length + stride), stride)
    for low in range(0, len(starts), batch):
        places = starts[low : low + batch, None] + np.arange(length)
        inside = places < n_targets
        ids = tokens[np.where(inside, places, 0)] * inside
        # the windows before have counted up to their end
        first = starts[low : low + batch, None]
        in_second_half = places >= first + length - stride
        counted = inside & (in_second_half | (first_whole & (first == 0)))
        targets = np.where(counted, tokens[np.where(inside, places + 1, 0)], UNCOUNTED)
        yield ids, targets
