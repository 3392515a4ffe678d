"""Every assignment grades right: its solution, its release, and each answer of its bank."""

import pytest

from moe_np.coursework import bank, grading, notebook
from tests.support import coursework


@pytest.fixture(scope="module", params=coursework.PARAMETERS)
def setup(request):
    """(assignment, drawn, sandbox), with one sandbox for all tests of an assignment."""
    name = request.param
    with coursework.sandbox_of(name) as sandbox:
        yield coursework.assignment(name), coursework.drawn(name), sandbox


def lost(graded):
    return [m.name for m in graded.marks if m.earned != m.points and m.earned is not None]


@pytest.mark.slow
def test_the_solution_gets_full_marks_and_the_release_none(setup):
    assignment, drawn, sandbox = setup
    raw = coursework.notebook_bytes(assignment.cells)
    solved = grading.grade(assignment, drawn, sandbox, raw)
    assert lost(solved) == [] and solved.problems == [], solved
    raw = coursework.notebook_bytes(notebook.released(assignment.cells))
    handed_out = grading.grade(assignment, drawn, sandbox, raw)
    assert handed_out.total == 0 and handed_out.problems == []
    assert {mark.message for mark in handed_out.marks} == {grading.NOT_ANSWERED}


@coursework.every_assignment
def test_the_bank_has_enough_answers(name):
    answers = coursework.bank(name)
    questions = coursework.assignment(name).questions
    assert set(answers) == {question.name for question in questions if question.function}
    for question, kinds in answers.items():
        assert len(set(kinds["right"])) >= 2, question
        assert len(set(kinds["wrong"].values())) >= 4, question


@pytest.mark.slow
def test_right_answers_pass_and_each_wrong_answer_loses_its_question_only(setup):
    assignment, drawn, sandbox = setup
    rows = list(bank.prove(assignment, coursework.bank(assignment.name), sandbox, drawn))
    failed = [row for row in rows if not row.as_wanted]
    assert not failed, bank.table(failed)
    assert all(row.message for row in rows if row.kind == "wrong"), "a student reads why"


def test_an_answer_to_a_question_that_is_not_there_is_refused():
    with pytest.raises(KeyError, match="1_mixture has no cell q9_answer"):
        bank.with_answer(coursework.assignment(), "q9", "")
