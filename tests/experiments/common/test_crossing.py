"""Where a curve first takes a value."""

import pytest

from moe_np.experiments.common.crossing import first_crossing


def test_the_first_of_several_crossings_and_how_far_along():
    assert first_crossing([5.0, 4.0, 2.0, 4.0], 3.5) == (1, pytest.approx(0.25))
    assert first_crossing([1.0, 2.0], 1.75) == (0, pytest.approx(0.75))


def test_a_value_that_was_measured_and_two_that_are_equal():
    assert first_crossing([3.0, 2.0, 1.0], 2.0) == (0, 1.0)
    assert first_crossing([2.0, 2.0], 2.0) == (0, 0.0)


@pytest.mark.parametrize("wanted", [0.5, 3.5, float("nan")])
def test_what_no_two_neighbours_have_between_them(wanted):
    assert first_crossing([3.0, 1.0], wanted) is None
    assert first_crossing([3.0], 3.0) is None
