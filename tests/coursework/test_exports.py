"""The files that learning platforms take: their own titles, rows and numbers, nothing else."""

import csv

import pytest

from moe_np.coursework import exports, tables
from moe_np.coursework.grading import GradedNotebook, Mark
from moe_np.coursework.submissions import Submission
from tests.support import coursework

WORKSHEET = """\
Identifier,Full name,Email address,Status,Grade,Maximum Grade,Last modified (grade),\
Feedback comments
Participant 201,Ada,a@x,Submitted,,20.00,-,
Participant 202,Bob,b@x,Submitted,15.00,20.00,"Friday, 28 November 2025, 10:00 AM",well done
Participant 203,Cyd,c@x,No submission,,20.00,-,
Participant 204,Dan,d@x,Submitted,7.00,20.00,-,
"""


def graded(earned=None, text=""):
    """Full points, but for the last question."""
    questions = coursework.assignment().questions
    marks = [Mark(q.name, q.points, q.points, "") for q in questions[:-1]]
    return GradedNotebook([*marks, Mark(questions[-1].name, 3, earned, "<b> wrong", text)], [])


ROWS = [
    (Submission("Ada", "201", "", None), graded(0.5)),
    (Submission("Bob", "202", "", None), graded(3)),
    (Submission("Dan", "204", "", None), graded(None, "words")),
    (Submission("Eve", "209", "", None), graded(1)),
]


def worksheet(folder, text=WORKSHEET):
    path = folder / "Grades.csv"
    path.write_text(text, encoding="utf-8-sig")
    return tables.read(path, exports.WORKSHEET)


def test_moodles_worksheet_is_filled_and_all_else_stays(tmp_path):
    table = worksheet(tmp_path)
    filled, remarks = exports.fill_worksheet(coursework.assignment(), ROWS, table)
    assert filled.columns == table.columns and filled.mark == "\ufeff"
    assert [row["Grade"] for row in filled.rows] == ["17.5", "20", "", "7.00"]
    ada, bob, cyd, dan = (row["Feedback comments"] for row in filled.rows)
    assert ada.endswith("q7_report 0.5 of 3: &lt;b&gt; wrong") and ada.count("<br>") == 6
    assert (bob, cyd) == ("well done", "")
    assert "– of 3" in dan
    other = [c for c in table.columns if c not in ("Grade", "Feedback comments")]
    for before, after in zip(table.rows, filled.rows, strict=True):
        assert [before[c] for c in other] == [after[c] for c in other]
    assert remarks == [
        "not in the worksheet: Eve",
        "Moodle has another grade than moodle.csv: Participant 202 (15.00, now 20)",
        "a comment is in the worksheet already and stays: Participant 202",
    ]
    again, _ = exports.fill_worksheet(coursework.assignment(), ROWS, filled)
    assert again == filled


def test_a_worksheet_of_other_numbers_is_refused(tmp_path):
    text = WORKSHEET.replace("20.00,-", "100.00,-")
    with pytest.raises(ValueError, match="wanted Maximum Grade 20, the points of 1_mixture, got 1"):
        exports.fill_worksheet(coursework.assignment(), ROWS, worksheet(tmp_path, text))
    text = WORKSHEET.replace("Participant 2", "Participant 9")
    with pytest.raises(ValueError, match="nobody of the class"):
        exports.fill_worksheet(coursework.assignment(), ROWS, worksheet(tmp_path, text))
    with pytest.raises(ValueError, match="with the columns Identifier, Grade, Last modified"):
        worksheet(tmp_path, "Name,Points\n")
    table = worksheet(tmp_path, WORKSHEET.replace(",", ";"))
    assert table.separator == ";", "saved again by a spreadsheet"
    filled, _ = exports.fill_worksheet(coursework.assignment(), ROWS, table)
    assert filled.separator == "," and filled.rows[0]["Grade"] == "17.5"
    commas = WORKSHEET.replace(",20.00,", ',"20,00",')
    filled, _ = exports.fill_worksheet(coursework.assignment(), ROWS, worksheet(tmp_path, commas))
    assert filled.rows[0]["Grade"] == "17,5"


def test_canvas_gets_titles_of_this_assignment_and_the_points_possible():
    assignment = coursework.assignment()
    total, questions = exports.canvas_csv(assignment, ROWS)
    head, possible, *rows = csv.reader(total.splitlines())
    assert head == [
        *("Student", "ID", "SIS User ID", "SIS Login ID", "Section", "1_mixture total"),
    ]
    assert possible == ["    Points Possible", "", "", "", "", "20"]
    assert [row[-1] for row in rows] == ["17.5", "20", "18"]
    assert [row[1] for row in rows] == ["201", "202", "209"], "204 still waits"
    head, possible, *rows = csv.reader(questions.splitlines())
    assert head[5:] == [f"1_mixture {q.name}" for q in assignment.questions]
    assert [float(text) for text in possible[5:]] == [q.points for q in assignment.questions]
    assert [row[-1] for row in rows] == ["0.5", "3", "1"]
    total, _ = exports.canvas_csv(assignment, ROWS, "Homework 1 (98765)")
    assert total.splitlines()[0].endswith(",Homework 1 (98765)")
