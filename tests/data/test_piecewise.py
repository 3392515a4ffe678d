"""The piecewise regression: its lines, its noise, the lengths of its intervals."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.data.piecewise import CUTS, piecewise, truth


def test_lines_noise_and_intervals():
    data = piecewise(np.random.default_rng(0), 20_000)
    y, piece = truth(data.x)
    assert (piece == data.piece).all() and abs(data.x).max() <= 1
    assert (data.y - y).std() == pytest.approx(0.1, rel=0.02)
    shares = np.bincount(piece) / 20_000
    np.testing.assert_allclose(shares, np.diff([-1, *CUTS, 1]) / 2, atol=0.01)
    x = np.array([[-0.6], [0.5], [-0.61]])
    np.testing.assert_allclose(truth(x)[0].ravel(), [1.4, -0.5, 1.5 * -0.61 + 0.9])


def test_bad_input_is_named():
    with pytest.raises(InputError, match="rng: wanted a numpy"):
        piecewise(0, 5)
