"""Who handed in a file, by the name that a learning platform gave to it.

    Canvas       lovelaceada_12345_678901_1_mixture.ipynb, lovelaceada_LATE_12345_...,
                 anon_aB3dE_678901_1_mixture.ipynb, lovelaceada_12345_text.html
    Moodle       Ada Lovelace_12345_assignsubmission_file_/1_mixture.ipynb, or with the file's name
                 appended
    Brightspace  1234-5678 - Ada Lovelace - Nov 28, 2025 1159 PM/1_mixture.ipynb, or with the file's
                 name appended
    Blackboard   Homework_ada_attempt_2025-11-28-23-59-00_1_mixture.ipynb
    nbgrader     submitted/ada/1_mixture/1_mixture.ipynb
    otherwise    one folder per student, or one file per student: ada/anything.ipynb, ada.ipynb,
                 1_mixture_ada.ipynb

A student chooses the names of files inside a folder, and the end of a file's name. So only the
outermost name counts, and of it the first part that fits.
"""

import contextlib
import datetime
import hashlib
import pathlib
import re
import unicodedata
from typing import NamedTuple

NUMBER = r"(?P<id>[0-9]+)"
CANVAS = (
    re.compile(r"(?P<name>anon)_(?P<late>LATE_)?(?P<id>\w{5})_(?P<attempt>[0-9]+)_(?P<file>.+)$"),
    re.compile(rf"(?P<name>.+?)_(?P<late>LATE_)?{NUMBER}_(?P<attempt>[0-9]+)_(?P<file>.+)$"),
    re.compile(rf"(?P<name>.+?)_(?P<late>LATE_)?{NUMBER}_text\.html$"),
)
BLACKBOARD = re.compile(
    r".+?_(?P<login>[^_]+)_attempt_(?P<attempt>[0-9]{4}(-[0-9]{2}){5})(_(?P<file>.+)|\.txt)$"
)
MOODLE = re.compile(rf"(?P<name>.+?)_{NUMBER}_assignsubmission_[a-z]+")
BRIGHTSPACE = re.compile(
    rf"{NUMBER}-[0-9]+ ?- (?P<name>.+?) - (?P<attempt>[^-]*[0-9]{{4}}[^-]*?)( - (?P<file>.+))?$"
)
FOLDERS = (MOODLE, BRIGHTSPACE)  # names that a folder may have
FILES = (*FOLDERS, BLACKBOARD, *CANVAS)  # names that a file may have
GRADESCOPE = re.compile(r"submission_[0-9]+$")
IGNORED = ("__MACOSX", "__pycache__", "Thumbs.db", "desktop.ini", "submission_metadata.yml")
RESERVED = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)  # no files on Windows
# what programs add to the name of a copy or of a later attempt
ATTEMPT = re.compile(
    r"([ _-]+copy( ?\(?(?P<copy>[0-9]+)\)?)?"
    r"|[ _-]*\((?P<round>[0-9]+)\)"
    r"|[ _-](?P<dash>[0-9]+))$",
    re.IGNORECASE,
)


class Submission(NamedTuple):
    """A student and the file that this student handed in."""

    student: str  # name, as far as the file tells
    id: str  # the learning platform's number, or ""
    login: str  # a short name, or ""
    path: pathlib.Path | None  # None: there is no notebook
    member: str = ""  # the notebook inside the archive `path`
    section: str = ""  # the folder that was given, where several were
    remarks: tuple[str, ...] = ()  # what was odd

    @property
    def slug(self) -> str:
        """A safe name for a folder. It depends on nothing but the student.

        Different students have different ones, also on a disk that does not tell A from a: where
        characters had to be replaced, a hash of the name is part of it.
        """
        text = "_".join(part for part in (self.id, self.login or self.student) if part)
        safe = re.sub(r"[^\w.-]+", "_", printable(text))
        safe = safe.strip("._-")[:50].strip("._-")
        same = safe == (text.replace(" ", "_") if self.id else text)
        if RESERVED.fullmatch(safe.split(".")[0]):
            same = False
        if safe and same and (self.id or text.casefold() == text):
            return safe
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return f"{safe or 'student'}.{digest}"


