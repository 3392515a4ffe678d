"""One child: when an answer is late, and what counts as its files."""

import sys
import time
import types

import pytest

from moe_np.coursework.sandbox import ChildError, Limits, Sandbox, possible_modes, process
from moe_np.coursework.sandbox.process import MB

LIMITS = Limits(folder=4 * MB, file=2 * MB, memory=1024 * MB, resident=400 * MB, cpu=20)


def sandbox_in(mode):
    try:
        return Sandbox((), ("numpy",), limits=LIMITS, mode=mode)
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=possible_modes())
def sandbox(request):
    """A sandbox in each mode that works on this system."""
    with sandbox_in(request.param) as working:
        yield working


def busy_from_second_look(seconds):
    """A clock for a grader that is kept busy between two looks, so long that the time is over."""
    looks = []

    def monotonic():
        looks.append(1)
        if len(looks) == 2:
            time.sleep(seconds)
        return 0.0 if len(looks) < 2 else 1000.0

    return types.SimpleNamespace(monotonic=monotonic)


@pytest.mark.seconds
def test_an_answer_that_arrived_while_the_grader_was_busy_is_not_late(sandbox, monkeypatch):
    with sandbox.child() as child:
        child.cell(1, "def f(x): return x + 1")
        monkeypatch.setattr(process, "time", busy_from_second_look(0.5))
        assert child.call("f", (1,), seconds=10)[0] == 2


@pytest.mark.seconds
def test_an_answer_that_the_reader_has_not_taken_yet_is_not_late(monkeypatch):
    with sandbox_in(possible_modes()[-1]) as sandbox, sandbox.child() as child:
        child.cell(1, "def f(x): return x + 1")
        put = child._put_reply
        monkeypatch.setattr(child, "_put_reply", lambda body: time.sleep(0.3) or put(body))
        child.cell(2, "", seconds=9)
        monkeypatch.setattr(child, "_bytes_wait", lambda: True)
        assert child.call("f", (1,), seconds=0.01)[0] == 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("while True: pass", r"no answer within 0\.4 s"),
        ("time.sleep(9)", r"no answer within 0\.4 s"),
        (
            "while True:\n        for fd in range(3, 9):\n            try: os.write(fd, FRAME)\n"
            "            except OSError: pass",
            r"replies to no question|no answer within",
        ),
    ],
)
def test_what_never_answers_is_ended_in_time(sandbox, body, words):
    """The last writes replies to no question without end."""
    frame = 'import os, time\nFRAME = b"moe\\x01\\x0c" + bytes(7) + b"\\x04" + bytes(7) + b"null"'
    with sandbox.child() as child:
        child.cell(1, f"{frame}\ndef f():\n    {body}")
        start = time.monotonic()
        with pytest.raises(ChildError, match=words):
            child.call("f", (), seconds=0.4)
        assert time.monotonic() - start < 8  # less than the answer would sleep


WITHOUT_NAME = """
import ctypes, os, time
def f(mapped):
    mmap = ctypes.CDLL(None).mmap
    for i in range(20):
        fd = os.open(f"f{i}", os.O_CREAT | os.O_RDWR)
        os.write(fd, bytes(10**6))
        if mapped:
            mmap(None, ctypes.c_size_t(4096), 1, 1, fd, ctypes.c_long(0))
            os.close(fd)
        os.unlink(f"f{i}")
    time.sleep(2)
"""


MANY_MAPPINGS = """
import ctypes, time
def f():
    mmap = ctypes.CDLL(None).mmap
    mmap.restype = ctypes.c_void_p
    with open("f", "w+b") as file:
        file.write(bytes(4096))
        file.flush()
        for i in range(50_000):
            mmap(None, ctypes.c_size_t(4096), 1 + i % 2, 1, file.fileno(), ctypes.c_long(0))
    time.sleep(2)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="README.md says what is enforced elsewhere")
def test_many_mappings_do_not_take_the_time_of_the_grader(sandbox):
    with sandbox.child() as child:
        child.cell(1, MANY_MAPPINGS)
        start = time.process_time()
        if sandbox.mode in ("user", "process"):
            with pytest.raises(ChildError, match="or too many of them"):
                child.call("f", (), seconds=6)
        else:
            assert child.call("f", (), seconds=6)[0] is None, "its folder has a limit of its own"
        assert time.process_time() - start < 1


@pytest.mark.skipif(sys.platform != "linux", reason="README.md says what is enforced elsewhere")
@pytest.mark.parametrize("mapped", [False, True])
def test_removed_files_that_are_in_use_count(sandbox, mapped):
    with sandbox.child() as child:
        child.cell(1, WITHOUT_NAME)
        with pytest.raises(ChildError, match=r"more than 4 MB of files|No space left"):
            child.call("f", (mapped,), seconds=8)
