"""Comparisons take any value, and make no array of what is not of the wanted size."""

import tracemalloc

import numpy as np
import pytest

from moe_np.coursework import Question, close
from moe_np.coursework.comparison import CLOSE, as_numbers
from moe_np.coursework.question import compare_result


def wants_all(wanted, got, inputs=None):
    """A comparison that makes an array of whatever it gets."""
    return CLOSE(wanted, np.asarray(got))


HUGE = {
    "long text": ["x" * 3_500_000] + ["a"] * 150,
    "arrays that become complex": [*[np.zeros(41_000, np.uint8)] * 150, 1j],
    "many numbers": [0.0] * 1_000_000,
    "rows of zeros": [[0.0] * 20_000] * 151,
    "a large array": np.broadcast_to(0.0, (10_000, 10_000)),
    "lists in lists": [[[[1.0] * 9] * 9] * 9] * 151,
    "bytes": [b"x" * 10**6] * 151,
    "an object": [{"a": 1}] * 151,
    "nothing": [None] * 151,
}


@pytest.mark.parametrize("compare", [CLOSE, wants_all])
@pytest.mark.parametrize("what", HUGE)
def test_nothing_becomes_an_array_before_it_is_of_the_wanted_size(compare, what):
    wanted = np.zeros(151)
    question = Question("q", "f", 1, compare=compare)
    tracemalloc.start()
    try:
        message = compare_result(question, wanted, HUGE[what], ())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message.startswith("the result") and peak < 20_000_000, (message, peak)


@pytest.mark.parametrize(
    "value",
    [
        [[1.0, 2.0], [3.0, 4.0]],
        ([1, 2], (np.float32(3), True)),
        [np.array([1.0, 2.0]), [3.0, 4.0]],
        np.ones((2, 2)),
        [range(2), range(2)],
    ],
)
def test_what_is_an_array_of_the_wanted_size_in_another_dress(value):
    array, other = as_numbers(value, (2, 2))
    assert other == "" and np.array_equal(array, np.asarray(value))


def test_lists_without_numbers_are_empty_arrays():
    array, other = as_numbers([], (0, 3))
    assert other == "" and array.shape == (0, 3)
    array, other = as_numbers([[], []], (2, 0))
    assert other == "" and array.shape == (2, 0)
    assert as_numbers(np.empty((0, 2)), (0, 3))[1] == "wanted the shape (0, 3), got (0, 2)"
    assert as_numbers([], (2, 3))[1] == "wanted the shape (2, 3), got (0,)"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[1, 2, 3], [4, 5, 6]], "wanted the shape (2, 2), got a row of 3 values"),
        ([1, 2], "wanted the shape (2, 2), got rows of the shape ()"),
        ([np.ones(3), np.ones(3)], "wanted the shape (2, 2), got rows of the shape (3,)"),
        (np.ones((4, 2)), "wanted the shape (2, 2), got (4, 2)"),
        ([[1, 2], [3, 4], [5, 6]], "wanted the shape (2, 2), got (3, 2)"),
        (7.0, "wanted the shape (2, 2), got ()"),
        ([[1, 2], [3, 1j]], "wanted real numbers, got complex128"),
        ([[1, 2], [3, 2**99]], "wanted real numbers, got object"),
        ([[1, 2], [3, "4"]], "wanted real numbers, got str"),
    ],
)
def test_what_is_no_such_array(value, words):
    assert as_numbers(value, (2, 2)) == (None, words)


def test_infinities_compare_by_value():
    assert not close()(np.array([-np.inf, 1.0]), np.array([-np.inf, 1.0]))
    assert close()(np.array([-np.inf]), np.array([np.inf]))
    assert close()(np.array([1.0]), np.array([np.inf]))


def test_numbers_that_differ_in_the_last_digits_are_printed_with_them():
    wanted = np.array([1.0, 27.2275])
    got = wanted + np.array([0.0, 1e-9])
    message = close(rtol=0, atol=0)(wanted, got)
    assert message.startswith("the result at (1,): wanted 27.227499999999999, got 27.2275000")
    assert "wanted 1, got 2 " in close()(np.array([1.0]), np.array([2.0]))