def identify(path: pathlib.Path, root: pathlib.Path, assignment: str) -> Submission:
    """The Submission of a file below `root`."""
    parts = [printable(part) for part in pathlib.PurePath(path).relative_to(root).parts]
    *folders, file = parts
    match = match_platform(parts[0], is_folder=bool(folders))
    if match and match.re in CANVAS and re.match(rf"{re.escape(assignment)}[-_ ]", file):
        match = None  # hw_1_2_ada.ipynb of the assignment hw_1: nobody is called hw
    if match:
        groups = match.groupdict()
        login = groups.get("login") or ""
        remarks = ("late",) if groups.get("late") else ()
        student = groups.get("name") or login
        return Submission(student, groups.get("id") or "", login, path, remarks=remarks)
    if folders[:1] == ["submitted"]:
        del folders[0]
    if folders:
        student = next((folder for folder in folders if folder != assignment), folders[0])
        return Submission(student, "", student, path)
    stem = re.sub(r"\.ipynb(\.\w+)?$", "", file, flags=re.IGNORECASE)
    stem = pathlib.PurePath(file).stem if stem == file else stem
    name = re.escape(assignment)
    login = re.sub(rf"^{name}[-_ ]+|[-_ ]+{name}$", "", stem) or stem
    return Submission(login, "", login, path)


def match_platform(name: str, is_folder: bool) -> re.Match | None:
    """The match of a name that a learning platform gives to one student's work."""
    patterns = FOLDERS if is_folder else FILES
    return next((match for pattern in patterns if (match := pattern.match(name))), None)


def printable(text: str) -> str:
    """The text without control characters and surrogates; different texts stay different.

    Bytes that are no UTF-8, as in archives of old programs, are read as Latin-1. Accents are one
    character with their letter, whatever system the name is from.
    """
    return "".join(map(_printable, unicodedata.normalize("NFC", text)))


def _printable(character):
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
        character = chr(code)
    return character if character.isprintable() else f"%{code:02X}"


def is_ignored(name: str) -> bool:
    """Whether a name is one of those that systems leave behind: hidden files, `._x` of macOS."""
    return name.startswith(".") or name in IGNORED


# --- Attempts -------------------------------------------------------------------------------------


def attempt_key(path: pathlib.Path, root: pathlib.Path) -> tuple:
    """A key for sorting a student's files: later attempts come last.

    First the platform's date or number, then the names. A number after the name is a later attempt
    than no number: x, x-1, x-2, x-10; also x (1), x-Copy1.
    """
    *folders, file = pathlib.PurePath(path).relative_to(root).parts
    match = match_platform((*folders, file)[0], is_folder=bool(folders))
    groups = match.groupdict() if match else {}
    stamp = _date(groups.get("attempt") or "")
    if match and not folders:
        file = groups.get("file") or file
    base, numbers = split_attempt(pathlib.PurePath(file).stem)
    places = [natural(folder) for folder in folders] if not match else []
    return natural(stamp), places, natural(base), numbers


def split_attempt(stem: str) -> tuple[str, list[int]]:
    """(name, numbers of the attempt): ("x", [2, 1]) of "x-2 (1)"."""
    numbers = []
    while (match := ATTEMPT.search(stem)) and match.start():
        numbers.insert(0, int(match["copy"] or match["round"] or match["dash"] or 1))
        stem = stem[: match.start()]
    return stem, numbers


def natural(text: str) -> list[tuple]:
    """A key for sorting in which numbers count as numbers: a-2 before a-10."""
    parts = re.split(r"([0-9]+)", text)
    return [
        (0, int(part), "") if part.isdecimal() and part.isascii() else (1, 0, part)
        for part in parts
    ]


def _date(text):
    """A date as text whose order is that of time; other text as it is."""
    match = re.match(r"(?P<day>.*[0-9]{4}) (?P<time>[0-9:]{3,5})(?P<half> [AP]M)?$", text)
    if not match:
        return text
    time = match["time"].replace(":", "").zfill(4)
    for day in ("%b %d, %Y", "%B %d, %Y", "%d %b, %Y", "%d %B, %Y", "%d %b %Y", "%d %B %Y"):
        with contextlib.suppress(ValueError):
            form = f"{day} %I%M %p" if match["half"] else f"{day} %H%M"
            value = f"{match['day']} {time}{match['half'] or ''}"
            return datetime.datetime.strptime(value, form).isoformat()
    return text
