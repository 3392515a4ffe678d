"""The commands `moe-np coursework ...`: list, release, check, grade, and for other systems.

Each command imports what it needs when it is called, so that the others start fast.
"""

import argparse
import json
import pathlib
import sys
import time

from moe_np.base.checks import InputError, integer
from moe_np.base.files import writable_folder
from moe_np.coursework import assignments

MOST_STATUS = 125  # larger exit statuses have meanings of their own

# --- Arguments ------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np coursework`: one subcommand each."""
    commands = parser.add_subparsers(dest="coursework", required=True, metavar="WHAT")
    listing = commands.add_parser("list", help="the assignments")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    progress = commands.add_parser("progress", help="a learner's progress through the lessons")
    progress.add_argument("folder", metavar="FOLDER", help="of the learner's lessons")
    release = commands.add_parser("release", help="make the folder that students get")
    check = commands.add_parser("check", help="run a notebook's visible checks, as a student")
    check.add_argument("notebook", metavar="NOTEBOOK")
    grade = commands.add_parser("grade", help="grade a class")
    _add_grade_arguments(grade)
    prove = commands.add_parser("prove", help="grade an assignment's right and wrong answers")
    _add_prove_arguments(prove)
    protection = commands.add_parser("protection", help="try what the sandbox prevents here")
    nbgrader = commands.add_parser("nbgrader", help="write an assignment into an nbgrader course")
    gradescope = commands.add_parser("gradescope", help="make an autograder for Gradescope")
    for command in (release, nbgrader, gradescope):
        command.add_argument("name", metavar="NAME")
        command.add_argument("dir", metavar="DIR")
    help_ = "where the assignments are (default: in the checkout)"
    for command in (listing, release, grade, prove, protection, nbgrader, gradescope):
        command.add_argument("--assignments", metavar="DIR", help=help_)
    help_ = "namespaces, bubblewrap, user or process"
    for command in (check, grade, prove, protection):
        command.add_argument("--protection", metavar="MODE", help=help_)


def _add_grade_arguments(grade):
    grade.add_argument("name", metavar="NAME")
    help_ = "notebooks, or folders of them"
    grade.add_argument("submissions", metavar="SUBMISSION", nargs="+", help=help_)
    help_ = "where grades go; the same command continues a grading that was stopped"
    grade.add_argument("--out", required=True, metavar="DIR", help=help_)
    help_ = "of the hidden inputs (default: a new one, kept in DIR)"
    grade.add_argument("--seed", type=int, metavar="N", help=help_)
    help_ = "submissions at a time (default: 1)"
    grade.add_argument("--jobs", type=int, default=1, metavar="N", help=help_)
    help_ = "Moodle's grading worksheet, filled in DIR/moodle.csv"
    grade.add_argument("--worksheet", metavar="FILE", help=help_)
    help_ = 'the column of DIR/canvas.csv (default: "NAME total"), as "Homework 1 (98765)"'
    grade.add_argument("--canvas", metavar="TITLE", help=help_)


def _add_prove_arguments(prove):
    prove.add_argument("name", metavar="NAME")
    help_ = "grade these instead of the bank: files QUESTION__right__WHAT.py, __wrong__"
    prove.add_argument("--answers", metavar="FOLDER", help=help_)
    help_ = "of the hidden inputs (default: 1)"
    prove.add_argument("--seed", type=int, default=1, metavar="S", help=help_)
    help_ = "number of seeds, from S on (default: 1)"
    prove.add_argument("--seeds", type=int, default=1, metavar="COUNT", help=help_)
    prove.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int | None:
    """Run the command of the parsed arguments. Returns the exit status, None for 0."""
    return COMMANDS[args.coursework](args)


# --- Commands -------------------------------------------------------------------------------------


def _list(args):
    names = assignments.names(args.assignments)
    loaded = [assignments.load(name, args.assignments) for name in names]
    if args.json:
        print(json.dumps([_facts(a) for a in loaded], indent=1, ensure_ascii=False))
        return
    for a in loaded:
        questions = f"{len(a.questions)} questions, {a.points:g} points"
        print(f"{a.name:12} {a.title}: {questions}, {a.time}, {a.after}")


def _progress(args):
    from moe_np.coursework import lesson_progress

    print(lesson_progress.table(args.folder))


def _facts(assignment):
    keys = ("name", "title", "after", "hours", "points", "allowed", "libraries")
    questions = [question.facts() for question in assignment.questions]
    return {**{key: getattr(assignment, key) for key in keys}, "questions": questions}


