"""What hostile code can do in the sandbox: nothing that lasts, nothing that is seen, and the next
child works.
"""

import os
import pathlib
import platform
import sys
import time

import numpy as np
import pytest

from moe_np.coursework import protection, wire
from moe_np.coursework.process import ChildError, Refused
from moe_np.coursework.sandbox import MB, Limits, Sandbox, possible
from moe_np.coursework.syscalls import TABLES
from tests.support import coursework

TGKILL = TABLES.get(platform.machine(), {"tgkill": 0})["tgkill"]
LIMITS = Limits(memory=1024 * MB, resident=400 * MB, cpu=20)


LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="what is enforced elsewhere is told in TEACHING.md"
)


@pytest.fixture(scope="module", params=possible())
def room(request):
    """A sandbox in each mode that works on this system."""
    options = {"secret": (coursework.FOLDER,), "limits": LIMITS, "mode": request.param}
    try:
        made = Sandbox(("moe_np.base.checks",), ("numpy",), **options)
    except ValueError as error:
        pytest.skip(str(error))
    with made:
        yield made


def tried(child, source, *inputs, seconds=20.0):
    """The value of `attack(*inputs)` in the child."""
    child.cell(1, source)
    return child.call("attack", inputs, seconds)[0]


def still_works(room):
    with room.child() as child:
        assert tried(child, "def attack(x): return 2 * x", np.ones(2)).tolist() == [2, 2]


def gone(child):
    """The child and whatever it started. Processes of its user, and those below the grader, are
    looked for.
    """
    if sys.platform != "linux":
        return True
    until = time.monotonic() + 5
    while time.monotonic() < until:
        pids = [int(p) for p in os.listdir("/proc") if p.isdigit()]
        left = [p for p in pids if child.uid is not None and _owner(p) == child.uid]
        left += [p for p in pids if f"moe_np_{child.sandbox.view.base.name[7:]}" in _command(p)]
        if not left:
            return True
        time.sleep(0.02)
    return False


def _owner(pid):
    """The user of a process that is more than an entry which waits for init."""
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


def test_values_go_there_and_back(room):
    value = (
        np.arange(6).reshape(2, 3),
        {"a": 1.5, "b": [None, True, "x", np.float32(2)]},
        np.zeros((0, 3)),
        -7,
        np.inf,
    )
    with room.child() as child:
        back = tried(child, "def attack(*x): return x", *value)
    assert [type(v) for v in back] == [type(v) for v in value]
    assert back[0].tolist() == value[0].tolist() and back[1] == value[1] and back[2].shape == (0, 3)
    assert back[1]["b"][3].dtype == np.float32 and back[3:] == value[3:]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00" * 40,
        b"\x05\x00\x00\x00\x00\x00\x00\x00[[[[[",
        wire.frame([1])[12:-3],
        wire.frame({"a": np.ones(3)})[12:-8],
        wire.frame("x")[12:].replace(b'"x"', b'{"array": ["O", [1]]}'),
        (22).to_bytes(8, "little") + b'{"array": ["<f8", [-1]]}',
        (28).to_bytes(8, "little") + b'{"array": ["<f8", [99999]]} ',
        (60_000).to_bytes(8, "little") + b"[" * 60_000,
        (1).to_bytes(8, "little") + b"5",
        (3).to_bytes(8, "little") + b"[1]",
        (19).to_bytes(8, "little") + b'{"array":[[1],[1]]}',
    ],
)
def test_what_is_not_well_formed_is_refused(body):
    with pytest.raises(wire.WireError):
        wire.unframe(body)


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
def test_a_forged_reply_is_no_answer(room, what):
    with room.child() as child, pytest.raises(ChildError, match="no answer"):
        tried(child, FORGE.replace("{what}", what))
    still_works(room)


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
def test_a_flood_of_replies_is_cut_off(room):
    with room.child() as child, pytest.raises(ChildError):
        tried(child, FLOOD, seconds=1)
    still_works(room)


@pytest.mark.slow
def test_a_result_too_large_is_refused(room):
    with room.child() as child, pytest.raises(ChildError):
        tried(child, "import numpy as np\ndef attack(): return np.zeros(10**7 + 10)")
    still_works(room)


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
def test_a_child_that_ends_or_hangs_costs_its_own_question(room, line):
    with room.child() as child:
        with pytest.raises(ChildError):
            tried(
                child,
                f"import os, ctypes, time\ndef attack():\n    {line}\n    return 1.0",
                seconds=0.7,
            )
        child.kill()
        assert gone(child)
    still_works(room)


@pytest.mark.slow
def test_sys_exit_and_deep_recursion_are_errors_like_any(room):
    with room.child() as child:
        for body in (
            "raise SystemExit",
            "return attack()",
            "raise KeyboardInterrupt",
            "raise type('E', (BaseException,), {})",
        ):
            with pytest.raises(Refused):
                tried(child, f"def attack():\n    {body}")
        assert tried(child, "def attack(): return 1") == 1


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
def test_nothing_is_left_behind(room):
    with room.child() as child:
        with pytest.raises(ChildError):
            tried(child, LEAVES_BEHIND, seconds=3)
        child.kill()
        assert gone(child)


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
def test_a_fork_bomb_does_no_harm(room):
    with room.child() as child:
        with pytest.raises(ChildError):
            tried(child, BOMB, seconds=0.5)
        child.kill()
        assert gone(child)
    still_works(room)


