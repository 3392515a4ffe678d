"""Notebooks in files of any extension, and in archives."""

import os
import pathlib
import zipfile
import zlib

from moe_np.base.checks import InputError
from moe_np.coursework import notebook
from moe_np.coursework.file_names import is_ignored

PERHAPS = (".json", ".txt", "", ".htm", ".html", ".bak", ".download")  # extensions of some
BAD_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, EOFError),
    *(RuntimeError, NotImplementedError, ValueError),
)


def find(path: pathlib.Path) -> str | None:
    """The notebook's name in an archive, "" if the file itself is a notebook, None if none is.

    It is "" as well for what cannot be read: `read` then raises OSError. Nothing that the grader
    cannot see is taken for nothing.
    """
    try:
        if not os.access(path.parent, os.R_OK | os.X_OK):
            return ""
        if path.is_symlink() or not path.is_file():
            return None
        suffix = path.suffix.lower()
        if suffix == ".ipynb":
            return ""
        if suffix == ".zip":
            return _only_notebook(path)
        return "" if is_notebook(path) else None
    except OSError:
        return ""


def is_notebook(path: pathlib.Path) -> bool:
    """Whether a file of another extension has the content of a notebook. Raises OSError."""
    perhaps = path.suffix.lower() in PERHAPS or ".ipynb" in path.name.lower()
    if not perhaps or path.is_symlink() or not path.is_file():
        return False
    try:
        notebook.read(read(path))
    except InputError:
        return False
    return True


def read(path: pathlib.Path, member: str = "") -> bytes:
    """The bytes of a notebook, at most one more than a notebook may have. Raises OSError.

    member   its name in the archive `path`
    """
    size = notebook.LARGEST + 1
    if not member:
        with open(path, "rb") as file:
            return file.read(size)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            return file.read(size)
    except BAD_ARCHIVE:
        return b""  # graded as what it is: no notebook


def _only_notebook(path):
    """The name of the only notebook in an archive, None if there is not exactly one."""
    try:
        if path.stat().st_size > notebook.LARGEST:
            return None
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except BAD_ARCHIVE:
        return None
    names = [name for name in names if name.lower().endswith(".ipynb")]
    names = [name for name in names if not any(map(is_ignored, name.split("/")))]
    return names[0] if len(names) == 1 else None
