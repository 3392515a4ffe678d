"""Grade a whole class: every submission once, stored as soon as it is graded, then the gradebook.

grading.json                       the assignment, the seed of the hidden inputs, the protection
students/*/marks.json              the store: what is there for this seed is not graded again
students/*/results.json, .html     for Gradescope, for the student
by_hand.csv                        answers in words, for the teacher to give points
grades.csv, summary.md             the class
"""

import concurrent.futures
import contextlib
import csv
import hashlib
import io
import json
import os
import pathlib
import secrets
import sys
from collections.abc import Sequence
from typing import NamedTuple

from moe_np.base.checks import InputError
from moe_np.base.files import write_atomically
from moe_np.coursework import assignments, feedback, grading, notebook
from moe_np.coursework.assignments import Assignment
from moe_np.coursework.grading import GradedNotebook, Mark
from moe_np.coursework.question import Case
from moe_np.coursework.sandbox import Sandbox, protection
from moe_np.coursework.submissions import Submission, collect, printable

NO_NOTEBOOK = "There is no notebook."
HAND_COLUMNS = ("student", "question", "of", "points", "key", "answer")


class GradedClass(NamedTuple):
    """A graded class."""

    rows: list[tuple[Submission, GradedNotebook]]  # in the order of the students
    seed: int
    remarks: list[str]
    mode: str  # of the sandbox


class Setup(NamedTuple):
    """What is the same for all submissions of a class."""

    assignment: Assignment
    drawn: dict[str, list[Case]]
    seed: int
    out: pathlib.Path
    sandbox: Sandbox


# --- A class --------------------------------------------------------------------------------------


def choose_seed(out: pathlib.Path, assignment: str, given: int | None) -> int:
    """The seed that is given, the one of the grading in `out`, or a new one.

    Raises InputError if `out` holds grades of another assignment.
    """
    stored = None
    with contextlib.suppress(OSError, ValueError):
        stored = json.loads((out / "grading.json").read_text(encoding="utf-8"))
    if stored is not None and stored.get("assignment") != assignment:
        other = stored.get("assignment")
        raise InputError(f"{out}: wanted a folder for {assignment}, got one with grades of {other}")
    if given is not None:
        return given
    return stored["seed"] if stored else secrets.randbits(32)


def grade_class(
    assignment: Assignment,
    given: Sequence[str | os.PathLike],
    out: pathlib.Path,
    *,
    seed: int | None = None,
    jobs: int = 1,
    mode: str | None = None,
    progress: bool = True,
) -> GradedClass:
    """Grade `given` (notebooks or folders) into `out`. What is there for this seed is kept."""
    entries, remarks = collect(given, assignment.name, out)
    seed = choose_seed(out, assignment.name, seed)
    drawn = assignments.draw_all(assignment, seed)
    secret = [assignment.folder.parent, out, *given]
    with Sandbox(assignment.allowed, assignment.libraries, secret=secret, mode=mode) as sandbox:
        facts = {"assignment": assignment.name, "seed": seed, "protection": sandbox.mode}
        write_atomically(out / "grading.json", json.dumps(facts, indent=1) + "\n")
        setup = Setup(assignment, drawn, seed, out, sandbox)
        rows = _grade_all(setup, entries, remarks, jobs, progress)
        for what, holds in protection.report(sandbox, assignment.folder.parent):
            if not holds:
                remarks.append(f"not protected here ({sandbox.mode}): {what}")
    slugs = [slug for _, slug in entries]
    rows = apply_hand_marks(assignment, out, [rows[slug] for slug in slugs], slugs)
    return GradedClass(rows, seed, remarks, sandbox.mode)


def _grade_all(setup, entries, remarks, jobs, progress):
    """{slug: (submission, graded notebook)}, `jobs` submissions at a time."""
    from tqdm import tqdm

    rows = {}
    bar = tqdm(
        total=len(entries), desc="submissions", file=sys.stderr, disable=not progress, leave=False
    )
    with bar, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(_grade_or_report, setup, submission, slug, remarks): (submission, slug)
            for submission, slug in entries
        }
        try:
            for future in concurrent.futures.as_completed(futures):
                submission, slug = futures[future]
                rows[slug] = (submission, future.result())
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return rows


def _grade_or_report(setup, submission, slug, remarks):
    """The graded notebook. A fault of the grader must not stop the class, nor be stored."""
    try:
        return _grade_submission(setup, submission, setup.out / "students" / slug)
    except OSError:
        raise  # from the grader's own files
    except Exception as error:
        fault = f"the grader itself failed ({type(error).__name__}: {error}); please report it"
        remarks.append(f"{submission.student}: {fault}")
        questions = setup.assignment.questions
        return GradedNotebook([grading.no_points(q, "not graded") for q in questions], [fault])


