"""Reads parts of files into one buffer that is used again: no page faults of a memory map, and no
new memory per read.

`os.preadv` takes the offset with the call. Where the system does not have it, the file is
positioned and read into the same buffer.

What was read before lies in the page cache of the system, and a second read is a copy. `cold=True`
asks the system, by `posix_fadvise`, to forget a part before it is read, so that a measurement is
that of the disk. It does not help on a file system in memory, and a virtual machine's disk may be
cached outside of it.
"""

import math
import os

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import Array
from moe_np.models import safetensors

HAS_PREADV = hasattr(os, "preadv")
HAS_FADVISE = hasattr(os, "posix_fadvise")  # not on macOS and Windows


class Reader:
    """Open files by their path, and the buffer. `close` closes the files.

    cold   read past the system's page cache. Raises InputError where there is no posix_fadvise
    """

    def __init__(self, *, cold: bool = False) -> None:
        self._files = {}
        self._cold = cold
        self._buffer = np.empty(0, np.uint8)
        self.bytes_read = 0
        if cold and not HAS_FADVISE:
            raise InputError("cold: wanted a system with posix_fadvise, this one has none")

    @property
    def nbytes(self) -> int:
        """The memory of the buffer."""
        return self._buffer.nbytes

    def read(self, path: str, kind: str, shape: tuple[int, ...], start: int) -> Array:
        """The array of this type (a key of `safetensors.DTYPES`) and shape that begins at a byte of
        a file. Its numbers lie in the buffer, and hold until the next call.

        Raises InputError where the file cannot be read or ends before.
        """
        dtype = safetensors.DTYPES[kind]
        size = math.prod(shape) * dtype.itemsize
        if self._buffer.nbytes < size:
            self._buffer = np.empty(size, np.uint8)
        numbers = self._buffer[:size]
        try:
            filled = self._fill(path, numbers.data, start)
        except OSError as error:
            raise InputError(f"path: {path} cannot be read ({error.strerror})") from None
        if filled < size:
            raise InputError(f"path: wanted {size} bytes at {start} in {path}, it is cut")
        self.bytes_read += size
        array = numbers.view(dtype).reshape(shape)
        return safetensors.from_bfloat16(array) if kind == "BF16" else array

    def _fill(self, path, view, start):
        """Read until the view is full or the file ends; -> the number of bytes."""
        if path not in self._files:
            self._files[path] = open(path, "rb", buffering=0)  # noqa: SIM115 - closed in `close`
            if self._cold:
                self._prepare(self._files[path].fileno())
        file = self._files[path]
        if self._cold:
            os.posix_fadvise(file.fileno(), start, len(view), os.POSIX_FADV_DONTNEED)
        filled = 0
        while filled < len(view):
            if HAS_PREADV:
                n = os.preadv(file.fileno(), [view[filled:]], start + filled)
            else:
                file.seek(start + filled)
                n = file.readinto(view[filled:])
            if not n:
                break
            filled += n
        return filled

    @staticmethod
    def _prepare(number):
        """Only pages that are written to the disk are forgotten; nothing is read ahead."""
        os.fsync(number)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_RANDOM)

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def __del__(self) -> None:
        self.close()
