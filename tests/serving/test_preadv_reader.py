"""Reads into the buffer: all types, with and without preadv, short reads, cut files."""

import os

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.models import safetensors
from moe_np.serving import preadv_reader
from moe_np.serving.preadv_reader import Reader


@pytest.fixture(params=[True, False], ids=["preadv", "readinto"])
def way(request, monkeypatch):
    if request.param and not preadv_reader.HAS_PREADV:
        pytest.skip("the system has no preadv")
    monkeypatch.setattr(preadv_reader, "HAS_PREADV", request.param)


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 5)).astype(np.float32)
    safetensors.write(tmp_path / "a", {"x": x, "y": x[0].astype(np.float64)})
    safetensors.write(tmp_path / "b", {"x": x}, dtype="bfloat16")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "name", "index"), [("a", "x", None), ("a", "x", 2), ("a", "y", 1)]
)
def test_reads_what_safetensors_reads(way, path, file, name, index):
    known = safetensors.Reader(path / file)
    reader = Reader()
    read = reader.read(known.path, *known.place(name, index))
    np.testing.assert_array_equal(read, known.read(name, index))
    reader.close()
    assert np.array_equal(reader.read(known.path, *known.place(name, index)), read), "opened again"


def test_bfloat16_becomes_float32(way, path):
    known = safetensors.Reader(path / "b")
    read = Reader().read(known.path, *known.place("x", 1))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, known.read("x", 1))


def test_the_buffer_is_used_again(way, path):
    known = safetensors.Reader(path / "a")
    reader = Reader()
    first = reader.read(known.path, *known.place("x"))
    size = reader.nbytes
    second = reader.read(known.path, *known.place("x", 2))
    assert np.shares_memory(first, second)
    assert reader.nbytes == size == first.nbytes
    assert reader.bytes_read == first.nbytes + second.nbytes


def test_short_reads_go_on(path, monkeypatch):
    """A system call gives at most 2 GiB, and may give less."""
    if not preadv_reader.HAS_PREADV:
        pytest.skip("the system has no preadv")
    preadv = preadv_reader.os.preadv
    monkeypatch.setattr(
        preadv_reader.os, "preadv", lambda fd, views, at: preadv(fd, [views[0][:7]], at)
    )
    known = safetensors.Reader(path / "a")
    np.testing.assert_array_equal(Reader().read(known.path, *known.place("x")), known["x"])


def test_a_file_that_is_cut_or_gone_is_told(way, path):
    known = safetensors.Reader(path / "a")
    place = known.place("x")
    (path / "a").write_bytes((path / "a").read_bytes()[:-4])
    with pytest.raises(InputError, match="it is cut"):
        Reader().read(known.path, *place)
    (path / "a").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        Reader().read(known.path, *place)


@pytest.mark.skipif(not preadv_reader.HAS_FADVISE, reason="the system has no posix_fadvise")
def test_a_cold_read_has_the_same_numbers_and_asks_for_its_part_alone(path, monkeypatch):
    known = safetensors.Reader(path / "a")
    asked = []
    advise = os.posix_fadvise

    def note(number, start, size, advice):
        asked.append((start, size, advice))
        advise(number, start, size, advice)

    monkeypatch.setattr(os, "posix_fadvise", note)
    place = known.place("x", 2)
    for reader in (Reader(cold=True), Reader()):
        np.testing.assert_array_equal(reader.read(known.path, *place), known.read("x", 2))
    assert asked == [
        (0, 0, os.POSIX_FADV_RANDOM),
        (place[-1], 4 * 5 * 4, os.POSIX_FADV_DONTNEED),
    ]


def test_cold_reads_without_posix_fadvise_are_refused(monkeypatch):
    monkeypatch.setattr(preadv_reader, "HAS_FADVISE", False)
    with pytest.raises(InputError, match="cold: wanted a system with posix_fadvise, this one has"):
        Reader(cold=True)
