"""The launcher: what it makes of its arguments, and when it makes its environment anew."""

import importlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import threading
import time
import tomllib

import pytest

from figures.__main__ import SCRIPTS

ROOT = pathlib.Path(__file__).resolve().parents[1]


def load_launcher():
    spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    return run


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    run = load_launcher()
    monkeypatch.setattr(run, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(run, "LOCK", tmp_path / ".venv.lock")
    monkeypatch.setattr(run, "PYTHON", pathlib.Path(sys.executable))
    (tmp_path / ".venv").mkdir()
    return run


def test_arguments_for_pytest(launcher):
    assert launcher.test_arguments(["--quick", "-k", "em", "-n0"]) == ["--quick", "-k", "em", "-n0"]
    rest = launcher.test_arguments(["-m", "parity"])
    assert rest[0] == "-n" and rest[2:] == ["-m", "parity"]


def test_what_a_command_needs(launcher):
    extras_of = launcher.extras_of
    assert extras_of("test", ["--with", "parity", "-m", "x"]) == (["test", "parity"], ["-m", "x"])
    assert extras_of("site", []) == (["site"], [])
    assert extras_of("lab", ["--with", "x"]) == (["lessons"], ["--with", "x"])  # JupyterLab's
    assert extras_of("figures", ["--quick"]) == ([], ["--quick"])
    assert extras_of("moe-np", ["--with", "mpi", "run"]) == (["mpi"], ["run"])
    extras, rest = extras_of("figures", ["--full"])
    assert rest == ["--full"]
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(extras) < set(known["project"]["optional-dependencies"])
    scripts = [importlib.import_module(script.module) for script in SCRIPTS.values()]
    needed = {extra for script in scripts for extra in getattr(script, "NEEDS", {}).values()}
    assert needed and needed <= set(extras)


@pytest.fixture
def lessons(launcher, monkeypatch, tmp_path):
    """A checkout with three lessons."""
    monkeypatch.setattr(launcher, "ROOT", tmp_path)
    monkeypatch.setattr(launcher, "WORK", tmp_path / "work")
    (tmp_path / "lessons").mkdir()
    for name in ("04_vowels", "04b_more", "05_em"):
        (tmp_path / "lessons" / f"{name}.ipynb").touch()
    return tmp_path


def opened_in(arguments):
    (place,) = [a.partition("=")[2] for a in arguments if a.startswith("--LabApp.default_url=")]
    return place


def test_a_lesson_is_opened_by_its_number_and_the_first_one_without(launcher, lessons):
    arguments = launcher.lab_arguments(["05", "--no-browser"])
    assert f"--ServerApp.root_dir={lessons}" in arguments and arguments[-1] == "--no-browser"
    assert opened_in(arguments) == "/lab/tree/work/05_em.ipynb"
    assert opened_in(launcher.lab_arguments([])) == "/lab/tree/work/04_vowels.ipynb"
    assert opened_in(launcher.lab_arguments(["04"])) == "/lab/tree/work/04_vowels.ipynb"
    assert opened_in(launcher.lab_arguments(["04b"])) == "/lab/tree/work/04b_more.ipynb"
    for name in ("06", "0"):  # none, and several
        with pytest.raises(SystemExit, match=r"wanted a lesson, got .*04_vowels, 04b_more, 05_em"):
            launcher.lab_arguments([name])


def test_lab_copies_the_lessons_and_opens_the_copy(launcher, lessons, monkeypatch):
    for path in (lessons / "lessons").glob("*.ipynb"):
        path.write_text('{"cells": []}', encoding="utf-8")
    started = []
    monkeypatch.setattr(launcher, "ensure", started.append)
    monkeypatch.setattr(launcher, "run", lambda command, cwd: started.append(command) or 0)
    assert launcher.main(["lab", "05", "--port", "8899"]) == 0
    extras, command = started
    assert extras == ["lessons"] and command[-2:] == ["--port", "8899"]
    assert opened_in(command[1:]) == "/lab/tree/work/05_em.ipynb"
    assert (lessons / "work" / "05_em.ipynb").exists()
    assert (
        lessons / ".venv" / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    ).exists()


def test_the_environment_is_made_once_and_again_after_a_change(launcher, monkeypatch):
    calls = []
    monkeypatch.setattr(launcher.venv, "create", lambda path, **_: calls.append("create"))
    monkeypatch.setattr(launcher, "pip_install", lambda command: calls.append(command[-1]))
    launcher.ensure([])
    launcher.ensure([])
    launcher.ensure(["test"])
    launcher.ensure([])
    assert calls == ["create", ".", ".[test]"]
    monkeypatch.setattr(launcher, "fingerprint", lambda: "pyproject.toml was edited")
    launcher.ensure([])
    assert calls[3:] == ["create", "."]


def test_options_of_jupyterlab_keep_their_values(launcher, lessons):
    arguments = launcher.lab_arguments(["--port", "8899", "--ip", "127.0.0.1"])
    assert arguments[-4:] == ["--port", "8899", "--ip", "127.0.0.1"]
    arguments = launcher.lab_arguments(["--no-browser", "05"])
    assert arguments[-1] == "--no-browser" and opened_in(arguments).endswith("05_em.ipynb")
    arguments = launcher.lab_arguments(["--port=8899", "05"])
    assert arguments[-1] == "--port=8899" and opened_in(arguments).endswith("05_em.ipynb")
    with pytest.raises(SystemExit, match="wanted a lesson, got '9999'"):
        launcher.lab_arguments(["9999"])


def test_settings_of_the_person_do_not_move_the_installation(launcher, monkeypatch):
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH", "PYTHONHOME"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for_pip = launcher.environment(pip=True)
    assert for_pip["PIP_USER"] == "0"
    assert not {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH"} & set(for_pip)
    assert not {"PYTHONHOME", "MPLBACKEND"} & set(launcher.environment())
    monkeypatch.setenv("MPLBACKEND", "svg")
    assert launcher.environment()["MPLBACKEND"] == "svg"


@pytest.mark.seconds
def test_two_calls_do_not_make_the_environment_at_once(launcher, monkeypatch):
    """The second one waits, and then finds all that it needs."""
    calls = []

    def install(command):
        calls.append(command[-1])
        time.sleep(0.3)

    monkeypatch.setattr(launcher.venv, "create", lambda path, **_: calls.append("create"))
    monkeypatch.setattr(launcher, "pip_install", install)
    threads = [threading.Thread(target=launcher.ensure, args=([],)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["create", "."] and not launcher.LOCK.exists()


@pytest.mark.seconds
def test_a_lock_of_a_process_that_is_gone_is_taken_over(launcher, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    launcher.LOCK.write_text(str(ended.pid))
    with launcher.only_one():
        assert launcher.LOCK.read_text() != str(ended.pid)
    assert not launcher.LOCK.exists()


def test_an_interrupted_set_up_is_one_line_and_starts_again(launcher, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher.venv, "create", interrupt)
    with pytest.raises(SystemExit, match="interrupted during the set-up"):
        launcher.main(["figures"])
    assert launcher.installed() is None and not launcher.LOCK.exists()


def test_a_path_that_no_environment_can_have_is_one_line(launcher, monkeypatch):
    monkeypatch.setattr(launcher, "ROOT", pathlib.Path(f"/a{os.pathsep}b"))
    with pytest.raises(SystemExit, match="wanted a folder without"):
        launcher.set_up([])


def test_paths_of_the_command_line_are_meant_from_where_it_is_called(tmp_path):
    (tmp_path / "numpy.py").write_text("raise ImportError('taken from the working folder')")
    if not load_launcher().satisfied([]):
        pytest.skip("no environment of run.py's own here")
    command = [sys.executable, ROOT / "run.py", "moe-np", "count", "mixtral-8x7b", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    program, in_project = load_launcher().COMMANDS["moe-np"]
    assert "-P" in program and not in_project


def test_a_failed_installation_leaves_no_stamp(launcher, monkeypatch):
    monkeypatch.setattr(launcher.venv, "create", lambda path, **_: None)
    monkeypatch.setattr(launcher, "pip_install", lambda command: 1)
    with pytest.raises(SystemExit, match="pip could not install"):
        launcher.ensure([])
    assert launcher.installed() is None


PIP = """
print("Collecting numpy>=1.26", flush=True)
print("  Downloading numpy-2.4.6-cp311.whl (16.6 MB)", flush=True)
print("Collecting scipy", flush=True)
print("  Downloading scipy-1.17.whl.metadata (62 kB)", flush=True)
print("Installing collected packages: numpy, scipy", flush=True)
raise SystemExit({status})
"""


def test_the_set_up_shows_how_far_it_is_and_its_size(launcher, monkeypatch, capsys):
    monkeypatch.setattr(launcher.venv, "create", lambda path, **_: None)
    monkeypatch.setattr(launcher, "PYTHON", pathlib.Path(sys.executable))
    (launcher.VENV / "numbers").write_bytes(bytes(3_000_000))
    install = launcher.pip_install
    command = [sys.executable, "-c", PIP.format(status=0)]
    monkeypatch.setattr(launcher, "pip_install", lambda _: install(command))
    launcher.ensure(["lessons"])
    shown = capsys.readouterr().err
    assert "1 GB on the disk" in shown and "1 packages, 0 MB" in shown
    assert "2 packages, 17 MB" in shown and "unpacking them" in shown and "has 3 MB" in shown
    assert "Collecting scipy" not in shown, "a line per three seconds is enough"


def test_the_words_of_a_pip_that_fails_are_shown(launcher, capsys):
    command = [sys.executable, "-c", PIP.format(status=3)]
    assert launcher.pip_install(command) == 3
    assert "Downloading scipy" in capsys.readouterr().err


def test_help_and_unknown_commands():
    for arguments, status in (([], 0), (["figure"], 2)):
        done = subprocess.run(
            [sys.executable, ROOT / "run.py", *arguments], capture_output=True, text=True
        )
        assert done.returncode == status and "python3 run.py figures" in done.stdout + done.stderr
