"""What a child and all that it started use: memory, processes, files. On Linux, from /proc."""

import contextlib
import os
import pathlib
import stat
from collections.abc import Iterable

MOST_ENTRIES, DEEPEST = 4000, 30  # of a folder whose files are counted
LONGEST_MAPS = 2_000_000  # characters of /proc/PID/maps: some 20,000 lines


def resident(pids: Iterable[int]) -> int:
    """Bytes of memory in use by processes."""
    pages = 0
    for pid in pids:
        with (
            contextlib.suppress(OSError, ValueError, IndexError),
            open(f"/proc/{pid}/statm") as file,
        ):
            pages += int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") if pages else 0


def tasks(pids: Iterable[int]) -> int:
    """The number of processes and of their threads."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += len(os.listdir(f"/proc/{pid}/task"))
    return total


def files(folder: pathlib.Path, pids: Iterable[int], largest: int) -> float:
    """Bytes below a folder, and in files that have no name there any more but are used.

    Of a file that is only mapped into memory nothing but its number can be seen: it counts as one
    of the `largest` size. Infinite if there are too many files.
    """
    pids = list(pids)
    opened = _open_without_name(pids)
    mapped = _mapped_without_name(pids, str(folder))
    if mapped is None:
        return float("inf")
    mapped -= {inode for _, inode in opened}
    return _folder_size(folder) + sum(opened.values()) + len(mapped) * largest


def _folder_size(folder):
    """Bytes below a folder that may be growing right now; infinite if it has too many files."""
    total = 0
    count = 0
    folders = [(folder, 0)]
    while folders:
        path, depth = folders.pop()
        with contextlib.suppress(OSError):
            for entry in os.scandir(path):
                count += 1
                if count > MOST_ENTRIES or depth > DEEPEST:
                    return float("inf")
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, depth + 1))
                else:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def _open_without_name(pids):
    """{(device, inode): bytes} of open files that were removed."""
    opened = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    file = os.stat(entry.path)
                    if stat.S_ISREG(file.st_mode) and not file.st_nlink:
                        opened[file.st_dev, file.st_ino] = file.st_blocks * 512
    return opened


def _mapped_without_name(pids, folder):
    """Inodes of removed files of a folder that are mapped; None if there are too many to read."""
    mapped = set()
    for pid in pids:
        with (
            contextlib.suppress(OSError, ValueError),
            open(f"/proc/{pid}/maps", errors="replace") as file,
        ):
            text = file.read(LONGEST_MAPS)
            if len(text) == LONGEST_MAPS:
                return None
            for line in text.splitlines() if "(deleted)" in text else ():
                words = line.split(None, 5)  # addresses, rights, offset, device, inode, path
                if words[-1].startswith(folder) and words[-1].endswith("(deleted)"):
                    mapped.add(int(words[4]))
    return mapped
