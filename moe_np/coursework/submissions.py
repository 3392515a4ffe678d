"""Whose work is this file? Names as Canvas, Moodle, Gradescope and nbgrader give them to downloads.

Canvas       lovelaceada_12345_678901_1_mixture.ipynb, lovelaceada_LATE_12345_...
Moodle       Ada Lovelace_12345_assignsubmission_file_/1_mixture.ipynb, or the same with the file's name appended
nbgrader     submitted/ada/1_mixture/1_mixture.ipynb
otherwise    a folder a student, or a file a student: ada/anything.ipynb, ada.ipynb, 1_mixture_ada.ipynb
"""

import os
import pathlib
import re
from typing import NamedTuple

from moe_np.base.checks import InputError

CANVAS = re.compile(r"^(?P<name>[^_]+)_(?:LATE_)?(?P<id>\d+)_(?P<submission>\d+)_(?P<file>.+)$")
MOODLE = re.compile(r"^(?P<name>[^_]+)_(?P<id>\d+)_assignsubmission_")
IGNORED = (".ipynb_checkpoints", "__MACOSX")


class Submission(NamedTuple):
    student: str  # name, as far as the file tells
    id: str  # the learning platform's number, or ""
    login: str  # a short name, or ""
    path: pathlib.Path | None  # None: a student's folder without a notebook

    @property
    def slug(self):
        """A safe and unique-enough name for a folder."""
        text = "_".join(part for part in (self.id, self.login or self.student) if part)
        return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("._")[:80] or "student"


def identify(path, root, assignment):
    """The Submission of a file that was found below `root`."""
    parts = [printable(p) for p in pathlib.PurePath(path).relative_to(root).parts]
    folders, file = parts[:-1], parts[-1]
    found = MOODLE.match(parts[0]) or (CANVAS.match(file) if not folders else None)
    if found:  # names further in are the student's own, who could be anybody there
        return Submission(found["name"], found["id"], "", path)
    if folders[:1] == ["submitted"]:
        del folders[0]
    if folders:
        own = next((f for f in folders if f != assignment), folders[0])
        return Submission(own, "", own, path)
    stem = pathlib.PurePath(file).stem
    login = (
        re.sub(rf"^{re.escape(assignment)}[-_ ]+|[-_ ]+{re.escape(assignment)}$", "", stem) or stem
    )
    return Submission(login, "", login, path)


def printable(text):
    return "".join(c if c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF else "_" for c in text)


def collect(given, assignment, out=None):
    """(submissions in the order of their students, remarks). given: notebooks, and folders of them;
    `out` is left out.

    Of several notebooks of one student the last by name is taken (the platforms number later
    attempts upwards). Links are not followed: they could lead to somebody else's work.
    """
    found, remarks = {}, []
    for item in map(pathlib.Path, given):
        if not item.exists():
            raise InputError(
                f"submissions: wanted notebooks or folders, got {item}, which does not exist"
            )
        if item.is_dir():
            for submission in _in_folder(item, assignment, out):
                _add(found, submission, remarks)
        elif item.suffix != ".ipynb":
            raise InputError(
                f"submissions: wanted notebooks or folders (an archive unpacked), got {item}"
            )
        else:
            _add(found, identify(item, item.parent, assignment), remarks)
    if not found:
        raise InputError(
            f"submissions: wanted at least one notebook, got {', '.join(map(str, given))}"
        )
    return _unique([found[k] for k in sorted(found)]), remarks


def _in_folder(root, assignment, out):
    inner = list(root.iterdir())
    if len(inner) == 1 and any(
        CANVAS.match(p.name) or MOODLE.match(p.name) for p in inner[0].glob("*")
    ):
        root = inner[0]  # a folder that unpacking made
    out = out and out.resolve()
    empty = {
        p.name
        for p in root.iterdir()
        if p.is_dir() and p.resolve() != out and not p.name.startswith((".", "_"))
    }
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            f for f in folders if f not in IGNORED and pathlib.Path(folder, f).resolve() != out
        )
        for file in sorted(files):
            path = pathlib.Path(folder, file)
            if file.endswith(".ipynb") and path.is_file() and not path.is_symlink():
                empty.discard(path.relative_to(root).parts[0])
                yield identify(path, root, assignment)
    for name in sorted(empty - {assignment}):
        yield identify(root / name / "no notebook", root, assignment)._replace(path=None)


def _add(found, submission, remarks):
    key = (submission.student, submission.id)
    if key in found and found[key].path is not None:
        first, last = sorted((found[key], submission), key=lambda s: _natural(str(s.path)))
        remarks.append(
            f"{printable(submission.student)}: {last.path.name} is graded, {first.path.name} is not"
        )
        submission = last
    found[key] = submission


def _natural(text):
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text)
    ]


def _unique(submissions):
    """Different students, different slugs, whatever their names are made of."""
    seen, out = {}, []
    for one in submissions:
        seen[one.slug] = seen.get(one.slug, 0) + 1
        out.append((one, one.slug if seen[one.slug] == 1 else f"{one.slug}.{seen[one.slug]}"))
    return out
