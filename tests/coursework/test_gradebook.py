"""A class: the same grades every time, none lost, points that a teacher gives by hand."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from moe_np.base import files
from moe_np.coursework import gradebook, grading, notebook, submissions
from tests.support import coursework
from tests.support.coursework import NAME, files_below, moe_np, write_class


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.slow
def test_a_class_is_graded_the_same_to_the_bit_for_any_number_of_jobs(tmp_path, capsys):
    lost = write_class(tmp_path / "in")
    options = ("--seed", 5, "--jobs")
    for jobs, out in ((1, "a"), (2, "b")):
        arguments = ("grade", NAME, tmp_path / "in", "--out", tmp_path / out)
        assert moe_np(*arguments, *options, jobs) == 0
    files = files_below(tmp_path / "a")
    assert files == files_below(tmp_path / "b")
    rows = table(tmp_path / "a" / "grades.csv")
    questions = [question.name for question in coursework.assignment().questions]
    assert list(rows[0])[:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert list(rows[0])[5:] == [*questions, "total", "remark"]
    for row in rows:
        student = row["Student"]
        assert [name for name in questions if row[name] == "0"] == lost[student]
        assert float(row["total"]) == sum(float(row[name]) for name in questions)
        page = files[f"students/{student}/feedback.html"].decode()
        assert f"{row['total']} of 20 points" in page
        results = json.loads(files[f"students/{student}/results.json"])
        scores = [test["score"] for test in results["tests"]]
        assert results["score"] == float(row["total"]) == sum(scores)
        assert [test["max_score"] for test in results["tests"]] == [2, 3, 3, 2, 3, 4, 3]
    summary = files["summary.md"].decode()
    assert "| q1_softmax | 2 | 0.80 | 2 of 5 |" in summary and "SyntaxError" in summary
    assert "total" in capsys.readouterr().out


@pytest.mark.slow
def test_grading_continues_where_it_stopped(tmp_path, capsys, monkeypatch):
    write_class(tmp_path / "in", kinds=("untouched",), honest=1)
    arguments = ("grade", NAME, tmp_path / "in", "--out", tmp_path / "out")
    assert moe_np(*arguments) == 0
    first = files_below(tmp_path / "out")
    calls = []
    grade = grading.grade
    monkeypatch.setattr(grading, "grade", lambda *a: calls.append(1) or grade(*a))
    assert moe_np(*arguments) == 0 and not calls, "the seed is kept, no notebook is graded twice"
    assert files_below(tmp_path / "out") == first
    (tmp_path / "in" / "late.ipynb").write_text("{}")
    assert moe_np(*arguments) == 0 and len(calls) == 1
    assert moe_np(*arguments, "--seed", "9") == 0 and len(calls) == 4, "other hidden inputs"
    (tmp_path / "out" / "grading.json").write_text('{"assignment": "other", "seed": 1}')
    assert moe_np(*arguments) == 2
    assert "got one with grades of other" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_grading_leaves_no_half_file_and_no_process(tmp_path):
    write_class(tmp_path / "in", kinds=("endless_loop",), honest=3)
    arguments = ("grade", NAME, tmp_path / "in", "--out", tmp_path / "out", "--jobs", 2)
    arguments = (*arguments, "--assignments", coursework.FOLDER)
    command = [sys.executable, "-m", "moe_np", "coursework", *map(str, arguments)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("out/students/*/marks.json")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in tmp_path.glob("out/students/*/*.json"):
        json.loads(path.read_text())
    assert not (tmp_path / "out" / "grades.csv").exists()
    until = time.monotonic() + 5
    while (left := processes(str(tmp_path / "moe_np_"))) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left, "the children of a killed grader end with it"


def processes(word):
    """Processes with a word in their command line."""
    paths = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            paths += [path] if word.encode() in path.read_bytes() else []
        except OSError:
            continue
    return paths


@pytest.mark.seconds
def test_files_that_are_no_notebooks_cost_their_own_student(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "in"
    write_class(folder, kinds=(), honest=1)
    monkeypatch.setattr(notebook, "LARGEST", 100_000)
    (folder / "large.ipynb").write_bytes(b" " * 200_000)
    (folder / "folder.ipynb").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.ipynb")
    odd = {"cell_type": "code", "source": "x", "metadata": {"nbgrader": {"grade_id": ["a"]}}}
    (folder / "odd.ipynb").write_text(json.dumps({"cells": [odd]}))
    surrogate = '{"cells": [{"cell_type": "code", "source": "raise \\ud800"}]}'
    (folder / "surrogate.ipynb").write_text(surrogate)
    assert moe_np("grade", NAME, folder, "--out", tmp_path / "out") == 0
    rows = {row["Student"]: row["total"] for row in table(tmp_path / "out" / "grades.csv")}
    students = {"large", "odd", "surrogate", "folder.ipynb", "pipe"}
    students -= set() if hasattr(os, "mkfifo") else {"pipe"}
    assert rows == {"honest0": "20", **dict.fromkeys(students, "0")}


@pytest.mark.slow
def test_a_fault_of_the_grader_is_reported_and_not_stored(tmp_path, capsys, monkeypatch):
    write_class(tmp_path / "in", kinds=(), honest=1)
    arguments = ("grade", NAME, tmp_path / "in", "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(grading, "grade", lambda *a: 1 / 0)
        assert moe_np(*arguments) == 1
        (row,) = table(tmp_path / "out" / "grades.csv")
        assert row["total"] == row["q1_softmax"] == "" and row["remark"] == "not graded"
        assert "honest0: the grader itself failed (ZeroDivisionError" in capsys.readouterr().err
    assert moe_np(*arguments) == 0
    assert ",20,\n" in (tmp_path / "out" / "grades.csv").read_text()


def unreadable(monkeypatch, name):
    """Let the system refuse to read a submission of this name."""
    read = submissions.read

    def refuse(submission):
        if submission.path.name == name:
            raise PermissionError(13, "Permission denied", str(submission.path))
        return read(submission)

    monkeypatch.setattr(submissions, "read", refuse)


@pytest.mark.slow
def test_a_file_that_the_grader_cannot_read_is_no_0(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "in"
    write_class(folder, kinds=("untouched",), honest=0)
    (folder / "shut.ipynb").write_text("{}")
    arguments = ("grade", NAME, folder, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        unreadable(patch, "shut.ipynb")
        assert moe_np(*arguments) == 1
    error = capsys.readouterr().err
    assert "shut.ipynb cannot be read by the grader (Permission denied): no marks" in error
    shut, untouched = table(tmp_path / "out" / "grades.csv")
    assert {shut[q] for q in shut if q.startswith("q") or q == "total"} == {""}
    assert shut["remark"] == "not graded" and untouched["total"] == "0"
    assert not (tmp_path / "out" / "students" / "shut").exists(), "nothing is stored"
    assert moe_np(*arguments) == 0


@pytest.mark.slow
def test_who_was_graded_in_another_call_keeps_the_row_and_the_points(tmp_path, capsys):
    folder = tmp_path / "in"
    write_class(folder, kinds=("untouched", "not_a_notebook"), honest=0)
    write_class(tmp_path / "late", kinds=("syntax_error",), honest=0)
    out = tmp_path / "out"
    assert moe_np("grade", NAME, folder, "--out", out) == 0
    before = {row["Student"]: row["total"] for row in table(out / "grades.csv")}
    assert moe_np("grade", NAME, tmp_path / "late", "--out", out) == 0
    error = capsys.readouterr().err
    assert "of earlier calls and kept: not_a_notebook, untouched" in error
    rows = {row["Student"]: row for row in table(out / "grades.csv")}
    assert set(rows) == {*before, "syntax_error"}
    assert {name: rows[name]["total"] for name in before} == before
    assert rows["untouched"]["remark"] == "not in this call"
    assert moe_np("grade", NAME, folder, "--out", out, "--seed", 9) == 0
    assert "another seed or other questions, so not in the grades: syntax_error" in (
        capsys.readouterr().err
    )


def test_a_by_hand_file_that_is_not_understood_stops_before_grading(tmp_path, capsys):
    write_class(tmp_path / "in", kinds=("untouched",), honest=0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "by_hand.csv").write_text("student-question-points\nada-q7-3\n")
    assert moe_np("grade", NAME, tmp_path / "in", "--out", tmp_path / "out") == 2
    assert "by_hand.csv: wanted a CSV file with the columns" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["by_hand.csv"]


@pytest.mark.seconds
def test_odd_work_has_a_remark_and_platforms_their_files(tmp_path, capsys):
    folder = tmp_path / "in"
    write_class(folder, kinds=("untouched",), honest=0)
    raw = (folder / "untouched.ipynb").read_bytes()
    (folder / "untouched.ipynb").unlink()
    for name in ("Ada L", "Bob M"):
        path = folder / f"{name}_20{len(name)}_assignsubmission_file_"
        path.mkdir()
        (path / "work.pdf").write_text("words")
    (path / "1_mixture.ipynb.txt").write_bytes(raw)
    (folder / "Cyd N_LATE_101_5001_1_mixture.ipynb").write_bytes(raw)
    sheet = tmp_path / "Grades.csv"
    sheet.write_text(
        "Identifier,Full name,Grade,Maximum Grade,Last modified (grade)\nParticipant 205,A,,20,-\n"
    )
    arguments = ("grade", NAME, folder, "--out", tmp_path / "out", "--worksheet", sheet)
    assert moe_np(*arguments, "--canvas", "Homework 1 (98765)") == 0
    rows = {row["Student"]: row for row in table(tmp_path / "out" / "grades.csv")}
    assert rows["Ada L"]["remark"].startswith("there is no notebook; handed in: Ada L_205")
    assert rows["Bob M"]["remark"].endswith(
        "1_mixture.ipynb.txt is no .ipynb; it is graded as a notebook"
    )
    assert rows["Cyd N"]["remark"] == "late"
    assert ",Homework 1 (98765)\n    Points Possible,,,,,20\n" in (
        (tmp_path / "out" / "canvas.csv").read_text()
    )
    assert "Participant 205,A,0,20,-" in (tmp_path / "out" / "moodle.csv").read_text()
    assert "not in the worksheet: Cyd N" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="no umask")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_grades_are_as_private_as_the_teacher_wants(tmp_path, mask):
    old = os.umask(mask)
    try:
        files.write_atomically(tmp_path / "new" / "grades.csv", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "new" / "grades.csv").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"assignment": "1_mixture"}'])
def test_a_damaged_seed_is_not_replaced_by_another(text, tmp_path):
    (tmp_path / "grading.json").write_text(text)
    with pytest.raises(ValueError, match=r"grading\.json: wanted .* give --seed"):
        gradebook.choose_seed(tmp_path, NAME, None)
    assert gradebook.choose_seed(tmp_path, NAME, 7) == 7
    assert gradebook.choose_seed(tmp_path / "new", NAME, 7) == 7
