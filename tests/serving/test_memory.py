"""Sizes as text, and the memory of this process."""

import mmap
import platform
import subprocess
import sys

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.serving.memory import bytes_of, megabytes, resident


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MB", 64_000_000), ("1.5 GB", 1_500_000_000), ("32MiB", 1 << 25), ("7", 7), ("2kb", 2000)],
)
def test_sizes(text, size):
    assert bytes_of("--memory", text) == size


@pytest.mark.parametrize("text", ["", "MB", "-3MB", "64 PB", "1e6"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="--memory: wanted a size such as 64MB, got"):
        bytes_of("--memory", text)


def test_as_text():
    assert megabytes(1_234_567_890) == "1,234.6 MB"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the largest value is known")
def test_resident_memory_follows_what_is_used():
    before = resident()
    with mmap.mmap(-1, 100_000_000) as memory:  # from the system, not from the heap of other tests
        np.frombuffer(memory, np.int8)[:] = 1
        assert 90e6 < resident() - before < 130e6


FREED = """
import numpy as np
from moe_np.serving.memory import give_back, resident
pairs = [(np.ones(10_000), np.ones(300)) for _ in range(1000)]
kept = [small for _, small in pairs]  # they lie between the large ones, in the heap
del pairs
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="elsewhere nothing is given back")
def test_freed_memory_is_given_back():
    """In a process of its own, whose heap has no holes from other tests."""
    command = [sys.executable, "-c", FREED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 60e6
