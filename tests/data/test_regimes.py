"""Regression with structure that can be taken away: what changes and what stays equal."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.data import regimes


def test_the_four_kinds_have_the_same_inputs_on_average_and_targets_of_variance_1():
    task = regimes.make_task(np.random.default_rng(0))
    for clouds in (True, False):
        for rules in (True, False):
            c = regimes.draw(task, 20_000, np.random.default_rng(1), clouds=clouds, rules=rules)
            assert c.x.shape == (20_000, 2) and c.d.shape == (20_000, 1)
            np.testing.assert_allclose(c.x.mean(axis=0), 0, atol=0.06)
            np.testing.assert_allclose(np.cov(c.x.T), np.diag([4.36, 4.36]), atol=0.15)
            assert c.d.std() == pytest.approx(np.sqrt(1 + task.noise**2), abs=0.05)
            distance = ((c.x[:, None] - task.centres) ** 2).sum(axis=2)
            np.testing.assert_array_equal(c.region, distance.argmin(axis=1))


def test_clouds_are_clouds_and_rules_are_straight():
    task = regimes.make_task(np.random.default_rng(0), noise=0.0)
    clouds, one_cloud = (
        regimes.draw(task, 3000, np.random.default_rng(1), clouds=c) for c in (True, False)
    )

    def distance(cases):
        return np.sqrt(((cases.x - task.centres[cases.region]) ** 2).sum(axis=1).mean())

    assert distance(clouds) < 0.9 < 1.4 < distance(one_cloud)
    for cases in (clouds, one_cloud):
        for k in range(4):
            inside = cases.region == k
            design = np.concatenate([cases.x[inside], np.ones((inside.sum(), 1))], axis=1)
            _, residual, *_ = np.linalg.lstsq(design, cases.d[inside], rcond=None)
            assert residual[0] < 1e-18 * inside.sum()
    smooth = regimes.draw(task, 3000, np.random.default_rng(1), rules=False)
    design = np.concatenate([smooth.x, np.ones((3000, 1))], axis=1)
    assert np.linalg.lstsq(design, smooth.d, rcond=None)[1][0] > 100


def test_same_seed_same_bits_and_bad_input():
    task = regimes.make_task(np.random.default_rng(3), n_regions=8, d_model=3)
    assert task.centres.shape == (8, 3) and len({tuple(c) for c in task.centres}) == 8
    first, second = (regimes.draw(task, 50, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first.d, second.d)
    with pytest.raises(InputError, match="n_regions: wanted at most the 4 corners"):
        regimes.make_task(np.random.default_rng(0), n_regions=5)


def test_waves_are_another_rule_in_each_region_and_change_nothing_else():
    task = regimes.make_task(np.random.default_rng(0), noise=0.0)
    waves = regimes.make_waves(task, np.random.default_rng(1))
    assert waves.directions.shape == (4, 4, 2) and waves.phases.shape == (4, 4)
    wavy, straight = (
        regimes.draw(task, 20_000, np.random.default_rng(1), rules=rules) for rules in (waves, True)
    )
    np.testing.assert_array_equal(wavy.x, straight.x)
    assert wavy.d.std() == pytest.approx(1, abs=0.05)
    x, k = wavy.x[7], wavy.region[7]
    by_hand = sum(
        np.sin(2 * x @ v + phase)
        for v, phase in zip(waves.directions[k], waves.phases[k], strict=True)
    )
    same = regimes.draw(task, 20_000, np.random.default_rng(1), rules=waves)
    mean, sd = regimes._moments(task, True, waves)
    assert same.d[7, 0] == pytest.approx((by_hand - mean) / sd)
    for region in range(4):
        inside = wavy.region == region
        design = np.concatenate([wavy.x[inside], np.ones((inside.sum(), 1))], axis=1)
        residual = np.linalg.lstsq(design, wavy.d[inside], rcond=None)[1][0] / inside.sum()
        assert residual > 0.1**2, "more than the noise of a task"
