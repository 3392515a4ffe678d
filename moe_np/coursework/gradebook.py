"""A whole class: every submission graded once, stored the moment it is done, and put together into
a gradebook.
"""

import concurrent.futures
import contextlib
import csv
import hashlib
import io
import json
import secrets
import sys
from typing import NamedTuple

from moe_np.base.checks import InputError
from moe_np.base.files import write_atomically
from moe_np.coursework import assignments, grading, percent, protection, reports
from moe_np.coursework.sandbox import Sandbox
from moe_np.coursework.submissions import collect, printable


class Graded(NamedTuple):
    rows: list  # (Submission, Marked), in the order of students
    seed: int
    remarks: list
    mode: str


def seed_for(out, assignment, given):
    """The seed of this grading: the one given, the one of a grading that is to go on, or a new one."""
    path = out / "grading.json"
    stored = None
    with contextlib.suppress(OSError, ValueError):
        stored = json.loads(path.read_text(encoding="utf-8"))
    if stored is not None and stored.get("assignment") != assignment:
        raise InputError(
            f"{out}: wanted a folder for {assignment}, got one with grades of {stored.get('assignment')}"
        )
    return given if given is not None else stored["seed"] if stored else secrets.randbits(32)


def grade_class(assignment, given, out, *, seed=None, jobs=1, mode=None, progress=True):
    """Grade `given` (notebooks or folders) into `out`. What is there for this seed is not done
    again.
    """
    from tqdm import tqdm

    found, remarks = collect(given, assignment.name, out)
    seed = seed_for(out, assignment.name, seed)
    drawn = assignments.draw_all(assignment, seed)
    secret = [assignment.folder.parent, out, *given]
    with Sandbox(assignment.allowed, assignment.libraries, secret=secret, mode=mode) as sandbox:
        facts = {"assignment": assignment.name, "seed": seed, "protection": sandbox.mode}
        write_atomically(out / "grading.json", json.dumps(facts, indent=1) + "\n")
        rows = {}

        def one(entry):
            submission, slug = entry
            try:
                marked = _graded(
                    assignment, drawn, seed, sandbox, submission, out / "students" / slug
                )
            except OSError:
                raise  # the grader's own files
            except (
                Exception
            ) as error:  # a fault of ours must not stop the class, nor be stored as a mark
                said = (
                    f"the grader itself failed ({type(error).__name__}: {error}); please report it"
                )
                remarks.append(f"{submission.student}: {said}")
                marked = grading.Marked(
                    [grading.nothing(q, "not graded") for q in assignment.questions], [said]
                )
            return slug, submission, marked

        bar = tqdm(
            total=len(found), desc="submissions", file=sys.stderr, disable=not progress, leave=False
        )
        with bar, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(one, entry) for entry in found]
            try:
                for future in concurrent.futures.as_completed(futures):
                    slug, submission, marked = future.result()
                    rows[slug] = (submission, marked)
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        open_doors = [
            what for what, ok in protection.report(sandbox, assignment.folder.parent) if not ok
        ]
        remarks += [f"not protected here ({sandbox.mode}): {what}" for what in open_doors]
        mode = sandbox.mode
    slugs = [slug for _, slug in found]
    return Graded(
        by_hand(assignment, out, [rows[slug] for slug in slugs], slugs), seed, remarks, mode
    )


def _graded(assignment, drawn, seed, sandbox, submission, folder):
    """The marks of one submission, from the store or by grading it now."""
    if submission.path is None:
        marked = grading.Marked(
            [grading.nothing(q) for q in assignment.questions], ["There is no notebook."]
        )
        _store(folder, "", assignment, submission, marked)
        return marked
    try:
        with open(submission.path, "rb") as file:
            raw = file.read(percent.LARGEST + 1)
    except OSError as error:
        # no notebook: graded, and told, as one that cannot be read
        raw = f"{error.strerror}".encode()
    key = grading.key(assignment, drawn, seed, raw)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads((folder / "marks.json").read_text(encoding="utf-8"))
        if stored["key"] == key:
            return grading.Marked([grading.Mark(**m) for m in stored["marks"]], stored["problems"])
    marked = grading.grade(assignment, drawn, sandbox, raw)
    _store(folder, key, assignment, submission, marked)
    return marked


def _store(folder, key, assignment, submission, marked):
    """Page and results first, the marks last: they say that all is there."""
    _show(folder, assignment, submission, marked)
    marks = {"key": key, "marks": [m._asdict() for m in marked.marks], "problems": marked.problems}
    write_atomically(folder / "marks.json", json.dumps(marks, indent=1, ensure_ascii=False) + "\n")


def _show(folder, assignment, submission, marked):
    write_atomically(folder / "results.json", reports.results_json(assignment, marked))
    write_atomically(folder / "feedback.html", reports.feedback(assignment, submission, marked))


# --- Marked by hand -------------------------------------------------------------------------------

HAND = (
    "student",
    "question",
    "of",
    "points",
    "key",
    "answer",
)  # the key: which answer it was, whatever became of it


def by_hand(assignment, out, rows, slugs):
    """Put in the points that a teacher wrote into by_hand.csv; make the file, with all answers that
    wait for them.

    Filled in and graded again, the points count; answers that changed since are asked for anew.
    """
    path = out / "by_hand.csv"
    given = {}
    with contextlib.suppress(OSError):
        text = path.read_text(encoding="utf-8-sig", errors="replace")  # spreadsheets have their own
        for row in csv.DictReader(
            io.StringIO(text), delimiter=";" if text.startswith("student;") else ","
        ):
            given[row.get("student"), row.get("question"), row.get("key")] = (
                row.get("points") or ""
            ).strip()
    done, asked = [], []
    for (submission, marked), slug in zip(rows, slugs, strict=True):
        marks = []
        for m in marked.marks:
            if m.text:
                key = "a" + hashlib.sha256(m.text.encode()).hexdigest()[:10]
                points = given.get((slug, m.name, key), "")
                asked.append(
                    (slug, m.name, reports.number(m.points), points, key, reports.cell(m.text))
                )
                m = m._replace(earned=_points(f"{path}: {slug}", points, m))
            marks.append(m)
        done.append((submission, grading.Marked(marks, marked.problems)))
        if marks != marked.marks:
            _show(out / "students" / slug, assignment, *done[-1])
    if asked:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([HAND, *asked])
        write_atomically(path, text.getvalue())
    return done


def _points(where, text, mark):
    if not text:
        return None
    try:
        value = float(text.replace(",", "."))
        if not 0 <= value <= mark.points:
            raise ValueError
        return value
    except ValueError:
        wanted = f"points from 0 to {reports.number(mark.points)}"
        raise InputError(f"{where}: {mark.name}: wanted {wanted}, got {text!r}") from None


def write_books(assignment, graded, out):
    """grades.csv and summary.md, and the pages of those whose marks came by hand."""
    facts = [("Seed", graded.seed), ("Protection", graded.mode)]
    write_atomically(out / "grades.csv", reports.grades_csv(assignment, graded.rows))
    write_atomically(out / "summary.md", reports.summary(assignment, graded.rows, facts))
    return [printable(remark) for remark in graded.remarks]
