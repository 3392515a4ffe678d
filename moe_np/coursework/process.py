"""One child of a sandbox: its channel, its clock, and the end of all that it started."""

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
import time

from moe_np.base.files import remove_folder
from moe_np.coursework import jail, view, wire
from moe_np.coursework.question import Said

MB = 1 << 20
_numbers = itertools.count()


class ChildError(Said):
    """The child did not answer. The message is for the student."""


class TimedOut(ChildError):
    """There was no answer in time."""


class Refused(ChildError):
    """The child is there and reports an error of the student's code."""


def a_user():
    """A user id that nobody has."""
    return 1_900_000_000 + os.getpid() % 50_000 * 1000 + next(_numbers) % 1000


class Child:
    """One process (and what it starts) with an empty notebook. A context manager: at the end all of
    it is gone.
    """

    def __init__(self, sandbox):
        self.sandbox = sandbox
        root = os.name != "nt" and os.geteuid() == 0 and sys.platform == "linux"
        self.uid = (
            a_user() if root and sandbox.mode in ("namespaces", "bubblewrap", "user") else None
        )
        self.folder = sandbox.view.base / f"work{next(_numbers)}"
        self.process = None
        self._id = 0

    def __enter__(self):
        self.folder.mkdir(mode=0o700)
        if self.uid is not None:
            os.chown(self.folder, self.uid, self.uid)
        argv, env = self.sandbox.command(str(self.folder), self.uid)
        self._errors = open(self.sandbox.view.base / f"{self.folder.name}.err", "w+b")
        self.process = subprocess.Popen(
            argv,
            env=env,
            cwd=self.folder if self.sandbox.mode == "bare" else "/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        self._replies = queue.Queue(maxsize=4)
        self._requests = queue.Queue()
        self._gone = threading.Event()
        for work in (self._reading, self._writing):
            threading.Thread(target=work, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.kill()

    def _reading(self):
        """Frames from the child into the queue; at the end, or at something that is no frame, an
        error.
        """
        end = ChildError("the process ended")
        try:  # and who reads the pipe closes it: a process that escaped may hold it open, and closing would wait
            while body := wire.read_frame(self.process.stdout.read1, self.sandbox.limits.reply):
                self._put(body)
        except wire.WireError as error:
            end = ChildError(f"what came back is no answer ({error})")
        except (OSError, ValueError):
            pass
        self._put(end)
        self.process.stdout.close()

    def _put(self, item):
        while not self._gone.is_set():
            with contextlib.suppress(queue.Full):
                return self._replies.put(item, timeout=0.2)

    def _writing(self):
        with contextlib.suppress(OSError, ValueError):
            while (data := self._requests.get()) is not None:
                self.process.stdin.write(data)
                self.process.stdin.flush()
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.close()

    def ask(self, message, seconds):
        """Send a message and return the reply to it. ChildError if there is none within `seconds`."""
        self._id += 1
        self._requests.put(wire.frame({"id": self._id, **message}))
        deadline = time.monotonic() + seconds
        quick = time.monotonic() + 0.3
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(f"no answer within {seconds:g} s")
            try:
                body = self._replies.get(
                    timeout=min(left, 0.05 if time.monotonic() > quick else 0.3)
                )
            except queue.Empty:
                self._watch()
                continue
            if isinstance(body, ChildError):
                raise body
            try:
                reply = wire.unframe(body)
            except wire.WireError as error:
                raise ChildError(f"what came back is no answer ({error})") from None
            if isinstance(reply, dict) and type(reply.get("id")) is int and reply["id"] == self._id:
                return reply  # others are not what was asked for

    def cell(self, number, source, seconds=20.0, apart=False):
        """Run a cell; `apart`: the names it makes are not seen by others. Refused with its error if
        it raised.
        """
        self._start()
        self._checked(
            self.ask({"do": "cell", "number": number, "source": source, "apart": apart}, seconds)
        )

    def call(self, function, inputs, seconds=10.0):
        """(value, inputs afterwards) of the student's function."""
        self._start()
        reply = self._checked(
            self.ask({"do": "call", "function": function, "inputs": tuple(inputs)}, seconds)
        )
        return reply.get("value"), reply.get("inputs")

    def fresh(self):
        """Forget all cells: an empty notebook in the same process."""
        self._start()
        self._checked(self.ask({"do": "fresh"}, 10.0))

    def _start(self):
        """Before the first request: wait until Python is there, which is not the student's time."""
        if self._id == 0:
            self.ask({"do": "fresh"}, self.sandbox.limits.start)

    @staticmethod
    def _checked(reply):
        if reply.get("ok") is not True:
            raise Refused(str(reply.get("error", "no answer"))[:1200])
        return reply

    @contextlib.contextmanager
    def still(self):
        """Nothing that the child started runs meanwhile (on Linux): it cannot keep the machine busy
        for others.
        """
        stopped = set()
        while new := set(jail.descendants(self.process.pid)) - stopped:
            _signal(new, "SIGSTOP")
            stopped |= new
        try:
            yield
        finally:
            _signal(stopped, "SIGCONT")

    # --- its end

    def _watch(self):
        """All processes together: too much memory, or too full a folder, ends the child."""
        limits = self.sandbox.limits
        if sys.platform == "linux" and self.resident() > limits.resident:
            self.kill()
            raise ChildError(f"more than {limits.resident // MB} MB of memory")
        if self.sandbox.mode in ("user", "process") and _size(self.folder) > limits.folder:
            self.kill()
            raise ChildError(f"more than {limits.folder // MB} MB of files, or too many of them")

    def resident(self):
        """Bytes of memory in use by the child and all that it started."""
        total, page = 0, os.sysconf("SC_PAGE_SIZE")
        for pid in (self.process.pid, *jail.descendants(self.process.pid)):
            with (
                contextlib.suppress(OSError, ValueError, IndexError),
                open(f"/proc/{pid}/statm") as file,
            ):
                total += int(file.read().split()[1]) * page
        return total

    def noise(self):
        """The last of what was said on stderr before the sandbox closed, for messages about the
        sandbox itself.
        """
        with contextlib.suppress(OSError, ValueError), open(self._errors.name, "rb") as file:
            return file.read()[-300:].decode("utf-8", "replace").strip()
        return ""

    def kill(self):
        """End the child and all that it started."""
        if self.process is None or self._gone.is_set():
            return
        self._gone.set()
        self._requests.put(None)
        self._end()
        self._errors.close()
        remove_folder(self.folder)

    def _end(self):
        if os.name == "nt":
            subprocess.run(
                ["taskkill", "/F", "/T", "/PID", str(self.process.pid)], capture_output=True
            )
            self.process.kill()
            self.process.wait()
            return
        if self.sandbox.mode in ("user", "process"):  # the keeper sweeps up what it inherited
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        if self.process.poll() is None:
            _signal(jail.descendants(self.process.pid), "SIGKILL")
            self.process.kill()
            self.process.wait()
        if self.uid is not None and self.sandbox.mode == "user":
            _kill_user(self.uid)
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _signal(pids, name):
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, getattr(signal, name))


def _size(folder, most=4000, deepest=30):
    """Bytes below a folder that somebody may be filling right now; without end if there are too
    many files.
    """
    total, seen, todo = 0, 0, [(folder, 0)]
    while todo:
        path, depth = todo.pop()
        with contextlib.suppress(OSError):
            for entry in os.scandir(path):
                seen += 1
                if seen > most or depth > deepest:
                    return float("inf")
                if entry.is_dir(follow_symlinks=False):
                    todo.append((entry.path, depth + 1))
                else:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def _kill_user(uid):
    """Every process of a user, at one stroke: kill(-1) from a process of that user."""
    code = f"import os; os.setresuid({uid}, {uid}, {uid}); os.kill(-1, 9)"
    subprocess.run([view.python(), "-I", "-S", "-c", code], capture_output=True)
