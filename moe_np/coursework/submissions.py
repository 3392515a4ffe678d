"""Identify the student from the name of a downloaded file.

The names are those of Canvas, Moodle, Gradescope and nbgrader:

    Canvas       lovelaceada_12345_678901_1_mixture.ipynb, lovelaceada_LATE_12345_...
    Moodle       Ada Lovelace_12345_assignsubmission_file_/1_mixture.ipynb, or with the file's name
                 appended
    nbgrader     submitted/ada/1_mixture/1_mixture.ipynb
    otherwise    one folder per student, or one file per student: ada/anything.ipynb, ada.ipynb,
                 1_mixture_ada.ipynb
"""

import os
import pathlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from moe_np.base.checks import InputError

CANVAS = re.compile(r"^(?P<name>[^_]+)_(?:LATE_)?(?P<id>\d+)_(?P<submission>\d+)_(?P<file>.+)$")
MOODLE = re.compile(r"^(?P<name>[^_]+)_(?P<id>\d+)_assignsubmission_")
IGNORED = (".ipynb_checkpoints", "__MACOSX")


class Submission(NamedTuple):
    """A student and the file that this student handed in."""

    student: str  # name, as far as the file tells
    id: str  # the learning platform's number, or ""
    login: str  # a short name, or ""
    path: pathlib.Path | None  # None: a student's folder without a notebook

    @property
    def slug(self) -> str:
        """A safe name for a folder, different for most students."""
        text = "_".join(part for part in (self.id, self.login or self.student) if part)
        return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("._")[:80] or "student"


def identify(path: pathlib.Path, root: pathlib.Path, assignment: str) -> Submission:
    """The Submission of a file below `root`."""
    parts = [printable(part) for part in pathlib.PurePath(path).relative_to(root).parts]
    *folders, file = parts
    # a student chooses the names of files inside a folder: only the outermost name counts
    match = MOODLE.match(parts[0]) or (CANVAS.match(file) if not folders else None)
    if match:
        return Submission(match["name"], match["id"], "", path)
    if folders[:1] == ["submitted"]:
        del folders[0]
    if folders:
        student = next((folder for folder in folders if folder != assignment), folders[0])
        return Submission(student, "", student, path)
    stem = pathlib.PurePath(file).stem
    name = re.escape(assignment)
    login = re.sub(rf"^{name}[-_ ]+|[-_ ]+{name}$", "", stem) or stem
    return Submission(login, "", login, path)


def printable(text: str) -> str:
    """The text with _ in the place of control characters and surrogates."""
    return "".join(c if c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF else "_" for c in text)


def collect(
    given: Iterable[str | os.PathLike], assignment: str, out: pathlib.Path | None = None
) -> tuple[list[tuple[Submission, str]], list[str]]:
    """([(submission, slug)] in the order of the students, remarks).

    Of several notebooks of one student the last by name is taken (the platforms number later
    attempts upwards). Links are not followed: they could lead to another student's work. Raises
    InputError for what is no notebook and no folder, and if there is nothing to grade.

    given   notebooks, and folders of them          out   a folder that is left out
    """
    submissions = {}
    remarks = []
    for item in map(pathlib.Path, given):
        if not item.exists():
            raise InputError(
                f"submissions: wanted notebooks or folders, got {item}, which does not exist"
            )
        if item.is_dir():
            for submission in _in_folder(item, assignment, out):
                _add(submissions, submission, remarks)
        elif item.suffix != ".ipynb":
            raise InputError(
                f"submissions: wanted notebooks or folders (an archive unpacked), got {item}"
            )
        else:
            _add(submissions, identify(item, item.parent, assignment), remarks)
    if not submissions:
        paths = ", ".join(map(str, given))
        raise InputError(f"submissions: wanted at least one notebook, got {paths}")
    return _with_slugs([submissions[key] for key in sorted(submissions)]), remarks


def _in_folder(root, assignment, out):
    """The submissions below a folder; of a student's folder without a notebook one without path."""
    root = _unpacked(root)
    out = out and out.resolve()
    empty = {
        path.name
        for path in root.iterdir()
        if path.is_dir() and path.resolve() != out and not path.name.startswith((".", "_"))
    }
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name not in IGNORED and pathlib.Path(folder, name).resolve() != out
        )
        for file in sorted(files):
            path = pathlib.Path(folder, file)
            if file.endswith(".ipynb") and path.is_file() and not path.is_symlink():
                empty.discard(path.relative_to(root).parts[0])
                yield identify(path, root, assignment)
    for name in sorted(empty - {assignment}):
        yield identify(root / name / "no notebook", root, assignment)._replace(path=None)


def _unpacked(root):
    """The folder with the submissions: unpacking an archive may have made one around it."""
    entries = list(root.iterdir())
    if len(entries) != 1:
        return root
    names = [path.name for path in entries[0].glob("*")]
    return entries[0] if any(CANVAS.match(n) or MOODLE.match(n) for n in names) else root


def _add(submissions, submission, remarks):
    """Add a submission; of two of one student the last by name stays."""
    key = (submission.student, submission.id)
    earlier = submissions.get(key)
    if earlier is not None and earlier.path is not None:
        first, last = sorted((earlier, submission), key=lambda s: _natural(str(s.path)))
        student = printable(submission.student)
        remarks.append(f"{student}: {last.path.name} is graded, {first.path.name} is not")
        submission = last
    submissions[key] = submission


def _natural(text):
    """A key for sorting in which numbers count as numbers: a-2 before a-10."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _with_slugs(submissions):
    """[(submission, slug)]: different students get different slugs, whatever their names are."""
    counts = {}
    pairs = []
    for submission in submissions:
        slug = submission.slug
        counts[slug] = counts.get(slug, 0) + 1
        pairs.append((submission, slug if counts[slug] == 1 else f"{slug}.{counts[slug]}"))
    return pairs
