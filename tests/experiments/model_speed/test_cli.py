"""The command `moe-np bench model`: its output, Ctrl-C."""

import json

import pytest

from moe_np import cli
from moe_np.experiments.model_speed import bench
from tests.support.model_bench import KEYS, Machine, take_part


def test_the_rows_go_to_stdout_and_progress_to_stderr(monkeypatch, capsys):
    take_part(Machine(), monkeypatch)
    assert cli.main(["bench", "model", "--quick", "--json"]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    assert {row["what"] for row in rows} == {"train", "prefill", "generate"}
    assert all(set(row) == KEYS for row in rows)
    assert "train, d 64, batch 2" in captured.err


def test_ctrl_c_prints_the_table_and_the_status_is_130(monkeypatch, capsys):
    take_part(Machine(interrupted_at=60.0), monkeypatch)
    assert cli.main(["bench", "model"]) == 130
    captured = capsys.readouterr()
    assert "| train | 128 | 16 | 128 | moe_np |" in captured.out
    assert "Interrupted." in captured.out
    assert captured.err.endswith("moe-np: interrupted\n")


def test_bad_arguments_are_named(capsys):
    assert cli.main(["bench", "modell"]) == 2
    assert "modell" in capsys.readouterr().err
    assert cli.main(["bench", "model", "--expert", "relu"]) == 2
    assert capsys.readouterr().err.startswith("moe-np: error: --expert")


@pytest.mark.slow
def test_the_command(monkeypatch, capsys):
    ours = ["moe_np", "dense"]
    monkeypatch.setattr(bench, "installed", lambda: ours)
    assert cli.main(["bench", "model", "--quick", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["impl"] for row in rows] == ours * 3
    assert all(row["seconds"] > 0 and row["peak_bytes"] > 1e6 for row in rows)
