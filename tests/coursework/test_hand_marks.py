"""by_hand.csv is the teacher's: what is written in it counts, stays, and is never passed over."""

import csv
import hashlib

import pytest

from moe_np.coursework import hand_marks
from moe_np.coursework.grading import GradedNotebook, Mark
from moe_np.coursework.submissions import Submission
from tests.support import coursework

TEXT = "because\nof this"


def graded(text=TEXT):
    """Full points, but for an answer in words."""
    questions = coursework.assignment().questions[:-1]
    marks = [Mark(q.name, q.points, q.points, "") for q in questions]
    return GradedNotebook([*marks, Mark("q7_report", 3, None, "", text)], [])


def apply(folder, students=("ada",), text=TEXT):
    """({student: mark}, remarks) with the points of the file."""
    rows = [(Submission(name, "", name, None), graded(text)) for name in students]
    marked, remarks = hand_marks.apply(coursework.assignment(), folder, rows, list(students))
    return {s.student: result.marks[-1] for s, result in marked}, remarks


def rows_of(folder):
    return list(csv.DictReader((folder / "by_hand.csv").read_text().splitlines()))


def give(folder, points, student="ada"):
    """Write points into a student's row."""
    path = folder / "by_hand.csv"
    head, text = f"{student},q7_report,3,", path.read_text()
    assert text.count(head + ",") == 1
    path.write_text(text.replace(head + ",", f"{head}{points},"))


def test_points_given_by_hand_are_put_in(tmp_path):
    assignment = coursework.assignment()
    submission = Submission("ada", "", "ada", None)
    path = tmp_path / "by_hand.csv"

    def apply_one():
        ((_, result),), _ = hand_marks.apply(
            assignment, tmp_path, [(submission, graded())], ["ada"]
        )
        return result

    first = apply_one()
    assert first.marks[-1].earned is None and first.total == 17
    text = path.read_text()
    assert text.splitlines()[0] == "student,question,of,points,comment,key,answer"
    assert "because" in text
    path.write_text(text.replace("ada,q7_report,3,,", "ada,q7_report,3,2.5,"))
    assert apply_one().total == 19.5
    spreadsheet = path.read_text().replace(",", ";").replace("2.5", "2,5")
    spreadsheet = spreadsheet.replace("because\nof", "weil\xe4\r\n")
    path.write_bytes(spreadsheet.encode("latin-1"))
    assert apply_one().total == 19.5, "whatever a spreadsheet makes of the words"
    assert "because" in path.read_text()
    path.write_text(path.read_text().replace("2,5", "7"))
    with pytest.raises(ValueError, match="ada: q7_report: wanted points from 0 to 3, got '7'"):
        apply_one()


def test_rows_that_a_call_does_not_concern_stay(tmp_path):
    apply(tmp_path, ("ada", "bob"))
    give(tmp_path, 3)
    apply(tmp_path, ("late",))
    assert [(row["student"], row["points"]) for row in rows_of(tmp_path)] == [
        ("late", ""),
        ("ada", "3"),
        ("bob", ""),
    ]
    assert apply(tmp_path, ("ada", "bob", "late"))[0]["ada"].earned == 3


def test_numbers_that_a_spreadsheet_writes_in_its_own_way_are_still_found(tmp_path):
    students = ("00123", "1e5", "12345678901234567")
    apply(tmp_path, students)
    text = (tmp_path / "by_hand.csv").read_text()
    for name, changed in zip(students, ("123", "100000", "1.23457E+16"), strict=True):
        text = text.replace(f"\n{name},q7_report,3,,", f"\n{changed},q7_report,3,2,")
    (tmp_path / "by_hand.csv").write_text(text)
    assert [mark.earned for mark in apply(tmp_path, students)[0].values()] == [2, 2, 2]
    assert [row["student"] for row in rows_of(tmp_path)] == list(students)


