"""What is handed out, and what other systems want: the student's folder, nbgrader's source,
Gradescope's autograder.
"""

import pathlib
import shutil
import stat

import moe_np
from moe_np.base.checks import InputError
from moe_np.base.files import write_atomically
from moe_np.coursework import percent
from moe_np.coursework.reports import number

HERE = pathlib.Path(__file__).resolve().parent


def describe(assignment):
    """What the notebook carries so that `check` needs nothing else: no solution, no hidden case."""
    own = {
        "assignment": assignment.name,
        "allowed": list(assignment.allowed),
        "libraries": list(assignment.libraries),
        "questions": [
            {"name": q.name, "points": q.points, "function": q.function}
            for q in assignment.questions
        ],
        "given": {
            c.grade_id: c.source
            for c in assignment.cells
            if c.nbgrader.get("locked") and not _graded(c)
        },
        "version": moe_np.__version__,
    }
    return {"moe_np": own}


def _graded(cell):
    return cell.nbgrader.get("grade") or cell.kind != "code"


def release(assignment, out):
    """The student's folder: notebook, instructions, data. Returns the paths written."""
    out = pathlib.Path(out)
    notebook = percent.to_notebook(percent.released(assignment.cells), describe(assignment))
    files = {
        f"{assignment.name}.ipynb": percent.write_notebook(notebook),
        "README.md": instructions(assignment),
    }
    written = []
    for name, text in files.items():
        write_atomically(out / name, text)
        written.append(out / name)
    data = assignment.folder / "data"
    for path in sorted(data.rglob("*")) if data.is_dir() else ():
        if path.is_file():
            target = out / "data" / path.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            written.append(target)
    return written


def instructions(assignment):
    """A page of text beside the notebook."""
    points = "\n".join(
        f"| {q.name} | {number(q.points)} | {_how(q)} |" for q in assignment.questions
    )
    return f"""# {assignment.title}

Open `{assignment.name}.ipynb` in JupyterLab, VS Code or Colab and write the answers where it says
`# YOUR CODE HERE`. All that is needed is the package `moe_np`.

    moe-np coursework check {assignment.name}.ipynb

runs the checks that you see in the notebook, by the names under which it is graded. Hand in the notebook and nothing
else.

| question | points | graded |
|---|---|---|
{points}

Follows {assignment.after}; allow {assignment.hours} hours.
Student code may import {", ".join(assignment.libraries)}, and of the package {", ".join(assignment.allowed)}.
Nothing else is there when it is graded.
"""


def _how(question):
    if question.function is None:
        return "by hand"
    fast = (
        f", and at least {number(question.faster)} times as fast as the plain way"
        if question.baseline
        else ""
    )
    return f"`{question.function}` on hidden inputs{fast}, within {number(question.seconds)} s"


def nbgrader_source(assignment, course):
    """`source/NAME/NAME.ipynb` of an nbgrader course, with solutions and hidden tests. Returns its
    path.
    """
    path = pathlib.Path(course) / "source" / assignment.name / f"{assignment.name}.ipynb"
    write_atomically(path, percent.write_notebook(percent.to_notebook(assignment.cells)))
    return path


# --- Gradescope -----------------------------------------------------------------------------------

SETUP = """#!/usr/bin/env bash
# Gradescope runs this once, as root, when the image is built.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
source="${AUTOGRADER:-/autograder}/source"
apt-get update
apt-get install -y --no-install-recommends python3-venv python3-pip
python=python3
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    apt-get install -y --no-install-recommends python3.11 python3.11-venv
    python=python3.11
fi
"$python" -m venv "$source/venv"
"$source/venv/bin/pip" install --quiet "$source/package"
"""

RUN = """#!/usr/bin/env bash
# Gradescope runs this for every submission, as root. Student code runs as another user and cannot
# read this folder.
set -euo pipefail
base="${AUTOGRADER:-/autograder}"
chmod -R go-rwx "$base/source/assignments" "$base/source/package" "$base/submission"
chmod -R go-rwx "$base"/source/venv/lib/python3*/site-packages/moe_np
exec "$base/source/venv/bin/python" -P "$base/source/grade_one.py" NAME "$base"
"""

GRADE_ONE = '''"""Grade the one submission that Gradescope has put down, and leave results.json where it looks."""

import pathlib
import shutil
import sys
import tempfile

from moe_np.coursework import assignments, gradebook

name, base = sys.argv[1], pathlib.Path(sys.argv[2])
(base / "results").mkdir(exist_ok=True)
assignment = assignments.load(name, base / "source" / "assignments")
with tempfile.TemporaryDirectory() as folder:
    notebooks = sorted(p for p in (base / "submission").rglob("*.ipynb") if not p.is_symlink())
    given = pathlib.Path(folder, "submission.ipynb")  # one student, whatever the files are called
    given.write_bytes(notebooks[-1].read_bytes() if notebooks else b"")
    graded = gradebook.grade_class(assignment, [given], pathlib.Path(folder, "out"), progress=False)
    shutil.copyfile(next(pathlib.Path(folder, "out").rglob("results.json")), base / "results" / "results.json")
print(f"protection: {graded.mode}", *graded.remarks, sep="\\n", file=sys.stderr)
'''


def gradescope(assignment, out):
    """The folder whose content, zipped, is Gradescope's autograder. Returns its path."""
    out = pathlib.Path(out)
    package = pathlib.Path(moe_np.__file__).resolve().parent
    project = package.parent / "pyproject.toml"
    if not project.exists():
        raise InputError(
            "gradescope: wanted a checkout of the project beside the package, got an installed package"
        )
    for name, text in (
        ("setup.sh", SETUP),
        ("run_autograder", RUN.replace("NAME", assignment.name)),
    ):
        write_atomically(out / name, text)
        (out / name).chmod((out / name).stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    write_atomically(out / "grade_one.py", GRADE_ONE)
    for name in ("assignment.py", "questions.py"):
        target = out / "assignments" / assignment.name / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(assignment.folder / name, target)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(package, out / "package" / "moe_np", ignore=ignore, dirs_exist_ok=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (package.parent / name).exists():
            shutil.copyfile(package.parent / name, out / "package" / name)
    return out
