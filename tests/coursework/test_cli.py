"""What a teacher and a student type: release, check, grade; what comes out, and that it repeats."""

import csv
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from moe_np import cli
from moe_np.coursework import assignments, gradebook, percent, reports
from moe_np.coursework.grading import Mark, Marked, plain
from moe_np.coursework.submissions import Submission, collect, identify
from tests.support import coursework

NAME = "1_mixture"
simulated = coursework.simulate_class()


def moe_np(*arguments):
    where = () if arguments[0] == "check" else ("--assignments", coursework.FOLDER)
    return cli.main(["coursework", *map(str, (*arguments, *where))])


def written(folder):
    """{relative path: bytes} of all files below."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def a_class(folder, kinds=("untouched", "not_a_notebook", "syntax_error"), honest=2):
    """A few submissions: {student: questions that are lost}."""
    assignment, bad = coursework.assignment(NAME), simulated.cheats(coursework.assignment(NAME))
    work = {f"honest{i}": (simulated.solved(assignment), []) for i in range(honest)} | {
        k: bad[k] for k in kinds
    }
    folder.mkdir(exist_ok=True)
    for name, (cells, _) in work.items():
        (folder / f"{name}.ipynb").write_bytes(simulated.notebook(assignment, cells))
    return {name: lost for name, (_, lost) in work.items()}


# --- A student ------------------------------------------------------------------------------------


def test_list(capsys):
    assert moe_np("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == coursework.NAMES
    assert moe_np("list", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts[0]["name"] == NAME and facts[0]["points"] == 20 and len(facts[0]["questions"]) == 7


@coursework.every_assignment
def test_a_release_holds_what_a_student_needs_and_nothing_else(name, tmp_path, capsys):
    assert moe_np("release", name, tmp_path) == 0
    files = written(tmp_path)
    assert {f"{name}.ipynb", "README.md"} <= set(files)
    assert set(capsys.readouterr().out.split()) == {str(tmp_path / f) for f in files}
    everything = b"\n".join(files.values()).decode()
    assert not any(
        word in everything for word in ("SOLUTION", "HIDDEN", "hidden_test", "questions.py")
    )
    notebook = json.loads(files[f"{name}.ipynb"])
    assert all(not c.get("outputs") for c in notebook["cells"])
    assert len({c["id"] for c in notebook["cells"]}) == len(notebook["cells"])
    moe_np("release", name, tmp_path)
    assert written(tmp_path) == files, "the same bytes again"


@pytest.mark.slow
def test_a_release_is_nbgraders_and_jupytexts(tmp_path):
    """Where they are installed: the notebook is valid, and Jupytext reads the source as we do."""
    nbformat, jupytext = pytest.importorskip("nbformat"), pytest.importorskip("jupytext")
    moe_np("release", NAME, tmp_path)
    nbformat.validate(nbformat.read(tmp_path / f"{NAME}.ipynb", as_version=4))
    theirs = jupytext.read(coursework.FOLDER / NAME / "assignment.py")
    ours = coursework.assignment(NAME).cells
    assert [c.source for c in theirs.cells] == [c.source for c in ours]
    assert [c.metadata.get("nbgrader", {}) for c in theirs.cells] == [c.nbgrader for c in ours]


def test_check_tells_by_name_what_is_right(tmp_path, capsys):
    assignment = coursework.assignment(NAME)
    path = tmp_path / "mine.ipynb"
    answers = {
        "q1_softmax": assignments.bank(NAME, coursework.FOLDER)["q1_softmax"]["wrong"]["wrong axis"]
    }
    path.write_bytes(simulated.notebook(assignment, simulated.solved(assignment, answers)))
    assert moe_np("check", path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("q1_softmax: not yet. AssertionError: exp(s) shared out by rows")
    assert lines[1:-1] == [f"{q.name}: right" for q in assignment.questions[1:]]
    given = assignment.cells[1]
    cells = [
        c._replace(source="import math") if c.grade_id == "setup" else c
        for c in simulated.solved(assignment)
    ]
    assert given.grade_id == "setup"
    path.write_bytes(simulated.notebook(assignment, cells))
    assert moe_np("check", path) == 0, "given cells are run as they were handed out, as in grading"
    capsys.readouterr()
    path.write_text("{}")
    assert moe_np("check", path) == 2
    assert capsys.readouterr().err.startswith(f"moe-np: error: {path}: wanted a Jupyter notebook")


def test_without_a_checkout_the_error_says_where_assignments_are_looked_for(tmp_path, capsys):
    assert cli.main(["coursework", "list", "--assignments", str(tmp_path / "none")]) == 2
    assert "say where with --assignments DIR or MOE_NP_ASSIGNMENTS" in capsys.readouterr().err
    assert cli.main(["coursework", "list", "--assignments", str(tmp_path)]) == 2
    assert f"got none in {tmp_path}" in capsys.readouterr().err
    assert moe_np("release", "9_none", tmp_path) == 2
    assert (
        f"assignment: wanted one of {', '.join(coursework.NAMES)}; got '9_none'"
        in capsys.readouterr().err
    )


# --- A teacher ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_class_is_graded_the_same_to_the_bit_however_many_jobs(tmp_path, capsys):
    lost = a_class(tmp_path / "in")
    for jobs, out in ((1, "a"), (2, "b")):
        assert (
            moe_np(
                "grade", NAME, tmp_path / "in", "--out", tmp_path / out, "--seed", 5, "--jobs", jobs
            )
            == 0
        )
    a, b = written(tmp_path / "a"), written(tmp_path / "b")
    assert a == b
    rows = list(csv.DictReader(a["grades.csv"].decode().splitlines()))
    assert list(rows[0])[:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert list(rows[0])[5:] == [q.name for q in coursework.assignment(NAME).questions] + ["total"]
    for row in rows:
        assert [k for k, v in row.items() if k.startswith("q") and v == "0"] == lost[row["Student"]]
        assert float(row["total"]) == sum(float(v) for k, v in row.items() if k.startswith("q"))
        page = a[f"students/{row['Student']}/feedback.html"].decode()
        assert f"{row['total']} of 20 points" in page
        results = json.loads(a[f"students/{row['Student']}/results.json"])
        assert results["score"] == float(row["total"]) == sum(t["score"] for t in results["tests"])
        assert [t["max_score"] for t in results["tests"]] == [2, 3, 3, 2, 3, 4, 3]
    summary = a["summary.md"].decode()
    assert "| q1_softmax | 2 | 0.80 | 2 of 5 |" in summary and "SyntaxError" in summary
    assert "total" in capsys.readouterr().out


@pytest.mark.slow
def test_grading_goes_on_where_it_stopped(tmp_path, capsys, monkeypatch):
    a_class(tmp_path / "in", kinds=("untouched",), honest=1)
    arguments = ("grade", NAME, tmp_path / "in", "--out", tmp_path / "out")
    assert moe_np(*arguments) == 0
    first = written(tmp_path / "out")
    made = []
    real = gradebook.grading.grade
    monkeypatch.setattr(gradebook.grading, "grade", lambda *a: made.append(1) or real(*a))
    assert moe_np(*arguments) == 0 and not made, "the seed is kept, nothing is graded again"
    assert written(tmp_path / "out") == first
    (tmp_path / "in" / "late.ipynb").write_text("{}")
    assert moe_np(*arguments) == 0 and len(made) == 1
    assert moe_np(*arguments, "--seed", "9") == 0 and len(made) == 4, (
        "other hidden inputs: all anew"
    )
    (tmp_path / "out" / "grading.json").write_text('{"assignment": "other", "seed": 1}')
    assert moe_np(*arguments) == 2
    assert "got one with grades of other" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_grading_leaves_nothing_half_and_no_process(tmp_path):
    a_class(tmp_path / "in", kinds=("endless_loop",), honest=3)
    command = [
        sys.executable,
        "-m",
        "moe_np",
        "coursework",
        "grade",
        NAME,
        str(tmp_path / "in"),
        "--out",
    ]
    command += [str(tmp_path / "out"), "--jobs", "2", "--assignments", str(coursework.FOLDER)]
    process = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    until = time.monotonic() + 60
    while not list(tmp_path.glob("out/students/*/marks.json")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in tmp_path.glob("out/students/*/*.json"):
        json.loads(path.read_text())
    assert not (tmp_path / "out" / "grades.csv").exists()
    until = time.monotonic() + 5
    while (left := _named(str(tmp_path / "moe_np_"))) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left, "the children of a killed grader end with it"


def _named(word):
    out = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            out += [path] if word.encode() in path.read_bytes() else []
        except OSError:
            continue
    return out


# --- Whose file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "student", "id_", "login"),
    [
        ("lovelaceada_12345_678901_1_mixture.ipynb", "lovelaceada", "12345", ""),
        ("lovelaceada_LATE_12345_678901_1_mixture-2.ipynb", "lovelaceada", "12345", ""),
        ("Ada Lovelace_77_assignsubmission_file_/work.ipynb", "Ada Lovelace", "77", ""),
        ("Ada Lovelace_77_assignsubmission_file_work.ipynb", "Ada Lovelace", "77", ""),
        ("submitted/ada/1_mixture/1_mixture.ipynb", "ada", "", "ada"),
        ("ada/1_mixture/1_mixture.ipynb", "ada", "", "ada"),
        ("1_mixture/ada/work.ipynb", "ada", "", "ada"),
        ("ada/1_mixture.ipynb", "ada", "", "ada"),
        ("submission_4711/1_mixture.ipynb", "submission_4711", "", "submission_4711"),
        ("ada.ipynb", "ada", "", "ada"),
        ("1_mixture_ada.ipynb", "ada", "", "ada"),
        ("ada-1_mixture.ipynb", "ada", "", "ada"),
        ("1_mixture.ipynb", "1_mixture", "", "1_mixture"),
        ("Zoë Ångström.ipynb", "Zoë Ångström", "", "Zoë Ångström"),
        ("Eve_77_assignsubmission_file_/Ada_12_assignsubmission_file_/work.ipynb", "Eve", "77", ""),
        ("Eve_77_assignsubmission_file_/Ada_12_assignsubmission_file_work.ipynb", "Eve", "77", ""),
        ("eve/lovelaceada_12345_678901_1_mixture.ipynb", "eve", "", "eve"),
        ("eve/Ada_12_assignsubmission_file_/work.ipynb", "eve", "", "eve"),
        ("eve/ada/1_mixture/work.ipynb", "eve", "", "eve"),
        ("submitted/eve/ada/1_mixture/work.ipynb", "eve", "", "eve"),
    ],
)
def test_file_names_of_learning_platforms(path, student, id_, login):
    root = pathlib.Path("/somewhere")
    assert identify(root / path, root, NAME)[:3] == (student, id_, login)


def test_what_is_collected(tmp_path):
    for name in (
        "ada/a-1.ipynb",
        "ada/a-10.ipynb",
        "ada/a-2.ipynb",
        "bob/notes.txt",
        "eve/.ipynb_checkpoints/x.ipynb",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "eve" / "link.ipynb").symlink_to(tmp_path / "ada" / "a-1.ipynb")
    found, remarks = collect([tmp_path], NAME)
    names = [(s.student, s.path and s.path.name) for s, _ in found]
    assert names == [("ada", "a-10.ipynb"), ("bob", None), ("eve", None)]
    assert len(remarks) == 2 and "a-10.ipynb is graded" in remarks[-1]
    assert collect([tmp_path], NAME, tmp_path / "bob" / ".." / "ada")[0][0][0].student == "bob", (
        "grades lie there"
    )


@pytest.mark.parametrize(
    "name", ["ada_12_34_1_mixture.ipynb", "ada_12_assignsubmission_file_/1_mixture.ipynb"]
)
def test_archives_unpacked_and_not(name, tmp_path):
    path = tmp_path / "submissions" / name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert [s[:3] for s, _ in collect([tmp_path], NAME)[0]] == [("ada", "12", "")]
    (tmp_path / "submissions.zip").write_bytes(b"")
    with pytest.raises(ValueError, match="an archive unpacked"):
        collect([tmp_path / "submissions.zip"], NAME)


def test_files_that_are_no_notebooks_cost_their_own_student(tmp_path, capsys, monkeypatch):
    a_class(tmp_path / "in", kinds=(), honest=1)
    monkeypatch.setattr(percent, "LARGEST", 100_000)
    (tmp_path / "in" / "large.ipynb").write_bytes(b" " * 200_000)
    (tmp_path / "in" / "folder.ipynb").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "in" / "pipe.ipynb")
    odd = '{"cells": [{"cell_type": "code", "source": "x", "metadata": {"nbgrader": {"grade_id": ["a"]}}}]}'
    (tmp_path / "in" / "odd.ipynb").write_text(odd)
    (tmp_path / "in" / "surrogate.ipynb").write_text(
        '{"cells": [{"cell_type": "code", "source": "raise \\ud800"}]}'
    )
    assert moe_np("grade", NAME, tmp_path / "in", "--out", tmp_path / "out") == 0
    rows = {
        r["Student"]: r["total"]
        for r in csv.DictReader((tmp_path / "out" / "grades.csv").read_text().splitlines())
    }
    assert rows == {
        "honest0": "20",
        "large": "0",
        "odd": "0",
        "surrogate": "0",
        "folder.ipynb": "0",
    }


@pytest.mark.slow
def test_a_fault_of_the_grader_is_told_and_not_stored(tmp_path, capsys, monkeypatch):
    a_class(tmp_path / "in", kinds=(), honest=1)
    with monkeypatch.context() as patch:
        patch.setattr(gradebook.grading, "grade", lambda *a: 1 / 0)
        assert moe_np("grade", NAME, tmp_path / "in", "--out", tmp_path / "out") == 0
        assert "honest0: the grader itself failed (ZeroDivisionError" in capsys.readouterr().err
    assert moe_np("grade", NAME, tmp_path / "in", "--out", tmp_path / "out") == 0
    assert ",20\n" in (tmp_path / "out" / "grades.csv").read_text()


def test_names_make_no_paths_and_no_formulas(tmp_path):
    evil = [
        Submission(s, "", s, None)
        for s in ("../../etc/passwd", "..", "=cmd|' /C calc'!A0", "a\nb", "", "ü", "ß")
    ]
    for one in evil:
        assert (
            "/" not in one.slug
            and "\\" not in one.slug
            and not one.slug.startswith(".")
            and one.slug
        )
    assignment = coursework.assignment(NAME)
    nothing = Marked(
        [Mark(q.name, q.points, 0, "<script>alert(1)</script>") for q in assignment.questions],
        ["<b>|x"],
    )
    text = reports.grades_csv(assignment, [(s, nothing) for s in evil])
    assert not any(row[0].startswith("=") for row in csv.reader(text.splitlines()))
    assert "<script>" not in reports.feedback(assignment, evil[0], nothing)
    assert "<b>" not in reports.summary(assignment, [(s, nothing) for s in evil], [])


def test_what_students_write_is_made_plain():
    assert plain("a\x1b[31mb\nc\ud800") == "a [31mb c?" and len(plain("x" * 10_000)) < 600


@pytest.mark.slow
def test_the_guides_question_of_ones_own_proves_itself(tmp_path, capsys):
    guide = (coursework.FOLDER / "TEACHING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n# mine/7_own/(\w+\.py)\n(.*?)```", guide, re.S)
    assert [name for name, _ in blocks] == ["questions.py", "assignment.py", "bank.py"]
    (tmp_path / "7_own").mkdir()
    for name, text in blocks:
        (tmp_path / "7_own" / name).write_text(text, encoding="utf-8")
    assert cli.main(["coursework", "prove", "7_own", "--assignments", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("\n| q1_centre |") == 6
    bank = tmp_path / "7_own" / "bank.py"
    bank.write_text(bank.read_text().replace("x - x.mean(axis=0)", "x - x.mean(axis=1)[:, None]"))
    assignments._module.cache_clear()
    assert cli.main(["coursework", "prove", "7_own", "--assignments", str(tmp_path)]) == 2
    assert "1 of 6 answers are not graded as wanted" in capsys.readouterr().err


# --- Marked by hand -------------------------------------------------------------------------------


def test_points_given_by_hand_are_put_in(tmp_path):
    assignment = coursework.assignment(NAME)
    submission = Submission("ada", "", "ada", None)

    def marked():
        marks = [Mark(q.name, q.points, q.points, "") for q in assignment.questions[:-1]]
        return Marked([*marks, Mark("q7_report", 3, None, "", "because\nof this")], [])

    ((_, first),) = gradebook.by_hand(assignment, tmp_path, [(submission, marked())], ["ada"])
    assert first.marks[-1].earned is None and first.total == 17
    path = tmp_path / "by_hand.csv"
    text = path.read_text()
    assert text.splitlines()[0] == "student,question,of,points,key,answer" and "because" in text
    path.write_text(text.replace("ada,q7_report,3,,", "ada,q7_report,3,2.5,"))
    ((_, second),) = gradebook.by_hand(assignment, tmp_path, [(submission, marked())], ["ada"])
    assert (
        second.total == 19.5
        and "2.5 / 3" in (tmp_path / "students" / "ada" / "feedback.html").read_text()
    )
    spreadsheet = (
        path.read_text()
        .replace(",", ";")
        .replace("2.5", "2,5")
        .replace("because\nof", "weil\xe4\r\n")
    )
    path.write_bytes(spreadsheet.encode("latin-1"))
    ((_, third),) = gradebook.by_hand(assignment, tmp_path, [(submission, marked())], ["ada"])
    assert third.total == 19.5 and "because" in path.read_text(), (
        "whatever a spreadsheet makes of the words"
    )
    path.write_text(path.read_text().replace("2,5", "7"))
    with pytest.raises(ValueError, match="ada: q7_report: wanted points from 0 to 3, got '7'"):
        gradebook.by_hand(assignment, tmp_path, [(submission, marked())], ["ada"])


def test_a_text_answer_is_found_and_an_untouched_one_is_none():
    cell = percent.Cell(
        "markdown", "my words", {"nbgrader": {"grade_id": "q9", "grade": True, "solution": True}}
    )
    question = gradebook.grading.nothing
    assert (
        question and gradebook.grading.by_hand(type("Q", (), {"name": "q9"}), [cell]) == "my words"
    )
    untouched = percent.without_solution(cell)
    assert gradebook.grading.by_hand(type("Q", (), {"name": "q9"}), [untouched]) == ""
