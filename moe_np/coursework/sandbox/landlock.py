"""Landlock: the kernel's list of files that a process may use, from Linux 5.13 on.

It is set up in all Linux modes. In "user" and "process", where the child shares the system's root,
it is all that keeps other files from being read. Standard library only, for `jail.py`.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Collection, Iterable, Iterator

from moe_np.coursework.sandbox.syscalls import syscall

# rights to files (linux/landlock.h)
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1, 2, 4, 8, 1 << 14
READ = EXECUTE | READ_FILE | READ_DIR
BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2

CREATE_RULESET_VERSION = 1  # a flag: only say which version the kernel has
RULE_PATH_BENEATH = 1


def version() -> int:
    """The version of the kernel's Landlock, 0 where there is none."""
    if sys.platform != "linux":
        return 0
    try:
        return syscall("landlock_create_ruleset", None, ctypes.c_size_t(0), CREATE_RULESET_VERSION)
    except OSError:
        return 0


def file_rights(abi: int) -> int:
    """All rights to files that this version of Landlock knows: from 13 in the first to 16."""
    return (1 << min(13 + (abi >= 2) + (abi >= 3) + (abi >= 5), 16)) - 1


def rules_below(path: str, hidden: Collection[str]) -> Iterator[tuple[str, int]]:
    """(path, rights) to read a folder without the hidden folders below it.

    Landlock allows a whole tree and has no exceptions from it. Where something hidden lies below,
    what the folder holds is therefore allowed entry by entry. The names in such a folder, also the
    name of the hidden one, can be listed; the files in the hidden one cannot be read.
    """
    if path in hidden:
        return
    if not any(folder.startswith(path.rstrip("/") + "/") for folder in hidden):
        yield path, READ
        return
    yield path, READ_DIR
    for entry in os.scandir(path):
        if not entry.is_symlink():  # what a link points at has to be allowed by itself
            yield from rules_below(entry.path, hidden)


def restrict(
    shown: Iterable[str], hidden: Collection[str], libraries: Iterable[str], work: str
) -> bool:
    """Let this process read what is shown but not hidden, write to the folder `work`, and no more.

    No TCP and no signals to processes outside either, where the version has that. Returns False
    where the kernel has no Landlock. Raises OSError where it refuses.
    """
    abi = version()
    if not abi:
        return False
    rights = file_rights(abi)
    rules = [rule for path in shown for rule in rules_below(path, hidden)]
    rules += [(path, READ) for path in libraries]
    rules += [(work, rights & ~EXECUTE)]
    rules += [("/dev/null", READ_FILE | WRITE_FILE), ("/dev/urandom", READ_FILE)]
    ruleset = _new_ruleset(abi, rights)
    for path, access in rules:
        _add_rule(ruleset, path, access & rights)
    syscall("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)
    return True


def _new_ruleset(abi, rights):
    network = BIND_TCP | CONNECT_TCP if abi >= 4 else 0
    scope = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if abi >= 6 else 0
    attributes = struct.pack("QQQ", rights, network, scope)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    return syscall("landlock_create_ruleset", attributes[:size], ctypes.c_size_t(size), 0)


def _add_rule(ruleset, path, access):
    """Allow `access` to a path, as far as there is one."""
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        access &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
    rule = struct.pack("=Qi", access, handle)
    syscall("landlock_add_rule", ruleset, RULE_PATH_BENEATH, rule, 0)
    os.close(handle)
