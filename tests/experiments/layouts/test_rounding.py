"""Routers in bfloat16, on numbers of which the rounding is known."""

import numpy as np
import pytest

from moe_np.experiments.layouts import rounding


def test_bfloat16_has_eight_significant_bits():
    """Between 4 and 8 neighbours are 1/32 apart, between 2 and 4 they are 1/64 apart."""
    got = rounding.rounded(np.array([1.0, 4 + 1 / 64, 4 + 3 / 64, 2 + 1 / 64, -3.0], np.float32))
    assert got.tolist() == [1.0, 4.0, 4 + 2 / 32, 2 + 1 / 64, -3.0]
    assert got.dtype == np.float32


def test_ways():
    """h = 1 + 1/256 is halfway between 1 and 1 + 1/128, and goes to 1, which is even."""
    h = np.array([[1 + 1 / 256]], np.float32)
    w = np.array([[3 + 1 / 256, 5.0]], np.float32)
    assert rounding.logits_of(h, w, "float32").tolist() == (h @ w).tolist()
    assert rounding.logits_of(h, w, "selective").tolist() == [[3 + 1 / 256, 5.0]]
    assert rounding.logits_of(h, w, "bfloat16").tolist() == [[3.0, 5.0]]


def test_tokens_that_change():
    """Experts 1 and 0 for the first token by 1/256, which bfloat16 does not see: a tie, and the
    lowest index wins. The second token is far from any boundary.
    """
    h = np.eye(2, dtype=np.float32)
    w = np.array([[3.0, 3 + 1 / 256, 1.0], [1.0, 2.0, 3.0]], np.float32)
    assert rounding.changed(h, w, 1, "selective") == (0, 0, 0)
    assert rounding.changed(h, w, 1, "bfloat16") == (0.5, 0.5, 0.5)
    # of two experts the set stays, the first one does not
    assert rounding.changed(h, w, 2, "bfloat16") == (0, 0.5, 0)
    assert rounding.changed(h, w, 3, "bfloat16") == (0, 0.5, 0)


def test_a_router_in_bfloat16_changes_more_than_its_inputs():
    rng = np.random.default_rng(0)
    h = rng.normal(size=(4000, 64)).astype(np.float32)
    w = (rng.normal(size=(64, 8)) / 8).astype(np.float32)
    selective, whole = (rounding.changed(h, w, 2, way) for way in rounding.WAYS)
    assert 0 < selective.sets < whole.sets < 0.05
    assert selective.ties == 0 < whole.ties
    assert whole.sets == pytest.approx(3 * selective.sets, rel=0.9)
