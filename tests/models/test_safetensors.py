"""The file format safetensors: round trips, what is read, and damaged files."""

import errno
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from moe_np.base.checks import InputError
from moe_np.models import safetensors
from moe_np.models.safetensors import Reader

TYPES = ("float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool")


def content():
    rng = np.random.default_rng(0)
    return {
        "w": rng.normal(size=(3, 4)).astype(np.float32),
        "layers.0.b": rng.normal(size=5),
        "half": rng.normal(size=(2, 1, 3)).astype(np.float16),
        "ids": rng.integers(0, 9, 7),
        "none": np.zeros((0, 4), np.float32),
        "scalar": np.float32(2.5),
        "ε": np.ones(1, bool),
    }


@pytest.fixture
def path(tmp_path):
    safetensors.write(tmp_path / "a.safetensors", content(), metadata={"format": "np"})
    return tmp_path / "a.safetensors"


def test_what_is_written_is_read(path):
    reader = Reader(path)
    assert reader.metadata == {"format": "np"}
    assert set(reader) == set(content()) and len(reader) == 7
    for name, array in content().items():
        result = reader[name]
        assert result.dtype == array.dtype and result.shape == np.shape(array)
        np.testing.assert_array_equal(result, array)
    assert reader.entries["w"].shape == (3, 4)
    with pytest.raises(KeyError):
        reader["other"]


@given(st.sampled_from(TYPES).flatmap(lambda t: arrays_of.arrays(t, arrays_of.array_shapes())))
def test_round_trip_to_the_bit(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("st") / "a.safetensors"
    safetensors.write(path, {"a": array, "transposed": array.T})
    reader = Reader(path)
    assert reader["a"].tobytes() == array.tobytes()
    assert reader["transposed"].tobytes() == np.ascontiguousarray(array.T).tobytes()


def test_the_numbers_begin_at_a_multiple_of_8(tmp_path):
    for length in range(1, 9):
        safetensors.write(tmp_path / "a.safetensors", {"a" * length: np.ones(2)})
        first = (tmp_path / "a.safetensors").read_bytes()[:8]
        assert int.from_bytes(first, "little") % 8 == 0
        assert Reader(tmp_path / "a.safetensors")["a" * length].tolist() == [1, 1]


def test_a_file_byte_by_byte(tmp_path):
    """The length of the header, the header in UTF-8 filled with spaces, and the numbers."""
    safetensors.write(tmp_path / "a", {"ε": np.array([1, -2], np.float32)})
    header = '{"ε":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.encode()
    numbers = b"\x00\x00\x80\x3f\x00\x00\x00\xc0"
    assert (tmp_path / "a").read_bytes() == b"\x38" + bytes(7) + header.ljust(56) + numbers


def test_other_byte_order(tmp_path):
    array = np.arange(4, dtype=">f4")
    safetensors.write(tmp_path / "a", {"a": array})
    assert Reader(tmp_path / "a")["a"].dtype == np.float32
    np.testing.assert_array_equal(Reader(tmp_path / "a")["a"], array)


def test_single_entries(path):
    for index in range(3):
        np.testing.assert_array_equal(Reader(path).read("w", index), content()["w"][index])
    for name, index in [("w", 3), ("w", -1), ("none", 0), ("scalar", 0)]:
        with pytest.raises(InputError, match="index"):
            Reader(path).read(name, index)


def test_nothing_else_is_read(path, monkeypatch):
    """A reader reads the bytes that are asked for, and no more."""
    counts = []
    fromfile = np.fromfile
    monkeypatch.setattr(np, "fromfile", lambda *a, **k: counts.append(a[2]) or fromfile(*a, **k))
    reader = Reader(path)
    reader["layers.0.b"], reader.read("w", 1)
    assert counts == [5, 4]


# --- bfloat16 -------------------------------------------------------------------------------------


def test_bfloat16_to_the_nearest():
    bits = np.arange(2**16, dtype=np.uint16)
    numbers = safetensors.from_bfloat16(bits)
    np.testing.assert_array_equal(
        safetensors.to_bfloat16(numbers)[~np.isnan(numbers)], bits[~np.isnan(numbers)]
    )
    assert np.isnan(
        safetensors.from_bfloat16(safetensors.to_bfloat16(numbers[np.isnan(numbers)]))
    ).all()
    # between 1 and the next number, 1 + 2⁻⁷: the half goes to the even of them
    step = 2.0**-7
    for x, expected in [
        (1 + 0.5 * step, 1),
        (1 + 0.51 * step, 1 + step),
        (1 + 1.5 * step, 1 + 2 * step),
        (1 + 0.49 * step, 1),
        (-1 - step, -1 - step),
    ]:
        assert safetensors.from_bfloat16(safetensors.to_bfloat16(np.float32([x])))[0] == expected
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    x_16 = safetensors.from_bfloat16(safetensors.to_bfloat16(x))
    assert 2**-10 < np.abs(x_16 / x - 1).max() <= 2**-8


def test_types_of_a_file(tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 3))
    for dtype, kind, tolerance in [
        ("bfloat16", "BF16", 2**-8),
        ("float16", "F16", 2**-11),
        (np.float32, "F32", 2**-24),
        ("float64", "F64", 0),
    ]:
        safetensors.write(tmp_path / "a", {"x": x, "ids": np.arange(2)}, dtype=dtype)
        reader = Reader(tmp_path / "a")
        assert reader.entries["x"].dtype == kind and reader.entries["ids"].dtype == "I64"
        np.testing.assert_allclose(reader["x"], x, rtol=tolerance)
    assert Reader(tmp_path / "a")["x"].dtype == np.float64


