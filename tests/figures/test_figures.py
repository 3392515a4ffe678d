"""`python -m figures`: every script has what it needs; the results come out, twice the same."""

import importlib
import pathlib
import subprocess
import sys

import pytest

from figures import Job
from figures import __main__ as main
from figures.chen2022 import fig1
from moe_np.base.checks import InputError
from moe_np.experiments.common.sweep import Sweep

ROOT = pathlib.Path(__file__).resolve().parents[2]


def figures(*arguments):
    command = [sys.executable, "-m", "figures", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_every_script_is_listed_and_keeps_the_contract():
    files = [path for path in (ROOT / "figures").rglob("[a-z]*.py") if "out" not in path.parts]
    orders = {script.order for script in main.SCRIPTS.values()}
    assert len(files) == len(main.SCRIPTS) == len(orders)
    for script in main.SCRIPTS.values():
        module = importlib.import_module(script.module)
        assert module.__doc__ and module.TITLE and callable(module.make)


class Script:
    """A script that keeps a diary of what is started and made."""

    TITLE = ""

    def __init__(self, name, diary, timed):
        self.name, self.diary, self.TIMED = name, diary, timed

    def specs(self, job):
        self.diary.append(f"start {self.name}")
        return (dict, [])

    def make(self, job):
        self.diary.append(f"make {self.name}")
        return ""


def test_nothing_starts_early_beside_a_script_that_measures_times(tmp_path, monkeypatch):
    diary = []
    timed = {"a": False, "b": False, "c": True, "d": True, "e": False, "f": False}
    scripts = {name: Script(name, diary, is_timed) for name, is_timed in timed.items()}
    monkeypatch.setattr(main, "SCRIPTS", {name: main.Script(name, 1) for name in scripts})
    monkeypatch.setattr(main.importlib, "import_module", scripts.__getitem__)
    with Sweep(jobs=1, progress=False) as sweep:
        main.make(Job(sweep, tmp_path), list(scripts))
    wanted = ["start a", "start b", "make a", "make b", "make c", "make d"]
    assert diary == [*wanted, "start e", "start f", "make e", "make f"]


def test_what_is_not_installed_is_said_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(main.extras, "installed", lambda module: module != "sklearn")
    with Sweep(jobs=1, progress=False) as sweep, pytest.raises(InputError, match="`estimators`"):
        main.make(Job(sweep, tmp_path), ["jacobs1991_fig1", "health"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_pictures_sections_and_report_and_the_same_bytes_again(tmp_path):
    names = ("jacobs1991_fig1", "jacobs1991_table1")
    for out in ("a", "b"):
        done = figures(*names, "--quick", "--jobs", "1", "--out", str(tmp_path / out))
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(tmp_path / out / "REPORT.md")
    pictures = ("jacobs1991_fig1.png", "jacobs1991_fig1.svg", "jacobs1991_table1.png")
    for name in (*pictures, "REPORT.md"):
        a, b = ((tmp_path / out / name).read_bytes() for out in ("a", "b"))
        assert a == b and len(a) > 500, name
    report = (tmp_path / "a" / "REPORT.md").read_text(encoding="utf-8")
    assert "--quick" in report and "1124 ± 23" in report and "jacobs1991_fig1.png" in report
    assert report.index("Fig. 1") < report.index("Table 1:")
    assert not list((tmp_path / "a").glob(".*")), "no unfinished picture stays"


@pytest.mark.nightly
def test_all_scripts_are_made_by_one_command(tmp_path):
    made = figures(*main.SCRIPTS, "--quick", "--jobs", "2", "--out", str(tmp_path))
    assert made.returncode == 0, made.stderr
    assert {path.stem for path in (tmp_path / "sections").iterdir()} == set(main.SCRIPTS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fig9",), "NAME: wanted one of jacobs1991_fig1, "),
        (("--quick", "--full"), "--quick, --full: wanted one of them, got both"),
        (("jacobs1991_fig1", "--jobs", "0"), "--jobs: wanted a whole number of at least 1, got 0"),
    ],
)
def test_bad_arguments_give_one_line(tmp_path, arguments, words):
    done = figures(*arguments, "--out", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("python -m figures: error: " + words)
    assert done.stderr.count("\n") == 1


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = figures("jacobs1991_fig1", "--out", str(tmp_path / "file"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_the_run_that_is_drawn_is_said_to_be_one_of_few():
    seed, words = fig1.which_run([0.4, 0.01, 0.3, 0.02])
    assert seed == 1
    assert words.startswith("2 of 4 runs") and words.endswith("the first of them, seed 1")
    assert fig1.which_run([0.4, 0.3])[0] == 0 and "seed 0" in fig1.which_run([0.4, 0.3])[1]


def test_the_report_says_how_many_runs_there_are(tmp_path):
    for name in ("a/1.json", "b/2.json", "b/3.json"):
        path = tmp_path / "runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", encoding="utf-8")
    main.report(tmp_path, quick=False)
    text = (tmp_path / "REPORT.md").read_text(encoding="utf-8")
    assert "from 3 stored runs, those of earlier calls included" in text