def _grade_submission(setup, submission, folder):
    """The graded notebook of one submission, from the store or graded now."""
    assignment = setup.assignment
    if submission.path is None:
        marks = [grading.no_points(question) for question in assignment.questions]
        graded = GradedNotebook(marks, [NO_NOTEBOOK])
        _store(folder, "", assignment, submission, graded)
        return graded
    try:
        with open(submission.path, "rb") as file:
            raw = file.read(notebook.LARGEST + 1)
    except OSError as error:
        raw = f"{error.strerror}".encode()  # graded as a notebook that cannot be read
    key = grading.marks_key(assignment, setup.drawn, setup.seed, raw)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads((folder / "marks.json").read_text(encoding="utf-8"))
        if stored["key"] == key:
            return GradedNotebook([Mark(**mark) for mark in stored["marks"]], stored["problems"])
    graded = grading.grade(assignment, setup.drawn, setup.sandbox, raw)
    _store(folder, key, assignment, submission, graded)
    return graded


def _store(folder, key, assignment, submission, graded):
    """Write the student's files; the marks last, since they say that all the others are there."""
    _write_feedback(folder, assignment, submission, graded)
    marks = [mark._asdict() for mark in graded.marks]
    stored = {"key": key, "marks": marks, "problems": graded.problems}
    text = json.dumps(stored, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / "marks.json", text)


def _write_feedback(folder, assignment, submission, graded):
    write_atomically(folder / "results.json", feedback.results_json(assignment, graded))
    write_atomically(folder / "feedback.html", feedback.page(assignment, submission, graded))


def write_books(assignment: Assignment, graded: GradedClass, out: pathlib.Path) -> list[str]:
    """Write grades.csv and summary.md. Returns the remarks, fit for a terminal."""
    facts = [("Seed", graded.seed), ("Protection", graded.mode)]
    write_atomically(out / "grades.csv", feedback.grades_csv(assignment, graded.rows))
    write_atomically(out / "summary.md", feedback.summary(assignment, graded.rows, facts))
    return [printable(remark) for remark in graded.remarks]


# --- Marked by hand -------------------------------------------------------------------------------


def apply_hand_marks(
    assignment: Assignment,
    out: pathlib.Path,
    rows: Sequence[tuple[Submission, GradedNotebook]],
    slugs: Sequence[str],
) -> list[tuple[Submission, GradedNotebook]]:
    """The rows with the points that a teacher wrote into by_hand.csv.

    The file is written anew with all answers in words. Where it was filled in, the points count;
    an answer that has changed since then waits for new ones. Raises InputError for points that are
    no number from 0 to the question's.
    """
    path = out / "by_hand.csv"
    given = _read_hand_marks(path)
    marked = []
    waiting = []  # the rows of the new file
    for (submission, graded), slug in zip(rows, slugs, strict=True):
        marks = []
        for mark in graded.marks:
            if mark.text:
                key = "a" + hashlib.sha256(mark.text.encode()).hexdigest()[:10]  # of this answer
                points = given.get((slug, mark.name, key), "")
                most = feedback.number(mark.points)
                waiting.append((slug, mark.name, most, points, key, feedback.cell(mark.text)))
                mark = mark._replace(earned=_parse_points(f"{path}: {slug}", points, mark))
            marks.append(mark)
        row = (submission, GradedNotebook(marks, graded.problems))
        marked.append(row)
        if marks != graded.marks:
            _write_feedback(out / "students" / slug, assignment, *row)
    if waiting:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([HAND_COLUMNS, *waiting])
        write_atomically(path, text.getvalue())
    return marked


def _read_hand_marks(path):
    """{(student, question, key): points as text} of a file that a spreadsheet may have written."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return {}
    delimiter = ";" if text.startswith("student;") else ","
    return {
        (row.get("student"), row.get("question"), row.get("key")): (row.get("points") or "").strip()
        for row in csv.DictReader(io.StringIO(text), delimiter=delimiter)
    }


def _parse_points(place, text, mark):
    if not text:
        return None
    try:
        value = float(text.replace(",", "."))
        if not 0 <= value <= mark.points:
            raise ValueError
        return value
    except ValueError:
        wanted = f"points from 0 to {feedback.number(mark.points)}"
        raise InputError(f"{place}: {mark.name}: wanted {wanted}, got {text!r}") from None
