"""`moe-np train --ranks R`: the same bits in one process and by MPI, refusals, and every end."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from moe_np.cli import main
from moe_np.language import run_request, run_state, train_over_ranks
from moe_np.parallel import launch
from tests.language.test_cli import train
from tests.language.test_run_folder import TEXT, bits, open_run
from tests.language.test_train_over_ranks import trained, without_clocks

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = str(ROOT / "tests" / "support" / "folder_on_ranks.py")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT.replace(" and ", "\n"), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks") / "run"
    trained(folder, 1)
    return folder


@pytest.fixture
def no_mpi(monkeypatch):
    monkeypatch.setattr(launch, "find", lambda: (None, "mpi4py is not installed"))


@pytest.fixture(scope="module")
def installation():
    found, reason = launch.find()
    if found is None:
        pytest.skip(reason)
    return found


@pytest.mark.seconds
def test_one_process_where_there_is_no_mpi(tmp_path, text, capsys, no_mpi):
    command = train(tmp_path / "run", text, "--steps", "4", "--checkpoint-every", "2")
    assert main([*command, "--ranks", "3"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "3 ranks in one process, because mpi4py is not installed; 4 pieces" in printed.err
    assert "update 2: perplexity" in printed.err
    assert "busiest expert" in printed.err and "dropped 0.0 %" in printed.err
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [stored[name] for name in train_over_ranks.Division._fields] == [4, None, "batch"]
    assert {"curves.png", "routing.png"} <= {path.name for path in (tmp_path / "run").iterdir()}
    state = bits(tmp_path / "run")
    assert main(command) == 0  # it goes on with its pieces, also without --ranks
    assert "1 rank in one process, one rank needs no MPI; 4 pieces" in capsys.readouterr().err
    assert bits(tmp_path / "run") == state


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ranks", "0"], "--ranks: wanted a whole number of at least 1, got 0"),
        (["--ranks", "5"], "--ranks: wanted at most one per piece, 4, got 5; a new run can have m"),
        (["--ranks", "2", "--pieces", "9"], "--pieces: wanted a whole number of at least 1 and at"),
        (["--pieces", "2"], "--pieces: wanted --ranks with it, got none"),
        (["--in-process"], "--in-process: wanted --ranks with it, got none"),
        (["--ranks", "2", "--minutes", "0"], "--minutes: wanted a finite number above 0, got 0"),
        (["--ranks", "2", "--set", "micro_batches=0"], "micro_batches: wanted a whole number"),
        (["--ranks", "2", "--model", "gpt"], "--model: wanted one of"),
        (["--ranks", "3", "--set", "experts=2"], "ranks: wanted at most one per expert, 2, got 3"),
    ],
)
def test_bad_input_is_one_line(tmp_path, text, capsys, no_mpi, arguments, message):
    assert main(train(tmp_path / "run", text, *arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"moe-np: error: {message}")
    assert error.count("\n") == 1


def test_an_error_of_a_rank_is_one_line(tmp_path, text, capsys, no_mpi, monkeypatch):
    def write(folder, state, best):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_state, "write", write)
    assert main(train(tmp_path / "run", text, "--steps", "1", "--ranks", "2")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("moe-np: error: rank 0: OSError: [Errno 28] No space left on device; ")
    assert error.endswith("run has no checkpoint")


# --- real ranks -----------------------------------------------------------------------------------


def run(installation, capfd, folder, *fault, ranks=2, time_limit=60.0):
    train_over_ranks.divide(open_run(folder))
    arguments = [PROGRAM, str(folder), *fault]
    ended = launch.run(arguments, ranks, installation, time_limit=time_limit)
    return ended, capfd.readouterr()


@pytest.fixture
def tests_are_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_real_ranks_write_the_files_of_one_process(
    installation,
    tests_are_found,
    capfd,
    tmp_path,
    one_rank,
    ranks,
):
    ended, printed = run(installation, capfd, tmp_path, ranks=ranks)
    assert (ended.status, ended.message) == (0, None), printed.err
    for name in ("state.safetensors", "model.safetensors", "best/model.safetensors"):
        assert bits(tmp_path, name) == bits(one_rank, name)
    assert without_clocks(tmp_path) == without_clocks(one_rank)


@pytest.mark.mpi
def test_a_killed_rank_ends_all_and_other_ranks_go_on_to_the_same_bits(
    installation,
    tests_are_found,
    capfd,
    tmp_path,
    one_rank,
):
    ended, printed = run(installation, capfd, tmp_path, "kill", ranks=3)
    assert ended.status != 0
    several = r"rank (0, 1|1, 2|0, 1, 2): ended early"  # none is known to have gone first
    wanted = f"rank 1: its process was killed, or ended early,|{several}"
    assert re.match(wanted, ended.message), printed.err
    assert ended.seconds < 50
    assert run_state.updates(tmp_path) == 4
    ended, printed = run(installation, capfd, tmp_path, ranks=2)
    assert ended.status == 0, printed.err
    assert bits(tmp_path) == bits(one_rank)


@pytest.mark.mpi
def test_minutes_and_micro_batches_by_mpi_have_the_bits_of_one_process(
    installation, tests_are_found, capfd, tmp_path, text
):
    by_mpi = train(tmp_path / "mpi", text, "--minutes", "0.002", "--set", "micro_batches=2")
    assert main([*by_mpi, "--ranks", "2"]) == 0, capfd.readouterr().err
    number = run_request.stored_request(tmp_path / "mpi")["updates"]
    assert run_state.updates(tmp_path / "mpi") == number
    assert f"{number}/{number}" in capfd.readouterr().err
    alone = train(tmp_path / "one", text, "--steps", str(number), "--set", "micro_batches=2")
    assert main([*alone, "--ranks", "3", "--in-process"]) == 0
    assert bits(tmp_path / "mpi") == bits(tmp_path / "one")


FAULTS = {
    "exit": "rank 1: it ended by sys.exit(0)",
    "full disk": "rank 0: OSError: [Errno 28] No space left on device",
    "other parameters": "rank 1: params, layers.1.router.w: wanted the same as other ranks have",
}


@pytest.mark.mpi
@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_on_one_rank_ends_all_with_its_name(
    installation, tests_are_found, capfd, tmp_path, fault
):
    ended, printed = run(installation, capfd, tmp_path, fault)
    lines = sorted(printed.out.splitlines())
    assert [line[:8] for line in lines] == [f"{rank} ends: " for rank in range(2)], printed.err
    assert all(FAULTS[fault] in line for line in lines)
    assert ended.status != 0 and ended.seconds < 50


@pytest.mark.mpi
def test_a_rank_that_is_silent_is_ended_by_the_time_limit(
    installation, tests_are_found, capfd, tmp_path
):
    ended, _ = run(installation, capfd, tmp_path, "sleep", time_limit=8.0)
    assert ended.status != 0
    assert ended.message.startswith("rank 1: no exchange for 8 s, the time limit, after it came to")
    assert ended.seconds < 50


@pytest.mark.mpi
@pytest.mark.slow
def test_a_signal_ends_all_ranks_after_the_update(installation, tmp_path, text):
    command = [*train(tmp_path / "run", text, "--steps", "2000"), "--ranks", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "moe_np", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, b""), error
    assert b"ended by SIGINT; the same command goes on" in error
    assert b"2 ranks by " in error
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert run_state.updates(tmp_path / "run") == steps[-1] > 0
