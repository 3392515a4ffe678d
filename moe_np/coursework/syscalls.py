"""Seccomp: the system calls that no answer needs are refused by the kernel. Standard library only;
used by `jail.py`.

What namespaces and Landlock leave open to code that runs as the grader's own user is closed here:
sockets; signals, limits and priorities of other processes; modes, owners, times and lengths of
other files (Landlock guards reading and writing, not these); memory that no limit counts; new
namespaces, tracing, mounting.
"""

import ctypes
import os
import platform
import struct

LOAD, EQUAL, GREATER, SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF
ALLOW, ERRNO, EPERM, ENOSYS = 0x7FFF0000, 0x00050000, 1, 38
NUMBER, ARCHITECTURE, FIRST, SECOND = 0, 4, 16, 24  # where they stand in what the filter sees
SECCOMP, FILTER = 22, 2
OWNERS = (8, 10, 15)  # fcntl's F_SETOWN, F_SETSIG, F_SETOWN_EX: a pipe that signals whom one likes
PDEATHSIG = 1  # prctl: to outlive a grader that was killed
NEW = 0x7E020080  # all flags of clone that make a namespace (CLONE_NEWTIME too)

# the numbers on x86-64 and on 64-bit ARM; those from 424 on are the same on both
LATER = "424 425 426 427 428 429 430 431 432 433 434 438 440 442 447 448 452"
TABLES = {
    "x86_64": {
        "architecture": 0xC000003E,
        "clone": 56,
        "tgkill": 234,
        "fcntl": 72,
        "prctl": 157,
        "own": (302, 203),  # prlimit64, sched_setaffinity: of oneself
        "denied": (
            "41 42 "  # socket, connect
            "62 129 200 297 101 310 311 312 "  # kill and its kin, ptrace, process_vm_*, kcmp
            "141 142 144 251 256 279 314 "  # priorities, where other processes' memory is
            "76 90 91 92 93 94 132 188 189 190 197 198 199 235 260 261 268 280 "  # truncate, chmod, chown, xattr, utime
            "29 64 68 240 319 "  # shared memory, semaphores, message queues, memfd
            "103 135 155 161 163 165 166 167 169 175 176 179 246 248 249 250 272 298 303 304 308 313 321 323 "
        ),
    },
    "aarch64": {
        "architecture": 0xC00000B7,
        "clone": 220,
        "tgkill": 131,
        "fcntl": 25,
        "prctl": 167,
        "own": (261, 122),
        "denied": (
            "198 203 "
            "129 138 130 240 117 270 271 272 "
            "140 118 119 30 238 239 274 "
            "45 52 53 54 55 5 6 7 14 15 16 88 "
            "194 190 186 180 279 "
            "116 92 41 51 89 40 39 224 142 105 106 60 104 217 218 219 97 241 264 265 268 273 280 282 "
        ),
    },
}


def program(table, pid):
    """The filter's instructions (code, jump if true, jump if false, value) for the process `pid`."""
    refuse = (RETURN, 0, 0, ERRNO | EPERM)
    out = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, table["architecture"]),
        refuse,
        (LOAD, 0, 0, NUMBER),
    ]
    out += [(GREATER, 0, 1, 0x40000000), refuse]  # x86-64's second set of numbers
    out += [
        (EQUAL, 0, 1, 435),
        (RETURN, 0, 0, ERRNO | ENOSYS),
    ]  # clone3: the C library falls back to clone
    for number in map(int, (table["denied"] + LATER).split()):
        out += [(EQUAL, 0, 1, number), refuse]
    for number, allowed in (*((n, 0) for n in table["own"]), (table["tgkill"], pid)):
        out += [
            (EQUAL, 0, 4, number),
            (LOAD, 0, 0, FIRST),
            (EQUAL, 0, 1, allowed),
            (RETURN, 0, 0, ALLOW),
            refuse,
        ]
    for name, which, values in (("fcntl", SECOND, OWNERS), ("prctl", FIRST, (PDEATHSIG,))):
        out += [(EQUAL, 0, 2 * len(values) + 2, table[name]), (LOAD, 0, 0, which)]
        out += [line for value in values for line in ((EQUAL, 0, 1, value), refuse)] + [
            (RETURN, 0, 0, ALLOW)
        ]
    out += [(EQUAL, 0, 3, table["clone"]), (LOAD, 0, 0, FIRST), (SET, 0, 1, NEW), refuse]
    return [*out, (RETURN, 0, 0, ALLOW)]


def seccomp():
    """Put the filter on this process and all it will start; it cannot be taken off. False on other
    processors.
    """
    table = TABLES.get(platform.machine())
    if table is None:
        return False
    lines = program(table, os.getpid())
    code = b"".join(struct.pack("HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(code, len(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(
        SECCOMP, FILTER, struct.pack("HxxxxxxP", len(lines), ctypes.addressof(buffer)), 0, 0
    ):
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
    return True
