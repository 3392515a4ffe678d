"""What teachers and students read holds no code of a student."""

import csv

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
