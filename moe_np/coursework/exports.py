"""The files that learning platforms take: Canvas's gradebook, Moodle's grading worksheet.

A total that still waits for points by hand, or that could not be graded, is in no such file.
"""

import html
import re
from collections.abc import Sequence

from moe_np.base.checks import InputError
from moe_np.coursework.assignments import Assignment
from moe_np.coursework.feedback import COLUMNS, Rows, number, person
from moe_np.coursework.grading import GradedNotebook
from moe_np.coursework.tables import Table, cell, text_of_rows

# columns without which Moodle takes no grading worksheet, as they are called in English
WORKSHEET = ("Identifier", "Grade", "Last modified (grade)")
MOST_NAMES = 10  # in a remark


# --- Canvas ---------------------------------------------------------------------------------------


def canvas_csv(assignment: Assignment, rows: Rows, title: str | None = None) -> tuple[str, str]:
    """(text of the file with the totals, text of the file with one column per question).

    Who still waits for points is in neither: Canvas leaves people alone who are not in the file.
    Only one of the two may be imported: with both all points would count twice. The titles hold
    the assignment's name, since Canvas takes columns of one title for one assignment.

    title   Canvas's own title of an existing column, "Homework 1 (98765)", for the total
    """
    rows = [row for row in rows if row[1].is_complete]  # an empty cell could empty a grade
    total = [(title or f"{assignment.name} total", assignment.points)]
    totals = [[number(graded.total)] for _, graded in rows]
    questions = [(f"{assignment.name} {q.name}", q.points) for q in assignment.questions]
    marks = [[number(mark.earned) for mark in graded.marks] for _, graded in rows]
    people = [person(submission) for submission, _ in rows]
    return _gradebook(people, total, totals), _gradebook(people, questions, marks)


def _gradebook(people, columns, values):
    """Canvas's form: titles, the points possible, one row per student."""
    titles = [title for title, _ in columns]
    possible = ["    Points Possible", *[""] * (len(COLUMNS) - 1)]
    points = [number(points) for _, points in columns]
    rows = ([*who, *texts] for who, texts in zip(people, values, strict=True))
    return text_of_rows([[*COLUMNS, *titles], [*possible, *points], *rows])


def _total(graded):
    return number(graded.total) if graded.is_complete else ""


# --- Moodle ---------------------------------------------------------------------------------------


def fill_worksheet(assignment: Assignment, rows: Rows, worksheet: Table) -> tuple[Table, list[str]]:
    """(Moodle's grading worksheet with grades and comments, remarks).

    The number in its column Identifier ("Participant 201") is the one in the names of Moodle's
    files. All other cells stay as they are, also comments that are written already. Raises
    InputError if nobody of the class is in it, or if its maximum is not that of the assignment.
    """
    people = {submission.id: (submission, graded) for submission, graded in rows if submission.id}
    filled = []
    changed = []
    commented = []
    unseen = set(people)
    comma = any("," in row.get("Maximum Grade", "") for row in worksheet.rows)
    for row in worksheet.rows:
        match = re.search(r"([0-9]+)\s*$", row["Identifier"])
        key = match[1] if match else ""
        if key in people:
            unseen.discard(key)
            _check_maximum(assignment, row)
            graded = people[key][1]
            grade = _total(graded).replace(".", "," if comma else ".")
            if grade and _value(row["Grade"]) not in (None, _value(grade)):
                changed.append(f"{row['Identifier']} ({row['Grade']}, now {grade})")
            row = row | {"Grade": grade or row["Grade"]}
            row, kept = _with_comment(row, graded)
            commented += [row["Identifier"]] if kept else []
        filled.append(row)
    if len(unseen) == len(people):
        raise InputError(
            "worksheet: wanted Moodle's grading worksheet of this class, got one in which nobody "
            "of the class is: the number of an Identifier is that in the names of Moodle's files"
        )
    missing = [submission.student for submission, _ in rows if submission.id in {"", *unseen}]
    remarks = _remark("not in the worksheet", missing)
    remarks += _remark("Moodle has another grade than moodle.csv", changed)
    remarks += _remark("a comment is in the worksheet already and stays", commented)
    return worksheet._replace(rows=filled, separator=","), remarks  # Moodle reads no other


def _remark(text: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    rest = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return [f"{text}: {', '.join(names[:MOST_NAMES])}{rest}"]


def _check_maximum(assignment, row):
    """Moodle takes grades as they are: on another scale they would be wrong without an error."""
    maximum = _value(row.get("Maximum Grade", ""))
    if maximum is not None and maximum != assignment.points:
        raise InputError(
            f"worksheet: wanted Maximum Grade {number(assignment.points)}, the points of "
            f"{assignment.name}, got {row['Maximum Grade']}: set it in Moodle, in the assignment's "
            f"settings, and download the worksheet again"
        )


def _value(text):
    """A number as Moodle writes it, with a point or a comma; None for other text."""
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return None


def _with_comment(row, graded: GradedNotebook):
    """(the row with the feedback, whether another comment was there and stays)."""
    column = "Feedback comments"
    if column not in row:
        return row, False
    lines = [_line(mark) for mark in graded.marks] + graded.problems
    text = cell("<br>".join(html.escape(line, quote=False) for line in lines))
    if row[column].strip():
        return row, row[column].strip() != text.strip()
    return row | {column: text}, False


def _line(mark):
    earned = "–" if mark.earned is None else number(mark.earned)
    message = f": {mark.message}" if mark.message else ""
    return f"{mark.name} {earned} of {number(mark.points)}{message}"
