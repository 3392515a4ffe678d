"""Queries and keys by head: gathered and turned as `rotary.forward`, scattered as its backward."""

import numpy as np
import pytest

from moe_np.layers import rotary
from tests.support.kernels import dtypes, from_python, numba

if numba:
    from moe_np.kernels.machine import heads

    gather = from_python(heads.gather)
    scatter = from_python(heads.scatter)


@pytest.mark.seconds
@dtypes
@pytest.mark.parametrize("contiguous", [True, False])
def test_gather_and_scatter(contiguous, dtype):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 7, 3, 4)).astype(dtype)
    source = a if contiguous else np.concatenate([a, a], axis=1)[:, :7]
    turn = rotary.angles(np.arange(7), 4, dtype=dtype)
    pair = heads.angles(turn, 4, np.dtype(dtype))
    turned = rotary.forward(a, turn)
    rows = np.empty((3, 4), dtype)
    two = rows.dtype.type(2)
    gather(heads.heads(source), 1, 2, 2, 5, pair, two, rows)
    np.testing.assert_allclose(rows, 2 * turned[1, 2:5, 2], rtol=1e-5)
    out = np.zeros((7, 4), dtype)
    scatter(rows, 2, pair, two, out)
    np.testing.assert_allclose(out[2:5], 4 * a[1, 2:5, 2], rtol=1e-5)
    assert (out[:2] == 0).all() and (out[5:] == 0).all()


@pytest.mark.seconds
def test_without_a_rotation_and_in_another_order_of_memory():
    a = np.random.default_rng(0).normal(size=(2, 5, 3, 4))
    none = heads.angles(None, 4, np.dtype(np.float64))
    rows = np.empty((5, 4))
    for source in (a, np.asfortranarray(a), a.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3)):
        gather(heads.heads(source), 0, 1, 0, 5, none, 1.0, rows)
        assert np.array_equal(rows, a[0, :, 1])
    out = np.zeros((5, 4))
    scatter(rows, 0, none, 1.0, out)
    assert np.array_equal(out, a[0, :, 1])
