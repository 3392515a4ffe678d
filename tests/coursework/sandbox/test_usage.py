"""What processes use, here of this process itself."""

import ctypes
import os
import sys
import threading

import numpy as np
import pytest

from moe_np.coursework.sandbox import usage

MB = 1 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is read from /proc")


def write(path, size=MB):
    path.write_bytes(bytes(size))
    return path


def map_into_memory(handle):
    """The address of a file's first page. The module mmap would keep a copy of the handle open."""
    function = ctypes.CDLL(None).mmap
    function.restype = ctypes.c_void_p
    return function(None, ctypes.c_size_t(4096), 1, 1, handle, ctypes.c_long(0))  # to read, shared


def test_files_count_by_name_and_while_they_are_in_use(tmp_path):
    pids = [os.getpid()]
    folder = tmp_path / "work"
    (folder / "below").mkdir(parents=True)
    before = usage.files(folder, pids, 8 * MB)
    write(folder / "below" / "a")
    assert usage.files(folder, pids, 8 * MB) - before == MB
    with write(folder / "b").open("r+b") as file:
        os.unlink(folder / "b")
        assert usage.files(folder, pids, 8 * MB) - before == 2 * MB, "removed, but open"
        place = map_into_memory(file.fileno())
        assert usage.files(folder, pids, 8 * MB) - before == 2 * MB, "open and mapped: once"
    assert usage.files(folder, pids, 8 * MB) - before == 9 * MB, "mapped only: as the largest"
    ctypes.CDLL(None).munmap(ctypes.c_void_p(place), 4096)
    assert usage.files(folder, pids, 8 * MB) - before == MB


def test_too_many_files_are_more_than_any_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(usage, "MOST_ENTRIES", 3)
    for name in "abcd":
        write(tmp_path / name, 1)
    assert usage.files(tmp_path, [], MB) == float("inf")


def test_too_many_mappings_are_more_than_any_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(usage, "LONGEST_MAPS", 100)
    assert usage.files(tmp_path, [os.getpid()], MB) == float("inf")


def test_memory_and_threads_and_processes_that_have_ended():
    pids = [os.getpid(), 2**22 + 1]
    before = usage.resident(pids)
    kept = np.ones(40 * MB, np.uint8)
    assert usage.resident(pids) - before > 30 * MB and kept.all()
    threads = usage.tasks(pids)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert usage.tasks(pids) == threads + 1
    stop.set()
    thread.join()
    assert usage.resident([2**22 + 1]) == usage.tasks([2**22 + 1]) == 0
