"""A class of cheats and broken files for every assignment: each gets what it knows and no more, and
harms nobody.
"""

import dataclasses
import glob
import os
import pathlib
import sys
import tempfile

import pytest

from moe_np.coursework import checking, gradebook, grading, protection
from moe_np.coursework.sandbox import possible
from tests.support import coursework

simulated = coursework.simulate_class()
LINUX = sys.platform == "linux"


def impatient(assignment):
    """The first questions of an assignment, with little time for the very first, whose answer the
    cheats spoil.
    """
    first, *rest = assignment.questions[:4]
    return assignment._replace(questions=(dataclasses.replace(first, seconds=1.0), *rest))


def processes(word):
    """Processes whose command line has `word` in it."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            found += (
                [path] if word in pathlib.Path(path).read_bytes().decode("utf-8", "replace") else []
            )
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(
    not LINUX, reason="elsewhere a child of the same user can read files: TEACHING.md"
)
@coursework.every_assignment
def test_cheats_get_nothing_for_what_they_fake_and_the_next_student_is_graded(
    name, tmp_path, monkeypatch
):
    if possible()[0] == "process" and not protection.landlock():
        pytest.skip("neither namespaces nor Landlock here: files can be read, as TEACHING.md says")
    assignment = impatient(coursework.assignment(name))
    files = {
        key: (simulated.notebook(assignment, cells), lost)
        for key, (cells, lost) in simulated.cheats(assignment).items()
    }
    files["zz_the_last"] = (simulated.notebook(assignment, simulated.solved(assignment)), [])
    for key, (raw, _) in files.items():
        (tmp_path / "in" / key).mkdir(parents=True)
        (tmp_path / "in" / key / f"{name}.ipynb").write_bytes(raw)
    monkeypatch.setattr(grading, "CELLS", 3.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    graded = gradebook.grade_class(
        assignment, [tmp_path / "in"], tmp_path / "out", seed=1, jobs=4, progress=False
    )
    assert len(graded.rows) == len(files)
    asked = {q.name for q in simulated.functions(assignment)}
    for submission, marked in graded.rows:
        lost = [m.name for m in marked.marks if m.earned == 0 and m.name in asked]
        assert lost == files[submission.student][1], (submission.student, marked)
    said = {s.student: (m.marks[0].message, m.problems) for s, m in graded.rows}
    assert said["endless_loop"] == ("no answer within 1 s", [])
    assert [p.partition(": ")[2] for p in said["cell_never_ends"][1]] == [
        "did not end; all cells together have 3 s."
    ]
    assert not processes(str(tmp_path)), "nothing of it is left"
    assert not glob.glob(str(tmp_path / "moe_np_*"))


@pytest.mark.slow
@coursework.every_assignment
def test_hard_coded_answers_pass_the_visible_checks_and_no_hidden_one(name, tmp_path):
    assignment = coursework.assignment(name)
    path = tmp_path / f"{name}.ipynb"
    path.write_bytes(simulated.notebook(assignment, simulated.cheats(assignment)["hard_coded"][0]))
    checked = list(checking.check(checking.read(path)))
    passed = [c for c in checked if c.passed]
    assert len(passed) >= len(simulated.functions(assignment)) / 2, "or this cheat proves nothing"
    with coursework.sandbox_of(name) as sandbox:
        marked = grading.grade(assignment, coursework.drawn(name), sandbox, path.read_bytes())
    assert marked.total == 0 and os.path.exists(path)


@pytest.mark.slow
@coursework.every_assignment
def test_the_solution_passes_the_visible_checks_by_the_names_of_grading(name, tmp_path):
    assignment = coursework.assignment(name)
    path = tmp_path / f"{name}.ipynb"
    path.write_bytes(simulated.notebook(assignment, simulated.solved(assignment)))
    checked = list(checking.check(checking.read(path)))
    assert [c.name for c in checked] == [q.name for q in assignment.questions]
    assert all(c.passed is not False for c in checked), checked
