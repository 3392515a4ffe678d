"""One submission: texts of students, answers in words."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from moe_np.coursework import grading, notebook
from moe_np.coursework.question import Question, Verdict
from moe_np.coursework.sandbox import Child, ChildError, TimedOut
from moe_np.coursework.sandbox.jail import descendants
from tests.support import coursework


def graded_first_question():
    """A right answer to the first question, graded: its mark, and problems of the notebook."""
    assignment = coursework.assignment()
    cells = coursework.simulate_class().solved(assignment)
    assignment = assignment._replace(questions=assignment.questions[:1])
    raw = coursework.notebook_bytes(cells)
    with coursework.sandbox_of() as sandbox:
        marked = grading.grade(assignment, coursework.drawn(), sandbox, raw)
    return marked.marks[0], marked.problems


def failing_at_first(times, error, function):
    """The function, which raises in its first calls."""
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) <= times:
            raise error
        return function(*arguments)

    return call


@pytest.mark.parametrize("error", [TimedOut("late"), ChildError("the process ended")])
@pytest.mark.parametrize("method", ["call", "cell", "clear"])
def test_what_may_be_lost_by_chance_is_tried_again_alone(monkeypatch, method, error):
    monkeypatch.setattr(Child, method, failing_at_first(1, error, getattr(Child, method)))
    mark, problems = graded_first_question()
    assert (mark.earned, mark.message, problems) == (2, "", [])


@pytest.mark.seconds
def test_a_lost_race_is_tried_again_and_what_fails_twice_is_lost(monkeypatch):
    calls = []
    verdicts = iter([Verdict(False, "slow", True), Verdict(True, "")])
    monkeypatch.setattr(grading, "examine", lambda *a, **k: next(verdicts))
    assert graded_first_question()[0].earned == 2
    monkeypatch.setattr(grading, "examine", lambda *a, **k: calls.append(1) or Verdict(False, "no"))
    assert graded_first_question()[0].message == "no" and calls == [1], "a wrong answer is not"
    monkeypatch.undo()
    late = failing_at_first(2, TimedOut("late"), Child.call)
    monkeypatch.setattr(Child, "call", late)
    assert graded_first_question()[0].message == "no answer within 10 s"


def test_a_long_text_is_cut_before_it_is_cleaned():
    start = time.process_time()
    assert grading.clean_text("x\n" * 10_000_000).startswith("x x")
    assert time.process_time() - start < 0.5


def test_what_students_write_is_made_safe():
    assert grading.clean_text("a\x1b[31mb\nc\ud800") == "a [31mb c?"
    assert len(grading.clean_text("x" * 10_000)) < 600


def test_a_text_answer_is_found_and_an_untouched_cell_is_none():
    metadata = {"nbgrader": {"grade_id": "q9", "grade": True, "solution": True}}
    cell = notebook.Cell("markdown", "my words", metadata)
    question = Question("q9", None, 3)
    assert grading.text_answer(question, [cell]) == "my words"
    untouched = notebook.without_solution(cell)
    assert grading.text_answer(question, [untouched]) == ""


def test_a_module_that_is_not_there_is_explained():
    message = grading.explain_import("No module named 'moe_np.layers'", coursework.assignment())
    assert message.endswith(
        "of moe_np this assignment allows " + ", ".join(coursework.assignment().allowed)
    )
    message = grading.explain_import("No module named 'torch'", coursework.assignment())
    assert message.endswith("besides Python's own this assignment allows numpy, matplotlib")


def seconds_of(pids):
    """The processor's time that processes have had so far."""
    total = 0
    for pid in pids:
        words = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(words[11]) + int(words[12])  # user's and system's, in ticks
    return total / os.sysconf("SC_CLK_TCK")


def seconds_of_children():
    """The processor's time of all children that have ended."""
    ended = os.times()
    return ended.children_user + ended.children_system


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the time of a child is read from /proc")
@coursework.every_assignment
def test_an_honest_notebook_costs_as_much_as_thirty_starts_of_python(name, monkeypatch):
    """In the processor's time, as a ratio to a start of Python with NumPy beside it: machines
    differ by more than twice.
    """
    before = seconds_of_children()
    subprocess.run([sys.executable, "-c", "import numpy"], check=True)
    start_of_python = seconds_of_children() - before
    children = []
    kill = Child.kill

    def kill_and_count(child):
        if child.process.poll() is None:
            children.append(seconds_of((child.process.pid, *descendants(child.process.pid))))
        kill(child)

    assignment = coursework.assignment(name)
    raw = coursework.notebook_bytes(coursework.simulate_class().solved(assignment))
    drawn = coursework.drawn(name)
    with coursework.sandbox_of(name) as sandbox:
        monkeypatch.setattr(Child, "kill", kill_and_count)
        start = time.process_time()
        marked = grading.grade(assignment, drawn, sandbox, raw)
        grader = time.process_time() - start
        monkeypatch.undo()
    assert all(mark.earned != 0 or mark.message == grading.NOT_ANSWERED for mark in marked.marks)
    cost = grader + sum(children)
    assert children and cost < 30 * start_of_python, (grader, children, start_of_python)
