"""The files that student code can see: Python, some libraries, the allowed part of this package.

`VisibleFiles` is a temporary folder and some lists. The folder holds a filtered copy of the package
(the allowed modules, empty `__init__` files for the rest) and the programs that run in the sandbox.
The lists say what is shown of the system and what is hidden. It is made once for a grading and
serves all children.
"""

import glob
import importlib.machinery
import os
import pathlib
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Iterable

import moe_np
from moe_np.base.checks import InputError
from moe_np.base.files import remove_folder

PACKAGE = pathlib.Path(moe_np.__file__).resolve().parent
PROGRAMS = tuple(
    f"moe_np.coursework.sandbox.{name}"
    for name in ("child", "wire", "jail", "landlock", "mounts", "seccomp", "syscalls")
)
TYPES = "moe_np.base.types"  # what signatures need: every module may import it
REQUIREMENTS = {  # what else a library needs
    "matplotlib": (
        *("numpy", "mpl_toolkits", "contourpy", "cycler", "dateutil", "fontTools"),
        *("kiwisolver", "packaging", "PIL", "pyparsing", "six"),
    ),
    "numba": ("numpy", "llvmlite"),
    "scipy": ("numpy",),
}
SYSTEM = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"),
    *("/etc/ld.so.cache", "/etc/alternatives"),
)
NEW_ROOT_FOLDER = "/jail"  # where a root of its own has the folder of VisibleFiles


# --- Copies of this package -----------------------------------------------------------------------


def module_files(name: str) -> list[pathlib.Path]:
    """The files of a module of this package: its source, and data files beside it.

    Raises InputError where there is no such module.
    """
    parts = name.split(".")
    path = PACKAGE.joinpath(*(part for part in parts[1:] if part.isidentifier()))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    named = parts[0] == "moe_np" and all(part.isidentifier() for part in parts)
    if not named or not source.is_file():
        raise InputError(f"ALLOWED: wanted modules of moe_np, got {name}")
    return [source, *(p for p in source.parent.iterdir() if p.suffix in (".csv", ".json", ".npz"))]


def copy_modules(names: Iterable[str], target: pathlib.Path) -> None:
    """Copy modules into `target`/moe_np. A package is empty unless its own name is listed."""
    for name in ("moe_np", *names):
        for file in module_files(name):
            copy = target / "moe_np" / file.relative_to(PACKAGE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    for folder in [path for path in (target / "moe_np").rglob("*") if path.is_dir()]:
        (folder / "__init__.py").touch()


# --- What is on the system ------------------------------------------------------------------------


def library_paths(names: Iterable[str]) -> dict[str, str]:
    """{top-level name: its path} of the libraries, and of what they need, that are installed.

    Nothing is imported to find them, and nothing is looked for in the current folder. Raises
    InputError for a name with a dot, and for this package, of which only modules are shown.
    """
    paths = {}
    here = os.path.realpath(os.getcwd())
    places = [path for path in sys.path if path and os.path.realpath(path) != here]
    for name in dict.fromkeys(part for n in names for part in (n, *REQUIREMENTS.get(n, ()))):
        if not name.isidentifier() or name == "moe_np":
            wanted = "names of libraries without a dot"
            raise InputError(f"LIBRARIES: wanted {wanted}, got {name[:50]!r}")
        spec = importlib.machinery.PathFinder.find_spec(name, places)
        if spec is None or not (spec.submodule_search_locations or spec.origin):
            continue
        path = (spec.submodule_search_locations or [spec.origin])[0]
        paths[name] = os.path.realpath(path)
    return paths


def shared_libraries(path: str) -> list[str]:
    """Where a wheel may keep shared libraries: beside its package, under its project's name."""
    if not os.path.isdir(path):
        return []
    return [path + ".libs", os.path.join(os.path.dirname(path), "pillow.libs")]


def interpreter() -> str:
    """The path of Python itself, not of a virtual environment's link to it."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def system_paths() -> tuple[list[str], list[tuple[str, str]]]:
    """(paths, links) of the system that Python needs; a link is (target, path).

    These are Python itself, its standard library and the system's shared libraries.
    """
    paths = [interpreter(), *(os.path.join(sys.base_prefix, name) for name in ("lib", "DLLs"))]
    paths.append(os.path.dirname(os.__file__))  # the standard library
    if ".app" in interpreter() or sys.platform != "linux":
        paths.append(sys.base_prefix)
    shown = []
    links = []
    for path in dict.fromkeys([*SYSTEM, *map(os.path.realpath, paths), *paths]):
        if os.path.islink(path):
            links.append((os.readlink(path), path))
        elif os.path.exists(path) and not _is_within(path, shown):
            shown.append(path)
    return shown, [(target, path) for target, path in links if not _is_within(path, shown)]


def folders_to_hide(shown: Collection[str], secret: Iterable[str | os.PathLike]) -> list[str]:
    """Folders below what is shown that hold other packages, or what must not be read."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    folders.update(path for path in sys.path if "-packages" in path)
    for root in shown:
        for pattern in ("*-packages", "python*/*-packages"):
            folders.update(glob.glob(os.path.join(root, pattern)))
    folders |= {str(PACKAGE), *map(str, secret)}
    real = {os.path.realpath(folder) for folder in folders}
    return sorted(path for path in real if _is_within(path, shown) and os.path.isdir(path))


def _is_within(path, roots):
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


class VisibleFiles:
    """The folder and the lists. Use it as a context manager: the folder is removed at the end.

    allowed     modules of moe_np that student code may import
    libraries   other libraries that it may import
    secret      folders that it must not read, wherever they are: assignments, submissions, grades
    """

    def __init__(
        self,
        allowed: Iterable[str],
        libraries: Iterable[str],
        secret: Iterable[str | os.PathLike] = (),
    ):
        self.base = pathlib.Path(os.path.realpath(tempfile.mkdtemp(prefix="moe_np_")))
        try:
            self.base.chmod(0o755)
            for name in ("site", "programs", "root", "fonts"):
                (self.base / name).mkdir()
            copy_modules(PROGRAMS, self.base / "programs")
            copy_modules((TYPES, *allowed), self.base / "site")
            self.libraries = library_paths(libraries)
            self.shown, self.links = system_paths()
            self.hidden = folders_to_hide(self.shown, secret)
            for path in self.base.rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)
        except BaseException:
            self.close()
            raise

    def path_in_child(self, name: str, new_root: bool) -> str:
        """Where the child finds one of the folders, with a root of its own or in the system's."""
        return f"{NEW_ROOT_FOLDER}/{name}" if new_root else str(self.base / name)

    def bindings(self, new_root: bool) -> list[tuple[str, str]]:
        """(source, path in the child) of the libraries and of the folders for the child."""
        paths = [
            path
            for library in self.libraries.values()
            for path in (library, *shared_libraries(library))
            if os.path.exists(path)
        ]
        folders = [
            (str(self.base / name), self.path_in_child(name, new_root))
            for name in ("site", "programs", "fonts")
        ]
        return [(path, path) for path in dict.fromkeys(paths)] + folders

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self) -> None:
        """Remove the folder."""
        remove_folder(self.base)
