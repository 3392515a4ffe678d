"""The way into the sandbox: give up every right, then become the Python that runs student code.

    main(SPEC)                       SPEC: the settings as JSON, made by `sandbox.py`

The grader starts it in an isolated Python (-I -S) that finds copies of this file and its siblings
and nothing else of the package: standard library only. What is given up, where the system has it:

    namespaces   the system's root: only the listed files are there, read-only (`mounts.py`); the
                 network, other processes, System V IPC
    user         the grader's user: the child gets a user id of its own, if the grader is root
    Landlock     all other files, a second time, by the kernel's list (`landlock.py`); TCP and
                 signals to processes outside
    seccomp      system calls that no answer needs (`seccomp.py`)
    limits       CPU time, memory, processes, file size, open files (per process or per user, as
                 the kernel counts them)

If the kernel refuses a step, the process ends with status 97 and one line on stderr.
"""

import contextlib
import glob
import json
import os
import signal
import struct
import sys

from moe_np.coursework.sandbox import landlock, seccomp
from moe_np.coursework.sandbox.mounts import Mount, make_root
from moe_np.coursework.sandbox.syscalls import c_function, libc

REFUSED = 97  # exit status

# flags of unshare (linux/sched.h) and options of prctl (linux/prctl.h)
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
ADDR_NO_RANDOMIZE = 0x0040000  # of personality
CAPABILITY_VERSION_3 = 0x20080522  # of capset
HIGHEST_CAPABILITY = 63


def main(spec_text: str) -> None:
    """Fork a child that restricts itself and runs student code, and watch over it until its end."""
    spec = json.loads(spec_text)
    linux = sys.platform == "linux"
    try:
        if linux:
            c_function("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if spec["mode"] == "inside":  # bubblewrap has made the root, and waits for the child
            return restrict_and_run(spec)
        if spec["mode"] == "namespaces":
            leave_namespaces()
        elif linux:
            c_function("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        child = os.fork()
        if not child:
            os.setsid()
            restrict_and_run(spec)
    except OSError as error:
        print(f"jail: {error}", file=sys.stderr, flush=True)
        os._exit(REFUSED)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)  # or the channel would stay open when the child has gone
    supervise(child)


# --- The child ------------------------------------------------------------------------------------


def leave_namespaces() -> None:
    """Leave the system's namespaces. Without root a new user namespace gives the right to do so."""
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    uid = os.getuid()
    gid = os.getgid()
    c_function("unshare", flags if uid == 0 else flags | CLONE_NEWUSER)
    if uid:
        mapping = {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1"}
        for name, text in mapping.items():
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def restrict_and_run(spec: dict) -> None:
    """Apply every restriction to this process, then execute the Python that runs student code."""
    linux = sys.platform == "linux"
    limits = dict(spec["limits"])
    if linux:
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # if memory runs out, this process is ended first
    if spec["mode"] == "process" and linux:
        limits["processes"] += processes_of_user()
    if spec["mode"] == "namespaces":
        mounts = [Mount(*row) for row in spec["mounts"]]
        make_root(spec["root"], mounts, limits["folder"])
    os.umask(0o077)
    os.chdir(spec["work"])
    if linux:
        drop_privileges(spec["uid"])
        c_function("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # addresses repeat, and with them messages and orders that depend on addresses
        libc.personality(ADDR_NO_RANDOMIZE)
        landlock.restrict(spec["shown"], spec["hidden"], spec["libraries"], spec["work"])
    set_limits(limits)
    if linux:
        seccomp.install()
    os.execve(spec["argv"][0], spec["argv"], spec["env"])


def drop_privileges(uid: int | None) -> None:
    """Become another user (None: stay who it is), without capabilities and ways to gain some."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
    for capability in range(HIGHEST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if uid is not None:
        os.setresuid(uid, uid, uid)
    c_function("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    empty = struct.pack("IIIIII", 0, 0, 0, 0, 0, 0)
    c_function("capset", struct.pack("Ii", CAPABILITY_VERSION_3, 0), empty)


def set_limits(limits: dict) -> None:
    """Set the limits of this process; those that it has already are never raised."""
    import resource  # not on Windows

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
        number = getattr(resource, f"RLIMIT_{name}", None)
        if value is None or number is None:
            continue
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # macOS refuses some; `protection.py` tries which limits hold
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(number, (value, value))


def processes_of_user() -> int:
    """How many processes and threads this user has: the kernel counts them against the limit."""
    total = 0
    for status in glob.glob("/proc/[0-9]*"):
        with contextlib.suppress(OSError):
            if os.stat(status).st_uid == os.getuid():
                total += len(os.listdir(status + "/task"))
    return total


# --- The supervisor: it stays outside until the child and all that it started have ended ----------


def supervise(child: int) -> None:
    """Wait for the child, then end what it left behind. SIGTERM ends it at once."""

    def end(*_):
        kill_all(child)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        pid, status = os.wait()
        if pid == child:
            break
    kill_all(child)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def kill_all(child: int) -> None:
    """Kill the child's group and all descendants until there is none.

    Processes that lost their parent become children of this one, a subreaper.
    """
    while True:
        with contextlib.suppress(OSError):
            os.killpg(child, signal.SIGKILL)
        for pid in descendants(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, as /proc tells."""
    pids = []
    parents = [pid]
    while parents:
        for task in glob.glob(f"/proc/{parents.pop()}/task/*/children"):
            with contextlib.suppress(OSError), open(task) as file:
                children = [int(word) for word in file.read().split()]
                pids += children
                parents += children
    return pids
