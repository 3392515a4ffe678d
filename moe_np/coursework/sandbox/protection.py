"""What the sandbox prevents on this system: each thing is tried in a child."""

import contextlib
import os
import pathlib
import socket
import tempfile
from collections.abc import Iterator

import moe_np
from moe_np.coursework.sandbox.process import MB, Child, ChildError
from moe_np.coursework.sandbox.sandbox import Sandbox

PROBE = """
import os, socket, sys, time

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

def can_write(path):
    try:
        open(path, "wb").close()
    except OSError:
        return False
    return True

def can_connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True

def can_signal(pid):
    try:
        os.kill(pid, 0)
    except (OSError, AttributeError):
        return False
    return True

def can_change(path):
    changes = (os.chmod, 0o600), (os.utime, (1, 1)), (os.truncate, 0)
    done = False
    for change, argument in changes:
        try:
            change(path, argument)
            done = True
        except OSError:
            pass
    return done

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
    return started < most

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
    with _file_for_all() as file, socket.socket() as server, sandbox.child() as child:
        server.bind(("127.0.0.1", 0))
        server.listen()
        child.cell(1, PROBE)
        read_answers = any(child.call("readable", (questions,))[0])
        read_package = any(child.call("readable", ([package],))[0])
        changed = _tried(child, "can_write", file) or _tried(child, "can_change", file)
        connected = _tried(child, "can_connect", server.getsockname()[1])
        signalled = _tried(child, "can_signal", os.getpid())
        memory = _tried(child, "memory_limited", 2 * limits.memory)
        processes = _tried(child, "processes_limited", 8 * limits.processes)
    return [
        ("solutions and hidden cases cannot be read", not read_answers),
        ("the rest of the package cannot be read", not read_package),
        ("the grader's files cannot be written or changed", not changed),
        ("no network", not connected),
        ("the grader cannot be signalled", not signalled),
        ("the memory of a process is limited", bool(memory)),
        ("the number of processes is limited", bool(processes)),
    ]


@contextlib.contextmanager
def _file_for_all() -> Iterator[str]:
    """A file of the grader that everybody may write to, as far as its mode says."""
    handle, path = tempfile.mkstemp()
    if hasattr(os, "fchmod"):
        os.fchmod(handle, 0o666)
    os.close(handle)
    try:
        yield path
    finally:
        os.unlink(path)


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
    most = sandbox.limits.resident // MB
    lines.append(f"  at most {most} MB in use by all processes of a student, watched from outside")
    return "\n".join(lines)
