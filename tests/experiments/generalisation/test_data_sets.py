"""The problems: what differs between the sets, and what does not."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments.generalisation import data_sets
from moe_np.experiments.generalisation.data_sets import Cases, data


@pytest.mark.parametrize("problem", data_sets.PROBLEMS)
def test_inputs_are_scaled_by_the_training_set_and_the_last_is_constant(problem):
    sets = data(problem, 100, "clean", 0)
    x = sets.train.x
    assert x.dtype == np.float32 and len(x) == 100
    assert x[:, :-1].mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert x[:, :-1].std(axis=0) == pytest.approx(1, abs=1e-5)
    assert all((part.x[:, -1] == 1).all() for part in sets[:6])
    assert all(part.y.max() < sets.classes for part in sets[:6])


@pytest.mark.parametrize("problem", data_sets.PROBLEMS)
def test_the_noisy_set_is_the_test_set_with_noise(problem):
    sets = data(problem, 60, "clean", 1)
    difference = sets.noisy.x - sets.test.x
    assert np.array_equal(sets.noisy.y, sets.test.y)
    assert difference[:, :-1].std() == pytest.approx(data_sets.NOISE, rel=0.1)
    assert (difference[:, -1] == 0).all()


def test_the_drawn_tests_do_not_depend_on_the_number_of_training_cases():
    few, many = (data("regions", cases, "clean", 3) for cases in (50, 200))
    assert np.array_equal(few.test.y, many.test.y)
    assert np.array_equal(few.shifted.y, many.shifted.y)


def test_a_shift_moves_all_inputs_alike():
    sets = data("smooth", 400, "clean", 4)
    moved = [part.x.mean(axis=0) - sets.test.x.mean(axis=0) for part in sets[4:6]]
    assert np.linalg.norm(moved[0]) > 0.5
    assert moved[1] == pytest.approx(2 * moved[0], abs=0.25)


def test_speakers_of_the_vowels_are_in_one_set_only():
    sets = data("vowels", 400, "clean", 5)
    rows = [{row.tobytes() for row in part.x} for part in (sets.train, sets.validation, sets.test)]
    assert len(sets.validation.x) == 280 and len(sets.test.x) == 540
    shared = [len(a & b) for a, b in ((rows[0], rows[1]), (rows[0], rows[2]), (rows[1], rows[2]))]
    assert max(shared) <= 2  # two speakers may have equal formants
    with pytest.raises(InputError, match="cases: wanted at most 400 for the vowels, got 401"):
        data("vowels", 401, "clean", 0)


def test_outliers_are_some_of_the_training_cases():
    rng = np.random.default_rng(0)
    part = Cases(rng.normal(size=(40, 3)), rng.integers(5, size=40))
    longer = data_sets.with_outliers(part, rng, 0.25, 10.0)
    changed = (longer.x != part.x).any(axis=1)
    assert changed.sum() == 10 and np.allclose(longer.x[changed], 10 * part.x[changed])
    assert np.array_equal(longer.y, part.y)
    redrawn = data_sets.with_outliers(part, rng, 0.5, 10.0, classes=5)
    assert 5 < (redrawn.y != part.y).sum() <= 20


def test_only_the_training_set_has_outliers():
    clean, dirty = (
        data("regions", 100, inputs, 6) for inputs in ("clean", "5 % ten times as long")
    )
    assert (clean.train.x != dirty.train.x).any(axis=1).sum() == 5
    assert np.array_equal(clean.test.x, dirty.test.x)


def test_unknown_problems_and_inputs_are_refused():
    with pytest.raises(InputError, match="problem: wanted one of vowels, regions, smooth"):
        data("waves", 10, "clean", 0)
    with pytest.raises(InputError, match="inputs: wanted one of clean"):
        data("smooth", 10, "dirty", 0)
