"""The launcher: what it makes of its arguments, and when it makes its environment anew."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    monkeypatch.setattr(run, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(run, "PYTHON", pathlib.Path(sys.executable))
    (tmp_path / ".venv").mkdir()
    return run


def test_arguments_for_pytest(launcher):
    assert launcher.test_arguments(["--quick", "-k", "em", "-n0"]) == (
        ["test"],
        ["-m", "not slow", "-k", "em", "-n0"],
    )
    extras, rest = launcher.test_arguments(["--with", "parity", "-m", "parity"])
    assert extras == ["test", "parity"] and rest[0] == "-n" and rest[2:] == ["-m", "parity"]


def test_a_lesson_is_opened_by_its_number(launcher, monkeypatch, tmp_path):
    monkeypatch.setattr(launcher, "ROOT", tmp_path)
    (tmp_path / "lessons").mkdir()
    for name in ("04_vowels", "05_em"):
        (tmp_path / "lessons" / f"{name}.ipynb").touch()
    root = f"--ServerApp.root_dir={tmp_path / 'lessons'}"
    opened = str(tmp_path / "lessons" / "04_vowels.ipynb")
    assert launcher.lab_arguments(["04", "--no-browser"]) == [root, opened, "--no-browser"]
    for name in ("06", "0"):  # none, and more than one
        with pytest.raises(SystemExit, match=r"wanted a lesson, got .*04_vowels, 05_em"):
            launcher.lab_arguments([name])


def test_the_environment_is_made_once_and_again_after_a_change(launcher, monkeypatch):
    calls = []
    monkeypatch.setattr(launcher.venv, "create", lambda path, **_: calls.append("create"))
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(
        launcher.subprocess, "run", lambda command, **_: calls.append(command[-1]) or done
    )
    launcher.ensure([])
    launcher.ensure([])
    launcher.ensure(["test"])
    launcher.ensure([])
    assert calls == ["create", str(launcher.ROOT), f"{launcher.ROOT}[test]"]
    monkeypatch.setattr(launcher, "fingerprint", lambda: "pyproject.toml was edited")
    launcher.ensure([])
    assert calls[3:] == ["create", str(launcher.ROOT)]


def test_a_failed_installation_leaves_no_stamp(launcher, monkeypatch):
    monkeypatch.setattr(launcher.venv, "create", lambda path, **_: None)
    monkeypatch.setattr(
        launcher.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1)
    )
    with pytest.raises(SystemExit, match="pip could not install"):
        launcher.ensure([])
    assert launcher.installed() is None


def test_help_and_unknown_commands():
    for arguments, status in (([], 0), (["figure"], 2)):
        done = subprocess.run(
            [sys.executable, ROOT / "run.py", *arguments], capture_output=True, text=True
        )
        assert done.returncode == status and "python3 run.py figures" in done.stdout + done.stderr
