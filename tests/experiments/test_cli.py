"""`moe-np list`, `run` and `replay`: files and a report, and one line for a call that is wrong."""

import json
import os
import subprocess
import sys
import types

import pytest

from moe_np import cli
from moe_np.experiments.chen2022 import replay
from moe_np.experiments.common import registry
from moe_np.experiments.common.experiment import Option

EXPERIMENTS = registry.summaries()


def test_list_names_every_experiment(capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert cli.main(["list", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == list(EXPERIMENTS)


# --- what run hands to the experiment, and what it writes -----------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """The keyword arguments with which the experiment was run: one that only counts."""
    calls = []

    def run(*, sweep, **options):
        calls.append({"jobs": sweep.jobs, **options})
        return {"name": "jacobs1991", "n": len(calls)}

    experiment = types.SimpleNamespace(
        OPTIONS=(Option("data_set", "the data", (1, 2)), Option("long", "more runs")),
        SYSTEMS=("first", "second"),
        run=run,
        report=lambda result: f"| n |\n|---|\n| {result['n']} |\n",
    )
    monkeypatch.setattr(registry, "load", lambda name: experiment)
    return calls


def test_run_writes_the_result_and_its_report(calls, tmp_path, capsys):
    assert cli.main(["run", "jacobs1991", "--jobs", "1", "--out", str(tmp_path)]) == 0
    assert calls == [{"jobs": 1, "quick": False}]
    assert json.loads((tmp_path / "jacobs1991.json").read_text()) == {"name": "jacobs1991", "n": 1}
    text = (tmp_path / "jacobs1991.md").read_text()
    printed = capsys.readouterr()
    assert printed.out.strip() == text.strip() == "| n |\n|---|\n| 1 |"
    assert "jacobs1991.json and .md" in printed.err


def test_run_prints_json(calls, tmp_path, capsys):
    words = ["run", "jacobs1991", "--json", "--jobs", "1", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 1


def test_options_become_keyword_arguments(calls, tmp_path):
    words = "run jacobs1991 --quick --seeds 3 --only second --only first --data-set 2 --long"
    assert cli.main([*words.split(), "--jobs", "2", "--out", str(tmp_path)]) == 0
    only = ("second", "first")
    wanted = {"jobs": 2, "quick": True, "seeds": 3, "only": only, "data_set": 2, "long": True}
    assert calls == [wanted]


def test_replay_writes_the_result_and_its_report(tmp_path, monkeypatch, capsys):
    def repeat(setting, store):
        return {"setting": setting, "store": store.name}

    monkeypatch.setattr(replay, "replay", repeat)
    monkeypatch.setattr(replay, "report", lambda result: f"setting {result['setting']}\n")
    assert cli.main(["replay", "chen2022", "--setting", "3", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == "setting 3"
    stored = json.loads((tmp_path / "replay_chen2022_s3.json").read_text())
    assert stored == {"setting": 3, "store": "runs"}


# --- what they refuse -----------------------------------------------------------------------------

AT_LEAST_1 = "wanted a whole number of at least 1, got"
REFUSED = {
    "run jordan1066": f"experiment: wanted one of {', '.join(EXPERIMENTS)}; got 'jordan1066'",
    "run jacobs1991 --seeds 0": f"--seeds: {AT_LEAST_1} 0",
    "run jacobs1991 --seeds -3": f"--seeds: {AT_LEAST_1} -3",
    "run jacobs1991 --jobs 0": f"--jobs: {AT_LEAST_1} 0",
    "run jacobs1991 --variant code": "--variant: jacobs1991 has no such option",
    "run jacobs1991 --setting 1": "--setting: jacobs1991 has no such option",
    "run chen2022 --setting 5": "setting: wanted one of 1, 2, 3, 4; got 5",
    "run chen2022 --variant prose": "variant: wanted one of code, paper; got 'prose'",
    "replay chen2022 --setting 0": "--setting: wanted one of 1, 2, 3, 4; got 0",
    "replay jacobs1991": "replay: wanted one of chen2022; got 'jacobs1991'",
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.items(), ids=REFUSED)
def test_bad_arguments_give_one_line(arguments, words, tmp_path, capsys):
    assert cli.main([*arguments.split(), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"moe-np: error: {words}\n"
    assert not list(tmp_path.rglob("*.json")), "nothing half-written"


def test_an_unwritable_folder_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["run", "jacobs1991", "--out", str(tmp_path / "file" / "out")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("moe-np: error: out: wanted a folder that can be written, got ")
    assert printed.count("\n") == 1


def test_an_unknown_kernel_is_named(tmp_path):
    words = ["run", "jacobs1991", "--seeds", "1", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "moe_np", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "MOE_NP_KERNELS": "cuda"},
    )
    assert done.returncode == 2
    assert done.stderr == "moe-np: error: MOE_NP_KERNELS: wanted numpy or numba, got 'cuda'\n"
