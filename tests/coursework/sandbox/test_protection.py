"""Every promise that is printed is tried, and a probe notices when it does not hold."""

import platform
import sys

import pytest

from moe_np.coursework.sandbox import Sandbox, landlock, possible_modes, protection, seccomp
from tests.support import coursework

COMPLETE = sys.platform == "linux" and platform.machine() in seccomp.AUDIT_ARCHITECTURES
pytestmark = pytest.mark.skipif(
    not (COMPLETE and landlock.version()), reason="README.md says what is open then"
)
BY_LANDLOCK = {
    "solutions and hidden cases cannot be read",
    "the rest of the package cannot be read",
    "other files of this system cannot be read",
    "the grader's files cannot be written or changed",
}
BY_SECCOMP = {
    "the grader's files cannot be written or changed",
    "system calls that are newer than the filter are refused",
    "no messages to other programs",
    "the grader cannot be signalled",
    "the use of files cannot be watched",
}


def sandbox_in(mode):
    try:
        return Sandbox((), ("numpy",), secret=(coursework.FOLDER,), mode=mode)
    except ValueError as error:
        pytest.skip(str(error))


def broken_promises(sandbox):
    return {what for what, holds in protection.report(sandbox, coursework.FOLDER) if not holds}


@pytest.mark.slow
@pytest.mark.parametrize("mode", possible_modes())
def test_every_promise_holds(mode):
    with sandbox_in(mode) as sandbox:
        rows = protection.report(sandbox, coursework.FOLDER)
        assert [what for what, holds in rows if not holds] == []
        lines = protection.table(sandbox, rows).splitlines()
    assert lines[0] == f"protection: {mode}"
    assert lines[1:-1] == [f"  yes  {what}" for what, _ in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left_out", "broken"),
    [
        ("seccomp.install()", BY_SECCOMP),
        (
            'landlock.restrict(spec["shown"], spec["hidden"], spec["libraries"], spec["work"])',
            BY_LANDLOCK,
        ),
    ],
)
def test_a_probe_notices_what_is_left_out(left_out, broken):
    with sandbox_in("process") as sandbox:
        jail = sandbox.files.base / "programs" / "moe_np" / "coursework" / "sandbox" / "jail.py"
        source = jail.read_text()
        assert source.count(left_out) == 1
        jail.write_text(source.replace(left_out, "pass"))
        # Landlock prevents some of it a second time; without it the filter still prevents the rest
        found = broken_promises(sandbox)
    assert found == broken
