"""Grade a whole class: every submission once, stored as soon as it is graded, then the gradebook.

grading.json                       the assignment, the seed of the hidden inputs, the protection
students/*/marks.json              the store: what is there for this seed is not graded again
students/*/results.json, .html     for Gradescope, for the student
by_hand.csv                        answers in words, for the teacher to give points
grades.csv, summary.md             the class: everybody who was graded into this folder
canvas.csv, moodle.csv             the totals as these platforms take them
"""

import concurrent.futures
import json
import os
import pathlib
import secrets
import sys
from collections.abc import Sequence
from typing import NamedTuple

from moe_np.base.checks import InputError
from moe_np.base.files import write_atomically
from moe_np.coursework import (
    assignments,
    exports,
    feedback,
    grading,
    hand_marks,
    store,
    submissions,
    tables,
)
from moe_np.coursework.assignments import Assignment
from moe_np.coursework.grading import GradedNotebook, Mark
from moe_np.coursework.question import Case
from moe_np.coursework.sandbox import Sandbox, protection
from moe_np.coursework.submissions import Submission, printable
from moe_np.coursework.tables import Table

NOT_IN_THIS_CALL = "not in this call"


class GradedClass(NamedTuple):
    """A graded class."""

    rows: list[tuple[Submission, GradedNotebook]]  # in the order of the students
    seed: int
    remarks: list[str]
    mode: str  # of the sandbox
    count: int  # of the submissions of this call; the rows of earlier calls are there as well

    @property
    def not_graded(self) -> int:
        """How many people have no marks, since the grader could not read or grade their work."""
        return sum(not graded.is_graded for _, graded in self.rows)


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

    Raises InputError if `out` holds grades of another assignment, or a damaged grading.json.
    """
    path = out / "grading.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        other, seed = stored["assignment"], stored["seed"]
    except FileNotFoundError:
        return secrets.randbits(32) if given is None else given
    except (OSError, ValueError, KeyError, TypeError):
        if given is not None:
            return given
        wanted = "the assignment and the seed of the grades in this folder"
        raise InputError(
            f"{path}: wanted {wanted}, got a file that is damaged; give --seed"
        ) from None
    if other != assignment:
        raise InputError(f"{out}: wanted a folder for {assignment}, got one with grades of {other}")
    return seed if given is None else given


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
    """Grade `given` (notebooks or folders) into `out`. What is there for this seed is kept.

    People who were graded into `out` before and are not in this call keep their rows.
    """
    entries, remarks = submissions.collect(given, assignment.name, out, cell_names(assignment))
    return grade_submissions(
        assignment,
        entries,
        out,
        remarks=remarks,
        secret=given,
        seed=seed,
        jobs=jobs,
        mode=mode,
        progress=progress,
    )


def grade_one(assignment: Assignment, folder: pathlib.Path, out: pathlib.Path) -> GradedClass:
    """Grade the one submission that a folder holds into `out`, for Gradescope."""
    submission = submissions.collect_one(folder, assignment.name, cell_names(assignment))
    entries = [(submission, submission.slug)]
    remarks = list(submission.remarks)
    return grade_submissions(
        assignment, entries, out, remarks=remarks, secret=[folder], progress=False
    )


def cell_names(assignment: Assignment) -> frozenset[str]:
    """The names (grade_ids) of an assignment's cells, by which its notebooks are known."""
    return frozenset(cell.grade_id for cell in assignment.cells if cell.grade_id)


def grade_submissions(
    assignment: Assignment,
    entries: Sequence[tuple[Submission, str]],
    out: pathlib.Path,
    *,
    remarks: list[str],
    secret: Sequence[str | os.PathLike],
    seed: int | None = None,
    jobs: int = 1,
    mode: str | None = None,
    progress: bool = True,
) -> GradedClass:
    """Grade submissions that are collected: [(submission, slug)].

    remarks   those of collecting; others are added
    secret    folders that student code must not see, besides those of the assignment and of `out`
    """
    hand_marks.read(out)  # a file that is not understood stops the command before the work
    seed = choose_seed(out, assignment.name, seed)
    drawn = assignments.draw_all(assignment, seed)
    secret = [assignment.folder.parent, out, *secret]
    with Sandbox(assignment.allowed, assignment.libraries, secret=secret, mode=mode) as sandbox:
        facts = {"assignment": assignment.name, "seed": seed, "protection": sandbox.mode}
        write_atomically(out / "grading.json", json.dumps(facts, indent=1) + "\n")
        setup = Setup(assignment, drawn, seed, out, sandbox)
        rows = _grade_all(setup, entries, remarks, jobs, progress)
        for what, holds in protection.report(sandbox, assignment.folder.parent):
            if not holds:
                remarks.append(f"not protected here ({sandbox.mode}): {what}")
    rows |= _earlier_rows(setup, rows, remarks)
    slugs = sorted(rows, key=lambda slug: (rows[slug][0].student, rows[slug][0].id, slug))
    rows = [rows[slug] for slug in slugs]
    marked, changes = hand_marks.apply(assignment, out, rows, slugs)
    for slug, row in zip(slugs, marked, strict=True):
        if any(mark.text for mark in row[1].marks):
            _write_feedback(out / "students" / slug, assignment, *row)
    return GradedClass(marked, seed, remarks + changes, sandbox.mode, len(entries))


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
        return _grade_submission(setup, submission, setup.out / "students" / slug, remarks)
    except OSError:
        raise  # from the grader's own files
    except Exception as error:
        fault = f"the grader itself failed ({type(error).__name__}: {error}); please report it"
        remarks.append(f"{submission.student}: {fault}")
        return _not_graded(setup.assignment, fault)


