"""Collect what a class handed in: exactly one submission per person, with remarks.

One rule holds for every kind of download, and for Gradescope's autograder:

- everybody who handed in anything is there, also without a notebook;
- hidden files, companions (`._x`, `__MACOSX`) and links are no work of a student;
- a notebook may have another extension (`.IPYNB`, `.ipynb.txt`, `.json`), or be the only one in
  an archive;
- of several notebooks of one person, those of this assignment come first, then the newest attempt.
"""

import os
import pathlib
import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from moe_np.base.checks import InputError
from moe_np.coursework import notebook, notebook_files
from moe_np.coursework.file_names import (
    GRADESCOPE,
    Submission,
    attempt_key,
    identify,
    is_ignored,
    match_platform,
    printable,
    split_attempt,
)

__all__ = ["Submission", "collect", "collect_one", "identify", "printable", "read"]

# extensions with which a person hands in; a file of another one, beside notebooks, is a person's
# only where its name has a platform's form
HANDED_IN = (".zip", ".py", ".txt", ".html", ".pdf", ".md", ".docx", ".rtf", ".7z", ".rar", ".gz")
CLOSED = "what is in it"
WRAPPER = re.compile(r"submi|downl|upload|assignment|export|archive", re.IGNORECASE)


class _File(NamedTuple):
    """A file below one of the given folders, and whose it is by its name."""

    submission: Submission
    root: pathlib.Path
    path: pathlib.Path | None  # None: a student's folder without any file


def collect(
    given: Iterable[str | os.PathLike],
    assignment: str,
    out: pathlib.Path | None = None,
    cell_names: Collection[str] = (),
) -> tuple[list[tuple[Submission, str]], list[str]]:
    """([(submission, slug)] in the order of the students, remarks).

    Links are not followed: they could lead to another student's work. People of one name and
    without a platform's number in two of the given folders are two people. Raises InputError for
    what is no notebook and no folder, for a folder inside a given folder that holds the work of
    several people, and if there is nothing to grade.

    given        notebooks, and folders of them
    out          a folder that is left out
    cell_names   the names (grade_ids) of the assignment's cells
    """
    given = [pathlib.Path(item) for item in given]
    several = len({item if item.is_dir() else item.parent for item in given}) > 1
    remarks = []
    people = {}
    seen = set()
    for item in given:
        for file in _files(item, assignment, out, remarks, several):
            path = file.path or file.root / file.submission.student
            place = file.root.resolve() / path.relative_to(file.root)  # a link is not its target
            if place not in seen:
                seen.add(place)
                people.setdefault(_key(file), []).append(file)
    people = _without_copies(people)
    if not people:
        paths = ", ".join(map(str, given))
        raise InputError(f"submissions: wanted at least one notebook, got {paths}")
    order = sorted(people, key=lambda key: (key[0], key[1]))  # the given folders in their order
    submissions = [_choose(people[key], assignment, cell_names) for key in order]
    entries = _with_slugs(submissions)
    for submission, slug in entries:
        name = submission.student if slug == submission.slug else slug
        remarks += [f"{name}: {remark}" for remark in submission.remarks]
    return entries, remarks


def collect_one(
    folder: pathlib.Path, assignment: str, cell_names: Collection[str] = ()
) -> Submission:
    """The Submission of a folder that holds one person's files, whatever they are called."""
    who = Submission("submission", "", "submission", None)
    files = [_File(who, folder, path) for path in _walk(folder, None)]
    return _choose(files or [_File(who, folder, None)], assignment, cell_names)


def read(submission: Submission) -> bytes:
    """The bytes of the notebook, at most one more than a notebook may have. Raises OSError."""
    return notebook_files.read(submission.path, submission.member)


# --- Files and whose they are ---------------------------------------------------------------------


