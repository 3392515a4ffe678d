"""Student code in a process of its own, which can do no harm and knows no answers.

    with Sandbox(allowed, libraries) as sandbox, sandbox.child() as child:
        child.cell(1, "def f(x): return 2 * x")
        child.call("f", (np.ones(3),), seconds=5)      -> what came back: plain values

The child gets inputs and gives back values (`wire.py`); it is never imported, and nothing it sends
is more than data. How well it is locked in depends on the system; `protection()` says which way is
open here, `report()` in `moe_np.coursework.protection` tries each and says what held. From strong
to weak:

    namespaces   Linux as root, or where unprivileged user namespaces are allowed: `jail.py`
    bubblewrap   Linux with `bwrap`: the same by another way in
    user         Linux as root without namespaces (a container): another user for each child
    process      any POSIX system: limits, and on Linux Landlock and seccomp
    bare         Windows: a process with a clock
"""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

from moe_np.base.checks import InputError, choice
from moe_np.coursework import view
from moe_np.coursework.process import MB, Child, ChildError

ENVIRONMENT = "MOE_NP_SANDBOX"
MODES = ("namespaces", "bubblewrap", "user", "process", "bare")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one child may use, from its start to its end."""

    cpu: int = 120  # seconds, each process
    memory: int = 3072 * MB  # address space, each process
    resident: int = 1024 * MB  # memory in use, all processes together
    processes: int = 8  # and threads
    file: int = 8 * MB
    folder: int = 32 * MB
    reply: int = 64 * MB
    start: float = 20.0  # seconds until Python is there


# --- Ways in --------------------------------------------------------------------------------------


def possible():
    """The modes that this system might allow, the strongest first."""
    if os.name == "nt":
        return ("bare",)
    if sys.platform != "linux":
        return ("process",)
    root = os.geteuid() == 0
    wrap = ("bubblewrap",) if shutil.which("bwrap") else ()
    return ("namespaces", *wrap, "user", "process") if root else (*wrap, "namespaces", "process")


def environment(base):
    """All that the child finds in its environment. One thread for BLAS; the hash seed makes sets
    repeat their order.
    """
    threads = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    own = {
        "HOME": base,
        "TMPDIR": base,
        "MPLCONFIGDIR": base,
        "MPLBACKEND": "agg",
        "PYTHONHASHSEED": "0",
    }
    own |= {
        "LANG": "C.UTF-8",
        "PYTHONUTF8": "1",
        "NUMBA_CACHE_DIR": base,
        **dict.fromkeys(threads, "1"),
    }
    for name in ("SYSTEMROOT", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        if name in os.environ:
            own[name] = os.environ[name]
    return own


class Sandbox:
    """A view, a mode and limits: makes children. A context manager; at the end its files are
    removed.

    allowed, libraries    what student code may import: modules of moe_np, other libraries
    secret                folders that it must not read
    mode                  one of MODES; None takes MOE_NP_SANDBOX or else the strongest that works
    """

    def __init__(self, allowed=(), libraries=("numpy",), *, secret=(), limits=None, mode=None):
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self.view = view.View(allowed, libraries, secret)
        try:
            self.mode = self._working(mode or os.environ.get(ENVIRONMENT))
        except BaseException:
            self.close()
            raise

    def _working(self, asked):
        """The mode asked for, or the first in which a child starts."""
        modes = possible() if asked is None else (choice("protection", asked, possible()),)
        for mode in modes:
            self.mode = mode
            try:
                with self.child() as child:
                    child.cell(0, "import numpy")
                return mode
            except ChildError as error:
                reason = f"{error}; {child.noise()}"
        raise InputError(f"sandbox: wanted one of {', '.join(modes)} to work here, got {reason}")

    def child(self):
        return Child(self)

    def with_fonts(self):
        """Let Matplotlib look for fonts once, outside, so that no student's time goes into it."""
        fonts, code = self.view.base / "fonts", "import matplotlib.font_manager"
        with self._lock:
            if "matplotlib" in self.view.libraries and not any(fonts.iterdir()):
                subprocess.run(
                    [sys.executable, "-c", code],
                    env={**os.environ, "MPLCONFIGDIR": str(fonts)},
                    check=False,
                )
                for path in fonts.iterdir():
                    path.chmod(0o644)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.view.__exit__()

    def command(self, folder, uid):
        """(argv, environment) that start a child which works in `folder`."""
        v = self.view
        rooted = self.mode in ("namespaces", "bubblewrap")
        home = v.inside("work", True) if rooted else folder
        flags = [
            "-P",
            "-s",
            "-S",
            "-B",
        ]  # isolated (-I) but for PYTHONHASHSEED: the environment is ours alone
        config = {"site": v.inside("site", rooted), "libraries": v.libraries}
        python = [
            view.python(),
            *flags,
            v.inside("runner", rooted) + "/child.py",
            json.dumps(config),
        ]
        env = environment(home)
        if any((v.base / "fonts").iterdir()):
            env["MPLCONFIGDIR"] = v.inside("fonts", rooted)
        if self.mode == "bare":
            return python, env
        spec = {
            "mode": "inside" if self.mode == "bubblewrap" else self.mode,
            "uid": uid,
            "root": str(v.base / "root"),
            "shown": v.shown,
            "links": v.links,
            "hidden": v.hidden,
            "libraries": v.placed(rooted),
            "folder": home,
            "limits": dataclasses.asdict(self.limits),
            "landlock": True,
            "seccomp": True,
            "argv": python,
            "env": env,
        }
        runner = v.inside("runner", self.mode == "bubblewrap") + "/jail.py"
        jail = [view.python(), "-I", "-S", "-B", runner, json.dumps(spec)]
        return (self._wrap() if self.mode == "bubblewrap" else []) + jail, env

    def _wrap(self):
        """The same root as `jail.new_root` makes, in bubblewrap's words."""
        v, out = (
            self.view,
            [shutil.which("bwrap"), "--die-with-parent", "--new-session", "--unshare-ipc"],
        )
        out += ["--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        out += (
            ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
            if os.geteuid() == 0
            else ["--unshare-user"]
        )
        paths = [
            "/dev/null",
            *v.shown,
            *(path for _, path in v.links),
            *(path for _, path in v.placed(True)),
        ]
        for path in sorted(
            {str(parent) for p in paths for parent in pathlib.PurePath(p).parents} - {"/"}
        ):
            out += ["--perms", "0755", "--dir", path]
        for target, path in v.links:
            out += ["--symlink", target, path]
        for path in v.shown:
            out += ["--ro-bind", path, path]
        for path in v.hidden:
            out += (
                ["--tmpfs", path, "--remount-ro", path]
                if not self._holds_library(path)
                else ["--tmpfs", path]
            )
        for source, path in v.placed(True):
            out += ["--ro-bind", source, path]
        for device in ("null", "zero", "random", "urandom"):
            out += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
        out += [
            "--perms",
            "1777",
            "--size",
            str(self.limits.folder),
            "--tmpfs",
            v.inside("work", True),
        ]
        return [*out, "--remount-ro", "/"]

    def _holds_library(self, path):
        return any(p.startswith(path + "/") for _, p in self.view.placed(True))
