"""What the sandbox prevents on this system: each thing is tried in a child."""

import contextlib
import copy
import dataclasses
import os
import pathlib
import socket
import sys
import tempfile
import time
from collections.abc import Iterator

import moe_np
from moe_np.coursework.sandbox.jail import descendants
from moe_np.coursework.sandbox.process import MB, Child, ChildError
from moe_np.coursework.sandbox.sandbox import Sandbox

SMALL = {"resident": 192 * MB, "folder": 4 * MB, "file": 2 * MB}  # limits that are tried quickly

PROBE = """
import ctypes, os, socket, struct, sys, time

def attempt(*tries):
    done = False
    for function, *arguments in tries:
        try:
            function(*arguments)
            done = True
        except (OSError, AttributeError, ImportError):
            pass
    return done

def system_call(number, *arguments):
    # refused by the filter, or missing: whatever else the kernel says, it has looked at it
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), *arguments) == -1 and ctypes.get_errno() in (1, 38):
        raise OSError("refused")

def readable(paths):
    results = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                file.read(1)
            results.append(True)
        except OSError:
            results.append(False)
    return results

def can_change(path):
    def write():
        open(path, "wb").close()
    def truncate(access):
        os.close(os.open(path, os.O_TRUNC | access))
    return attempt(
        (write,), (truncate, 0), (truncate, 3), (os.chmod, path, 0o600), (os.utime, path, (1, 1)),
        (os.truncate, path, 0), (os.setxattr, path, "user.x", b"1"), (os.rename, path, path + "2"),
    )

def can_use_new_calls(linux):
    # setxattrat, removexattrat, file_setattr, and the first number after the list
    return linux and attempt(*((system_call, number) for number in (463, 466, 469, 453)))

def can_connect(port):
    def connect():
        socket.create_connection(("127.0.0.1", port), 1).close()
    return attempt((connect,))

def can_send(addresses):
    def send(address):
        kind = getattr(socket, "AF_UNIX"), socket.SOCK_DGRAM
        socket.socketpair(*kind)[0].sendto(b"x", address)
    def bind():
        socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].bind("x")
    return attempt(*((send, address) for address in addresses), (bind,))

def can_signal(pid):
    def own(command):
        import fcntl
        fcntl.fcntl(os.pipe()[0], command, pid)
    def own_by_ioctl():
        import fcntl
        fcntl.ioctl(socket.socketpair()[0], 0x8901, struct.pack("i", pid))
    return attempt((os.kill, pid, 0), (own, 8), (own_by_ioctl,))

def can_watch(folder):
    def watch():
        libc = ctypes.CDLL(None, use_errno=True)
        handle = libc.inotify_init()
        if handle == -1 or libc.inotify_add_watch(handle, folder.encode(), 0xFFF) == -1:
            raise OSError("refused")
    return attempt((watch,))

def processes_limited(most):
    started = 0
    try:
        for _ in range(most):
            if not os.fork():
                sys.stdin.close()
                time.sleep(2)
                os._exit(0)
            started += 1
    except (OSError, AttributeError):
        pass
    if started == most:
        time.sleep(1)  # it may be ended from outside
    return started < most

def starts_processes(seconds):
    pids = []
    for _ in range(2):
        pid = os.fork()
        if not pid:
            os.setsid()
            while True:
                time.sleep(1)
        pids.append(pid)
    return pids

def uses_memory(size):
    kept = b"1" * size
    time.sleep(5)
    return len(kept)

def uses_files(size):
    kept = []
    try:
        for i in range(size >> 20):
            kept.append(open(f"f{i}", "w+b"))
            kept[-1].write(bytes(1 << 20))
            kept[-1].flush()
            os.unlink(f"f{i}")
    except OSError:
        return -1
    time.sleep(5)
    return size

def memory_limited(size):
    try:
        bytearray(size)
    except MemoryError:
        return True
    return False
"""


