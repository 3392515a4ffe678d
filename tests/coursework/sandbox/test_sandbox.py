"""Hostile code in the sandbox leaves no trace, sees no secret, and the next child works."""

import contextlib
import os
import pathlib
import platform
import socket
import sys
import time

import numpy as np
import pytest

from moe_np.coursework.sandbox import (
    ChildError,
    Limits,
    Refused,
    Sandbox,
    landlock,
    possible_modes,
    seccomp,
    syscalls,
)
from moe_np.coursework.sandbox.process import MB
from tests.support import coursework

LIMITS = Limits(memory=1024 * MB, resident=400 * MB, cpu=20)
LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="TEACHING.md says what is enforced elsewhere"
)


@pytest.fixture(scope="module", params=possible_modes())
def sandbox(request):
    """A sandbox in each mode that works on this system."""
    options = {"secret": (coursework.FOLDER,), "limits": LIMITS, "mode": request.param}
    try:
        working = Sandbox(("moe_np.base.checks",), ("numpy",), **options)
    except ValueError as error:
        pytest.skip(str(error))
    with working:
        yield working


def attack(child, source, *inputs, seconds=20.0):
    """The value of `attack(*inputs)` in the child."""
    child.cell(1, source)
    return child.call("attack", inputs, seconds)[0]


def assert_it_works(sandbox):
    with sandbox.child() as child:
        assert attack(child, "def attack(x): return 2 * x", np.ones(2)).tolist() == [2, 2]


def is_gone(child):
    """Whether the child and all that it started have ended: its user's, and the grader's below."""
    if sys.platform != "linux":
        return True
    until = time.monotonic() + 5
    while time.monotonic() < until:
        pids = [int(p) for p in os.listdir("/proc") if p.isdigit()]
        left = [p for p in pids if child.uid is not None and _owner(p) == child.uid]
        left += [p for p in pids if f"moe_np_{child.sandbox.files.base.name[7:]}" in _command(p)]
        if not left:
            return True
        time.sleep(0.02)
    return False


def _owner(pid):
    """The user of a process; -1 for one that has ended and waits for its parent."""
    try:
        dead = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        return -1 if dead else os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def _command(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


# --- The channel ----------------------------------------------------------------------------------


def test_values_go_there_and_back(sandbox):
    value = (
        np.arange(6).reshape(2, 3),
        {"a": 1.5, "b": [None, True, "x", np.float32(2)]},
        np.zeros((0, 3)),
        -7,
        np.inf,
    )
    with sandbox.child() as child:
        back = attack(child, "def attack(*x): return x", *value)
    assert [type(v) for v in back] == [type(v) for v in value]
    assert back[0].tolist() == value[0].tolist() and back[1] == value[1] and back[2].shape == (0, 3)
    assert back[1]["b"][3].dtype == np.float32 and back[3:] == value[3:]


FORGE = """
import os, json, struct
def attack():
    for fd in range(3, 30):
        try:
            os.write(fd, {what})
        except OSError:
            pass
    return 1.0
"""


@pytest.mark.parametrize(
    "what",
    [
        'b"nonsense" * 1000',
        'b"moe\\x01" + b"\\xff" * 8',
        'b"moe\\x01" + struct.pack("<Q", 3) + b"abc"',
    ],
)
@pytest.mark.slow
def test_a_forged_reply_is_no_answer(sandbox, what):
    with sandbox.child() as child, pytest.raises(ChildError, match="no answer"):
        attack(child, FORGE.replace("{what}", what))
    assert_it_works(sandbox)


FLOOD = """
import os
def attack():
    while True:
        for fd in range(3, 9):
            try:
                os.write(fd, b"moe\\x01\\x01" + bytes(7) + b"0" + bytes(10**6))
            except OSError:
                pass
"""


@pytest.mark.slow
def test_a_flood_of_replies_is_cut_off(sandbox):
    with sandbox.child() as child, pytest.raises(ChildError):
        attack(child, FLOOD, seconds=1)
    assert_it_works(sandbox)


@pytest.mark.slow
def test_a_result_too_large_is_refused(sandbox):
    with sandbox.child() as child, pytest.raises(ChildError):
        attack(child, "import numpy as np\ndef attack(): return np.zeros(10**7 + 10)")
    assert_it_works(sandbox)


# --- Ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "os._exit(0)",
        "os.kill(os.getpid(), 9); time.sleep(9)",
        "ctypes.string_at(0)",
        "os.abort()",
        "[os.close(fd) for fd in range(3, 30)]; time.sleep(99)",
        "os.killpg(0, 9); time.sleep(9)",
        "os.kill(-1, 9); os._exit(1)",
        "[t for t in iter(int, 1)]",
    ],
)
@pytest.mark.slow
def test_a_child_that_ends_or_hangs_costs_its_own_question(sandbox, line):
    with sandbox.child() as child:
        with pytest.raises(ChildError):
            attack(
                child,
                f"import os, ctypes, time\ndef attack():\n    {line}\n    return 1.0",
                seconds=0.7,
            )
        child.kill()
        assert is_gone(child)
    assert_it_works(sandbox)


