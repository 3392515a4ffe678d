"""A class of cheats and broken files, for every assignment.

Each gets the points of what it knows and no others, and harms nobody.
"""

import dataclasses
import glob
import os
import pathlib
import socket
import sys
import tempfile

import pytest

from moe_np.coursework import checking, gradebook, grading
from moe_np.coursework.sandbox import landlock, possible_modes
from tests.support import coursework

simulated = coursework.simulate_class()
LINUX = sys.platform == "linux"


def with_little_time(assignment):
    """The first questions of an assignment, with little time for the very first.

    The cheats spoil its answer.
    """
    first, *rest = assignment.questions[:4]
    return assignment._replace(questions=(dataclasses.replace(first, seconds=1.0), *rest))


def processes(word):
    """Processes with a word in their command line."""
    paths = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            text = pathlib.Path(path).read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        paths += [path] if word in text else []
    return paths


HARMFUL_ALIKE = {*simulated.HARMFUL_ANSWERS, *simulated.HARMFUL_CELLS}


def classes():
    """(assignment, whether all kinds of work are handed in). What ends, fills or forks a process
    does the same in any notebook: one assignment gets it here, and each of them at night.
    """
    for parameter in coursework.PARAMETERS:
        (name,) = parameter.values
        nightly = () if name == coursework.NAME else (pytest.mark.nightly,)
        marks = (*parameter.marks, *nightly)
        yield pytest.param(name, True, id=f"{name}-all", marks=marks)
        if nightly:
            yield pytest.param(name, False, id=f"{name}-fakes", marks=parameter.marks)


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="a child of the same user can read files: TEACHING.md")
@pytest.mark.parametrize(("name", "with_harmful"), list(classes()))
def test_cheats_get_nothing_for_what_they_fake_and_the_next_student_is_graded(
    name, with_harmful, tmp_path, monkeypatch
):
    if possible_modes()[0] == "process" and not landlock.version():
        pytest.skip("neither namespaces nor Landlock here: files can be read, as TEACHING.md says")
    assignment = with_little_time(coursework.assignment(name))
    work = dict(simulated.cheats(assignment))
    if not with_harmful:
        work = {kind: handed_in for kind, handed_in in work.items() if kind not in HARMFUL_ALIKE}
    work["zz_the_last"] = (simulated.solved(assignment), [])
    for student, (cells, _) in work.items():
        (tmp_path / "in" / student).mkdir(parents=True)
        raw = simulated.notebook_bytes(assignment, cells)
        (tmp_path / "in" / student / f"{name}.ipynb").write_bytes(raw)
    monkeypatch.setattr(grading, "CELLS_SECONDS", 3.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    graded = gradebook.grade_class(
        assignment, [tmp_path / "in"], tmp_path / "out", seed=1, jobs=4, progress=False
    )
    assert len(graded.rows) == len(work)
    questions = {question.name for question in simulated.functions(assignment)}
    for submission, marked in graded.rows:
        lost = [mark.name for mark in marked.marks if mark.earned == 0 and mark.name in questions]
        assert lost == work[submission.student][1], (submission.student, marked)
    if with_harmful:
        results = {submission.student: marked for submission, marked in graded.rows}
        endless = results["endless_loop"]
        assert (endless.marks[0].message, endless.problems) == ("no answer within 1 s", [])
        assert [text.partition(": ")[2] for text in results["cell_never_ends"].problems] == [
            "did not end; all cells together have 3 s."
        ]
    assert not processes(str(tmp_path)), "no process is left"
    assert not glob.glob(str(tmp_path / "moe_np_*"))


# Each of these once cost another student a mark, or the grader its life or time.
HARMFUL = {
    "long_text": "def softmax(s):\n    return ['x' * 3_500_000] + ['a'] * 150",
    "arrays_that_become_complex": "import numpy as np\ndef softmax(s):\n"
    "    return [*[np.zeros(41_000, np.uint8)] * 1000, 1j]",
    "large_array": "import numpy as np\ndef softmax(s):\n    return np.zeros((10**3, 8 * 10**3))",
    "signal_by_ioctl": """
import fcntl, os, socket, struct
def softmax(s):
    a, b = socket.socketpair()
    fcntl.ioctl(a, 0x8901, struct.pack("i", {pid}))
    fcntl.ioctl(a, 0x5452, struct.pack("i", 1))
    b.send(b"x")
    return s
""",
    "rights_by_a_new_call": """
import ctypes, struct
ACL = struct.pack("<IHHIHHIHHI", 2, 1, 0, 2**32 - 1, 4, 0, 2**32 - 1, 32, 0, 2**32 - 1)
def softmax(s):
    value = ctypes.create_string_buffer(ACL)
    arguments = struct.pack("QII", ctypes.addressof(value), len(ACL), 0)
    ctypes.CDLL(None).syscall(463, -100, {folder}, 0, b"system.posix_acl_access", arguments, 16)
    return s
""",
    "removed_files": """
import time
kept = []
def softmax(s):
    for i in range(50):
        kept.append(open("f", "wb"))
        kept[-1].write(bytes(2 * 10**6))
        kept[-1].flush()
        __import__("os").unlink("f")
    time.sleep(1)
    return s
""",
    "message_to_a_service": """
import socket
def softmax(s):
    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", {service})
    return s
""",
}


def memory_in_use():
    """The largest amount that this process has had so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="TEACHING.md says what is open elsewhere")
@pytest.mark.parametrize("mode", possible_modes())
def test_harmful_notebooks_cost_nobody_else_a_mark(mode, tmp_path):
    if mode in ("user", "process") and not landlock.version():
        pytest.skip("no Landlock here: TEACHING.md says what is open then")
    try:
        coursework.sandbox_of(mode=mode).close()
    except ValueError as error:
        pytest.skip(str(error))
    assignment = with_little_time(coursework.assignment())
    folder = tmp_path / "in"
    folder.mkdir()
    before = folder.stat().st_mode
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(tmp_path / "socket"))
        service.setblocking(False)
        (tmp_path / "socket").chmod(0o666)
        names = {"{pid}": str(os.getpid()), "{folder}": repr(os.fsencode(folder))}
        names["{service}"] = repr(str(tmp_path / "socket"))
        for number, (kind, source) in enumerate(HARMFUL.items()):
            for name, value in names.items():
                source = source.replace(name, value)
            first = assignment.questions[0].name
            cells = simulated.solved(assignment, {first: source})
            raw = simulated.notebook_bytes(assignment, cells)
            (folder / f"{number}a_{kind}.ipynb").write_bytes(raw)
            honest = simulated.notebook_bytes(assignment, simulated.solved(assignment))
            (folder / f"{number}b_honest.ipynb").write_bytes(honest)
        (folder / "many_values.ipynb").write_bytes(b"[" + b'{"a":0},' * 2_300_000 + b"0]")
        start = memory_in_use()
        graded = gradebook.grade_class(
            assignment, [folder], tmp_path / "out", seed=1, jobs=3, mode=mode, progress=False
        )
        used = memory_in_use() - start
        with pytest.raises(BlockingIOError):
            service.recv(9)
    points = [question.points for question in assignment.questions]
    assert len(graded.rows) == 2 * len(HARMFUL) + 1
    for submission, marked in graded.rows:
        earned = [mark.earned for mark in marked.marks]
        if "honest" in submission.student:
            assert earned == points, (submission.student, marked)
        elif "many_values" in submission.student:
            assert sum(earned) == 0 and "values; clear the outputs" in marked.problems[0]
        else:
            assert earned == [0, *points[1:]], (submission.student, marked)
    assert folder.stat().st_mode == before
    assert used < 400_000_000


@pytest.mark.slow
@coursework.every_assignment
def test_hard_coded_answers_pass_the_visible_checks_and_no_hidden_one(name, tmp_path):
    assignment = coursework.assignment(name)
    path = tmp_path / f"{name}.ipynb"
    cells, _ = simulated.cheats(assignment)["hard_coded"]
    path.write_bytes(simulated.notebook_bytes(assignment, cells))
    passed = [result for result in checking.check(checking.read(path)) if result.passed]
    assert len(passed) >= len(simulated.functions(assignment)) / 2, "or this cheat proves nothing"
    with coursework.sandbox_of(name) as sandbox:
        marked = grading.grade(assignment, coursework.drawn(name), sandbox, path.read_bytes())
    assert marked.total == 0 and path.exists()
