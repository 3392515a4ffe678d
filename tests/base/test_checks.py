"""Input validation: one line that names the argument, what was wanted and what came."""

import numpy as np
import pytest

from moe_np.base import checks


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(3), "x: wanted shape (N, 2), got (3,)"),
        (np.ones((3, 4)), "x: wanted shape (N, 2), got (3, 4)"),
        ([[1.0, np.nan]], "x: wanted finite numbers, got nan at index (0, 1)"),
        ([[1.0, 2.0], [-np.inf, 0]], "x: wanted finite numbers, got -inf at index (1, 0)"),
        ([["a", "b"]], "x: wanted floating point numbers, got an array of dtype <U1"),
        ([[1j, 2]], "x: wanted floating point numbers, got an array of dtype complex128"),
    ],
)
def test_array(value, message):
    with pytest.raises(checks.InputError) as error:
        checks.array("x", value, ("N", 2))
    assert str(error.value) == message


def test_a_ragged_list_is_one_line():
    message = r"^x: wanted an array of shape \(N, 2\), got list"
    with pytest.raises(checks.InputError, match=message) as error:
        checks.array("x", [[1, 2], [3]], ("N", 2))
    assert "\n" not in str(error.value)


def test_a_valid_array_keeps_its_dtype_and_its_memory():
    for dtype in (np.float32, np.float64):
        x = np.ones((0, 2), dtype)
        assert checks.array("x", x, ("N", 2)) is x
    assert checks.array("x", [[1, 2]], ("N", 2)).dtype == np.float64
    assert checks.array("y", [1, 2], ("N",), kind="i").dtype.kind == "i"


def test_integer_labels_are_not_rounded():
    message = "y: wanted integer numbers, got an array of dtype float64"
    with pytest.raises(checks.InputError, match=message):
        checks.array("y", [0.5, 1.0], ("N",), kind="i")


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", None, True, 9])
def test_integer(value):
    message = "E: wanted a whole number of at least 1 and at most 8, got"
    with pytest.raises(checks.InputError, match=message):
        checks.integer("E", value, maximum=8)


@pytest.mark.parametrize(
    "value", [-1, -1e-9, np.nan, np.inf, "3", None, True, [1.0], np.ones(1), 1j]
)
def test_number(value):
    with pytest.raises(checks.InputError, match="ridge: wanted a finite number of at least 0, got"):
        checks.number("ridge", value, minimum=0)
    with pytest.raises(checks.InputError, match=r"lr: wanted a finite number above 0\.5, got"):
        checks.number("lr", value, greater_than=0.5)


def test_numbers_of_every_kind_become_floats():
    for value in (2, 2.0, np.float32(2), np.int64(2)):
        result = checks.number("lr", value, greater_than=0)
        assert type(result) is float and result == 2
    with pytest.raises(checks.InputError, match="lr: wanted a finite number above 0, got 0"):
        checks.number("lr", 0, greater_than=0)
    message = r"share: wanted a finite number of at least 0 and at most 1, got 1\.5"
    with pytest.raises(checks.InputError, match=message):
        checks.number("share", 1.5, minimum=0, maximum=1)
    assert checks.number("share", 1, minimum=0, maximum=1) == 1
    assert checks.number("ridge", 0, minimum=0) == 0 and checks.number("x", -3) == -3


def test_generator():
    rng = np.random.default_rng(0)
    assert checks.generator("rng", rng) is rng
    with pytest.raises(checks.InputError, match=r"rng: wanted a numpy\.random\.Generator, got 0"):
        checks.generator("rng", 0)


def test_numpy_integers_are_integers():
    assert checks.integer("E", np.int64(3)) == 3