def test_a_file_of_an_earlier_version_counts(tmp_path):
    key = "a" + hashlib.sha256(TEXT.encode()).hexdigest()[:10]
    text = f"student,question,of,points,key,answer\nada,q7_report,3,2,{key},because\n"
    (tmp_path / "by_hand.csv").write_text(text)
    for _ in range(2):
        assert apply(tmp_path)[0]["ada"].earned == 2
        assert [row["points"] for row in rows_of(tmp_path)] == ["2"]


def test_points_of_nobody_are_said(tmp_path):
    apply(tmp_path)
    give(tmp_path, 2)
    remarks = apply(tmp_path, ("bob",))[1]
    assert "ada: q7_report: 2 points in by_hand.csv: there is no such student" in remarks[0]


def test_a_changed_answer_waits_and_the_old_points_stay(tmp_path):
    apply(tmp_path)
    give(tmp_path, 2)
    marks, remarks = apply(tmp_path, text="other words")
    assert marks["ada"].earned is None
    assert "ada: q7_report: 2 points in by_hand.csv: the answer has changed since" in remarks[0]
    assert sorted(row["points"] for row in rows_of(tmp_path)) == ["", "2"]
    assert apply(tmp_path)[0]["ada"].earned == 2, "the old answer handed in again"


def test_comments_and_columns_of_the_teacher_stay(tmp_path):
    apply(tmp_path)
    path = tmp_path / "by_hand.csv"
    head, *rest = path.read_text().split("\n", 1)
    text = rest[0].replace("ada,q7_report,3,,,", "ada,q7_report,3,2,good start,")
    path.write_text(head + ",seen\n" + text.rstrip() + ",yes\n")
    mark = apply(tmp_path, ("ada", "bob"))[0]["ada"]
    assert (mark.earned, mark.message) == (2, "good start")
    row = rows_of(tmp_path)[0]
    assert (row["seen"], row["comment"]) == ("yes", "good start")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", list(",;\t|"))
@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
def test_every_separator_and_encoding_is_read(tmp_path, separator, encoding, quoting):
    apply(tmp_path, ("ada", "bob"))
    path = tmp_path / "by_hand.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    rows[1][3] = "2,5"
    rows[1][4] = "für Ada"
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator, quoting=quoting).writerows(rows)
    for _ in range(2):
        mark = apply(tmp_path, ("ada", "bob"))[0]["ada"]
        assert (mark.earned, mark.message) == (2.5, "für Ada")


@pytest.mark.parametrize(
    "raw",
    [
        b"name,points\nada,3\n",
        b"student question points key\nada q7 3 x\n",
        b"student,question,of,points,comment,key,answer\nada,q7_report,3,2,5,,akey,words\n",
        "student,question,points,key\nada,q7,3,x\n".encode("utf-16-le"),
        b"",
    ],
    ids=["columns", "separator", "decimal comma", "utf-16 without a mark", "empty"],
)
def test_a_file_that_is_not_understood_stops_and_stays(tmp_path, raw):
    path = tmp_path / "by_hand.csv"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"by_hand\.csv.*wanted"):
        apply(tmp_path)
    assert path.read_bytes() == raw


def test_two_rows_with_different_points_are_an_error(tmp_path):
    apply(tmp_path)
    give(tmp_path, 1)
    path = tmp_path / "by_hand.csv"
    body = path.read_text().split("\n", 1)[1]
    path.write_text(path.read_text() + body.replace("3,1,", "3,2,"))
    with pytest.raises(ValueError, match="wanted one row, got '1' and '2'"):
        apply(tmp_path)


def test_no_answer_is_a_formula_for_any_separator(tmp_path):
    text = "Nice;=cmd|' /C calc'!A0\n=1+2\t=3 ,@x |-y"
    apply(tmp_path, text=text)
    raw = (tmp_path / "by_hand.csv").read_text()
    for separator in ",;\t|":
        for row in csv.reader(raw.splitlines(), delimiter=separator):
            assert not any(cell.lstrip(' "')[:1] in set("=+-@") - {""} for cell in row if cell)
