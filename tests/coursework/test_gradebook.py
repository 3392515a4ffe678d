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

from moe_np.coursework import gradebook, grading, notebook
from moe_np.coursework.grading import GradedNotebook, Mark
from moe_np.coursework.submissions import Submission
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
    assert list(rows[0])[5:] == [*questions, "total"]
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
    students = ("large", "odd", "surrogate", "folder.ipynb")
    assert rows == {"honest0": "20", **dict.fromkeys(students, "0")}


@pytest.mark.slow
def test_a_fault_of_the_grader_is_reported_and_not_stored(tmp_path, capsys, monkeypatch):
    write_class(tmp_path / "in", kinds=(), honest=1)
    arguments = ("grade", NAME, tmp_path / "in", "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(grading, "grade", lambda *a: 1 / 0)
        assert moe_np(*arguments) == 0
        assert "honest0: the grader itself failed (ZeroDivisionError" in capsys.readouterr().err
    assert moe_np(*arguments) == 0
    assert ",20\n" in (tmp_path / "out" / "grades.csv").read_text()


def test_points_given_by_hand_are_put_in(tmp_path):
    assignment = coursework.assignment()
    submission = Submission("ada", "", "ada", None)
    path = tmp_path / "by_hand.csv"

    def graded():
        marks = [Mark(q.name, q.points, q.points, "") for q in assignment.questions[:-1]]
        return GradedNotebook([*marks, Mark("q7_report", 3, None, "", "because\nof this")], [])

    def apply():
        rows = [(submission, graded())]
        ((_, result),) = gradebook.apply_hand_marks(assignment, tmp_path, rows, ["ada"])
        return result

    first = apply()
    assert first.marks[-1].earned is None and first.total == 17
    text = path.read_text()
    assert text.splitlines()[0] == "student,question,of,points,key,answer" and "because" in text
    path.write_text(text.replace("ada,q7_report,3,,", "ada,q7_report,3,2.5,"))
    assert apply().total == 19.5
    assert "2.5 / 3" in (tmp_path / "students" / "ada" / "feedback.html").read_text()
    spreadsheet = path.read_text().replace(",", ";").replace("2.5", "2,5")
    spreadsheet = spreadsheet.replace("because\nof", "weil\xe4\r\n")
    path.write_bytes(spreadsheet.encode("latin-1"))
    assert apply().total == 19.5, "whatever a spreadsheet makes of the words"
    assert "because" in path.read_text()
    path.write_text(path.read_text().replace("2,5", "7"))
    with pytest.raises(ValueError, match="ada: q7_report: wanted points from 0 to 3, got '7'"):
        apply()
