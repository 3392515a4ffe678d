"""`moe-np coursework ...`: list, release, check, grade, and what other systems need."""

import json
import pathlib
import sys
import time

from moe_np.base.checks import InputError, integer
from moe_np.base.files import write_atomically
from moe_np.coursework import assignments


def add_arguments(parser, argv):
    """Arguments of `moe-np coursework`: one subcommand each."""
    commands = parser.add_subparsers(dest="coursework", required=True, metavar="WHAT")
    listing = commands.add_parser("list", help="the assignments")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    release = commands.add_parser("release", help="make the folder that students get")
    check = commands.add_parser("check", help="run a notebook's visible checks, as a student")
    check.add_argument("notebook", metavar="NOTEBOOK")
    grade = commands.add_parser("grade", help="grade a class")
    grade.add_argument("name", metavar="NAME")
    grade.add_argument(
        "submissions", metavar="SUBMISSION", nargs="+", help="notebooks, or folders of them"
    )
    grade.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="where grades go; graded again it goes on from there",
    )
    grade.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="of the hidden inputs (default: a new one, kept in DIR)",
    )
    grade.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="submissions at a time (default: 1)"
    )
    prove = commands.add_parser(
        "prove", help="grade an assignment's bank of right and wrong answers"
    )
    prove.add_argument("name", metavar="NAME")
    protection = commands.add_parser(
        "protection", help="try what the sandbox holds back on this system"
    )
    nbgrader = commands.add_parser("nbgrader", help="write an assignment into an nbgrader course")
    gradescope = commands.add_parser("gradescope", help="make an autograder for Gradescope")
    for command in (release, nbgrader, gradescope):
        command.add_argument("name", metavar="NAME")
        command.add_argument("dir", metavar="DIR")
    for command in (listing, release, grade, prove, protection, nbgrader, gradescope):
        command.add_argument(
            "--assignments",
            metavar="DIR",
            help="where the assignments are (default: the checkout's)",
        )
    for command in (check, grade, prove, protection):
        command.add_argument(
            "--protection", metavar="MODE", help="namespaces, bubblewrap, user or process"
        )


def run(args):
    """Do what the parsed arguments say; the exit status, None for 0."""
    return COMMANDS[args.coursework](args)


def list_assignments(args):
    found = [
        assignments.load(name, args.assignments) for name in assignments.names(args.assignments)
    ]
    if args.json:
        print(json.dumps([_facts(a) for a in found], indent=1, ensure_ascii=False))
        return
    for a in found:
        print(
            f"{a.name:12} {a.title}: {len(a.questions)} questions, {a.points:g} points, {a.hours} hours, {a.after}"
        )


def _facts(a):
    questions = [{"name": q.name, "points": q.points, "function": q.function} for q in a.questions]
    return {
        "name": a.name,
        "title": a.title,
        "after": a.after,
        "hours": a.hours,
        "points": a.points,
    } | {
        "allowed": a.allowed,
        "libraries": a.libraries,
        "questions": questions,
    }


def release(args):
    from moe_np.coursework.release import release as make

    for path in make(assignments.load(args.name, args.assignments), args.dir):
        print(path)


def check(args):
    from moe_np.coursework import checking

    notebook = checking.read(args.notebook)
    results = []
    for found in checking.check(notebook, mode=args.protection):
        results.append(found)
        said = {True: "right", None: "marked by hand"}.get(
            found.passed, f"not yet. {found.message}"
        )
        print(f"{found.name}: {said}", flush=True)
    right = [r for r in results if r.passed]
    print(
        f"{len(right)} of {len(results)} pass their visible checks; hidden inputs decide when it is graded"
    )
    return 0 if all(r.passed is not False for r in results) else 1


def grade(args):
    from moe_np.coursework import gradebook, reports

    assignment = assignments.load(args.name, args.assignments)
    if args.seed is not None:
        integer("--seed", args.seed, minimum=0)
    out, start = pathlib.Path(args.out), time.perf_counter()
    given = [pathlib.Path(s) for s in args.submissions]
    jobs = integer("--jobs", args.jobs)
    write_atomically(out / ".writable", "")  # a refusal comes before the work
    (out / ".writable").unlink()
    graded = gradebook.grade_class(
        assignment, given, out, seed=args.seed, jobs=jobs, mode=args.protection
    )
    for remark in gradebook.write_books(assignment, graded, out):
        print(remark, file=sys.stderr)
    print(reports.class_table(assignment, graded.rows))
    seconds = time.perf_counter() - start
    print(
        f"{len(graded.rows)} submissions in {seconds:.1f} s; seed {graded.seed}, protection {graded.mode}; wrote "
        f"{out / 'grades.csv'}, summary.md, and results.json and feedback.html of each student in students/",
        file=sys.stderr,
    )


def prove(args):
    from moe_np.coursework import proof
    from moe_np.coursework.sandbox import Sandbox

    a = assignments.load(args.name, args.assignments)
    with Sandbox(
        a.allowed, a.libraries, secret=(a.folder.parent,), mode=args.protection
    ) as sandbox:
        bank = assignments.bank(args.name, args.assignments)
        rows = list(proof.prove(a, bank, sandbox, assignments.draw_all(a, 1)))
    print(proof.table(rows))
    wrong = [row for row in rows if not row.as_wanted]
    if wrong:
        raise InputError(
            f"{args.name}: {len(wrong)} of {len(rows)} answers are not graded as wanted; see the table"
        )


def protection(args):
    from moe_np.coursework import protection as tried
    from moe_np.coursework.sandbox import Sandbox

    where = assignments.folder(args.assignments)
    with Sandbox(mode=args.protection, secret=(where,)) as sandbox:
        print(tried.table(sandbox, tried.report(sandbox, where)))


def nbgrader(args):
    from moe_np.coursework.release import nbgrader_source

    print(nbgrader_source(assignments.load(args.name, args.assignments), args.dir))


def gradescope(args):
    from moe_np.coursework.release import gradescope as make

    out = make(assignments.load(args.name, args.assignments), args.dir)
    print(f"{out}: zip what is in it (not the folder itself) and upload it as the autograder")


COMMANDS = {
    "list": list_assignments,
    "release": release,
    "check": check,
    "grade": grade,
    "prove": prove,
    "protection": protection,
    "nbgrader": nbgrader,
    "gradescope": gradescope,
}
