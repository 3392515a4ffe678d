"""What student code is to see: Python, a few libraries, the allowed part of this package. And what
it must not.

A `View` is a temporary folder with a filtered copy of the package (the allowed modules, empty
`__init__`s for the rest) and the runner, and lists of what is shown from the system. It is made
once for a grading and serves all children.
"""

import glob
import importlib.util
import os
import pathlib
import shutil
import sys
import sysconfig
import tempfile

import moe_np
from moe_np.base.checks import InputError
from moe_np.base.files import remove_folder

PACKAGE = pathlib.Path(moe_np.__file__).resolve().parent
HERE = pathlib.Path(__file__).resolve().parent
PARTS = {  # what else a library needs
    "matplotlib": (
        *(
            "numpy",
            "mpl_toolkits",
            "contourpy",
            "cycler",
            "dateutil",
            "fontTools",
            "kiwisolver",
            "packaging",
            "PIL",
        ),
        *("pyparsing", "six"),
    ),
    "numba": ("numpy", "llvmlite"),
    "scipy": ("numpy",),
}
SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/alternatives",
)
INSIDE = "/jail"  # where a root of its own has the view


def module_files(name):
    """The files of a module of this package: its source, and data files beside it."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if name.split(".")[0] != "moe_np" or not source.is_file():
        raise InputError(f"ALLOWED: wanted modules of moe_np, got {name}")
    return [source, *(p for p in source.parent.iterdir() if p.suffix in (".csv", ".json", ".npz"))]


def copy_allowed(allowed, target):
    """Copy the allowed modules into `target`/moe_np. A package is empty unless it is listed by its
    own name.
    """
    for name in ("moe_np", *allowed):
        for file in module_files(name):
            to = target / "moe_np" / file.relative_to(PACKAGE)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)
    for folder in [p for p in (target / "moe_np").rglob("*") if p.is_dir()]:
        (folder / "__init__.py").touch()


def library_paths(names):
    """{top-level name: where it is installed} of the libraries and what they need, as far as they
    are installed.
    """
    found = {}
    for name in dict.fromkeys(part for n in names for part in (n, *PARTS.get(n, ()))):
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue
        path = (spec.submodule_search_locations or [spec.origin])[0]
        found[name] = os.path.realpath(path)
    return found


def bundled(path):
    """The shared libraries that a wheel keeps beside its package, under the name of its project."""
    return (
        [path + ".libs", os.path.join(os.path.dirname(path), "pillow.libs")]
        if os.path.isdir(path)
        else []
    )


def python():
    """The interpreter itself, not a virtual environment's link to it."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return os.path.realpath(base)


def system_shown():
    """(paths, links) of the system that Python needs: itself, its standard library, shared
    libraries.
    """
    paths = [python(), os.path.join(sys.base_prefix, "lib"), os.path.join(sys.base_prefix, "DLLs")]
    paths.append(os.path.dirname(os.__file__))  # the standard library
    if ".app" in python() or sys.platform != "linux":
        paths.append(sys.base_prefix)
    links, shown = [], []
    for path in dict.fromkeys([*SYSTEM, *map(os.path.realpath, paths), *paths]):
        if os.path.islink(path):
            links.append((os.readlink(path), path))
        elif os.path.exists(path) and not any(path == s or path.startswith(s + "/") for s in shown):
            shown.append(path)
    return shown, [(target, path) for target, path in links if not _within(path, shown)]


def _within(path, roots):
    return any(path == r or path.startswith(r.rstrip("/") + "/") for r in roots)


def system_hidden(shown, secret):
    """Folders below what is shown that hold other packages, or what must not be read."""
    sites = {
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
        *(p for p in sys.path if "-packages" in p),
    }
    for root in shown:
        for pattern in ("*-packages", "python*/*-packages"):
            sites.update(glob.glob(os.path.join(root, pattern)))
    sites |= {str(PACKAGE), *map(str, secret)}
    return sorted(
        {
            os.path.realpath(p)
            for p in sites
            if _within(os.path.realpath(p), shown) and os.path.isdir(p)
        }
    )


class View:
    """The folder and the lists. Use as a context manager: it is removed at the end.

    secret      folders that must not be read by student code, wherever they are: assignments, submissions, grades
    """

    def __init__(self, allowed, libraries, secret=()):
        self.base = pathlib.Path(os.path.realpath(tempfile.mkdtemp(prefix="moe_np_")))
        self.base.chmod(0o755)
        for name in ("site", "runner", "root", "fonts"):
            (self.base / name).mkdir()
        for name in ("child.py", "wire.py", "jail.py", "syscalls.py"):
            shutil.copyfile(HERE / name, self.base / "runner" / name)
        copy_allowed(allowed, self.base / "site")
        self.libraries = library_paths(libraries)
        self.shown, self.links = system_shown()
        self.hidden = system_hidden(self.shown, secret)
        for path in self.base.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)

    def inside(self, name, own_root):
        """Where the child finds a folder of the view."""
        return f"{INSIDE}/{name}" if own_root else str(self.base / name)

    def placed(self, own_root):
        """(from, to) of all that is shown besides the system: libraries and the view's own folders."""
        paths = [
            p
            for path in self.libraries.values()
            for p in (path, *bundled(path))
            if os.path.exists(p)
        ]
        own = [
            (str(self.base / name), self.inside(name, own_root))
            for name in ("site", "runner", "fonts")
        ]
        return [(p, p) for p in dict.fromkeys(paths)] + own

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        remove_folder(self.base)
