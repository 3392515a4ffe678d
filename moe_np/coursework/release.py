"""What is handed out, and what other systems want.

release          the folder for students: notebook, instructions, data
nbgrader_source  the notebook with solutions and hidden tests, in an nbgrader course
gradescope       the autograder for Gradescope
"""

import os
import pathlib
import shutil
import stat
from typing import Any

import moe_np
from moe_np.base.checks import InputError
from moe_np.base.files import write_atomically
from moe_np.coursework import notebook
from moe_np.coursework.assignments import FEEDBACK, Assignment
from moe_np.coursework.feedback import number

# --- For students ---------------------------------------------------------------------------------


def describe(assignment: Assignment) -> dict[str, Any]:
    """The notebook's metadata that `check` needs: no solution and no hidden case is in it."""
    facts = {
        "assignment": assignment.name,
        "allowed": list(assignment.allowed),
        "libraries": list(assignment.libraries),
        "questions": [question.facts() for question in assignment.questions],
        "given": {cell.grade_id: cell.source for cell in assignment.cells if _is_given(cell)},
        "version": moe_np.__version__,
    }
    return {"moe_np": facts}


def _is_given(cell):
    return cell.kind == "code" and cell.nbgrader.get("locked") and not cell.nbgrader.get("grade")


def release(assignment: Assignment, out: str | os.PathLike) -> list[pathlib.Path]:
    """Write the student's folder: notebook, instructions, data. Returns the paths written."""
    out = pathlib.Path(out)
    cells = notebook.released(assignment.cells)
    files = {
        f"{assignment.name}.ipynb": notebook.write(cells, describe(assignment)),
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


INSTRUCTIONS = """# {title}

Open `{name}.ipynb` in JupyterLab, VS Code or Colab and write the answers where it says
`# YOUR CODE HERE`. All that is needed is the package `moe_np`.

    moe-np coursework check {name}.ipynb

runs the checks that you see in the notebook, by the names under which it is graded. Hand in the \
notebook and nothing
else.

| question | points | graded |
|---|---|---|
{questions}

Follows {after}; allow {time}.
Student code may import {libraries}, and of the package {allowed}.
Nothing else is there when it is graded.
"""


def instructions(assignment: Assignment) -> str:
    """A page of text beside the notebook."""
    questions = [
        f"| {question.name} | {number(question.points)} | {_grading_rule(question)} |"
        for question in assignment.questions
    ]
    return INSTRUCTIONS.format(
        title=assignment.title,
        name=assignment.name,
        questions="\n".join(questions),
        after=assignment.after,
        time=assignment.time,
        libraries=", ".join(assignment.libraries),
        allowed=", ".join(assignment.allowed),
    )


def _grading_rule(question):
    if question.function is None:
        return "by hand"
    speed = ""
    if question.baseline:
        speed = f", and at least {number(question.faster)} times as fast as the plain way"
    return f"`{question.function}` on hidden inputs{speed}, within {number(question.seconds)} s"


# --- For nbgrader ---------------------------------------------------------------------------------


def nbgrader_source(assignment: Assignment, course: str | os.PathLike) -> pathlib.Path:
    """Write `source/NAME/NAME.ipynb` of an nbgrader course: solutions and hidden tests are in it.

    Returns the path.
    """
    path = pathlib.Path(course) / "source" / assignment.name / f"{assignment.name}.ipynb"
    write_atomically(path, notebook.write(assignment.cells))
    return path


# --- For Gradescope -------------------------------------------------------------------------------

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

GRADE_ONE = '''\
"""Grade the submission that Gradescope has put down; leave results.json where it looks."""

import pathlib
import shutil
import sys
import tempfile

from moe_np.coursework import assignments, gradebook

name, base = sys.argv[1], pathlib.Path(sys.argv[2])
(base / "results").mkdir(exist_ok=True)
assignment = assignments.load(name, base / "source" / "assignments")
with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder, "out")
    graded = gradebook.grade_one(assignment, base / "submission", out)
    if graded.not_graded:
        sys.exit("\\n".join(["not graded", *graded.remarks]))  # Gradescope shows that it failed
    shutil.copyfile(next(out.rglob("results.json")), base / "results" / "results.json")
print(f"protection: {graded.mode}", *graded.remarks, sep="\\n", file=sys.stderr)
'''


def gradescope(assignment: Assignment, out: str | os.PathLike) -> pathlib.Path:
    """Write the folder whose content, zipped, is Gradescope's autograder. Returns its path.

    Raises InputError where the package is installed and not in a checkout: its pyproject.toml is
    needed.
    """
    out = pathlib.Path(out)
    package = pathlib.Path(moe_np.__file__).resolve().parent
    project = package.parent
    if not (project / "pyproject.toml").exists():
        wanted = "a checkout of the project beside the package"
        raise InputError(f"gradescope: wanted {wanted}, got an installed package")
    run = RUN.replace("NAME", assignment.name)
    for name, text in (("setup.sh", SETUP), ("run_autograder", run)):
        write_atomically(out / name, text)
        executable = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
        (out / name).chmod((out / name).stat().st_mode | executable)
    write_atomically(out / "grade_one.py", GRADE_ONE)
    for name in ("assignment.py", "questions.py", FEEDBACK):
        target = out / "assignments" / assignment.name / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (assignment.folder / name).exists():
            shutil.copyfile(assignment.folder / name, target)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(package, out / "package" / "moe_np", ignore=ignore, dirs_exist_ok=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (project / name).exists():
            shutil.copyfile(project / name, out / "package" / name)
    return out
