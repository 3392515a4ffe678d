"""Running the checks under a time limit each: in a child process, or in a thread for an object.

A child process that does not answer is ended, the check counts as wrong, and a new child goes on
with the next check. An object of this process (a closure, a trained module) is audited in a thread.
A thread cannot be ended: after a check that hangs, it is left behind, and after three of those
the other checks are not run.
"""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from moe_np.audit import catalogue
from moe_np.audit.adapters import subject_of
from moe_np.audit.calling import Settings
from moe_np.audit.findings import Finding, fault, finding_of, unknown
from moe_np.audit.subject import Subject
from moe_np.base.checks import InputError

LIMIT = 20.0  # seconds per check, on a busy machine too; most take a hundredth of that
LEAST = 5.0  # seconds per check after one that has hung
START = 120.0  # seconds for the imports: PyTorch and Transformers are slow to load
HANGING = 3  # threads that are left behind before the audit gives up


def hangs(check: str, limit: float) -> Finding:
    """A finding for a check that did not end."""
    text = "the code did not answer in time; the audit went on without it"
    return fault(check, text, wanted=f"an answer in {limit:g} s", got="none")


# --- a child process ------------------------------------------------------------------------------


def in_child(
    spec: str, settings: Settings, limit: float = LIMIT, only: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[Finding]]:
    """({"name", "framework", "sizes"}, findings) of FILE.py:NAME or package.module:NAME."""
    waiting = [name for name in catalogue.CHECKS if not only or name in only]
    header: dict[str, Any] = {"name": spec, "framework": "", "sizes": []}
    findings: list[Finding] = []
    while waiting:
        current = "the first call"
        for message in _messages(spec, settings, waiting, limit):
            if "input_error" in message:
                raise InputError(message["input_error"])
            if "name" in message:
                header = message
            elif "start" in message:
                current = message["start"]
            elif "findings" in message:
                findings += [finding_of(record) for record in message["findings"]]
                waiting = [name for name in waiting if name != message["check"]]
            elif message.get("finished"):
                return header, findings
            else:
                died = message.get("died", "")
                text = "the process of the code ended"
                findings.append(fault(current, text, got=died) if died else hangs(current, limit))
                if not died:  # code that hangs will hang again
                    limit = min(limit, max(limit / 4, LEAST))
        if current == "the first call":
            break
        waiting = [name for name in waiting if name != current]
    return header, findings


def _messages(spec, settings, checks, limit) -> Iterator[dict[str, Any]]:
    """What a child process says; the last message is {"late"} or {"died"} if it did not finish."""
    command = [sys.executable, "-m", "moe_np.audit.worker"]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert child.stdin is not None and child.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
    reader.start()
    request = {"spec": spec, "settings": settings._asdict(), "checks": checks}
    try:
        child.stdin.write(json.dumps(request))
        child.stdin.close()
        patience = START
        while True:
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                yield {"late": True}
                return
            if line is None:
                yield {"died": f"exit status {child.wait()}"}
                return
            message = json.loads(line)
            yield message
            if message.get("finished") or "input_error" in message:
                return
            patience = limit
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def _read(stream, lines):
    for line in stream:
        lines.put(line)
    lines.put(None)


# --- a thread -------------------------------------------------------------------------------------


def in_thread(
    target: Any, settings: Settings, limit: float = LIMIT, only: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[Finding]]:
    """The same for an object of this process."""
    made, error = _limited(lambda: subject_of(target, settings), START)
    header = {"name": getattr(target, "__name__", type(target).__name__), "framework": ""}
    if isinstance(error, InputError):
        raise error
    if error is not None or made is None:
        first = "the first call"
        finding = hangs(first, START) if error is None else catalogue.raised(first, error)
        return header, [finding]
    subject: Subject = made
    header = {
        "name": subject.name,
        "framework": subject.framework.name,
        "sizes": [subject.D, subject.E],
    }
    findings: list[Finding] = []
    hanging = 0
    for check in catalogue.CHECKS:
        if only and check not in only:
            continue
        if hanging >= HANGING:
            findings.append(unknown(check, "not run: several checks before it did not end"))
            continue
        result, _ = _limited(lambda name=check: catalogue.run(name, subject), limit)
        hanging += result is None
        findings += [hangs(check, limit)] if result is None else result
    return header, findings


def _limited(function: Callable[[], Any], limit: float) -> tuple[Any, BaseException | None]:
    """(result, error) of a function, (None, None) where it does not end in time."""
    answer: list[Any] = [None, None]

    def work():
        try:
            answer[0] = function()
        except BaseException as error:
            answer[1] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(limit)
    return (None, None) if thread.is_alive() else (answer[0], answer[1])
