"""One child of a sandbox: its channel, its time limits, and the end of all that it started."""

import contextlib
import dataclasses
import itertools
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

from moe_np.base.files import remove_folder
from moe_np.coursework.question import AnswerError
from moe_np.coursework.sandbox import usage, wire
from moe_np.coursework.sandbox.jail import descendants
from moe_np.coursework.sandbox.visible_files import VisibleFiles, interpreter

MB = 1 << 20
LONGEST_ERROR = 1200  # characters of a message from the child
MOST_IGNORED = 100  # replies to no question, each of which takes the grader's time
LATE_LOOKS = 10  # for an answer that has arrived but is not read yet when the time is over
_numbers = itertools.count()


class ChildError(AnswerError):
    """The child did not answer. The message is for the student."""


class TimedOut(ChildError):
    """There was no answer in time."""


class Refused(ChildError):
    """The child answers, and reports an error of the student's code."""

    ends = False


def unused_user() -> int:
    """A user id that nobody has."""
    return 1_900_000_000 + os.getpid() % 50_000 * 1000 + next(_numbers) % 1000


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one child may use, from its start to its end."""

    cpu: int = 120  # seconds, each process
    memory: int = 3072 * MB  # address space, each process
    resident: int = 1024 * MB  # memory in use, all processes together
    processes: int = 8  # and threads
    file: int = 8 * MB
    folder: int = 32 * MB
    reply: int = 64 * MB
    start: float = 20.0  # seconds until Python answers


class Settings(Protocol):
    """What a child takes from its sandbox."""

    mode: str
    limits: Limits
    files: VisibleFiles

    def command(self, folder: str, uid: int | None) -> tuple[list[str], dict[str, str]]:
        """(argv, environment) that start a child which works in `folder` as the user `uid`."""


class Child:
    """One process, and what it starts, with an empty notebook in it.

    Use it as a context manager: at the end all of it is gone.
    """

    def __init__(self, sandbox: Settings):
        self.sandbox = sandbox
        self.uid = None
        root = os.name != "nt" and os.geteuid() == 0 and sys.platform == "linux"
        if root and sandbox.mode in ("namespaces", "bubblewrap", "user"):
            self.uid = unused_user()
        self.folder = sandbox.files.base / f"work{next(_numbers)}"
        self.process = None
        self._last_id = 0

    def __enter__(self):
        self.folder.mkdir(mode=0o700)
        if self.uid is not None:
            os.chown(self.folder, self.uid, self.uid)
        argv, variables = self.sandbox.command(str(self.folder), self.uid)
        self._errors = open(self.sandbox.files.base / f"{self.folder.name}.err", "w+b")
        self.process = subprocess.Popen(
            argv,
            env=variables,
            cwd=self.folder if self.sandbox.mode == "bare" else "/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        self._replies = queue.Queue(maxsize=4)
        self._requests = queue.Queue()
        self._ended = threading.Event()
        for loop in (self._read_replies, self._write_requests):
            threading.Thread(target=loop, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.kill()

    # --- The channel

    def _read_replies(self):
        """Put frames from the child into the queue; at the end, or at no frame, an error."""
        largest = self.sandbox.limits.reply
        end = ChildError("the process ended")
        try:
            while body := wire.read_frame(self.process.stdout.read1, largest):
                self._put_reply(body)
        except wire.WireError as error:
            end = ChildError(f"what came back is no answer ({error})")
        except (OSError, ValueError):
            pass
        self._put_reply(end)
        # The thread that reads the pipe closes it: a process that escaped may hold the other end
        # open, and then close waits for the read.
        self.process.stdout.close()

    def _put_reply(self, reply):
        while not self._ended.is_set():
            with contextlib.suppress(queue.Full):
                return self._replies.put(reply, timeout=0.2)

    def _write_requests(self):
        with contextlib.suppress(OSError, ValueError):
            while (data := self._requests.get()) is not None:
                self.process.stdin.write(data)
                self.process.stdin.flush()
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.close()

    def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a message and return the reply to it.

        Raises ChildError if there is none within `seconds`. What has arrived by then counts as in
        time, even where this process was too busy to look.
        """
        self._last_id += 1
        self._requests.put(wire.frame({"id": self._last_id, **message}))
        start = time.monotonic()
        looks = LATE_LOOKS
        ignored = 0
        while True:
            passed = time.monotonic() - start
            late = passed >= seconds
            looks -= late
            pause = 0.3 if passed < 0.3 else 0.05  # most answers come before the first look
            timeout = pause if late and self._bytes_wait() else max(min(seconds - passed, pause), 0)
            try:
                body = self._replies.get(timeout=timeout)
            except queue.Empty:
                if late and (looks <= 0 or not self._bytes_wait()):
                    raise TimedOut(f"no answer within {seconds:g} s") from None
                self._check_usage()
                continue
            reply = self._reply_of(body)
            if reply is not None:
                return reply
            ignored += 1
            if ignored > MOST_IGNORED:
                raise ChildError("what came back is no answer (replies to no question)")

    def _bytes_wait(self):
        """Is there something in the pipe that the reading thread has not taken yet?"""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # Windows has no poll
            poll = select.poll()
            poll.register(self.process.stdout.fileno(), select.POLLIN)
            return any(events & select.POLLIN for _, events in poll.poll(0))
        return False

    def _reply_of(self, body):
        """The reply to the last message in what came back, None if it is no such reply."""
        if isinstance(body, ChildError):
            raise body
        try:
            reply = wire.unframe(body, wire.LONGEST_TEXT)
        except wire.WireError as error:
            raise ChildError(f"what came back is no answer ({error})") from None
        return reply if self._is_reply(reply) else None

    def _is_reply(self, reply):
        """Is it a reply to the last message? Others are ignored."""
        if not isinstance(reply, dict) or type(reply.get("id")) is not int:
            return False
        return reply["id"] == self._last_id

    # --- Requests

    def cell(self, number: int, source: str, seconds: float = 20.0, apart: bool = False) -> None:
        """Run a cell. Refused with its error if it raised.

        apart   the names that it makes are not seen by other cells
        """
        self._wait_for_python()
        message = {"do": "cell", "number": number, "source": source, "apart": apart}
        self._raise_error(self.ask(message, seconds))

    def call(self, function: str, inputs: tuple, seconds: float = 10.0) -> tuple[Any, Any]:
        """(value, inputs afterwards) of the student's function."""
        self._wait_for_python()
        message = {"do": "call", "function": function, "inputs": tuple(inputs)}
        reply = self._raise_error(self.ask(message, seconds))
        return reply.get("value"), reply.get("inputs")

    def clear(self) -> None:
        """Forget all cells: an empty notebook in the same process."""
        self._wait_for_python()
        self._raise_error(self.ask({"do": "clear"}, 10.0))

    def _wait_for_python(self):
        """Before the first request, wait until Python answers: that is not the student's time."""
        if self._last_id == 0:
            self.ask({"do": "clear"}, self.sandbox.limits.start)

    @staticmethod
    def _raise_error(reply):
        if reply.get("ok") is not True:
            raise Refused(str(reply.get("error", "no answer"))[:LONGEST_ERROR])
        return reply

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop all that the child started, on Linux, so that it cannot keep the machine busy."""
        stopped = set()
        while running := set(descendants(self.process.pid)) - stopped:
            _signal(running, "SIGSTOP")
            stopped |= running
        try:
            yield
        finally:
            _signal(stopped, "SIGCONT")

    # --- What it uses

    def _check_usage(self):
        """End the child if all its processes use too much memory, or its folder is too full."""
        limits = self.sandbox.limits
        pids = (self.process.pid, *descendants(self.process.pid))
        if usage.resident(pids) > limits.resident:
            self._end_for_use(f"{limits.resident // MB} MB of memory")
        if usage.tasks(pids[1:]) > limits.processes:  # the kernel does not count those of root
            self._end_for_use(f"{limits.processes} processes and threads")
        if self.sandbox.mode in ("user", "process"):
            used = usage.files(self.folder, pids, limits.file)
            if used > limits.folder:
                self._end_for_use(f"{limits.folder // MB} MB of files, or too many of them")

    def _end_for_use(self, most):
        self.kill()
        raise ChildError(f"more than {most}")

    def resident(self) -> int:
        """Bytes of memory in use by the child and all that it started."""
        return usage.resident((self.process.pid, *descendants(self.process.pid)))

    def error_output(self) -> str:
        """The end of stderr before student code ran, for messages about the sandbox itself."""
        with contextlib.suppress(OSError, ValueError), open(self._errors.name, "rb") as file:
            return file.read()[-300:].decode("utf-8", "replace").strip()
        return ""

    # --- Its end

    def kill(self) -> None:
        """End the child and all that it started."""
        if self.process is None or self._ended.is_set():
            return
        self._ended.set()
        self._requests.put(None)
        if os.name == "nt":
            self._end_on_windows()
        else:
            self._end()
        self._errors.close()
        remove_folder(self.folder)

    def _end_on_windows(self):
        tree = ["taskkill", "/F", "/T", "/PID", str(self.process.pid)]
        subprocess.run(tree, capture_output=True)
        self.process.kill()
        self.process.wait()

    def _end(self):
        if self.sandbox.mode in ("user", "process"):  # the jail's supervisor ends what it started
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        if self.process.poll() is None:
            _signal(descendants(self.process.pid), "SIGKILL")
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


def _kill_user(uid):
    """Kill every process of a user at once: kill(-1) by a process of that user."""
    code = f"import os; os.setresuid({uid}, {uid}, {uid}); os.kill(-1, 9)"
    subprocess.run([interpreter(), "-I", "-S", "-c", code], capture_output=True)
