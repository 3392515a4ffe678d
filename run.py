"""One command for everything: it makes its own environment first, then runs.

    python3 run.py figures [NAME ...] [--quick]   figures and tables of the papers, into figures/out
    python3 run.py figures --full                 all of them, with all runs: hours, to be gone on
                                                  with by the same command
    python3 run.py test [--quick]                 the tests; further arguments go to pytest
    python3 run.py lab [NAME] [OPTION ...]        the lessons, in JupyterLab, as copies of your own
                                                  in the folder work: lab 04, lab --port 8899
    python3 run.py progress                       what you have predicted and written in them
    python3 run.py site                           lessons and reference as web pages
    python3 run.py moe-np ARGUMENTS ...           the command line of the package

`--with EXTRA` installs an extra of pyproject.toml too, for figures, test and moe-np.

Needs Python 3.11 or newer and nothing else; the same on Linux, macOS and Windows, from any folder.
The environment is the folder .venv beside this file, made anew when pyproject.toml changes. Delete
the folder to start over.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import venv

ROOT = pathlib.Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LOCK = ROOT / ".venv.lock"
WORK = ROOT / "work"  # the learner's copies of the lessons; git does not look into it
LONGEST_WAIT = 15 * 60  # seconds that one call waits for the set-up of another

# command -> (what Python runs, whether it runs in the folder of this file)
COMMANDS = {
    "figures": (["-m", "figures"], True),
    "test": (["-m", "pytest"], True),
    "lab": (["-m", "jupyter", "lab"], True),
    "progress": (["-P", "-m", "moe_np", "coursework", "progress", str(WORK)], True),
    "site": (["-m", "lessons.site"], True),
    # its paths are meant from where it is called; -P: no module is taken from that folder
    "moe-np": (["-P", "-m", "moe_np"], False),
}

# of `figures --full`; without mpi and translation a table says what is missing, without estimators
# two experiments cannot be made
EXTRAS_OF_ALL_FIGURES = ("estimators", "mpi", "translation")

# settings of a person's pip that would install elsewhere than into .venv
PIP_ELSEWHERE = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN", "PYTHONPATH")
# settings of a person's Python that would bring in other code, or another Python
PYTHON_ELSEWHERE = ("PYTHONHOME", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__")


def installed():
    """The extras that .venv holds for this pyproject.toml, or None if it has to be made."""
    try:
        stamp, _, extras = (VENV / "stamp").read_text().partition(" ")
    except OSError:
        return None
    return set(extras.split()) if stamp == fingerprint() and PYTHON.exists() else None


def fingerprint():
    """Changes with pyproject.toml, with the Python, and with the place of the project."""
    parts = (ROOT / "pyproject.toml").read_bytes(), sys.version.encode(), str(ROOT).encode()
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def environment(pip=False):
    """The environment variables for what runs in .venv."""
    variables = {k: v for k, v in os.environ.items() if k not in PYTHON_ELSEWHERE}
    # a notebook's own back end does not exist outside of it
    if variables.get("MPLBACKEND", "").startswith("module://"):
        del variables["MPLBACKEND"]
    if pip:
        variables = {k: v for k, v in variables.items() if k not in PIP_ELSEWHERE}
        variables["PIP_USER"] = "0"
    # pictures look alike everywhere: Matplotlib's settings and list of fonts belong to .venv
    variables["MPLCONFIGDIR"] = str(VENV / "matplotlib")
    return variables


@contextlib.contextmanager
def only_one():
    """A lock between calls, so that two do not make .venv at the same time."""
    start = time.monotonic()
    while True:
        try:
            os.close(os.open(LOCK, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            if time.monotonic() - start > LONGEST_WAIT or not being_made():
                with contextlib.suppress(OSError):
                    LOCK.unlink()  # its owner is gone
            elif time.monotonic() - start < 1:
                print("waiting for another run.py to finish the set-up ...", file=sys.stderr)
            time.sleep(1)
        except OSError as error:
            sys.exit(f"run.py: wanted to write into {ROOT}, got: {error}")
    try:
        LOCK.write_text(str(os.getpid()))
        yield
    finally:
        with contextlib.suppress(OSError):
            LOCK.unlink()


def being_made():
    """Whether the process that holds the lock still runs; True where that cannot be told."""
    try:
        owner = int(LOCK.read_text() or 0)
    except (OSError, ValueError):
        return True
    if owner == 0 or os.name == "nt":
        return True
    try:
        os.kill(owner, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def ensure(extras):
    """Make .venv if need be and install the package, editable, with the extras asked for so far."""
    if satisfied(extras):
        return
    with only_one():
        if not satisfied(extras):
            set_up(extras)


def satisfied(extras):
    have = installed()
    return have is not None and have >= set(extras)


def set_up(extras):
    """Make the environment and install into it, with one line per stage."""
    have = installed()
    extras = sorted((have or set()) | set(extras))
    if os.pathsep in str(ROOT):
        sys.exit(f"run.py: wanted a folder without {os.pathsep!r} in its path, got {ROOT}")
    start = time.monotonic()
    if have is None:
        print(f"setting up {VENV.name}, once: an environment of its own ...", file=sys.stderr)
        try:
            venv.create(VENV, with_pip=True, clear=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            sys.exit(
                f"run.py: wanted to make {VENV}, got: {error} "
                "(on Debian and Ubuntu: apt install python3-venv)"
            )
    names = f" and what {', '.join(extras)} need" if extras else ""
    print(f"installing the package{names}: {SIZES} ...", file=sys.stderr, flush=True)
    target = f".[{','.join(extras)}]" if extras else "."  # no path: it may have any characters
    command = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "--editable", target]
    if pip_install(command):
        sys.exit("run.py: pip could not install the package; its own words are above")
    (VENV / "stamp").write_text(" ".join([fingerprint(), *extras]))
    seconds = time.monotonic() - start
    print(f"set up in {seconds:.0f} s; {VENV.name} has {megabytes(VENV)} MB", file=sys.stderr)


SIZES = "300 MB to 1 GB on the disk, a third of it downloaded; one to five minutes"


def pip_install(command):
    """Run pip and show how far it is. Returns its exit status; its words are shown if it fails."""
    start = time.monotonic()
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    options |= {"encoding": "utf-8", "errors": "replace", "cwd": ROOT}
    lines, packages, downloaded, last = [], 0, 0.0, -60.0
    with subprocess.Popen(command, env=environment(pip=True), **options) as process:
        for line in process.stdout:
            lines.append(line)
            words = line.split()
            packages += words[:1] == ["Collecting"]
            downloaded += size_in(line) if words[:1] == ["Downloading"] else 0
            now = time.monotonic() - start
            at_the_end = words[:2] == ["Installing", "collected"]
            told = words[:1] in (["Collecting"], ["Processing"], ["Downloading"], ["Building"])
            if at_the_end or (told and now - last > 3):
                last = now
                what = "unpacking them" if at_the_end else os.path.basename(words[1 % len(words)])
                counts = f"{packages} packages, {downloaded:.0f} MB, {now:.0f} s"
                print(f"    {counts}: {what}", file=sys.stderr, flush=True)
    if process.returncode:
        print("".join(lines[-30:]), file=sys.stderr)
    return process.returncode


def size_in(line):
    """The megabytes in a line of pip such as "Downloading numpy-2.4.6.whl (16.6 MB)"."""
    match = re.search(r"\(([\d.]+) ([kM])B\)", line)
    return float(match[1]) / (1000 if match[2] == "k" else 1) if match else 0.0


def megabytes(folder):
    """The size of a folder."""
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_size
    return total // 1_000_000


def extras_of(command, arguments):
    """What the command needs beside the package itself, and its other arguments. `--with EXTRA` is
    ours.
    """
    rest = list(arguments)
    extras = {"test": ["test"], "lab": ["lessons"], "site": ["site"]}.get(command, [])
    while command in ("figures", "test", "moe-np") and "--with" in rest[:-1]:
        at = rest.index("--with")
        extras.append(rest[at + 1])
        del rest[at : at + 2]
    if command == "figures" and "--full" in rest:
        extras += EXTRAS_OF_ALL_FIGURES
    return extras, rest


def test_arguments(arguments):
    """The arguments of pytest."""
    if any(argument.startswith("-n") for argument in arguments):
        return arguments
    return ["-n", str(min(4, os.cpu_count() or 1)), *arguments]


# --- the learner's copies of the lessons ----------------------------------------------------------


def lab_arguments(arguments):
    """A lesson's number or name opens that lesson, and no name the first one; all that starts with
    a dash, and the value that follows it, goes to JupyterLab.
    """
    options = []
    lessons = sorted((ROOT / "lessons").glob("[0-9]*.ipynb"))
    opened = lessons[0]
    for i, argument in enumerate(arguments):
        before = arguments[i - 1] if i else ""
        is_value = before.startswith("--") and "=" not in before and not before.startswith("--no-")
        numbered = [path for path in lessons if path.stem.partition("_")[0] == argument]
        matches = numbered or [path for path in lessons if path.name.startswith(argument)]
        if argument.startswith("-") or (is_value and len(matches) != 1):
            options.append(argument)
        elif len(matches) == 1:
            opened = matches[0]
        else:
            names = ", ".join(path.stem for path in lessons)
            sys.exit(f"run.py: wanted a lesson, got {argument!r}; there are {names}")
    place = f"/lab/tree/{WORK.name}/{opened.name}"
    quiet = "--LanguageServerManager.autodetect=False"  # it would list servers that nobody needs
    return [f"--ServerApp.root_dir={ROOT}", f"--LabApp.default_url={place}", quiet, *options]


def quiet_lab():
    """Settings of JupyterLab in .venv: no question about news over the first lesson."""
    settings = VENV / "share" / "jupyter" / "lab" / "settings"
    news = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
    with contextlib.suppress(OSError):
        settings.mkdir(parents=True, exist_ok=True)
        (settings / "overrides.json").write_text(json.dumps(news))


def run(command, cwd):
    """Run to the end and return the exit status. The child answers Ctrl-C, and we wait for it."""
    process = subprocess.Popen(command, cwd=cwd, env=environment())
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return process.wait()


def main(arguments):
    """Set up what the command needs, run it, and return its exit status."""
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__.strip(), file=sys.stderr if arguments else sys.stdout)
        return 2 if arguments else 0
    if sys.version_info < (3, 11):  # noqa: UP036 - this file meets whatever Python is there
        sys.exit(f"run.py: wanted Python 3.11 or newer, got {sys.version.split()[0]}")
    command = arguments[0]
    extras, rest = extras_of(command, arguments[1:])
    if command == "test":
        rest = test_arguments(rest)
    elif command == "lab":
        rest = lab_arguments(rest)
    try:
        ensure(extras)
    except KeyboardInterrupt:
        sys.exit("run.py: interrupted during the set-up; the same command starts it again")
    if command == "lab":
        quiet_lab()
        from lessons import work

        for remark in work.copy_lessons(ROOT / "lessons", WORK):
            print(f"run.py: {remark}", file=sys.stderr)
        print(f"run.py: your copies of the lessons are in {WORK}", file=sys.stderr, flush=True)
    program, here = COMMANDS[command]
    return run([PYTHON, *program, *rest], ROOT if here else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