def _files(item, assignment, out, remarks, several):
    """The files of one given notebook or folder."""
    if not item.exists():
        wanted = "wanted notebooks or folders"
        raise InputError(f"submissions: {wanted}, got {item}, which does not exist")
    if not item.is_dir() and item.suffix.lower() != ".ipynb":
        wanted = "wanted notebooks or folders (an archive unpacked)"
        raise InputError(f"submissions: {wanted}, got {item}")
    root = pathlib.Path(os.path.abspath(item if item.is_dir() else item.parent))
    paths = _walk(root, out) if item.is_dir() else [root / item.name]
    if match_platform(root.name, is_folder=True) or GRADESCOPE.match(root.name):
        for path in paths:
            yield _File(identify(path, root.parent, assignment), root.parent, path)
        return
    section = printable(root.name) if several else ""
    if item.is_dir():
        root = _unpacked(root, assignment)
        _refuse_sections(root, out)
    for path in paths:
        submission = identify(path, root, assignment)._replace(section=section)
        if several and submission.login == assignment:  # the name tells nothing: ada/1_mixture
            submission = submission._replace(student=section, login=section)
        if is_ignored(path.name):
            continue
        if path.parent == root and not _is_handed_in(path):
            remarks.append(f"{printable(path.name)} is no notebook and is left out")
        else:
            yield _File(submission, root, path)
    for path in sorted(root.iterdir()) if item.is_dir() else ():
        if _is_folder(path, out) and path.name != assignment and not any(_walk(path, out)):
            submission = identify(path / "no notebook", root, assignment)
            yield _File(submission._replace(path=None, section=section), root, None)


def _walk(root, out):
    """All files below a folder that may be a student's, also links and pipes.

    Of a folder that cannot be read there is one file, which cannot be read either.
    """
    out = out and out.resolve()
    closed = []
    for folder, folders, files in os.walk(root, onerror=closed.append):
        names = sorted(name for name in folders if not is_ignored(name))
        paths = {name: pathlib.Path(folder, name) for name in names}
        folders[:] = [name for name in names if paths[name].resolve() != out]
        linked = [name for name in folders if paths[name].is_symlink()]
        for file in sorted([*files, *linked]):
            if not is_ignored(file):
                yield pathlib.Path(folder, file)
    for error in closed:
        yield pathlib.Path(error.filename, CLOSED)


def _is_folder(path, out):
    if is_ignored(path.name) or path.is_symlink() or not path.is_dir():
        return False
    return out is None or path.resolve() != out.resolve()


def _is_handed_in(path):
    """Whether a file that lies beside others is the work of one person."""
    name = path.name.lower()
    if match_platform(path.name, is_folder=False) or ".ipynb" in name:
        return True
    if name == "index.html" or name.startswith("readme"):
        return False
    return path.suffix.lower() in HANDED_IN or notebook_files.find(path) is not None


def _unpacked(root, assignment):
    """The folder with the submissions: unpacking an archive may have made some around it."""
    while True:
        entries = [path for path in root.iterdir() if not is_ignored(path.name)]
        if len(entries) != 1 or not _is_folder(entries[0], None):
            return root
        if not _is_class(entries[0], assignment):
            return root
        root = entries[0]


def _is_class(folder, assignment):
    """Whether a folder that lies alone holds the work of a class, and not of one person."""
    if match_platform(folder.name, is_folder=True) or GRADESCOPE.match(folder.name):
        return False
    entries = [path for path in folder.iterdir() if not is_ignored(path.name)]
    if any(_platforms_name(path) for path in entries):
        return True
    if folder.name in ("submitted", assignment):
        return True
    folders = [path for path in entries if _is_folder(path, None)]
    files = [path for path in entries if path.suffix.lower() == ".ipynb" and path not in folders]
    if sum(any(_walk(path, None)) for path in folders) > 1 and not files:
        return True
    if len(entries) == len(folders) == 1 and _is_class(folders[0], assignment):
        return folders[0].name != assignment
    if WRAPPER.match(folder.name) and (files or folders):
        return True
    names = {split_attempt(path.stem)[0] for path in files}
    return len(names) > 1 and split_attempt(assignment)[0] not in names


def _platforms_name(path):
    return bool(match_platform(path.name, path.is_dir()) or GRADESCOPE.match(path.name))


