"""One training run in a folder at a time: a lock, which the system removes when a process ends."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from moe_np.base.checks import InputError


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Hold the lock of a folder. Two runs in it would write each line of metrics.jsonl twice.

    Nothing is locked on Windows, and on a file system that has no locks. Raises InputError where
    another process holds the lock, or another run of this process.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wanted = "wanted a folder in which no training runs at the moment"
            raise InputError(f"folder: {wanted}, got {folder}") from None
        except OSError:
            pass
        yield
    finally:
        os.close(number)
