"""What the sandbox holds back on this very system: tried, not claimed."""

import ctypes
import os
import pathlib
import sys
import tempfile

import moe_np
from moe_np.coursework.process import ChildError
from moe_np.coursework.sandbox import MB


def landlock():
    """The version of the kernel's Landlock, 0 without."""
    if sys.platform != "linux":
        return 0
    return max(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1), 0)


PROBE = """
import os, socket, sys

def readable(paths):
    out = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                file.read(1)
            out.append(True)
        except OSError:
            out.append(False)
    return out

def writes(path):
    try:
        open(path, "wb").close()
    except OSError:
        return False
    return True

def network(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True

def signals(pid):
    try:
        os.kill(pid, 0)
    except (OSError, AttributeError):
        return False
    return True

def changes(path):
    done = []
    for change in (lambda: os.chmod(path, 0o600), lambda: os.utime(path, (1, 1)), lambda: os.truncate(path, 0)):
        try:
            change()
            done.append(True)
        except OSError:
            pass
    return bool(done)

def processes(most):
    made = []
    try:
        for _ in range(most):
            pid = os.fork()
            if not pid:
                sys.stdin.close()
                import time
                time.sleep(2)
                os._exit(0)
            made.append(pid)
    except (OSError, AttributeError):
        pass
    return len(made) < most

def memory(size):
    try:
        bytearray(size)
    except MemoryError:
        return True
    return False
"""


def report(sandbox, secret):
    """[(what, held: True, False, how)] after trying each thing in a child. secret: folder of the
    assignments.
    """
    import socket

    questions = [str(p) for p in pathlib.Path(secret).glob("*/questions.py")][:1]
    package = str(pathlib.Path(moe_np.__file__).parent / "base" / "numerics.py")
    handle, mine = tempfile.mkstemp()
    os.fchmod(handle, 0o666) if hasattr(os, "fchmod") else None
    os.close(handle)
    rows = []
    with socket.socket() as server, sandbox.child() as child:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def held(function, *inputs):
            try:
                return child.call(function, inputs)[0]
            except ChildError:
                return True  # ended for what it did

        child.cell(1, PROBE)
        answers, source = (child.call("readable", (paths,))[0] for paths in (questions, [package]))
        rows = [
            ("solutions and hidden cases cannot be read", not any(answers)),
            ("the rest of the package cannot be read", not any(source)),
            (
                "the grader's files cannot be written or changed",
                not (held("writes", mine) or held("changes", mine)),
            ),
            ("no network", not held("network", server.getsockname()[1])),
            ("the grader cannot be signalled", not held("signals", os.getpid())),
            ("the memory of a process is limited", held("memory", 2 * sandbox.limits.memory)),
            ("the number of processes is limited", held("processes", 8 * sandbox.limits.processes)),
        ]
    os.unlink(mine)
    return [(what, bool(ok)) for what, ok in rows]


def table(sandbox, rows):
    """The report as text."""
    lines = [f"protection: {sandbox.mode}"]
    lines += [f"  {'yes' if ok else 'NO ':3}  {what}" for what, ok in rows]
    lines += [
        f"  at most {sandbox.limits.resident // MB} MB in use by all processes of a student, watched from outside"
    ]
    return "\n".join(lines)
