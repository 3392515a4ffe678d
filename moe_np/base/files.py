"""Files that are there whole or not at all."""

import contextlib
import os
import pathlib
import tempfile


def write_atomically(path, text):
    """Write `text` to `path` so that a reader, or a kill, sees the old file or the whole new one."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def remove_folder(folder):
    """Remove a folder and all below it, however deep and however closed. What cannot be removed
    stays.

    Subfolders are moved up before they are emptied: no recursion, no path longer than the system
    takes.
    """
    folder, number = str(folder), 0
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
