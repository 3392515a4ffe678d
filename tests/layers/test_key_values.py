"""The key-value cache by itself; with attention it is tested in test_attention.py."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import key_values


def test_what_is_appended_is_read_in_order():
    kv = key_values.empty(2, 3, 6, 4, dtype=np.float32)
    rng = np.random.default_rng(0)
    k, v = (rng.normal(size=(2, 5, 3, 4)).astype(np.float32) for _ in range(2))
    for lo, hi in ((0, 2), (2, 3), (3, 5)):
        kv.append(k[:, lo:hi], v[:, lo:hi])
        assert kv.length == hi
    keys, values = kv.filled()
    assert np.array_equal(keys, k) and np.array_equal(values, v)
    assert np.shares_memory(keys, kv.keys)


def test_no_room_and_other_shapes():
    kv = key_values.empty(1, 2, 3, 4)
    kv.append(np.ones((1, 2, 2, 4)), np.ones((1, 2, 2, 4)))
    with pytest.raises(InputError, match="kv: wanted room for 4 positions, got 3"):
        kv.append(np.ones((1, 2, 2, 4)), np.ones((1, 2, 2, 4)))
    assert kv.length == 2
    for k in (np.ones((2, 1, 2, 4)), np.ones((1, 1, 3, 4)), np.ones((1, 1, 2, 4), np.float32)):
        with pytest.raises(InputError, match="kv: it holds 1 sequences, 2 key heads of width 4"):
            kv.append(k, k)
