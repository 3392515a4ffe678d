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
LOAD, AND, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
# what the filter returns (linux/seccomp.h), and error numbers (errno.h)
ALLOW, ERROR = 0x7FFF0000, 0x00050000
EPERM, ENOSYS = 1, 38
REFUSE_LINE = (RETURN, 0, 0, ERROR | EPERM)
MISSING_LINE = (RETURN, 0, 0, ERROR | ENOSYS)
ALLOW_LINE = (RETURN, 0, 0, ALLOW)
# where struct seccomp_data holds the number, the architecture and the arguments (the low word of
# each; a high word follows it)
NUMBER, ARCHITECTURE, ARGUMENT_1, ARGUMENT_2, ARGUMENT_3, ARGUMENT_5 = 0, 4, 16, 24, 32, 48
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Commands that are allowed; all others are refused. Among them are: a pipe that signals any process
# (FIOSETOWN, F_SETOWN), attributes of files (FS_IOC_SETFLAGS), news of folders (F_NOTIFY), and
# PR_SET_PDEATHSIG (a process that clears it outlives a grader that was killed).
IOCTL_COMMANDS = (
    *(0x5401, 0x802C542A, 0x5413),  # TCGETS, TCGETS2, TIOCGWINSZ: is it a terminal, how wide
    *(0x541B, 0x5421, 0x5450, 0x5451),  # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
)
FCNTL_COMMANDS = (
    *(0, 1, 2, 3, 4, 5, 6, 7),  # F_DUPFD, flags (GETFD to SETFL), locks (GETLK to SETLKW)
    *(36, 37, 38, 1030, 1032),  # F_OFD_GETLK to F_OFD_SETLKW, F_DUPFD_CLOEXEC, F_GETPIPE_SZ
)
PRCTL_COMMANDS = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA
CLONE_NEW = 0x7E020080  # all flags of clone that make a namespace, CLONE_NEWTIME too
# Flags of open. Before Linux 6.2 Landlock does not see O_TRUNC: what is opened to be read (0), or
# for neither reading nor writing (3), could be cut to length 0.
O_TRUNC, O_ACCMODE = 0o1000, 3

DENIED = {
    "sockets": "socket connect bind sendmsg sendmmsg",
    "other processes": "kill rt_sigqueueinfo tkill rt_tgsigqueueinfo ptrace process_vm_readv "
    "process_vm_writev kcmp",
    "priorities, and where memory of other processes lies": "setpriority sched_setparam "
    "sched_setscheduler ioprio_set migrate_pages move_pages sched_setattr",
    "files": "truncate chmod fchmod chown fchown lchown utime setxattr lsetxattr fsetxattr "
    "removexattr lremovexattr fremovexattr utimes fchownat futimesat fchmodat utimensat",
    "who uses which file": "inotify_init inotify_init1 inotify_add_watch fanotify_init "
    "fanotify_mark",
    "memory": "shmget shmat shmctl semget semop semctl semtimedop msgget msgsnd msgrcv msgctl "
    "mq_open mq_unlink memfd_create",
    "the system": "sync syncfs "
    "syslog personality pivot_root chroot acct mount umount2 swapon reboot "
    "init_module delete_module quotactl kexec_load add_key request_key keyctl unshare "
    "perf_event_open name_to_handle_at open_by_handle_at setns finit_module bpf userfaultfd",
    "newer ways to the same": "pidfd_send_signal io_uring_setup io_uring_enter io_uring_register "
    "open_tree move_mount fsopen fsconfig fsmount fspick pidfd_open pidfd_getfd process_madvise "
    "mount_setattr memfd_secret process_mrelease "
    "fchmodat2 quotactl_fd",
}


def denied_numbers(machine: str) -> list[int]:
    """The numbers that are refused whatever their arguments are."""
    names = [name for group in DENIED.values() for name in group.split()]
    numbers = [syscalls.number(name, machine) for name in names]
    return [number for number in numbers if number is not None]


def program(machine: str, pid: int) -> list[tuple[int, int, int, int]]:
    """The filter for the process `pid`: instructions (code, jump if true, jump if false, value).

    A jump is the number of instructions to skip. Calls that are newer than the list are missing.
    """

    def number(name):
        return syscalls.number(name, machine)

    lines = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, AUDIT_ARCHITECTURES[machine]),
        REFUSE_LINE,
        (LOAD, 0, 0, NUMBER),
        *_new_calls(machine),
    ]
    # where these are missing, the C library falls back to calls whose flags a filter can read
    for name in ("clone3", "openat2"):
        lines += [(JUMP_EQUAL, 0, 1, number(name)), MISSING_LINE]
    for denied in denied_numbers(machine):
        lines += [(JUMP_EQUAL, 0, 1, denied), REFUSE_LINE]
    # limits and processors of the process itself (0), signals to its threads; commands by the list
    for name, argument, allowed in (
        ("prlimit64", ARGUMENT_1, (0,)),
        ("sched_setaffinity", ARGUMENT_1, (0,)),
        ("tgkill", ARGUMENT_1, (pid,)),
        ("ioctl", ARGUMENT_2, IOCTL_COMMANDS),
        ("fcntl", ARGUMENT_2, FCNTL_COMMANDS),
        ("prctl", ARGUMENT_1, PRCTL_COMMANDS),
    ):
        lines += _for_call(number(name), _only(argument, allowed))
    for name, argument in (("open", ARGUMENT_2), ("openat", ARGUMENT_3)):
        if number(name) is not None:
            lines += _for_call(number(name), _no_hidden_truncation(argument))
    lines += _for_call(number("sendto"), _null_pointer(ARGUMENT_5))
    flags = [(LOAD, 0, 0, ARGUMENT_1), (JUMP_ANY_BIT, 0, 1, CLONE_NEW), REFUSE_LINE, ALLOW_LINE]
    lines += _for_call(number("clone"), flags)
    return [*lines, ALLOW_LINE]


def _new_calls(machine):
    """Numbers of which nothing is known; x86-64 has a second set of numbers above them, x32."""
    first, last = syscalls.UNUSED[machine]
    return [
        (JUMP_AT_LEAST, 2, 0, syscalls.LAST_KNOWN + 1),
        (JUMP_AT_LEAST, 0, 2, first),
        (JUMP_AT_LEAST, 1, 0, last + 1),
        MISSING_LINE,
    ]


def _for_call(number, lines):
    """The lines, which return in any case, for one number."""
    return [(JUMP_EQUAL, 0, len(lines), number), *lines]


def _only(argument, allowed):
    """Allow some values of an argument's low word."""
    lines = [(LOAD, 0, 0, argument)]
    for value in allowed:
        lines += [(JUMP_EQUAL, 0, 1, value), ALLOW_LINE]
    return [*lines, REFUSE_LINE]


def _no_hidden_truncation(argument):
    """Refuse O_TRUNC in the flags of what is not opened for writing."""
    lines = [(LOAD, 0, 0, argument), (AND, 0, 0, O_TRUNC | O_ACCMODE)]
    for mode in (0, O_ACCMODE):
        lines += [(JUMP_EQUAL, 0, 1, O_TRUNC | mode), REFUSE_LINE]
    return [*lines, ALLOW_LINE]


def _null_pointer(argument):
    """Allow the null pointer only: an address to send to goes around `connect`."""
    return [
        (LOAD, 0, 0, argument),
        (JUMP_EQUAL, 0, 2, 0),
        (LOAD, 0, 0, argument + 4),
        (JUMP_EQUAL, 1, 0, 0),
        REFUSE_LINE,
        ALLOW_LINE,
    ]


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
