"""Arrays in the layout of the compiled loops, and back."""

import numpy as np
import pytest

from tests.support.kernels import numba

if numba:
    from moe_np.kernels.machine import layout


@pytest.mark.parametrize("n", [0, 1, 8, 13])
def test_unit_rows(n):
    a = np.arange(3.0 * n).reshape(n, 3)
    rows = layout.unit_rows(a, 1.0)
    assert rows.shape == (4, -(-n // 8) * 8)
    assert np.array_equal(rows[:3, :n], a.T) and (rows[3, :n] == 1).all()
    assert (rows[:, n:] == 0).all()


@pytest.mark.parametrize("name", ["U", "V"])
def test_split_bias_is_the_inverse_of_join_bias(name):
    rng = np.random.default_rng(0)
    params = {"W": (4, 2, 3), "b": (4, 3), name: (5, 4), "c": (4,)}
    params = {key: rng.normal(size=shape) for key, shape in params.items()}
    first = layout.join_bias(params["W"].swapaxes(1, 2), params["b"])
    second = layout.join_bias(params[name].T, params["c"])
    assert first.shape == (4, 3, 3) and first.flags.c_contiguous and second.flags.c_contiguous
    assert np.array_equal(first[1, 2], [*params["W"][1, :, 2], params["b"][1, 2]])
    result = layout.split_bias(first, second, name)
    assert set(result) == set(params)
    for key, value in params.items():
        assert np.array_equal(result[key], value)
    history = layout.split_bias(np.stack([first, -first]), np.stack([second, -second]), name)
    for key, value in params.items():
        assert np.array_equal(history[key], np.stack([value, -value]))