def _release(args):
    from moe_np.coursework.release import release

    for path in release(assignments.load(args.name, args.assignments), args.dir):
        print(path)


def _check(args):
    from moe_np.coursework import checking

    results = []
    for result in checking.check(checking.read(args.notebook), mode=args.protection):
        results.append(result)
        words = "finds what is given, graded on others" if result.searched else "right"
        verdicts = {True: words, None: "marked by hand", False: f"not yet. {result.message}"}
        print(f"{result.name}: {verdicts[result.passed]}", flush=True)
    passed = sum(result.passed is True for result in results)
    count = f"{passed} of {len(results)} pass their visible checks"
    print(f"{count}; hidden inputs decide when it is graded")
    return 1 if any(result.passed is False for result in results) else 0


def _grade(args):
    from moe_np.coursework import exports, feedback, gradebook, tables

    assignment = assignments.load(args.name, args.assignments)
    if args.seed is not None:
        integer("--seed", args.seed, minimum=0)
    jobs = integer("--jobs", args.jobs)
    worksheet = args.worksheet and pathlib.Path(args.worksheet)
    try:
        worksheet = worksheet and tables.read(worksheet, exports.WORKSHEET)
    except FileNotFoundError:
        raise InputError(f"--worksheet: {args.worksheet} does not exist") from None
    start = time.perf_counter()
    out = writable_folder(args.out)
    given = [pathlib.Path(path) for path in args.submissions]
    graded = gradebook.grade_class(
        assignment, given, out, seed=args.seed, jobs=jobs, mode=args.protection
    )
    remarks = gradebook.write_books(
        assignment, graded, out, canvas=args.canvas, worksheet=worksheet
    )
    for remark in remarks:
        print(remark, file=sys.stderr)
    print(feedback.class_table(assignment, graded.rows))
    facts = (
        f"{graded.count} submissions in {time.perf_counter() - start:.1f} s",
        f"seed {graded.seed}, protection {graded.mode}",
        f"wrote {out / 'grades.csv'}, canvas.csv, summary.md, and results.json and feedback.html "
        f"of each student in students/",
    )
    print(*facts, sep="; ", file=sys.stderr)
    if graded.not_graded:
        print(f"{graded.not_graded} not graded, see above: no marks", file=sys.stderr)
    return 1 if graded.not_graded else None


def _prove(args):
    """Returns how many answers are not graded as wanted, at most MOST_STATUS."""
    from moe_np.coursework import bank
    from moe_np.coursework.sandbox import Sandbox

    assignment = assignments.load(args.name, args.assignments)
    if args.answers is None:
        answers = assignments.load_bank(args.name, args.assignments)
    else:
        answers = bank.read_answers(args.answers, assignment)
    first = integer("--seed", args.seed, minimum=0)
    seeds = range(first, first + integer("--seeds", args.seeds))
    draws = {seed: assignments.draw_all(assignment, seed) for seed in seeds}
    options = {"secret": (assignment.folder.parent,), "mode": args.protection}
    with Sandbox(assignment.allowed, assignment.libraries, **options) as sandbox:
        rows = bank.prove_on_seeds(assignment, answers, sandbox, draws)
    facts = bank.facts(assignment, seeds, rows)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if args.json else bank.table(rows))
    if failed := facts["not_as_wanted"]:
        count = f"{failed} of {len(rows)} answers are not graded as wanted"
        print(f"{args.name}: {count}; see the table", file=sys.stderr)
    return min(failed, MOST_STATUS)


def _protection(args):
    from moe_np.coursework.sandbox import Sandbox, protection

    folder = assignments.folder(args.assignments)
    with Sandbox(mode=args.protection, secret=(folder,)) as sandbox:
        print(protection.table(sandbox, protection.report(sandbox, folder)))


def _nbgrader(args):
    from moe_np.coursework.release import nbgrader_source

    print(nbgrader_source(assignments.load(args.name, args.assignments), args.dir))


def _gradescope(args):
    from moe_np.coursework.release import gradescope

    out = gradescope(assignments.load(args.name, args.assignments), args.dir)
    print(f"{out}: zip what is in it (not the folder itself) and upload it as the autograder")


COMMANDS = {
    "list": _list,
    "progress": _progress,
    "release": _release,
    "check": _check,
    "grade": _grade,
    "prove": _prove,
    "protection": _protection,
    "nbgrader": _nbgrader,
    "gradescope": _gradescope,
}
