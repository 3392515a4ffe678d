"""A sandbox: what student code can see, and the ways in which a child is locked in.

    with Sandbox(allowed, libraries) as sandbox, sandbox.child() as child:
        child.cell(1, "def f(x): return 2 * x")
        child.call("f", (np.ones(3),), seconds=5)      -> the result as plain values

The child gets inputs and returns values (`wire.py`). The grader never imports student code, and
nothing that the child sends is more than data. How well the child is locked in depends on the
system; `protection.py` tries what holds. The modes, from strong to weak:

    namespaces   Linux as root, or where unprivileged user namespaces are allowed: `jail.py`
    bubblewrap   Linux with `bwrap`: the same root and namespaces, made by that program
    user         Linux as root without namespaces (a container): another user for each child
    process      any POSIX system: limits, and on Linux Landlock and seccomp
    bare         Windows: a process with a time limit
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable

from moe_np.base.checks import InputError, choice
from moe_np.coursework.sandbox.mounts import bubblewrap_options, root_mounts
from moe_np.coursework.sandbox.process import Child, ChildError, Limits
from moe_np.coursework.sandbox.visible_files import VisibleFiles, interpreter

ENVIRONMENT = "MOE_NP_SANDBOX"
MODES = ("namespaces", "bubblewrap", "user", "process", "bare")
MODES_WITH_ROOT = ("namespaces", "bubblewrap")  # where the child has a root of its own

CHILD = "moe_np/coursework/sandbox/child.py"
START_JAIL = """import sys
sys.path.insert(0, {programs!r})
from moe_np.coursework.sandbox.jail import main
main(sys.argv[1])"""


def possible_modes() -> tuple[str, ...]:
    """The modes that this system might allow, the strongest first."""
    if os.name == "nt":
        return ("bare",)
    if sys.platform != "linux":
        return ("process",)
    bubblewrap = ("bubblewrap",) if shutil.which("bwrap") else ()
    if os.geteuid() == 0:
        return ("namespaces", *bubblewrap, "user", "process")
    return (*bubblewrap, "namespaces", "process")


def environment(home: str) -> dict[str, str]:
    """All that the child finds in its environment.

    BLAS gets one thread; the hash seed is fixed, so that the order of a set repeats.
    """
    threads = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    variables = dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"), home)
    variables |= {"MPLBACKEND": "agg", "PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
    variables |= dict.fromkeys(threads, "1")
    for name in ("SYSTEMROOT", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        if name in os.environ:
            variables[name] = os.environ[name]
    return variables


class Sandbox:
    """Visible files, a mode and limits: it makes children. A context manager: the end removes all.

    allowed, libraries    what student code may import: modules of moe_np, other libraries
    secret                folders that it must not read
    mode                  one of MODES; None takes MOE_NP_SANDBOX or else the strongest that works

    Raises InputError where no mode works, or not the one that was asked for.
    """

    def __init__(
        self,
        allowed: Iterable[str] = (),
        libraries: Iterable[str] = ("numpy",),
        *,
        secret: Iterable[str | os.PathLike] = (),
        limits: Limits | None = None,
        mode: str | None = None,
    ):
        self.limits = limits or Limits()
        self._fonts_lock = threading.Lock()
        self.files = VisibleFiles(allowed, libraries, secret)
        try:
            self.mode = self._first_that_works(mode or os.environ.get(ENVIRONMENT))
        except BaseException:
            self.close()
            raise

    def _first_that_works(self, wanted):
        """The mode that is wanted, or the first in which a child starts."""
        possible = possible_modes()
        modes = possible if wanted is None else (choice("protection", wanted, possible),)
        for mode in modes:
            self.mode = mode
            try:
                with self.child() as child:
                    child.cell(0, "import numpy")
                return mode
            except ChildError as error:
                reason = f"{error}; {child.error_output()}"
        raise InputError(f"sandbox: wanted one of {', '.join(modes)} to work here, got {reason}")

    def child(self) -> Child:
        """A new child. Use it as a context manager."""
        return Child(self)

    def find_fonts(self) -> None:
        """Let Matplotlib look for fonts once, outside, so that it takes no student's time."""
        fonts = self.files.base / "fonts"
        # -P: not the Matplotlib that may lie in the current folder, beside submissions
        command = [sys.executable, "-P", "-c", "import matplotlib.font_manager"]
        with self._fonts_lock:
            if "matplotlib" in self.files.libraries and not any(fonts.iterdir()):
                variables = {**os.environ, "MPLCONFIGDIR": str(fonts)}
                subprocess.run(command, env=variables, check=False)
                for path in fonts.iterdir():
                    path.chmod(0o644)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self) -> None:
        """Remove the files."""
        self.files.close()

    # --- The command that starts a child

    def command(self, folder: str, uid: int | None) -> tuple[list[str], dict[str, str]]:
        """(argv, environment) that start a child which works in `folder` as the user `uid`."""
        files = self.files
        new_root = self.mode in MODES_WITH_ROOT
        work = files.path_in_child("work", True) if new_root else folder
        variables = environment(work)
        if any((files.base / "fonts").iterdir()):
            variables["MPLCONFIGDIR"] = files.path_in_child("fonts", new_root)
        python = self._python(new_root)
        if self.mode == "bare":
            return python, variables
        bindings = files.bindings(new_root)
        mounts = root_mounts(files.links, files.shown, files.hidden, bindings, work)
        spec = {
            "mode": "inside" if self.mode == "bubblewrap" else self.mode,
            "uid": uid,
            "root": str(files.base / "root"),
            "mounts": mounts,
            "shown": files.shown,
            "hidden": files.hidden,
            "libraries": [path for _, path in bindings],
            "work": work,
            "limits": dataclasses.asdict(self.limits),
            "argv": python,
            "env": variables,
        }
        programs = files.path_in_child("programs", self.mode == "bubblewrap")
        start = START_JAIL.format(programs=programs)
        jail = [interpreter(), "-I", "-S", "-B", "-c", start, json.dumps(spec)]
        wrapper = self._bubblewrap(mounts) if self.mode == "bubblewrap" else []
        return wrapper + jail, variables

    def _python(self, new_root):
        """The Python that runs student code: isolated but for PYTHONHASHSEED, which -I ignores."""
        site = self.files.path_in_child("site", new_root)
        config = json.dumps({"site": site, "libraries": self.files.libraries})
        program = f"{self.files.path_in_child('programs', new_root)}/{CHILD}"
        return [interpreter(), "-P", "-s", "-S", "-B", program, config]

    def _bubblewrap(self, mounts):
        options = ["--die-with-parent", "--new-session", "--unshare-ipc", "--unshare-pid"]
        options += ["--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        if os.geteuid() == 0:  # the jail inside becomes another user
            options += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            options += ["--unshare-user"]
        return [shutil.which("bwrap"), *options, *bubblewrap_options(mounts, self.limits.folder)]
