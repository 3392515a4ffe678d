"""Requests to a language model as data, with arrival times, and how long they took.

poisson   independent requests: exponential gaps with the mean 1/rate
bursts    the same mean rate, but in turns a run of requests comes much faster and a run slower
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayN, Rng


class Request(NamedTuple):
    """One prompt to be continued."""

    arrival: float  # seconds
    prompt: Annotated[np.ndarray, "T"]  # ids
    tokens: int  # to be generated
    seed: int = 0  # of its own draws


class Served(NamedTuple):
    """What came of a request; times in seconds, on the clock of the arrivals."""

    ids: list[int]  # the tokens generated
    arrival: float
    first: float  # when its first token was there
    finished: float

    @property
    def latency(self) -> float:
        """From the arrival to the last token."""
        return self.finished - self.arrival

    @property
    def wait(self) -> float:
        """From the arrival to the first token."""
        return self.first - self.arrival


def poisson(rng: Rng, rate: float, n: int) -> ArrayN:
    """Arrival times of n requests, `rate` per second on average."""
    rate = checks.number("rate", rate, greater_than=0)
    return np.cumsum(checks.generator("rng", rng).exponential(1 / rate, checks.integer("n", n)))


def bursts(rng: Rng, rate: float, n: int, *, factor: float = 10.0, length: int = 16) -> ArrayN:
    """Arrival times of n requests, `rate` per second on average: in turns `length` of them come
    `factor` times as fast, and as many so much slower that the mean stays.
    """
    rate = checks.number("rate", rate, greater_than=0)
    factor = checks.number("factor", factor, minimum=1)
    fast = np.arange(checks.integer("n", n)) // checks.integer("length", length) % 2 == 0
    gaps = checks.generator("rng", rng).exponential(1 / rate, n)
    return np.cumsum(gaps * np.where(fast, 1 / factor, 2 - 1 / factor))


def percentiles(
    served: Sequence[Served], shares: Sequence[float] = (50, 99)
) -> dict[str, list[float]]:
    """{"latency", "wait": the percentiles in seconds}. Raises InputError for no request."""
    if not served:
        raise InputError("served: wanted at least one request, got none")
    return {
        "latency": np.percentile([s.latency for s in served], shares).tolist(),
        "wait": np.percentile([s.wait for s in served], shares).tolist(),
    }
