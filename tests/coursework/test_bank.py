"""Every assignment grades right: its solution, its release, and each right and wrong answer of its
bank.
"""

import inspect
import re

import pytest

from moe_np.coursework import assignments, grading, percent, proof
from tests.support import coursework


@pytest.fixture(scope="module", params=coursework.PARAMETERS)
def room(request):
    """(assignment, drawn, sandbox), one sandbox for all tests of an assignment."""
    name = request.param
    with coursework.sandbox_of(name) as sandbox:
        yield coursework.assignment(name), coursework.drawn(name), sandbox


def lost(marked):
    return [m.name for m in marked.marks if m.earned != m.points and m.earned is not None]


@pytest.mark.slow
def test_the_solution_gets_full_marks_and_the_release_none(room):
    assignment, drawn, sandbox = room
    solved = grading.grade(assignment, drawn, sandbox, coursework.notebook(assignment.cells))
    assert lost(solved) == [] and solved.problems == [], solved
    handed_out = grading.grade(
        assignment, drawn, sandbox, coursework.notebook(percent.released(assignment.cells))
    )
    assert handed_out.total == 0 and handed_out.problems == []
    assert {m.message for m in handed_out.marks} == {grading.NOT_YET}


@coursework.every_assignment
def test_the_release_holds_no_solution_and_no_hidden_test(name):
    assignment = coursework.assignment(name)
    released = percent.released(assignment.cells)
    text = "\n".join(c.source for c in released)
    assert "SOLUTION" not in text and "HIDDEN" not in text and "hidden_test" not in text
    for cell, out in zip(assignment.cells, released, strict=True):
        solutions = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", cell.source, re.S)
        assert bool(solutions) == bool(cell.nbgrader.get("solution")), cell.grade_id
        for line in (
            line for solution in solutions for line in solution.splitlines() if line.strip()
        ):
            assert line not in out.source.splitlines(), cell.grade_id


@pytest.mark.slow
def test_what_may_be_imported_can_be_and_holds_no_answer(room):
    assignment, _, sandbox = room
    imports = "\n".join(f"import {name}" for name in (*assignment.allowed, *assignment.libraries))
    asked = {q.function for q in assignment.questions if q.function}
    with sandbox.child() as child:
        child.cell(1, imports)
        for name in ("moe_np.coursework", "moe_np.mixtures.jacobs1991"):
            if name not in assignment.allowed:
                with pytest.raises(Exception, match="No module named"):
                    child.cell(2, f"import {name}")
    for name in assignment.allowed:
        module = __import__(name, fromlist=["x"])
        own = {n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == name}
        assert not own & asked, f"{name} holds an answer by its name"


@coursework.every_assignment
def test_points_are_told(name):
    assignment = coursework.assignment(name)
    first = assignment.cells[0].source
    assert first.startswith(f"# {assignment.title}"), "the first cell is the instructions"
    assert f"{assignment.points:g} points" in first
    assert 5 <= len(assignment.questions) <= 8


@coursework.every_assignment
def test_the_bank_is_rich_enough(name):
    assignment = coursework.assignment(name)
    bank = assignments.bank(assignment.name, coursework.FOLDER)
    assert set(bank) == {q.name for q in assignment.questions if q.function}
    for question, kinds in bank.items():
        assert len(set(kinds["right"])) >= 2, question
        assert len(set(kinds["wrong"].values())) >= 4, question


@pytest.mark.slow
def test_right_answers_pass_and_each_wrong_one_loses_its_question_only(room):
    assignment, drawn, sandbox = room
    rows = list(
        proof.prove(
            assignment, assignments.bank(assignment.name, coursework.FOLDER), sandbox, drawn
        )
    )
    assert all(row.as_wanted for row in rows), proof.table(
        [row for row in rows if not row.as_wanted]
    )
    assert all(row.message for row in rows if row.kind == "wrong"), "a student is told why"
