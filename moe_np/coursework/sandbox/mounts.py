"""The root of the file system that a child sees: one list of mounts, made in one of two ways.

`root_mounts` makes the list. `make_root` mounts it by system calls, in mode "namespaces";
`bubblewrap_options` says the same to `bwrap`, in mode "bubblewrap". Standard library only: the jail
imports this file where nothing else of the package can be seen.

    link     a symbolic link of the system: /lib -> usr/lib
    show     a file or folder of the system, or of the grader, read-only with all below it
    hide     an empty folder over one that must not be seen; libraries may be mounted in it
    device   a device file, to read and write
    work     the child's own folder: in memory, limited in size, the only one it can write to
    close    a hidden folder, which is read-only from here on
"""

import ctypes
import os
import pathlib
import struct
from collections.abc import Iterable
from typing import NamedTuple

from moe_np.coursework.sandbox.syscalls import c_function, libc, syscall

# flags of mount(2) and umount2(2), from sys/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MS_NOATIME, MS_NODIRATIME = 1024, 2048
MNT_DETACH = 2
# of mount_setattr(2), from linux/mount.h and fcntl.h
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
AT_FDCWD, AT_RECURSIVE = -100, 0x8000

DEVICES = ("null", "zero", "random", "urandom")
SMALL = "size=1m,mode=755"  # of a folder in memory that holds mount points and links only
MOST_FILES = 2000  # in the working folder


class Mount(NamedTuple):
    """One step of making the root."""

    kind: str  # of those above
    path: str  # in the new root
    source: str = ""  # what is mounted there; of a link, where it points


def root_mounts(
    links: Iterable[tuple[str, str]],
    shown: Iterable[str],
    hidden: Iterable[str],
    bindings: Iterable[tuple[str, str]],
    work: str,
) -> list[Mount]:
    """The mounts of a root in the order in which they are made.

    links      (target, path) of the system's links    shown   paths of the system
    bindings   (source, path) of libraries and of the grader's folders
    hidden     folders below those shown               work    the working folder
    """
    mounts = [Mount("link", path, target) for target, path in links]
    mounts += [Mount("show", path, path) for path in shown]
    mounts += [Mount("hide", path) for path in hidden]
    mounts += [Mount("show", path, source) for source, path in bindings]
    mounts += [Mount("device", f"/dev/{name}", f"/dev/{name}") for name in DEVICES]
    mounts += [Mount("work", work)]
    return mounts + [Mount("close", path) for path in hidden]


# --- By bubblewrap --------------------------------------------------------------------------------


def bubblewrap_options(mounts: list[Mount], work_size: int) -> list[str]:
    """The options of `bwrap` that make this root. work_size: bytes of the working folder."""
    placed = [mount.path for mount in mounts if mount.kind in ("link", "show", "device")]
    folders = {str(parent) for path in placed for parent in pathlib.PurePath(path).parents} - {"/"}
    options = []
    for folder in sorted(folders):
        options += ["--perms", "0755", "--dir", folder]
    for kind, path, source in mounts:
        options += {
            "link": ["--symlink", source, path],
            "show": ["--ro-bind", source, path],
            "hide": ["--tmpfs", path],
            "device": ["--dev-bind", source, path],
            "work": ["--perms", "1777", "--size", str(work_size), "--tmpfs", path],
            "close": ["--remount-ro", path],
        }[kind]
    return [*options, "--remount-ro", "/"]


# --- By system calls ------------------------------------------------------------------------------


def make_root(root: str, mounts: list[Mount], work_size: int) -> None:
    """Build the root in the folder `root` and make it this process's, without the old one.

    The process must be in a mount namespace of its own. Raises OSError.
    """
    _mount(None, "/", flags=MS_REC | MS_PRIVATE)
    _mount_memory(root, SMALL)
    for kind, path, source in mounts:
        target = root + path
        if kind == "link":
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.symlink(source, target)
        elif kind == "show":
            _bind_read_only(source, target)
        elif kind == "device":
            _bind(source, target)
        elif kind == "hide" and os.path.isdir(target):
            _mount_memory(target, SMALL)
        elif kind == "work":
            os.makedirs(target, exist_ok=True)
            _mount_memory(target, f"size={work_size},nr_inodes={MOST_FILES},mode=1777")
        elif kind == "close" and os.path.isdir(target):
            _make_read_only(target)
    os.chdir(root)
    if hasattr(libc, "pivot_root"):
        c_function("pivot_root", b".", b".")
    else:
        syscall("pivot_root", b".", b".")
    c_function("umount2", b".", MNT_DETACH)
    os.chdir("/")
    _make_read_only("/")


def _mount(source, target, kind=None, flags=0, data=None):
    source, target, kind, data = (
        None if text is None else os.fsencode(text) for text in (source, target, kind, data)
    )
    c_function("mount", source, target, kind, ctypes.c_ulong(flags), data)


def _mount_memory(target, options):
    _mount("jail", target, "tmpfs", MS_NOSUID | MS_NODEV, options)


def _make_read_only(target, kept=0):
    flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV
    _mount(None, target, flags=flags | kept)


def _bind(source, target):
    """Show `source` at `target`, where a file or folder to mount on is made."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(source, target, flags=MS_BIND | MS_REC)


def _bind_read_only(source, target):
    """Show `source` at `target`, read-only with all that is mounted below it."""
    _bind(source, target)
    wanted = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    attributes = struct.pack("QQQQ", wanted, 0, 0, 0)
    size = ctypes.c_size_t(len(attributes))
    try:  # since Linux 5.12
        path = os.fsencode(target)
        syscall("mount_setattr", AT_FDCWD, path, AT_RECURSIVE, attributes, size)
    except OSError:
        locked = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME
        # a user namespace may not clear the flags that are set
        _make_read_only(target, kept=os.statvfs(target).f_flag & locked)
