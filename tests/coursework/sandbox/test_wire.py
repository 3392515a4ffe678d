"""Values as bytes: what is not well formed is refused. Values that go to a child: test_sandbox."""

import tracemalloc

import numpy as np
import pytest

from moe_np.coursework.sandbox import wire


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00" * 40,
        b"\x05\x00\x00\x00\x00\x00\x00\x00[[[[[",
        wire.frame([1])[12:-3],
        wire.frame({"a": np.ones(3)})[12:-8],
        wire.frame("x")[12:].replace(b'"x"', b'{"array": ["O", [1]]}'),
        (22).to_bytes(8, "little") + b'{"array": ["<f8", [-1]]}',
        (28).to_bytes(8, "little") + b'{"array": ["<f8", [99999]]} ',
        (60_000).to_bytes(8, "little") + b"[" * 60_000,
        (1).to_bytes(8, "little") + b"5",
        (3).to_bytes(8, "little") + b"[1]",
        (19).to_bytes(8, "little") + b'{"array":[[1],[1]]}',
    ],
)
def test_what_is_not_well_formed_is_refused(body):
    with pytest.raises(wire.WireError):
        wire.unframe(body)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "the result holds a object: wanted arrays and numbers"),
        ({1: 2}, "the keys of a dict have to be text"),
        (np.array(["x"]), "wanted numbers"),
        (np.array([None]), "an array of dtype object: wanted numbers"),
    ],
)
def test_what_is_no_value_is_not_sent(value, words):
    with pytest.raises(wire.WireError, match=words):
        wire.frame(value)


def test_long_text_and_many_brackets_of_a_reply_are_refused_before_they_are_decoded():
    longest = wire.LONGEST_TEXT
    for value in ("x" * longest, {"x" * longest: 1}, ["a"] * 1000):
        assert wire.unframe(wire.frame(value)[12:], longest) == value
    for value in ("x" * (longest + 1), ["x" * 3_500_000], {"x" * (longest + 1): 1}):
        with pytest.raises(wire.WireError):
            wire.unframe(wire.frame(value)[12:], longest)
        assert wire.unframe(wire.frame(value)[12:]) == value, "a cell of code may be longer"
    brackets = b"[" + b"{}," * 1_000_000 + b"1]"
    body = len(brackets).to_bytes(8, "little") + brackets
    tracemalloc.start()
    try:
        with pytest.raises(wire.WireError):
            wire.unframe(body, longest)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000  # parsed it takes 70 MB
    finally:
        tracemalloc.stop()


def test_a_value_without_end_is_not_sent():
    value = []
    value.append(value)
    with pytest.raises(wire.WireError, match="nested more than 12 deep"):
        wire.frame(value)
