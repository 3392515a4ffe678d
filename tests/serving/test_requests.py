"""Arrivals and latencies."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.serving.requests import Served, bursts, percentiles, poisson


def test_poisson_has_its_rate():
    gaps = np.diff(poisson(np.random.default_rng(0), 4.0, 20_000))
    assert gaps.mean() == pytest.approx(1 / 4, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 4, rel=0.05), "as wide as its mean"


def test_bursts_have_the_same_mean_rate():
    gaps = np.diff(bursts(np.random.default_rng(0), 4.0, 20_000, factor=10, length=100), prepend=0)
    assert gaps.mean() == pytest.approx(1 / 4, rel=0.05)
    in_turns = gaps.reshape(-1, 100).mean(axis=1)
    assert in_turns[0::2].mean() == pytest.approx(1 / 40, rel=0.05)
    assert in_turns[1::2].mean() == pytest.approx(1.9 / 4, rel=0.05)


def test_percentiles_by_hand():
    served = [Served([1], 1.0, 1.5, 2.0 + n) for n in range(101)]
    assert percentiles(served) == {"latency": [51.0, 100.0], "wait": [0.5, 0.5]}
    with pytest.raises(InputError, match="served: wanted at least one request"):
        percentiles([])


def test_a_rate_is_positive():
    with pytest.raises(InputError, match="rate: "):
        poisson(np.random.default_rng(0), 0.0, 3)
    with pytest.raises(InputError, match="rate: "):
        bursts(np.random.default_rng(0), 0.0, 3)
