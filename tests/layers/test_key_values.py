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


def test_a_window_keeps_what_is_read():
    """At most 2 · 3 rows, and all that a query of the next position reads, in order."""
    kv = key_values.empty(1, 2, 40, 4, window=3)
    rng = np.random.default_rng(0)
    k, v = (rng.normal(size=(1, 40, 2, 4)) for _ in range(2))
    lo = 0
    for n in (1, 2, 2, 9, 1, 1, 1, 1, 1, 1, 20):
        hi = lo + n
        kv.append(k[:, lo:hi], v[:, lo:hi], before=2)
        keys, values = kv.filled()
        assert kv.length == hi and kv.first <= max(0, lo - 2)
        np.testing.assert_array_equal(keys, k[:, kv.first : hi])
        np.testing.assert_array_equal(values, v[:, kv.first : hi])
        assert kv.keys.shape[2] == kv.values.shape[2] <= max(6, 2 + n)
        lo = hi
    with pytest.raises(InputError, match="kv: wanted room for 41 positions, got 40"):
        kv.append(k[:, :1], v[:, :1])
    with pytest.raises(InputError, match="window: wanted a whole number of at least 1"):
        key_values.empty(1, 2, 40, 4, window=0)
    assert key_values.empty(1, 2, 5, 4, window=3).keys.shape[2] == 5


def test_arrays_have_room_for_as_many_positions_as_rows_unless_told_otherwise():
    for room, wanted in ((0, 3), (2, 2)):
        kv = key_values.KeyValues(np.zeros((1, 2, 3, 4)), np.zeros((1, 2, 3, 4)), room=room)
        kv.append(np.ones((1, wanted, 2, 4)), np.ones((1, wanted, 2, 4)))
        with pytest.raises(InputError, match=f"room for {wanted + 1} positions, got {wanted}"):
            kv.append(np.ones((1, 1, 2, 4)), np.ones((1, 1, 2, 4)))


def test_the_next_position_has_a_row():
    for window in (None, 2):
        kv = key_values.empty(1, 2, 9, 4, window=window)
        for _ in range(9):
            assert kv.free_row() < kv.keys.shape[2] == kv.values.shape[2]
            kv.append(np.ones((1, 1, 2, 4)), np.ones((1, 1, 2, 4)))


def test_no_room_and_other_shapes():
    kv = key_values.empty(1, 2, 3, 4)
    kv.append(np.ones((1, 2, 2, 4)), np.ones((1, 2, 2, 4)))
    with pytest.raises(InputError, match="kv: wanted room for 4 positions, got 3"):
        kv.append(np.ones((1, 2, 2, 4)), np.ones((1, 2, 2, 4)))
    assert kv.length == 2
    for k in (np.ones((2, 1, 2, 4)), np.ones((1, 1, 3, 4)), np.ones((1, 1, 2, 4), np.float32)):
        with pytest.raises(InputError, match="kv: it holds 1 sequences, 2 key heads of width 4"):
            kv.append(k, k)