def _not_graded(assignment, reason):
    """A notebook without marks: what the grader could not do is nobody's 0."""
    marks = [Mark(q.name, q.points, None, "not graded") for q in assignment.questions]
    return GradedNotebook(marks, [reason])


def _grade_submission(setup, submission, folder, remarks):
    """The graded notebook of one submission, from the store or graded now."""
    assignment = setup.assignment
    if submission.path is None:
        marks = [grading.no_points(question) for question in assignment.questions]
        problem = submission.remarks[-1] if submission.remarks else "there is no notebook"
        graded = GradedNotebook(marks, [f"{problem[:1].upper()}{problem[1:]}."])
        _store(setup, folder, "", submission, graded)
        return graded
    try:
        raw = submissions.read(submission)
    except OSError as error:
        fault = f"{submission.path} cannot be read by the grader ({error.strerror}): no marks"
        remarks.append(f"{submission.student}: {fault}")
        return _not_graded(assignment, fault)
    key = store.marks_key(assignment, setup.drawn, setup.seed, raw)
    stored = store.load(folder)
    graded = store.marks_in(stored) if stored and stored.get("key") == key else None
    if graded is None:
        graded = grading.grade(assignment, setup.drawn, setup.sandbox, raw)
    elif stored.get("submission") == store.facts_about(submission):
        return graded
    _store(setup, folder, key, submission, graded)
    return graded


# --- The store ------------------------------------------------------------------------------------


def _earlier_rows(setup, rows, remarks):
    """{slug: (submission, graded notebook)} of those who were graded into `out` in other calls."""
    earlier = {}
    other = []
    for path in sorted((setup.out / "students").glob("*/marks.json")):
        slug = path.parent.name
        stored = None if slug in rows else store.load(path.parent)
        submission = store.submission_in(stored) if stored else None
        if submission is None:
            continue
        graded = store.marks_in(stored)
        if graded is None or stored.get("settings") != _settings(setup):
            other.append(slug)
            continue
        texts = [text for text in submission.remarks if text != NOT_IN_THIS_CALL]
        submission = submission._replace(remarks=(*texts, NOT_IN_THIS_CALL))
        earlier[slug] = (submission, graded)
    place = setup.out / "students"
    if earlier:
        names = ", ".join(earlier)
        remarks.append(
            f"of earlier calls and kept: {names} (to leave one out delete its folder in {place})"
        )
    if other:
        names = ", ".join(other)
        remarks.append(
            f"graded earlier with another seed or other questions, so not in the "
            f"grades: {names}; give their notebooks again"
        )
    return earlier


def _store(setup, folder, key, submission, graded):
    """Write the student's files; the marks last, since they say that all the others are there."""
    _write_feedback(folder, setup.assignment, submission, graded)
    store.save(folder, key, _settings(setup), submission, graded)


def _settings(setup):
    """What the marks of a class have in common."""
    return [setup.assignment.fingerprint, setup.seed]


def _write_feedback(folder, assignment, submission, graded):
    write_atomically(folder / "results.json", feedback.results_json(assignment, graded))
    write_atomically(folder / "feedback.html", feedback.page(assignment, submission, graded))


def write_books(
    assignment: Assignment,
    graded: GradedClass,
    out: pathlib.Path,
    *,
    canvas: str | None = None,
    worksheet: Table | None = None,
) -> list[str]:
    """Write grades.csv, summary.md and the platforms' files. Returns remarks, fit for a terminal.

    canvas      the title of Canvas's column for the total, "Homework 1 (98765)"
    worksheet   Moodle's grading worksheet, for moodle.csv

    Raises InputError if the worksheet is not one of this class.
    """
    facts = [("Seed", graded.seed), ("Protection", graded.mode)]
    rows = graded.rows
    write_atomically(out / "grades.csv", feedback.grades_csv(assignment, rows))
    write_atomically(out / "summary.md", feedback.summary(assignment, rows, facts))
    total, questions = exports.canvas_csv(assignment, rows, canvas)
    write_atomically(out / "canvas.csv", total)
    write_atomically(out / "canvas_questions.csv", questions)
    remarks = list(graded.remarks)
    if worksheet is not None:
        filled, about_moodle = exports.fill_worksheet(assignment, rows, worksheet)
        tables.write(out / "moodle.csv", filled)
        remarks += about_moodle
    waiting = sum(graded.is_graded and not graded.is_complete for _, graded in rows)
    if waiting:
        remarks.append(
            f"{waiting} wait for points in {out / hand_marks.FILE}: their totals are so far, and "
            f"are not in the files for Canvas and Moodle"
        )
    return [printable(remark) for remark in remarks]
