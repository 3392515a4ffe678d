"""System calls of Linux by name: their numbers, and how to make one without a C function.

Standard library only: the jail imports this file where nothing else of the package can be seen.
"""

import ctypes
import os
import platform

libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None

# name: (number on x86-64, number in the generic table, which 64-bit ARM has; None: not there)
NUMBERS = {
    # sockets
    "socket": (41, 198),
    "connect": (42, 203),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "bind": (49, 200),
    "sendmmsg": (307, 269),
    # signals and tracing
    "kill": (62, 129),
    "rt_sigqueueinfo": (129, 138),
    "tkill": (200, 130),
    "rt_tgsigqueueinfo": (297, 240),
    "tgkill": (234, 131),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    # priorities and limits
    "setpriority": (141, 140),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "sched_setattr": (314, 274),
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    # modes, owners, times and lengths of files
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "truncate": (76, 45),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "utime": (132, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utimes": (235, None),
    "fchownat": (260, 54),
    "futimesat": (261, None),
    "fchmodat": (268, 53),
    "utimensat": (280, 88),
    # who uses which file
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    # memory that no limit counts, and what other processes of the user keep in it
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "memfd_create": (319, 279),
    # processes, namespaces, mounts and the kernel itself
    "prctl": (157, 167),
    "clone": (56, 220),
    "syslog": (103, 116),
    "personality": (135, 92),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "acct": (163, 89),
    "sync": (162, 81),
    "syncfs": (306, 267),
    "mount": (165, 40),
    "umount2": (166, 39),
    "swapon": (167, 224),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "quotactl": (179, 60),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "perf_event_open": (298, 241),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "finit_module": (313, 273),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    # newer than 2018: the same number on all processors
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "mount_setattr": (442, 442),
    "quotactl_fd": (443, 443),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
    "memfd_secret": (447, 447),
    "process_mrelease": (448, 448),
    "fchmodat2": (452, 452),
}
# The list was made when 452 was the last. New calls get the numbers after it, or (as uretprobe did)
# one of those between the old calls of a processor and the first that is the same on all.
LAST_KNOWN = 452
UNUSED = {"x86_64": (335, 423), "aarch64": (295, 423)}


def number(name: str, machine: str | None = None) -> int | None:
    """The number of a system call on a processor (default: this one), None where it has none."""
    x86, generic = NUMBERS[name]
    return x86 if (machine or platform.machine()) == "x86_64" else generic


def c_function(name: str, *arguments: object) -> None:
    """Call a function of the C library. Raises OSError where it returns -1."""
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def syscall(name: str, *arguments: object) -> int:
    """Make a system call and return its result. Raises OSError where that is -1."""
    result = libc.syscall(ctypes.c_long(number(name)), *arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), f"system call {name}: {os.strerror(ctypes.get_errno())}")
    return result
