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


def test_a_masked_entry_is_refused_and_an_unmasked_array_is_taken():
    """The mask would be lost, and the hidden value used."""
    hidden = np.ma.masked_equal(np.array([[1.0, -999.0]]), -999)
    message = r"^x: wanted an array without masked entries, got 1 of 2 masked"
    for kind, value in (("f", hidden), ("i", hidden.astype(int))):
        with pytest.raises(checks.InputError, match=message):
            checks.array("x", value, ("N", 2), kind=kind)
    np.testing.assert_array_equal(checks.array("x", np.ma.array([[1.0, 2]]), ("N", 2)), [[1, 2]])


def test_integers_of_every_type_become_int64():
    for dtype in (np.int8, np.uint8, np.uint64, np.int32, ">i4"):
        out = checks.array("y", np.array([0, 100], dtype), ("N",), kind="i")
        assert out.dtype == np.int64 and out[1] == 100
    message = r"^y: wanted whole numbers of at most 9223372036854775807, got 18446744073709551615$"
    with pytest.raises(checks.InputError, match=message):
        checks.array("y", np.array([2**64 - 1], np.uint64), ("N",), kind="i")


def test_a_foreign_byte_order_becomes_the_native_one():
    x = np.arange(3.0)
    for dtype in (">f8", "<f8", ">f4"):
        out = checks.array("x", x.astype(dtype), ("N",))
        assert out.dtype.isnative and out.dtype.itemsize == np.dtype(dtype).itemsize
        np.testing.assert_array_equal(out, x)


def test_parameters_are_checked_against_each_other():
    axes = {"w": ("D", "E"), "bias": ("E",)}
    w, bias = np.ones((2, 3)), np.ones(3)
    arrays = checks.params("params", {"w": w, "bias": bias, "more": 1}, axes)
    assert list(arrays) == ["w", "bias"] and arrays["w"] is w and arrays["bias"] is bias
    bad = [
        (None, r"params: wanted a dict of arrays, got 'NoneType'"),
        ([w], r"params: wanted a dict of arrays, got 'list'"),
        ({"w": w}, r"params: wanted the keys w, bias; got w"),
        ({"w": w, "bias": np.ones(2)}, r"params\['bias'\]: wanted shape \(3,\), got \(2,\)"),
        ({"w": w, "bias": bias.astype("f4")}, r"params\['bias'\]: wanted float64, the type of"),
        ({"w": w, "bias": bias * np.nan}, r"params\['bias'\]: wanted finite numbers, got nan"),
    ]
    for value, message in bad:
        with pytest.raises(checks.InputError, match=message):
            checks.params("params", value, axes)


@pytest.mark.parametrize("value", [10**400, -(10**400), np.float32(np.inf)])
def test_a_number_too_large_for_a_float(value):
    with pytest.raises(checks.InputError, match=r"^lr: wanted a finite number, got [^\n]{1,90}$"):
        checks.number("lr", value)


@pytest.mark.parametrize("value", ["no", 1, None, np.ones(2), 0.0])
def test_boolean(value):
    with pytest.raises(checks.InputError, match="renormalise: wanted True or False, got"):
        checks.boolean("renormalise", value)
    assert checks.boolean("renormalise", np.True_) is True


@pytest.mark.parametrize("value", [int, "i4", bool, "nonsense", None, complex, object])
def test_float_type(value):
    with pytest.raises(checks.InputError, match="dtype: wanted a type of floating point numbers"):
        checks.float_type("dtype", value)
    assert checks.float_type("dtype", "f4") == np.float32


@pytest.mark.parametrize("value", [np.ones(2), {}, ["a"], {"a"}])
def test_a_choice_that_cannot_be_compared(value):
    with pytest.raises(checks.InputError, match="mode: wanted one of a, b; got"):
        checks.choice("mode", value, ("a", "b"))
    with pytest.raises(checks.InputError, match="mode: wanted one of a; got"):
        checks.choice("mode", value, {"a": 1})


def test_size():
    """A length that no array can have is refused before it is allocated."""
    assert checks.size("E", np.int8(3)) == 3
    for value in (0, 2**31, 10**400, 1.0):
        with pytest.raises(checks.InputError, match="E: wanted a whole number of at least 1"):
            checks.size("E", value)
