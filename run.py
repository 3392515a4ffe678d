"""One command for everything: it makes its own environment first, then runs.

    python3 run.py figures [NAME ...] [--quick]   every figure and table, into figures/out
    python3 run.py test [--quick] [--with EXTRA]  the tests; further arguments go to pytest
    python3 run.py lab [NAME]                     the lessons, in JupyterLab; NAME is a lesson, such as 04
    python3 run.py site                           the lessons and the reference as web pages, into lessons/site/out
    python3 run.py moe-np ARGUMENTS ...           the command line of the package

Needs Python 3.11 or newer and nothing else; the same on Linux, macOS and Windows. The environment
is the folder .venv beside this file, made anew when pyproject.toml changes. Delete the folder to
start over.
"""

import contextlib
import hashlib
import os
import pathlib
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

COMMANDS = {
    "figures": ["-m", "figures"],
    "test": ["-m", "pytest"],
    "lab": ["-m", "jupyter", "lab"],
    "site": ["-m", "lessons.site"],
    "moe-np": ["-m", "moe_np"],
}


def installed():
    """The extras that .venv holds for this pyproject.toml, or None if it has to be made."""
    try:
        stamp, _, extras = (VENV / "stamp").read_text().partition(" ")
    except OSError:
        return None
    return set(extras.split()) if stamp == fingerprint() and PYTHON.exists() else None


def fingerprint():
    what = (ROOT / "pyproject.toml").read_bytes() + sys.version.encode()
    return hashlib.sha256(what).hexdigest()


def ensure(extras):
    """Make .venv if need be and install the package, editable, with the extras asked for so far."""
    have = installed()
    if have is not None and have >= set(extras):
        return
    extras = sorted((have or set()) | set(extras))
    print(f"setting up {VENV.name} (once; under a minute) ...", file=sys.stderr, flush=True)
    if have is None:
        try:
            venv.create(VENV, with_pip=True, clear=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(
                f"run.py: wanted to make {VENV}, got: {error} (on Debian and Ubuntu: apt install python3-venv)"
            )
    target = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    command = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--editable",
        target,
    ]
    if subprocess.run(command, cwd=ROOT).returncode:
        sys.exit("run.py: pip could not install the package; its own words are above")
    (VENV / "stamp").write_text(" ".join([fingerprint(), *extras]))


def test_arguments(arguments):
    """Ours are `--quick` (leave out the slow tests) and `--with EXTRA` (install it as well). The
    rest is pytest's.
    """
    extras, rest = ["test"], list(arguments)
    while "--with" in rest[:-1]:
        at = rest.index("--with")
        extras.append(rest[at + 1])
        del rest[at : at + 2]
    if "--quick" in rest:
        rest[rest.index("--quick") : rest.index("--quick") + 1] = ["-m", "not slow"]
    if not any(a.startswith("-n") for a in rest):
        rest = ["-n", str(min(4, os.cpu_count() or 1)), *rest]
    return extras, rest


def lab_arguments(arguments):
    """A lesson's number or name opens that lesson; what starts with a dash goes to JupyterLab."""
    out = ["--ServerApp.root_dir=" + str(ROOT / "lessons")]
    for argument in arguments:
        if argument.startswith("-"):
            out.append(argument)
            continue
        found = sorted((ROOT / "lessons").glob(f"{argument}*.ipynb"))
        if len(found) != 1:
            there = ", ".join(path.stem for path in sorted((ROOT / "lessons").glob("[0-9]*.ipynb")))
            sys.exit(f"run.py: wanted a lesson, got {argument!r}; there are {there}")
        out.append(str(found[0]))
    return out


def run(command):
    """Run to the end and return the exit status. Ctrl-C reaches the child as well: it answers, we
    wait for it.
    """
    process = subprocess.Popen(command, cwd=ROOT)
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return process.wait()


def main(arguments):
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__.strip(), file=sys.stderr if arguments else sys.stdout)
        return 2 if arguments else 0
    if sys.version_info < (3, 11):  # noqa: UP036 - this file meets whatever Python is there
        sys.exit(f"run.py: wanted Python 3.11 or newer, got {sys.version.split()[0]}")
    command, rest = arguments[0], arguments[1:]
    extras = []
    if command == "test":
        extras, rest = test_arguments(rest)
    elif command == "lab":
        extras, rest = ["lessons"], lab_arguments(rest)
    elif command == "site":
        extras = ["site"]
    ensure(extras)
    return run([PYTHON, *COMMANDS[command], *rest])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