def _refuse_sections(root, out):
    """Raise InputError for a folder that would be one person and holds the work of several."""
    for folder in sorted(root.iterdir()):
        if not _is_folder(folder, out) or _platforms_name(folder) or folder.name == "submitted":
            continue
        paths = list(folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) else []
        matches = [match_platform(path.name, path.is_dir()) for path in paths]
        people = {(m.groupdict().get("name"), m.groupdict().get("id")) for m in matches if m}
        if len(people) > 1:
            raise InputError(
                f"submissions: wanted a folder per student, got {folder}, which holds the work of "
                f"{len(people)} people; give that folder itself"
            )


# --- People ---------------------------------------------------------------------------------------


def _key(file):
    """What tells people apart: number and name, otherwise the given folder and the name."""
    submission = file.submission
    place = "" if submission.id else str(file.root.resolve())
    return submission.student, submission.id, place


def _without_copies(people):
    """The people without those that are another one's file, named by a browser: "ada (1)"."""
    kept = {}
    for key, files in people.items():
        base = re.sub(r" ?\([0-9]+\)$|-Copy[0-9]+$", "", key[0])
        original = (base, *key[1:])
        flat = all(file.path and file.path.parent == file.root for file in files)
        is_copy = base != key[0] and original in people and flat and not key[1]
        kept.setdefault(original if is_copy else key, []).extend(files)
    return {key: kept[key] for key in people if key in kept}


def _choose(files, assignment, cell_names):
    """One person's Submission: the notebook that counts, and what was odd."""
    who = min(files, key=lambda file: len(file.submission.student)).submission
    notebooks = []  # (path, member of an archive)
    rest = []
    for file in files:
        if file.path is None:
            continue
        member = notebook_files.find(file.path)
        if member is None:
            rest.append(file)
        else:
            notebooks.append((file, member))
    if not notebooks:
        names = ", ".join(_shown(file) for file in rest[:5])
        text = f"there is no notebook; handed in: {names}" if names else "there is no notebook"
        return who._replace(path=None, remarks=(*who.remarks, text))
    notebooks.sort(key=lambda pair: attempt_key(pair[0].path, pair[0].root))
    remarks = []
    chosen = notebooks[-1]
    if len(notebooks) > 1:
        of_assignment = [
            pair for pair in notebooks if _is_of_assignment(*pair, assignment, cell_names)
        ]
        chosen = (of_assignment or notebooks)[-1]
        passed_over = ", ".join(_shown(pair[0]) for pair in notebooks if pair is not chosen)
        remarks.append(f"{_shown(chosen[0])} is graded, {passed_over} is not")
    file, member = chosen
    if file.path.suffix.lower() != ".ipynb" and file.path.name != CLOSED:
        inside = f"{printable(member)} in it" if member else "it"
        remarks.append(f"{_shown(file)} is no .ipynb; {inside} is graded as a notebook")
    remarks = (*file.submission.remarks, *remarks)
    return who._replace(path=file.path, member=member, remarks=remarks)


def _shown(file):
    """A file's place below the folder that was given."""
    name = printable(file.path.relative_to(file.root).as_posix())
    section = file.submission.section
    return f"{section}/{name}" if section else name


def _is_of_assignment(file, member, assignment, cell_names):
    """Whether a notebook is one of this assignment, by its metadata or the names of its cells."""
    try:
        cells, metadata = notebook.read(notebook_files.read(file.path, member))
    except OSError:
        return True  # it must not be passed over for an older one
    except InputError:
        return False
    facts = metadata.get("moe_np")
    if isinstance(facts, dict) and facts.get("assignment") == assignment:
        return True
    return any(cell.grade_id in cell_names for cell in cells if cell.grade_id)


def _with_slugs(submissions):
    """[(submission, slug)]: of two people of one name the second has its folder in the slug."""
    taken = set()
    pairs = []
    for submission in submissions:
        slug = submission.slug
        number = 1
        while slug.casefold() in taken:
            number += 1
            place = re.sub(r"[^\w-]+", "_", submission.section) or "student"
            slug = f"{submission.slug}.{place}" + (f".{number}" if number > 2 else "")
        taken.add(slug.casefold())
        pairs.append((submission, slug))
    return pairs
