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
                row = _row(slug, mark, given)
                answers[_key(row)] = row
                earned = _parse_points(f"{path}: {slug}", row["points"].strip(), mark)
                mark = mark._replace(earned=earned, message=row["comment"].strip())
            marks.append(mark)
        marked.append((submission, GradedNotebook(marks, graded.problems)))
    kept = [row for row in (table.rows if table else ()) if _key(row) not in answers]
    if answers:
        columns = list(table.columns) if table else list(COLUMNS)
        columns += [column for column in COLUMNS if column not in columns]
        separator, mark = (table.separator, table.mark) if table else (",", "")
        written = Table(tuple(columns), [*answers.values(), *kept], separator, mark)
        if written != table:
            tables.write(path, written)
    return marked, _remarks_about(kept, answers)


def _key(row):
    return tuple((row[column] or "").strip() for column in ("student", "question", "key"))


def _row(slug, mark, given):
    """The row of an answer, with what the teacher wrote into it."""
    key = "a" + hashlib.sha256(mark.text.encode()).hexdigest()[:10]  # of this answer
    row = {"student": slug, "question": mark.name, "of": number(mark.points), "key": key}
    row = dict.fromkeys(COLUMNS, "") | row
    written = given.get((slug, mark.name, key), {})
    ours = ("student", "question", "of", "key", "answer")
    row |= {column: text for column, text in written.items() if column not in ours}
    return row | {"answer": tables.cell(mark.text)}


def _remarks_about(kept, answers):
    """Remarks about points whose answer has changed since they were given."""
    waiting = {key[:2] for key, row in answers.items() if not row["points"].strip()}
    return [
        f"{row['student']}: {row['question']}: the answer has changed since {row['points']} points "
        f"were given in {FILE}; the new one waits for points"
        for row in kept
        if row["points"].strip() and _key(row)[:2] in waiting
    ]


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
