"""What a person types: right calls give files and a table, wrong ones one clear line and a status
other than 0.
"""

import json
import os
import subprocess
import sys

import pytest

from moe_np import cli
from moe_np.experiments.common import registry

EXPERIMENTS = registry.summaries()


def moe_np(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "moe_np", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_list_names_every_experiment(capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert cli.main(["list", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == list(EXPERIMENTS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["run", "jordan1066"],
            f"experiment: wanted one of {', '.join(EXPERIMENTS)}; got 'jordan1066'",
        ),
        (
            ["run", "jacobs1991", "--seeds", "0"],
            "--seeds: wanted a whole number of at least 1, got 0",
        ),
        (
            ["run", "jacobs1991", "--seeds", "-3"],
            "--seeds: wanted a whole number of at least 1, got -3",
        ),
        (
            ["run", "jacobs1991", "--jobs", "0"],
            "--jobs: wanted a whole number of at least 1, got 0",
        ),
        (["run", "jacobs1991", "--variant", "code"], "--variant: jacobs1991 has no such option"),
        (["run", "jacobs1991", "--setting", "1"], "--setting: jacobs1991 has no such option"),
        (["run", "chen2022", "--setting", "5"], "setting: wanted one of 1, 2, 3, 4; got 5"),
        (
            ["run", "chen2022", "--variant", "prose"],
            "variant: wanted one of code, paper; got 'prose'",
        ),
        (["replay", "chen2022", "--setting", "0"], "--setting: wanted one of 1, 2, 3, 4; got 0"),
        (["replay", "jacobs1991"], "replay: wanted one of chen2022; got 'jacobs1991'"),
    ],
)
def test_bad_arguments_give_one_line(arguments, words, tmp_path, capsys):
    assert cli.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"moe-np: error: {words}\n"
    assert not list(tmp_path.rglob("*.json")), "nothing half-written"


def test_what_the_parser_refuses_is_one_line_as_well(capsys):
    assert cli.main(["run", "jacobs1991", "--seeds", "many"]) == 2
    printed = capsys.readouterr().err
    assert "--seeds" in printed and "many" in printed and printed.count("\n") == 1


def test_an_unwritable_folder_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["run", "jacobs1991", "--out", str(tmp_path / "file" / "out")]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("moe-np: error: out: wanted a folder that can be written, got ")
        and said.count("\n") == 1
    )


def test_an_unknown_kernel_is_named(tmp_path):
    done = moe_np(
        "run", "jacobs1991", "--seeds", "1", "--out", str(tmp_path), MOE_NP_KERNELS="cuda"
    )
    assert done.returncode == 2
    assert done.stderr == "moe-np: error: MOE_NP_KERNELS: wanted numpy or numba, got 'cuda'\n"


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted; finished runs are stored"),
        (
            OSError(28, "No space left on device", "results/x.json"),
            1,
            "results/x.json: No space left on device",
        ),
    ],
)
def test_failures_of_the_world_are_one_line(raised, status, words, capsys):
    def main(_):
        raise raised

    assert cli.guarded(main, [], "moe-np") == status
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_programming_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.guarded(lambda _: 1 / 0, [], "moe-np")


def test_the_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("moe-np 0.")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_narrow_encoding_of_the_output_is_no_error(tmp_path, encoding):
    """± is in cp1252 and not in ASCII."""
    arguments = ("run", "one_to_many", "--seeds", "1", "--quick", "--out", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "moe_np", *arguments],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert ("±" if encoding == "cp1252" else r"\xb1") in done.stdout.decode(encoding)
