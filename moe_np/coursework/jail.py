"""The way into the sandbox: take everything away from this process, then become the student's
Python.

    python -I -S jail.py SPEC        (JSON, made by `sandbox.py`)

Standard library only: it runs before anything is to be seen. What is taken away, each where the
system has it:

    namespaces  a root of its own with only the listed files, read-only; no network, no other processes, no System V IPC
    user        another user id, made for this child alone, when the grader is root
    landlock    the same list of files enforced by the kernel's Landlock; no TCP, no signals to processes outside
    seccomp     system calls that no answer needs (`syscalls.py`)
    limits      CPU time, memory, processes, file size, open files (per process or user, as the kernel counts them)

A step that the spec demands and the kernel refuses ends the process with status 97 and a line on
stderr.
"""

import contextlib
import ctypes
import glob
import importlib
import json
import os
import platform
import signal
import struct
import sys

REFUSED = 97
libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None


def call(name, *arguments):
    """A function of the C library; -1 is an OSError."""
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def syscall(number, *arguments):
    out = libc.syscall(ctypes.c_long(number), *arguments)
    if out == -1:
        raise OSError(
            ctypes.get_errno(), f"system call {number}: {os.strerror(ctypes.get_errno())}"
        )
    return out


# --- Namespaces -----------------------------------------------------------------------------------

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x20000,
    0x4000000,
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
RDONLY, NOSUID, NODEV, REMOUNT, BIND, REC, PRIVATE, DETACH = 1, 2, 4, 32, 4096, 16384, 1 << 18, 2
PDEATHSIG, SUBREAPER, NO_NEW_PRIVS, CAPBSET_DROP = 1, 36, 38, 24


def unshare():
    """Leave the system's namespaces. Without privileges a user namespace gives the right to."""
    flags = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
    uid, gid = os.getuid(), os.getgid()
    call("unshare", flags if uid == 0 else flags | NEWUSER)
    if uid:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def mount(source, target, kind=None, flags=0, data=None):
    text = [None if s is None else os.fsencode(s) for s in (source, target, kind, data)]
    call("mount", text[0], text[1], text[2], ctypes.c_ulong(flags), text[3])


