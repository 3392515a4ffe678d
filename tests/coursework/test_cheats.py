"""A class of cheats and broken files, for every assignment.

Each gets the points of what it knows and no others, and harms nobody.
"""

import dataclasses
import glob
import pathlib
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


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="a child of the same user can read files: TEACHING.md")
@coursework.every_assignment
def test_cheats_get_nothing_for_what_they_fake_and_the_next_student_is_graded(
    name, tmp_path, monkeypatch
):
    if possible_modes()[0] == "process" and not landlock.version():
        pytest.skip("neither namespaces nor Landlock here: files can be read, as TEACHING.md says")
    assignment = with_little_time(coursework.assignment(name))
    work = dict(simulated.cheats(assignment))
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
    results = {submission.student: marked for submission, marked in graded.rows}
    endless = results["endless_loop"]
    assert (endless.marks[0].message, endless.problems) == ("no answer within 1 s", [])
    assert [text.partition(": ")[2] for text in results["cell_never_ends"].problems] == [
        "did not end; all cells together have 3 s."
    ]
    assert not processes(str(tmp_path)), "no process is left"
    assert not glob.glob(str(tmp_path / "moe_np_*"))


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
