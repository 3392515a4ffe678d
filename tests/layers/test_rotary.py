"""Rotary position embedding: a naive loop, gradient, invariances, the layout of the pairs."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import rotary

B, T, H, D = 2, 5, 3, 6


def problem(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, T, H, D)), rotary.angles(np.arange(T), D, theta=100)


def test_equals_a_naive_loop():
    x, angles = problem()
    y = rotary.forward(x, angles)
    for b, t, h, i in np.ndindex(B, T, H, D // 2):
        angle = t * 100 ** (-2 * i / D)
        first, second = x[b, t, h, i], x[b, t, h, i + D // 2]
        expected = first * np.cos(angle) - second * np.sin(angle)
        np.testing.assert_allclose(y[b, t, h, i], expected, rtol=1e-12)
        expected = second * np.cos(angle) + first * np.sin(angle)
        np.testing.assert_allclose(y[b, t, h, i + D // 2], expected, rtol=1e-12)


def test_errata_21_scores_depend_on_the_difference_of_positions_only():
    q, _ = problem()
    k, _ = problem(1)
    scores = []
    for first in (0, 1, 1000):
        angles = rotary.angles(first + np.arange(T), D)
        turned = rotary.forward(q, angles), rotary.forward(k, angles)
        scores.append(np.einsum("bthd,bshd->bhts", *turned))
        np.testing.assert_allclose(
            np.linalg.norm(turned[0], axis=-1), np.linalg.norm(q, axis=-1), rtol=1e-12
        )
    for moved in scores[1:]:
        np.testing.assert_allclose(moved, scores[0], atol=1e-11)


def test_errata_21_the_backward_pass_is_the_rotation_by_the_negative_angle():
    x, angles = problem()
    dy, _ = problem(1)
    dx = rotary.backward(dy, angles)
    negative = rotary.angles(-np.arange(T), D, theta=100)
    np.testing.assert_allclose(dx, rotary.forward(dy, negative), rtol=1e-12)
    np.testing.assert_allclose(rotary.backward(rotary.forward(x, angles), angles), x, rtol=1e-12)
    # the layer is linear in x: dy · turn(x) = dx · x for all x and dy
    np.testing.assert_allclose((dy * rotary.forward(x, angles)).sum(), (dx * x).sum(), rtol=1e-12)


def test_pitfall_2_angles_are_computed_in_float64():
    position = 32768
    angles = rotary.angles(np.array([position]), 128, dtype=np.float32)
    exact = position * 10000.0 ** (-2 * np.arange(64) / 128)
    assert angles.cos.dtype == np.float32
    np.testing.assert_allclose(angles.cos[0], np.cos(exact), atol=1e-7)
    inverse = (10000.0 ** (-2 * np.arange(64) / 128)).astype(np.float32)
    assert np.abs(np.cos(np.float32(position) * inverse) - np.cos(exact)).max() > 1e-4


def test_errata_21_the_layouts_agree_after_a_permutation_of_columns():
    """Pairs (2i, 2i + 1), as in the paper, against halves (i, i + d/2)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, T, 8))
    w = rng.normal(size=(8, H * D))
    _, angles = problem()
    paper = (x @ w).reshape(B, T, H, D)
    turned = np.empty_like(paper)
    for i in range(D // 2):
        cos, sin = angles.cos[:, None, i], angles.sin[:, None, i]
        first, second = paper[..., 2 * i], paper[..., 2 * i + 1]
        turned[..., 2 * i] = first * cos - second * sin
        turned[..., 2 * i + 1] = second * cos + first * sin
    half = rotary.forward((x @ rotary.interleaved_to_half(w, H)).reshape(B, T, H, D), angles)
    np.testing.assert_allclose((half**2).sum(axis=-1), (turned**2).sum(axis=-1), rtol=1e-12)
    gram = np.einsum("bthd,bshd->bhts", half, half)
    np.testing.assert_allclose(gram, np.einsum("bthd,bshd->bhts", turned, turned), rtol=1e-11)
    without = rotary.forward(paper, angles)
    assert np.abs(np.einsum("bthd,bshd->bhts", without, without) - gram).max() > 0.1


def test_interleaved_to_half_by_hand():
    assert rotary.interleaved_to_half(np.arange(8.0), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_float32_and_read_only():
    x, angles = problem()
    x = x.astype(np.float32)
    x.flags.writeable = False
    assert rotary.forward(x, angles).dtype == np.float32


def test_bad_input():
    x, angles = problem()
    with pytest.raises(InputError, match="d: wanted an even width of a head, got 5"):
        rotary.angles(np.arange(3), 5)
    with pytest.raises(InputError, match=r"rotary.cos: wanted shape \(4, 3\), got \(5, 3\)"):
        rotary.forward(x[:, :4], angles)
    with pytest.raises(InputError, match="w: wanted 4 heads of an even width"):
        rotary.interleaved_to_half(np.ones((2, 12)), 4)