@pytest.mark.slow
def test_sys_exit_and_deep_recursion_are_ordinary_errors(sandbox):
    with sandbox.child() as child:
        for body in (
            "raise SystemExit",
            "return attack()",
            "raise KeyboardInterrupt",
            "raise type('E', (BaseException,), {})",
        ):
            with pytest.raises(Refused):
                attack(child, f"def attack():\n    {body}")
        assert attack(child, "def attack(): return 1") == 1


LEAVES_BEHIND = """
import os, signal, time
def attack():
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                while True:
                    time.sleep(0.01)
            os._exit(0)
    os._exit(0)
"""


@LINUX
@pytest.mark.slow
def test_no_process_is_left(sandbox):
    with sandbox.child() as child:
        with pytest.raises(ChildError):
            attack(child, LEAVES_BEHIND, seconds=3)
        child.kill()
        assert is_gone(child)


BOMB = """
import os
def attack():
    while True:
        try:
            os.fork()
        except OSError:
            pass
"""


@LINUX
@pytest.mark.slow
def test_a_fork_bomb_does_no_harm(sandbox):
    with sandbox.child() as child:
        with pytest.raises(ChildError):
            attack(child, BOMB, seconds=0.5)
        child.kill()
        assert is_gone(child)
    assert_it_works(sandbox)


@LINUX
@pytest.mark.parametrize(
    "source",
    [
        "def attack():\n    x = []\n    while True: x.append(bytearray(10**8))",
        "import numpy as np\ndef attack(): return np.ones((10**6, 10**6)).sum()",
        "import os\ndef attack():\n    for _ in range(12): os.fork()\n"
        "    return len(b'1' * 6 * 10**8)",
        "def attack():\n    x = 'x' * 10**6\n    while True: x = x + x",
    ],
)
@pytest.mark.slow
def test_a_memory_bomb_does_no_harm(sandbox, source):
    with sandbox.child() as child:
        with pytest.raises(ChildError):
            attack(child, source, seconds=10)
        child.kill()
        assert is_gone(child)
    assert_it_works(sandbox)


FILLS = {
    "bytes": "for i in range(100):\n        open(f'f{i}', 'wb').write(bytes(10**7))",
    "files": "for i in range(10**6): open(f'f{i}', 'w').close()",
    "folders": "for i in range(10**6): os.mkdir('d', 0o777); os.chdir('d')",
}


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("what", FILLS)
def test_the_disk_is_not_filled(sandbox, what):
    fill = f"import os\ndef attack():\n    {FILLS[what]}\n    return 1.0"
    with sandbox.child() as child, pytest.raises(ChildError):
        attack(child, fill, seconds=3)  # empty files in bubblewrap's memory are ended by the time
    assert_it_works(sandbox)


# --- What can be seen -----------------------------------------------------------------------------


SECRETS = """
import os
def attack(paths):
    seen = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                seen.append(path + ": " + str(len(file.read())))
        except OSError:
            pass
    return seen
"""


@LINUX
def test_answers_and_other_peoples_work_cannot_be_read(sandbox, tmp_path):
    if not landlock.version() and sandbox.mode in ("user", "process"):
        pytest.skip("this kernel has no Landlock: TEACHING.md says so")
    other = tmp_path / "other_student.ipynb"
    other.write_text("{}")
    paths = [str(path) for path in coursework.FOLDER.rglob("*.py")]
    paths += [str(coursework.ROOT / "moe_np" / "base" / "numerics.py"), str(other), "/etc/passwd"]
    pid = os.getpid()
    paths += ["/proc/1/environ", f"/proc/{pid}/environ", f"/proc/{pid}/mem", __file__]
    paths += [os.path.relpath(paths[0], "/tmp")]
    with sandbox.child() as child:
        assert attack(child, SECRETS, paths) == []
        source = "import moe_np.base.checks\nfrom moe_np.base.numerics import softmax as attack"
        with pytest.raises(Refused, match="No module named"):
            attack(child, source)


ABSTRACT = f"moe_np_test_{os.getpid()}"


