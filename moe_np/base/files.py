"""Atomic writes, folders that can be written, and the removal of folders of any depth."""

import contextlib
import os
import pathlib
import secrets
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from moe_np.base.checks import InputError


def write_atomically(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path`, so that a reader sees the old file or the whole new one.

    The same holds after an error, and after the process was killed. Folders are made where they
    are missing. Raises OSError, and UnicodeEncodeError for text that UTF-8 cannot write.
    """
    with atomic_file(path) as file:
        file.write(text.encode("utf-8"))


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file for bytes that takes the name `path` when it is complete, as in `write_atomically`.

    with atomic_file("model.safetensors") as file:
        file.write(header)
        file.write(numbers)     # an error here leaves the old file
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # not tempfile: its files are private, and the mode is to follow the umask
    temporary = path.parent / f".{path.name[:100]}.{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def remove_folder(folder: str | os.PathLike) -> None:
    """Remove a folder and all that it contains, of any depth and with any permissions.

    What cannot be removed stays, without an error. Subfolders are moved up before they are
    emptied, so there is no recursion, and no path longer than the system allows.
    """
    folder = str(folder)
    number = 0
    with contextlib.suppress(OSError):
        while inner := [e.path for e in os.scandir(folder) if e.is_dir(follow_symlinks=False)]:
            for path in inner:
                os.chmod(path, 0o700)
                for entry in os.scandir(path):
                    if entry.is_dir(follow_symlinks=False):
                        os.chmod(entry.path, 0o700)
                        number += 1
                        os.rename(entry.path, os.path.join(folder, f"{os.getpid()}.{number}"))
                    else:
                        os.unlink(entry.path)
                os.rmdir(path)
        for entry in os.scandir(folder):
            os.unlink(entry.path)
        os.rmdir(folder)


def writable_folder(path: str | os.PathLike) -> pathlib.Path:
    """Make a folder and try a file in it, so that a refusal comes before the work and not after it.

    Raises InputError for a folder that cannot be written.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(
            f"out: wanted a folder that can be written, got {path} ({error.strerror})"
        ) from None
    return path