@LINUX
@pytest.mark.parametrize(
    "source",
    [
        "def attack():\n    x = []\n    while True: x.append(bytearray(10**8))",
        "import numpy as np\ndef attack(): return np.ones((10**6, 10**6)).sum()",
        "import os\ndef attack():\n    for _ in range(12): os.fork()\n    x = b'1' * 6 * 10**8\n    return len(x)",
        "def attack():\n    x = 'x' * 10**6\n    while True: x = x + x",
    ],
)
@pytest.mark.slow
def test_a_memory_bomb_does_no_harm(room, source):
    with room.child() as child:
        with pytest.raises(ChildError):
            tried(child, source, seconds=10)
        child.kill()
        assert gone(child)
    still_works(room)


FILLS = {
    "bytes": "for i in range(100):\n        open(f'f{i}', 'wb').write(bytes(10**7))",
    "files": "for i in range(10**6): open(f'f{i}', 'w').close()",
    "folders": "for i in range(10**6): os.mkdir('d', 0o777); os.chdir('d')",
}


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("what", FILLS)
def test_the_disk_is_not_filled(room, what):
    fill = f"import os\ndef attack():\n    {FILLS[what]}\n    return 1.0"
    with room.child() as child, pytest.raises(ChildError):
        tried(child, fill, seconds=10)
    still_works(room)


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
def test_answers_and_other_peoples_work_cannot_be_read(room, tmp_path):
    if not protection.landlock() and room.mode in ("user", "process"):
        pytest.skip("this kernel has no Landlock: TEACHING.md says so")
    (tmp_path / "other_student.ipynb").write_text("{}")
    paths = [str(p) for p in coursework.FOLDER.rglob("*.py")]
    paths += [
        str(coursework.ROOT / "moe_np" / "numerics.py"),
        str(tmp_path / "other_student.ipynb"),
        "/etc/passwd",
    ]
    paths += [
        "/proc/1/environ",
        f"/proc/{os.getpid()}/environ",
        f"/proc/{os.getpid()}/mem",
        __file__,
    ]
    paths += [os.path.relpath(paths[0], "/tmp")]
    with room.child() as child:
        assert tried(child, SECRETS, paths) == []
        with pytest.raises(Refused, match="No module named"):
            tried(
                child,
                "import moe_np.base.checks\nfrom moe_np.base.numerics import softmax as attack",
            )


@LINUX
def test_no_network_no_tracing_no_new_namespaces_no_hand_on_others(room, tmp_path):
    if room.mode in ("user", "process") and not (
        protection.landlock() and platform.machine() in TABLES
    ):
        pytest.skip("what is open then, TEACHING.md says")
    mine = tmp_path / "mine"
    mine.write_text("unharmed")
    names = {
        "socket": "__import__('socket').socket()",
        "unshare": "1 / (1 + ctypes.CDLL(None).unshare(0x10000000))",
        "ptrace": "1 / (1 + ctypes.CDLL(None).ptrace(16, 1, 0, 0))",
        "memfd": "os.memfd_create('x')",
        "mount": "1 / (1 + ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None))",
        "signal": f"os.kill({os.getpid()}, 0)",
        "thread": f"1 / (1 + ctypes.CDLL(None).syscall(ctypes.c_long({TGKILL}), {os.getpid()}, {os.getpid()}, 0))",
        "pipe": f"__import__('fcntl').fcntl(os.pipe()[0], 8, {os.getpid()})",  # whom it signals: F_SETOWN
        "outliving": "1 / (1 + ctypes.CDLL(None).prctl(1, 0, 0, 0, 0))",
        "limits": f"__import__('resource').prlimit({os.getpid()}, 0, (1, 1))",
        "priority": f"os.setpriority(0, {os.getpid()}, 19)",
        "mode": f"os.chmod({str(mine)!r}, 0)",
        "times": f"os.utime({str(mine)!r}, (1, 1))",
        "length": f"os.truncate({str(mine)!r}, 0)",
        "removal": f"os.unlink({str(mine)!r})",
        "name": f"os.rename({str(mine)!r}, 'x')",
        "shared": "1 / (1 + ctypes.CDLL(None).shmget(0, 4096, 0o1666))",
        "setuid": "os.setuid(0) or os.getuid() == 0 or 1 / 0"
        if room.mode != "process"
        else "1 / 0",
    }
    with room.child() as child:
        for name, line in names.items():
            with pytest.raises(Refused):
                tried(child, f"import os, ctypes\ndef attack():\n    {line}\n    return '{name}'")
    assert mine.read_text() == "unharmed" and mine.stat().st_mode & 0o600 == 0o600


REPEATS = """
import random
import numpy as np
def attack():
    where = repr(object()) if {linux} else ""
    return [np.random.default_rng().random(), np.random.normal(), random.random(), hash("x"), where]
"""


@pytest.mark.slow
def test_chance_repeats_or_a_grading_would_not(room):
    values = []
    for _ in range(2):
        with room.child() as child:
            values.append(tried(child, REPEATS.format(linux=sys.platform == "linux")))
    assert values[0] == values[1]
