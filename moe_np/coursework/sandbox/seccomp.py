"""Seccomp: a filter by which the kernel refuses the system calls that no answer needs.

Namespaces and Landlock leave some things open to code that runs as the grader's own user. The
filter closes them: sockets; signals, limits and priorities of other processes; modes, owners, times
and lengths of files (Landlock guards reading and writing, not these); memory that no limit counts;
new namespaces, tracing, mounting. Standard library only, for `jail.py`.
"""

import ctypes
import os
import platform
import struct

from moe_np.coursework.sandbox import syscalls

# instructions of classic BPF (linux/bpf_common.h), each with the word it works on
LOAD, JUMP_EQUAL, JUMP_GREATER, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# what the filter returns (linux/seccomp.h), and error numbers (errno.h)
ALLOW, ERROR = 0x7FFF0000, 0x00050000
EPERM, ENOSYS = 1, 38
# where struct seccomp_data holds the number, the architecture and the first two arguments
NUMBER, ARCHITECTURE, ARGUMENT_1, ARGUMENT_2 = 0, 4, 16, 24
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_NUMBERS = 0x40000000  # x86-64 has a second set of numbers from here on

PR_SET_PDEATHSIG = 1  # a process that clears it outlives a grader that was killed
FCNTL_OWNERS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: a pipe that signals any process
CLONE_NEW = 0x7E020080  # all flags of clone that make a namespace, CLONE_NEWTIME too

DENIED = {
    "sockets": "socket connect",
    "other processes": "kill rt_sigqueueinfo tkill rt_tgsigqueueinfo ptrace process_vm_readv "
    "process_vm_writev kcmp",
    "priorities, and where memory of other processes lies": "setpriority sched_setparam "
    "sched_setscheduler ioprio_set migrate_pages move_pages sched_setattr",
    "files": "truncate chmod fchmod chown fchown lchown utime setxattr lsetxattr fsetxattr "
    "removexattr lremovexattr fremovexattr utimes fchownat futimesat fchmodat utimensat",
    "memory": "shmget semget msgget mq_open memfd_create",
    "the system": "syslog personality pivot_root chroot acct mount umount2 swapon reboot "
    "init_module delete_module quotactl kexec_load add_key request_key keyctl unshare "
    "perf_event_open name_to_handle_at open_by_handle_at setns finit_module bpf userfaultfd",
    "newer ways to the same": "pidfd_send_signal io_uring_setup io_uring_enter io_uring_register "
    "open_tree move_mount fsopen fsconfig fsmount fspick pidfd_open pidfd_getfd process_madvise "
    "mount_setattr memfd_secret process_mrelease fchmodat2",
}


def denied_numbers(machine: str) -> list[int]:
    """The numbers that are refused whatever their arguments are."""
    names = [name for group in DENIED.values() for name in group.split()]
    numbers = [syscalls.number(name, machine) for name in names]
    return [number for number in numbers if number is not None]


def program(machine: str, pid: int) -> list[tuple[int, int, int, int]]:
    """The filter for the process `pid`: instructions (code, jump if true, jump if false, value).

    A jump is the number of instructions to skip.
    """
    refuse = (RETURN, 0, 0, ERROR | EPERM)
    allow = (RETURN, 0, 0, ALLOW)

    def number(name):
        return syscalls.number(name, machine)

    lines = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, AUDIT_ARCHITECTURES[machine]),
        refuse,
        (LOAD, 0, 0, NUMBER),
    ]
    lines += [(JUMP_GREATER, 0, 1, X32_NUMBERS), refuse]
    # where clone3 is missing, the C library falls back to clone, whose flags a filter can read
    lines += [(JUMP_EQUAL, 0, 1, number("clone3")), (RETURN, 0, 0, ERROR | ENOSYS)]
    for denied in denied_numbers(machine):
        lines += [(JUMP_EQUAL, 0, 1, denied), refuse]
    # limits and processors of the process itself (0), signals to its threads
    for name, allowed in (("prlimit64", 0), ("sched_setaffinity", 0), ("tgkill", pid)):
        lines += [(JUMP_EQUAL, 0, 4, number(name)), (LOAD, 0, 0, ARGUMENT_1)]
        lines += [(JUMP_EQUAL, 0, 1, allowed), allow, refuse]
    for name, argument, values in (
        ("fcntl", ARGUMENT_2, FCNTL_OWNERS),
        ("prctl", ARGUMENT_1, (PR_SET_PDEATHSIG,)),
    ):
        lines += [(JUMP_EQUAL, 0, 2 * len(values) + 2, number(name)), (LOAD, 0, 0, argument)]
        for value in values:
            lines += [(JUMP_EQUAL, 0, 1, value), refuse]
        lines += [allow]
    lines += [(JUMP_EQUAL, 0, 3, number("clone")), (LOAD, 0, 0, ARGUMENT_1)]
    lines += [(JUMP_ANY_BIT, 0, 1, CLONE_NEW), refuse]
    return [*lines, allow]


def install() -> bool:
    """Put the filter on this process and all that it starts; it cannot be removed.

    Returns False on a processor for which there is no filter. Raises OSError if the kernel refuses.
    """
    if platform.machine() not in AUDIT_ARCHITECTURES:
        return False
    lines = program(platform.machine(), os.getpid())
    code = b"".join(struct.pack("HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(buffer))
    syscalls.c_function("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0)
    return True