def place(path, like):
    """An empty file or folder to mount on."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.isdir(like):
        os.makedirs(path, exist_ok=True)
    elif not os.path.exists(path):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def bind(source, target, writable=False):
    """Show `source` at `target`, read-only with all that is mounted below it."""
    place(target, source)
    mount(source, target, flags=BIND | REC)
    if writable:
        return
    try:  # mount_setattr, recursive; Linux 5.12
        attributes = struct.pack(
            "QQQQ", 1 | 2 | 4, 0, 0, 0
        )  # read-only, no set-user-id, no devices
        syscall(
            442, -100, os.fsencode(target), 0x8000, attributes, ctypes.c_size_t(len(attributes))
        )
    except OSError:
        kept = os.statvfs(target).f_flag & (
            2 | 4 | 8 | 1024 | 2048
        )  # a user namespace may not clear these
        mount(None, target, flags=BIND | REMOUNT | RDONLY | NOSUID | NODEV | kept)


def new_root(spec):
    """Build the root that the child sees, and let go of the old one."""
    root = spec["root"]
    mount(None, "/", flags=REC | PRIVATE)
    mount("jail", root, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    for target, path in spec["links"]:
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    for path in spec["shown"]:
        bind(path, root + path)
    for path in spec["hidden"]:
        if os.path.isdir(root + path):
            mount("jail", root + path, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    for source, path in spec["libraries"]:
        bind(source, root + path)
    for device in ("null", "zero", "random", "urandom"):
        bind(f"/dev/{device}", f"{root}/dev/{device}", writable=True)
    os.makedirs(root + spec["folder"], exist_ok=True)
    mount(
        "jail",
        root + spec["folder"],
        "tmpfs",
        NOSUID | NODEV,
        f"size={spec['limits']['folder']},nr_inodes=2000,mode=1777",
    )
    for path in spec["hidden"]:
        if os.path.isdir(root + path):
            mount(None, root + path, flags=REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    os.chdir(root)
    call("pivot_root", b".", b".") if hasattr(libc, "pivot_root") else syscall(
        155 if platform.machine() == "x86_64" else 41, b".", b"."
    )
    call("umount2", b".", DETACH)
    os.chdir("/")
    mount(None, "/", flags=REMOUNT | BIND | RDONLY | NOSUID | NODEV)


# --- Landlock -------------------------------------------------------------------------------------

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8


def beneath(path, hidden):
    """(path, access), or what is in it where a hidden place lies below: Landlock can allow a tree,
    not except from it.

    The names in such a folder, those of the hidden place too, can be listed; files below that
    cannot be read.
    """
    if path in hidden:
        return
    if not any(h.startswith(path.rstrip("/") + "/") for h in hidden):
        yield path, EXECUTE | READ_FILE | READ_DIR
        return
    yield path, READ_DIR
    for entry in os.scandir(path):
        if not entry.is_symlink():  # what a link points at has to be allowed by itself
            yield from beneath(entry.path, hidden)


def landlock(spec):
    """Only the listed files, read-only; the working folder to write in. False if the kernel has no
    Landlock.
    """
    try:
        abi = syscall(444, None, ctypes.c_size_t(0), 1)
    except OSError:
        return False
    handled = (1 << min(13 + (abi >= 2) + (abi >= 3) + (abi >= 5), 16)) - 1
    attributes = struct.pack("QQQ", handled, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = syscall(444, attributes[:size], ctypes.c_size_t(size), 0)
    folder = handled & ~EXECUTE
    allowed = [pair for shown in spec["shown"] for pair in beneath(shown, spec["hidden"])]
    allowed += [(path, EXECUTE | READ_FILE | READ_DIR) for _, path in spec["libraries"]]
    allowed += [
        (spec["folder"], folder),
        ("/dev/null", READ_FILE | WRITE_FILE),
        ("/dev/urandom", READ_FILE),
    ]
    for path, access in allowed:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):
            access &= EXECUTE | WRITE_FILE | READ_FILE | (handled & (1 << 14))
        rule = struct.pack("=Qi", access & handled, handle)
        syscall(445, rules, 1, rule, 0)
        os.close(handle)
    syscall(446, rules, 0)
    os.close(rules)
    return True


# --- Limits and privileges ------------------------------------------------------------------------


def limit(limits):
    import resource

    wanted = {
        "CPU": limits["cpu"],
        "AS": limits["memory"],
        "NPROC": limits["processes"],
        "FSIZE": limits["file"],
        "NOFILE": 64,
        "CORE": 0,
        "MSGQUEUE": 0,
        "MEMLOCK": 65536,
    }
    for name, value in wanted.items():
        if value is not None and (number := getattr(resource, f"RLIMIT_{name}", None)) is not None:
            hard = resource.getrlimit(number)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            try:
                resource.setrlimit(number, (value, value))
            except (ValueError, OSError):  # macOS refuses some; the report says which limits hold
                continue


def drop(spec):
    """Another user, no capabilities, none to be gained."""
    if spec["uid"] is not None:
        os.setgroups([])
        os.setresgid(spec["uid"], spec["uid"], spec["uid"])
    for capability in range(64):
        libc.prctl(CAPBSET_DROP, capability, 0, 0, 0)
    if spec["uid"] is not None:
        os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    call("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
    empty = struct.pack("IIIIII", 0, 0, 0, 0, 0, 0)
    call("capset", struct.pack("Ii", 0x20080522, 0), empty)


def users_processes():
    """How many processes and threads this user has: where they are counted by user, the limit is on
    top of these.
    """
    total = 0
    for status in glob.glob("/proc/[0-9]*"):
        try:
            if os.stat(status).st_uid == os.getuid():
                total += len(os.listdir(status + "/task"))
        except OSError:
            continue
    return total


def become(spec):
    """The last steps, in the process that will be the student's."""
    linux = sys.platform == "linux"
    if linux:
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # if memory runs out, this goes first
    if spec["mode"] == "process" and linux:
        spec["limits"]["processes"] += users_processes()
    if spec["mode"] == "namespaces":
        new_root(spec)
    os.umask(0o077)
    os.chdir(spec["folder"])
    if linux:
        drop(spec)
        call("prctl", PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.personality(
            0x0040000
        )  # addresses that repeat, and with them what a message or an order says of them
        if spec["landlock"]:
            landlock(spec)
    limit(spec["limits"])
    if linux and spec["seccomp"]:
        sys.modules["syscalls"].seccomp()
    os.execve(spec["argv"][0], spec["argv"], spec["env"])


# --- The keeper: outside the sandbox, until the child is gone with all it left --------------------


def descendants(pid):
    """All processes below `pid`, from /proc."""
    out = []
    for task in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(task) as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            continue
        for child in children:
            out += [child, *descendants(child)]
    return out


def sweep(child):
    """Kill the child's group and every descendant until there is none: a subreaper inherits what
    lost its parent.
    """
    while True:
        for kill, pid in (
            (os.killpg, child),
            *((os.kill, pid) for pid in descendants(os.getpid())),
        ):
            with contextlib.suppress(OSError):
                kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def keep(child):
    """Wait for the child, then end what it left behind. SIGTERM ends it at once."""

    def stop(*_):
        sweep(child)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    while True:
        pid, status = os.wait()
        if pid == child:
            break
    sweep(child)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def main(spec):
    linux = sys.platform == "linux"
    try:
        if linux:
            sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
            importlib.import_module("syscalls")  # now: later its file is out of sight
            call("prctl", PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if spec["mode"] == "inside":  # bubblewrap has done the rest, and waits
            return become(spec)
        if spec["mode"] == "namespaces":
            unshare()
        elif linux:
            call("prctl", SUBREAPER, 1, 0, 0, 0)
        child = os.fork()
        if not child:
            os.setsid()
            become(spec)
    except OSError as error:
        print(f"jail: {error}", file=sys.stderr, flush=True)
        os._exit(REFUSED)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)  # else the channel would stay open when the child has gone
    keep(child)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