def forbidden(pid, file, mode):
    """{name: an expression that does what is forbidden, or raises}; C functions return -1 then."""
    tgkill = syscalls.number("tgkill")
    path = repr(str(file.with_name("socket")))
    bytes_of_file = os.fsencode(file)
    file = repr(str(file))

    def succeeds(function, *arguments):
        return f"1 / (1 + ctypes.CDLL(None).{function}({', '.join(map(str, arguments))}))"

    def call(number, *arguments):
        return succeeds("syscall", f"ctypes.c_long({number})", *arguments)

    pair = "__import__('socket').socketpair(1, 2)[0]"  # AF_UNIX, SOCK_DGRAM
    name = repr(b"\0" + ABSTRACT.encode())
    truncated = f"os.open({file}, os.O_TRUNC | "
    no_attributes = "struct.pack('QII', 0, 0, 0)"
    return {
        "socket": "__import__('socket').socket()",
        "unshare": succeeds("unshare", 0x10000000),
        "ptrace": succeeds("ptrace", 16, 1, 0, 0),
        "memfd": "os.memfd_create('x')",
        "mount": succeeds("mount", b"x", b"/tmp", b"tmpfs", 0, None),
        "signal": f"os.kill({pid}, 0)",
        "thread": succeeds("syscall", f"ctypes.c_long({tgkill})", pid, pid, 0),
        "pipe": f"__import__('fcntl').fcntl(os.pipe()[0], 8, {pid})",  # F_SETOWN: whom it signals
        "signals by ioctl": f"__import__('fcntl').ioctl({pair}, 0x8901, struct.pack('i', {pid}))",
        "a service": f"{pair}.sendto(b'x', {path})",
        "an abstract service": f"{pair}.sendto(b'x', {name})",
        "a message": f"{pair}.sendmsg([b'x'], [], 0, {path})",
        "a name": f"{pair}.bind('')",
        "news of a folder": succeeds("inotify_init"),
        "news of a folder, in the old way": "__import__('fcntl').fcntl(os.open('.', 0), 1026, 1)",
        "setxattrat": call(463, -100, bytes_of_file, 0, b"user.x", no_attributes, 16),
        "removexattrat": call(466, -100, bytes_of_file, 0, b"user.x"),
        "file_setattr": call(469, -100, bytes_of_file, "bytes(24)", 24, 0),
        "openat2": call(437, -100, b".", "bytes(24)", 24),
        "length, to be read": truncated + "os.O_RDONLY)",
        "length, for nothing": truncated + "3)",
        "shared memory of others": succeeds("shmctl", 0, 2, "ctypes.create_string_buffer(512)"),
        "a queue of others": succeeds("mq_unlink", b"/moe_np_test"),
        "attributes": "__import__('fcntl').ioctl(os.open(os.__file__, 0), 0x40086602, bytes(8))",
        "outliving": succeeds("prctl", 1, 0, 0, 0, 0),
        "limits": f"__import__('resource').prlimit({pid}, 0, (1, 1))",
        "priority": f"os.setpriority(0, {pid}, 19)",
        "mode": f"os.chmod({file}, 0)",
        "times": f"os.utime({file}, (1, 1))",
        "length": f"os.truncate({file}, 0)",
        "removal": f"os.unlink({file})",
        "name": f"os.rename({file}, 'x')",
        "shared": succeeds("shmget", 0, 4096, "0o1666"),
        "setuid": "1 / 0" if mode == "process" else "os.setuid(0) or os.getuid() == 0 or 1 / 0",
    }


@contextlib.contextmanager
def local_services(path):
    """Two that anybody may send to: at a path, and at a name without one."""
    kind = (socket.AF_UNIX, socket.SOCK_DGRAM)
    with socket.socket(*kind) as at_path, socket.socket(*kind) as without:
        for service, name in ((at_path, str(path)), (without, "\0" + ABSTRACT)):
            service.bind(name)
            service.setblocking(False)
        path.chmod(0o666)
        yield at_path, without


@LINUX
def test_no_network_no_tracing_no_new_namespaces_no_access_to_others(sandbox, tmp_path):
    filtered = platform.machine() in seccomp.AUDIT_ARCHITECTURES
    if sandbox.mode in ("user", "process") and not (landlock.version() and filtered):
        pytest.skip("TEACHING.md says what is open then")
    file = tmp_path / "file"
    file.write_text("unharmed")
    file.chmod(0o666)
    with local_services(tmp_path / "socket") as services, sandbox.child() as child:
        for name, line in forbidden(os.getpid(), file, sandbox.mode).items():
            source = f"import os, ctypes, struct\ndef attack():\n    {line}\n    return '{name}'"
            with pytest.raises(Refused):
                attack(child, source)
        for service in services:
            with pytest.raises(BlockingIOError):
                service.recv(9)
    assert file.read_text() == "unharmed" and file.stat().st_mode & 0o777 == 0o666


REPEATS = """
import random
import numpy as np
def attack():
    where = repr(object()) if {linux} else ""
    return [np.random.default_rng().random(), np.random.normal(), random.random(), hash("x"), where]
"""


@pytest.mark.slow
def test_chance_repeats_so_that_a_grading_does(sandbox):
    values = []
    for _ in range(2):
        with sandbox.child() as child:
            values.append(attack(child, REPEATS.format(linux=sys.platform == "linux")))
    assert values[0] == values[1]
