"""by_hand.csv: answers in words, to which a teacher gives points and comments.

The file is the teacher's. A row that this call does not concern stays as it is, so do columns that
a teacher has added, and a file that is not understood stops the command.
"""

import hashlib
import pathlib
from collections.abc import Sequence

from moe_np.base.checks import InputError
from moe_np.coursework import tables
from moe_np.coursework.assignments import Assignment
from moe_np.coursework.feedback import number
from moe_np.coursework.grading import GradedNotebook, Mark
from moe_np.coursework.submissions import Submission
from moe_np.coursework.tables import Table

FILE = "by_hand.csv"
COLUMNS = ("student", "question", "of", "points", "comment", "key", "answer")
NEEDED = ("student", "question", "points", "key")


def read(out: pathlib.Path) -> Table | None:
    """The Table of by_hand.csv, None if there is none. Raises InputError if it is not understood.

    Two rows with different points for the same answer are an error as well.
    """
    path = out / FILE
    try:
        table = tables.read(path, NEEDED)
    except FileNotFoundError:
        return None
    points = {}
    for row in table.rows:
        text = row["points"].strip()
        earlier = points.setdefault(_key(row), text)
        if text and earlier and text != earlier:
            where = f"{row['student']}: {row['question']}"
            raise InputError(f"{path}: {where}: wanted one row, got {earlier!r} and {text!r}")
        points[_key(row)] = earlier or text
    return table


def apply(
    assignment: Assignment,
    out: pathlib.Path,
    rows: Sequence[tuple[Submission, GradedNotebook]],
    slugs: Sequence[str],
) -> tuple[list[tuple[Submission, GradedNotebook]], list[str]]:
    """(the rows with the points that a teacher wrote into by_hand.csv, remarks).

    The file is written again with all answers in words. Where it was filled in, the points count;
    an answer that has changed since then waits for new ones, and the old row stays. Raises
    InputError for points that are no number from 0 to the question's.
    """
    path = out / FILE
    table = read(out)
    given = {}
    for row in table.rows if table else ():
        if row["points"].strip() or _key(row) not in given:
            given[_key(row)] = row
    marked = []
    answers = {}
    for (submission, graded), slug in zip(rows, slugs, strict=True):
        marks = []
        for mark in graded.marks:
            if mark.text:
                earlier = (slug, mark.name, _hash("a", mark.text))  # the key until version 0.2
                row = _row(slug, mark, given, earlier)
                answers[earlier if earlier in given else _key(row)] = row
                earned = _parse_points(f"{path}: {slug}", row["points"].strip(), mark)
                mark = mark._replace(earned=earned, message=row["comment"].strip())
            marks.append(mark)
        marked.append((submission, GradedNotebook(marks, graded.problems)))
    used = {_key(row) for row in answers.values()} | set(answers)
    kept = [row for row in (table.rows if table else ()) if _key(row) not in used]
    if answers:
        columns = list(table.columns) if table else list(COLUMNS)
        columns += [column for column in COLUMNS if column not in columns]
        separator, mark = (table.separator, table.mark) if table else (",", "")
        written = Table(tuple(columns), [*answers.values(), *kept], separator, mark)
        if written != table:
            tables.write(path, written)
    return marked, _remarks_about(kept, answers, slugs)


def _key(row):
    """What a row is known by: a key is of one answer of one student.

    So it does not matter that spreadsheets write 00123 as 123, and 1e5 as 100000.
    """
    student, question, key = (row[column].strip() for column in ("student", "question", "key"))
    return key if key.startswith("b") else (student, question, key)


def _hash(letter, *texts):
    """A text that no spreadsheet takes for a number."""
    return letter + hashlib.sha256("\0".join(texts).encode()).hexdigest()[:10]


def _row(slug, mark, given, earlier):
    """The row of an answer, with what the teacher wrote into it."""
    key = _hash("b", slug, mark.name, mark.text)
    row = {"student": slug, "question": mark.name, "of": number(mark.points), "key": key}
    row = dict.fromkeys(COLUMNS, "") | row
    written = given.get(key) or given.get(earlier) or {}
    ours = ("student", "question", "of", "key", "answer")
    row |= {column: text for column, text in written.items() if column not in ours}
    return row | {"answer": tables.cell(mark.text)}


def _remarks_about(kept, answers, slugs):
    """Remarks about points that were given and do not count."""
    waiting = {_place(row) for row in answers.values() if not row["points"].strip()}
    remarks = []
    for row in kept:
        where = f"{row['student']}: {row['question']}: {row['points']} points in {FILE}"
        if row["points"].strip() and _place(row) in waiting:
            text = "the answer has changed since they were given, and the new one waits for points"
            remarks.append(f"{where}: {text}")
        elif row["points"].strip() and row["student"].strip() not in slugs:
            remarks.append(f"{where}: there is no such student; the row stays")
    return remarks


def _place(row):
    return row["student"].strip(), row["question"].strip()


def _parse_points(place: str, text: str, mark: Mark) -> float | None:
    if not text:
        return None
    try:
        value = float(text.replace(",", "."))
        if not 0 <= value <= mark.points:
            raise ValueError
        return value
    except ValueError:
        wanted = f"points from 0 to {number(mark.points)}"
        raise InputError(f"{place}: {mark.name}: wanted {wanted}, got {text!r}") from None