def report(sandbox: Sandbox, assignments: str | os.PathLike) -> list[tuple[str, bool]]:
    """[(what should hold, whether it does)] after trying each thing in a child.

    assignments   the folder of the assignments, which must not be read
    """
    questions = [str(path) for path in pathlib.Path(assignments).glob("*/questions.py")][:1]
    package = str(pathlib.Path(moe_np.__file__).parent / "base" / "numerics.py")
    limits = sandbox.limits
    with _file_for_all() as file, _services() as (port, addresses), sandbox.child() as child:
        child.cell(1, PROBE)
        tried = {
            "solutions and hidden cases cannot be read": ("readable", questions, any),
            "the rest of the package cannot be read": ("readable", [package], any),
            "other files of this system cannot be read": ("readable", [file], any),
            "the grader's files cannot be written or changed": ("can_change", file, bool),
            "system calls that are newer than the filter are refused": (
                *("can_use_new_calls", sys.platform == "linux", bool),
            ),
            "no network": ("can_connect", port, bool),
            "no messages to other programs": ("can_send", addresses, bool),
            "the grader cannot be signalled": ("can_signal", os.getpid(), bool),
            "the use of files cannot be watched": ("can_watch", os.path.dirname(file), bool),
        }
        rows = [
            (what, not harmed(_tried(child, function, argument)))
            for what, (function, argument, harmed) in tried.items()
        ]
        memory = _tried(child, "memory_limited", 2 * limits.memory)
        processes = _tried(child, "processes_limited", 8 * limits.processes)
    return [
        *rows,
        ("the memory of a process is limited", bool(memory)),
        ("the number of processes is limited", bool(processes)),
        ("all processes of a student together have limited memory", _is_ended(sandbox, "memory")),
        ("the files of a student, removed ones too, are limited", _is_ended(sandbox, "files")),
        ("what does not end is ended, with all that it started", _all_end(sandbox)),
    ]


def _is_ended(sandbox, what):
    """Is a child stopped that uses more memory or files than it may? With small limits."""
    small = copy.copy(sandbox)
    small.limits = dataclasses.replace(sandbox.limits, **SMALL)
    size = 2 * SMALL["resident" if what == "memory" else "folder"]
    with small.child() as child:
        child.cell(1, PROBE)
        try:
            return child.call(f"uses_{what}", (size,), 2.0)[0] == -1
        except ChildError as error:
            return "no answer" not in str(error)


def _all_end(sandbox):
    """Are processes that left the group of a child gone after its end?"""
    with sandbox.child() as child:
        child.cell(1, PROBE)
        try:
            pids = child.call("starts_processes", (1,))[0]
        except ChildError:
            return sys.platform != "linux"  # Windows has no fork
        if sys.platform == "linux":
            pids = descendants(child.process.pid)
    until = time.monotonic() + 2
    while any(map(_is_running, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(map(_is_running, pids))


def _is_running(pid):
    with contextlib.suppress(OSError):
        if sys.platform == "linux":  # one that has ended may wait for its parent
            return (
                pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
            )
        os.kill(pid, 0)
        return True
    return False


@contextlib.contextmanager
def _file_for_all() -> Iterator[str]:
    """A file of the grader that everybody may write to, as far as modes say."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "file")
        path.write_text("x")
        path.chmod(0o666)
        pathlib.Path(folder).chmod(0o777)
        yield str(path)


@contextlib.contextmanager
def _services() -> Iterator[tuple[int, list[str]]]:
    """(port, addresses of sockets of the system) at which somebody listens."""
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen()
        addresses = []
        if hasattr(socket, "AF_UNIX"):
            folder = opened.enter_context(tempfile.TemporaryDirectory())
            pathlib.Path(folder).chmod(0o777)
            addresses = [os.path.join(folder, "socket")]
            addresses += ["\0" + addresses[0]] if sys.platform == "linux" else []
        for address in addresses:
            service = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            service.bind(address)
        for address in addresses[:1]:
            os.chmod(address, 0o666)
        yield server.getsockname()[1], addresses


def _tried(child: Child, function, argument):
    """What the function of the probe returns; True if the child was ended for what it did."""
    try:
        return child.call(function, (argument,))[0]
    except ChildError:
        return True


def table(sandbox: Sandbox, rows: list[tuple[str, bool]]) -> str:
    """The report as text."""
    lines = [f"protection: {sandbox.mode}"]
    lines += [f"  {'yes' if holds else 'NO ':3}  {what}" for what, holds in rows]
    limits = sandbox.limits
    lines.append(
        f"  limits: {limits.resident // MB} MB of memory, {limits.folder // MB} MB of files, "
        f"{limits.processes} processes"
    )
    return "\n".join(lines)
