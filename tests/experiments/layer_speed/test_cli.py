"""The command `moe-np bench`: its arguments, its output, Ctrl-C."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from moe_np import cli
from moe_np.experiments.layer_speed import bench as timing
from moe_np.experiments.layer_speed import history
from moe_np.experiments.layer_speed.cli import parse_shape
from moe_np.experiments.layer_speed.problem import Shape
from tests.support.bench import KEYS, Machine, take_part


def test_a_shape_is_tokens_width_and_experts():
    assert parse_shape("4096,64,8") == Shape(4096, 64, 8, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--expert", "cubic"], "--expert: wanted one of swiglu, relu; got 'cubic'"),
        (["--shape", "4096,64"], "--shape: wanted N,D,E such as 4096,64,8, got '4096,64'"),
        (["--shape", "4096,64,x"], "--shape: wanted N,D,E such as 4096,64,8, got '4096,64,x'"),
        (
            ["--shape", "9,8,1"],
            "--shape: wanted at least one token, one feature and two experts, got '9,8,1'",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, message, capsys):
    assert cli.main(["bench", *arguments]) == 2
    assert capsys.readouterr().err == f"moe-np: error: {message}\n"


def test_ctrl_c_prints_the_table_and_the_status_is_130(monkeypatch, capsys, tmp_path):
    take_part(Machine(interrupted_at=8.0), monkeypatch)
    path = tmp_path / "history.jsonl"
    shapes = ["--shape", "64,8,4", "--shape", "6400,8,4"]
    assert cli.main(["bench", "--record", str(path), *shapes]) == 130
    captured = capsys.readouterr()
    assert "| 64 | 8 | 4 | 2 | 1 | forward |" in captured.out and "Interrupted." in captured.out
    assert captured.err.endswith("moe-np: interrupted\n")
    (entry,) = history.read(path)
    assert entry["ratios"][0]["tokens"] == 64


@pytest.mark.slow
def test_the_command(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(timing, "QUICK_ROUNDS", 1)  # each has new processes; see test_bench.py
    path = tmp_path / "history.jsonl"
    assert cli.main(["bench", "--quick", "--json", "--record", str(path)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(set(row) == KEYS and row["seconds"] > 0 and row["ratio_floor"] > 0 for row in rows)
    names = {row["impl"] for row in rows}
    assert names >= {"moe_np", "dense_numpy", "numpy_mask_loop"} and len(rows) == 2 * 2 * len(names)
    assert all(row["ratio_dense"] == 1 for row in rows if row["impl"] == "dense_numpy")
    for tokens in (256, 1024):  # one floor for all
        case = (tokens, "forward")
        of_shape = [row for row in rows if (row["tokens"], row["mode"]) == case]
        floors = [row["seconds"] / row["ratio_floor"] for row in of_shape]
        np.testing.assert_allclose(floors, floors[0])
    (entry,) = history.read(path)
    assert len(entry["ratios"]) == 4 and entry["machine"]["processor"]


def running_in(group):
    """The processes of a process group that have not ended."""
    running = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, process_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state != "Z":
                running.append(path.parent.name)
    return running


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc").is_dir(), reason="processes as files")
def test_ctrl_c_in_a_real_bench_leaves_one_line_and_no_process(answers_interrupts):
    command = [sys.executable, "-m", "moe_np", "bench", "--shape", "64,8,4", "--shape", "64,16,4"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes, start_new_session=True)
    line = process.stderr.readline()
    assert line.startswith("round 1: 64 tokens, d 8, 4 experts")
    assert len(running_in(process.pid)) > 3
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to the children too
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "| 64 | 8 | 4 |" in out and "Traceback" not in err
    assert err.endswith("moe-np: interrupted\n")
    deadline = time.monotonic() + 20
    while running_in(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running_in(process.pid)
