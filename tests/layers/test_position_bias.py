"""The position bias of T5: buckets by hand and by a naive loop, gradient, cache, bad sizes."""

import math

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import pair_error
from moe_np.layers import position_bias

both = pytest.mark.parametrize("bidirectional", [True, False])


def naive_bucket(distance, n, bidirectional, max_distance):
    first = 0
    if bidirectional:
        n //= 2
        first = n if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = n // 2
    if distance < exact:
        return first + distance
    for bucket in range(n - 1, exact, -1):  # the last bucket whose lower limit is reached
        if distance >= exact * (max_distance / exact) ** ((bucket - exact) / (n - exact)) - 1e-6:
            return first + bucket
    return first + exact


@both
@pytest.mark.parametrize(("n", "max_distance"), [(32, 128), (8, 20), (4, 3)])
def test_equals_a_naive_loop(n, max_distance, bidirectional):
    distances = np.arange(-300, 301)
    bucket = position_bias.buckets(
        distances, n, bidirectional=bidirectional, max_distance=max_distance
    )
    expected = [naive_bucket(int(d), n, bidirectional, max_distance) for d in distances]
    assert bucket.tolist() == expected
    assert set(expected) == set(range(n)) - ({n // 2} if bidirectional else set())


def test_buckets_of_t5_by_hand():
    """32 buckets to distance 128: with both directions 8 exact and 8 that grow, twice."""
    distance = [0, -1, -7, -8, -11, -12, -15, -16, -127, -128, -1000, 1, 7, 8, 128]
    bucket = position_bias.buckets(np.array(distance), 32, bidirectional=True)
    assert bucket.tolist() == [0, 1, 7, 8, 8, 9, 9, 10, 15, 15, 15, 17, 23, 24, 31]
    bucket = position_bias.buckets(np.array(distance), 32, bidirectional=False)
    assert bucket.tolist() == [0, 1, 7, 8, 11, 12, 15, 16, 31, 31, 31, 0, 0, 0, 0]
    assert math.floor(16 + 16 * math.log(127 / 16) / math.log(8)) == 31


@both
def test_gradient_and_naive_loop(bidirectional):
    rng = np.random.default_rng(0)
    params = position_bias.init(rng, 8, 3)

    def forward(p, x):
        return position_bias.forward(p, 5, 7, bidirectional=bidirectional, max_distance=6)

    def backward(dbias, cache):
        return None, position_bias.backward(dbias, cache)

    errors = pair_error(forward, backward, params, np.zeros(1), rng)
    assert errors["w"] < 1e-7
    bias, cache = forward(params, None)
    dbias = rng.normal(size=bias.shape)
    dw = np.zeros_like(params["w"])
    for h, t, s in np.ndindex(*bias.shape):
        bucket = naive_bucket(s - t, 8, bidirectional, 6)
        assert bias[h, t, s] == params["w"][bucket, h]
        dw[bucket, h] += dbias[h, t, s]
    np.testing.assert_allclose(position_bias.backward(dbias, cache)["w"], dw, atol=1e-14)


@both
def test_errata_24_with_an_offset_it_is_the_lower_part_of_the_whole(bidirectional):
    params = position_bias.init(np.random.default_rng(0), 8, 2, dtype=np.float32)
    whole, _ = position_bias.forward(params, 9, 9, bidirectional=bidirectional)
    last, _ = position_bias.forward(params, 2, 9, bidirectional=bidirectional, offset=7)
    assert np.array_equal(last, whole[:, 7:]) and last.dtype == np.float32


def test_bad_sizes():
    params = position_bias.init(np.random.default_rng(0), 6, 2)
    with pytest.raises(InputError, match="n_buckets: wanted a multiple of 4, got 6"):
        position_bias.forward(params, 2, 2, bidirectional=True)
    with pytest.raises(InputError, match="max_distance: wanted a whole number of at least 4"):
        position_bias.forward(params, 2, 2, bidirectional=False, max_distance=3)
    _, cache = position_bias.forward(params, 2, 3, bidirectional=False)
    with pytest.raises(InputError, match=r"dbias: wanted shape \(Hq, 2, 3\), got \(2, 3, 3\)"):
        position_bias.backward(np.ones((2, 3, 3)), cache)