# --- bad files ------------------------------------------------------------------------------------


def altered(path, alter):
    """The file with another header, of the right length unless `alter` returns bytes."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    new = alter(header)
    text = new if isinstance(new, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


ALTERATIONS = {
    "type": lambda h: h["w"].update(dtype="F128"),
    "no type": lambda h: h["w"].pop("dtype"),
    "type as a list": lambda h: h["w"].update(dtype=["F32"]),
    "shape": lambda h: h["w"].update(shape=[3, 5]),
    "negative": lambda h: h["w"].update(shape=[-3, -4]),
    "shape as a number": lambda h: h["w"].update(shape=12),
    "huge": lambda h: h["w"].update(shape=[2**40, 2**40]),
    "truth": lambda h: h["w"].update(shape=[True, 12]),
    "offsets": lambda h: h["w"].update(data_offsets=[0, 48]),
    "three offsets": lambda h: h["w"].update(data_offsets=[0, 48, 96]),
    "an array less": lambda h: h.pop("w"),
    "entry": lambda h: h.update(w=3),
    "metadata": lambda h: h.update(__metadata__={"a": 1}),
    "metadata list": lambda h: h.update(__metadata__=[1]),
    "twice": lambda h: json.dumps(h).replace('"ids"', '"w"').encode(),
    "no object": lambda h: b"[]",
    "no JSON": lambda h: b"{",
    "no text": lambda h: b"\xff\xff",
    "deep": lambda h: b"[" * 100_000,
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_damaged_headers(path, name):
    altered(path, ALTERATIONS[name])
    with pytest.raises(InputError, match=r"path: .*a\.safetensors is damaged"):
        Reader(path)


def test_every_shorter_file_is_refused(path):
    raw = path.read_bytes()
    for length in [*range(0, 40), len(raw) // 2, len(raw) - 1]:
        path.write_bytes(raw[:length])
        with pytest.raises(InputError, match="damaged"):
            Reader(path)
    path.write_bytes(raw + b"0")
    message = rf"a\.safetensors is damaged .*: it has {len(raw) + 1} bytes and the header names"
    with pytest.raises(InputError, match=message):
        Reader(path)


def test_a_header_that_is_too_long(path):
    raw = path.read_bytes()
    for length in (2**63, 2**64 - 1, safetensors.LONGEST_HEADER + 1):
        path.write_bytes(length.to_bytes(8, "little") + raw[8:])
        with pytest.raises(InputError, match="damaged"):
            Reader(path)


def test_a_header_as_long_as_the_file_and_longer(path):
    size = len(path.read_bytes())
    for length, words in ((size - 8, "the header is no"), (size - 7, "does not fit into")):
        path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
        with pytest.raises(InputError, match=words):
            Reader(path)


def test_a_file_that_is_cut_after_it_was_opened(path):
    reader = Reader(path)
    os.truncate(path, 300)
    with pytest.raises(InputError, match="it is cut"):
        reader["ids"]
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        reader["w"]


def test_places_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="path: wanted a safetensors file"):
            Reader(path)


# --- bad calls of write ---------------------------------------------------------------------------


def test_what_the_format_does_not_have(tmp_path):
    for array in (np.zeros(2, complex), np.array(["a"]), np.array([None])):
        with pytest.raises(InputError, match="arrays\\['x'\\]"):
            safetensors.write(tmp_path / "a", {"x": array})
    with pytest.raises(InputError, match="dtype"):
        safetensors.write(tmp_path / "a", {"x": np.zeros(2)}, dtype="int64")
    with pytest.raises(InputError, match="wanted numbers up to 65504"):
        safetensors.write(tmp_path / "a", {"x": np.full(2, 1e6)}, dtype="float16")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(safetensors, "_bytes", fail)
    with pytest.raises(InputError, match=r"path: wanted a place for \d+ bytes, .*No space left"):
        safetensors.write(path, content())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
