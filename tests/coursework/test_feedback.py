"""What teachers and students read holds no code of a student."""

import csv
import json

from moe_np.coursework import feedback
from moe_np.coursework.grading import GradedNotebook, Mark
from moe_np.coursework.submissions import Submission
from tests.support import coursework


def test_names_and_messages_make_no_formulas_and_no_markup():
    names = ("../../etc/passwd", "..", "=cmd|' /C calc'!A0", "a\nb", "", "ü", "ß")
    students = [Submission(name, "", name, None) for name in names]
    assignment = coursework.assignment()
    script = "<script>alert(1)</script>"
    marks = [Mark(question.name, question.points, 0, script) for question in assignment.questions]
    graded = GradedNotebook(marks, ["<b>|x"])
    rows = [(student, graded) for student in students]
    text = feedback.grades_csv(assignment, rows)
    assert not any(row[0].startswith("=") for row in csv.reader(text.splitlines()))
    assert "<script>" not in feedback.page(assignment, students[0], graded)
    assert "<b>" not in feedback.summary(assignment, rows, [])
    picture = GradedNotebook(marks, ["![x](http://example.org/beacon)"])
    assert "![" not in feedback.summary(assignment, [(students[0], picture)], [])


def test_points_by_hand_are_no_failure_and_a_total_is_so_far_until_then():
    assignment = coursework.assignment()
    submission = Submission("ada", "", "ada", None)
    marks = [Mark(q.name, q.points, q.points, "") for q in assignment.questions[:-1]]

    def shown(mark):
        graded = GradedNotebook([*marks, mark], [])
        page = feedback.page(assignment, submission, graded)
        results = json.loads(feedback.results_json(assignment, graded))
        return page, results["tests"][-1], feedback.grades_csv(assignment, [(submission, graded)])

    page, test, table = shown(Mark("q7_report", 3, None, "", "words"))
    assert "17 of 20 points so far" in page and "q7_report marked by hand: total so far" in table
    page, test, table = shown(Mark("q7_report", 3, 2.5, "well <argued>", "words"))
    assert "19.5 of 20 points</b>" in page and "2.5 / 3" in page
    assert "<td class=hand>well &lt;argued&gt;</td>" in page and "class=wrong" not in page
    assert test["output"] == "marked by hand: well <argued>" and "status" not in test
    assert table.endswith(",2.5,19.5,\n")


def test_a_wrong_answer_is_told_with_its_kind_of_input_its_lesson_and_the_own_lines():
    assignment = coursework.assignment()
    submission = Submission("ada", "", "ada", None)
    facts = {"right": 5, "counted": 8, "kind": "a shut gate", "inputs": "p (2, 3), with <nan>"}
    wrong = Mark(
        "q1_softmax", 2, 1, "dx at (0,): wanted 1, got 2", **facts, lines="def f(s): 1 < 2"
    )
    rest = [Mark(q.name, q.points, q.points, "") for q in assignment.questions[1:]]
    graded = GradedNotebook([wrong, *rest], [])
    page = feedback.page(assignment, submission, graded)
    for words in (
        "<code>dx at (0,): wanted 1, got 2</code>",
        "5 of 8 inputs are right.",
        "The first wrong one: a shut gate: p (2, 3), with &lt;nan&gt;.",
        "To read again: lesson 02_gate.",
        "def f(s): 1 &lt; 2",
        "rounded down to half a point",
    ):
        assert words in page
    assert page.count("<pre>") == 1, "of wrong answers only"
    output = json.loads(feedback.results_json(assignment, graded))["tests"][0]["output"]
    assert "5 of 8 inputs are right." in output and "lesson 02_gate" in output


@coursework.every_assignment
def test_every_question_names_a_lesson_that_is_there_its_outputs_and_kinds(name):
    lessons = {path.stem for path in (coursework.ROOT / "lessons").glob("[0-9]*.py")}
    for question in coursework.assignment(name).questions:
        if not question.function:
            continue
        assert question.lesson in lessons, question.name
        drawn = coursework.drawn_one(name, question.name, 0)  # checks the number of kinds
        wanted = drawn[0].wanted
        names = len(wanted) if isinstance(wanted, tuple) else 0
        assert len(question.outputs) == names, question.name
        assert question.kinds or (name, question.name) == ("6_block", "q8_audit")
