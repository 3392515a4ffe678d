"""Start ranks, and end them: which MPI is found, real ranks, and no hang whatever happens."""

import importlib.util
import io
import os
import pathlib
import re
import select
import subprocess
import sys

import pytest

from moe_np.parallel import failed_rank, launch, progress
from moe_np.parallel.launch import Installation
from tests.parallel.test_training_over_ranks import trained
from tests.support.training_on_ranks import CASES, digest

SUPPORT = pathlib.Path(__file__).resolve().parents[1] / "support"


@pytest.fixture
def answers(monkeypatch, tmp_path):
    """An MPI whose mpiexec and library say what a test wants."""
    (tmp_path / "mpiexec").write_text("#!/bin/sh\n")
    (tmp_path / "mpiexec").chmod(0o755)
    says = {"mpiexec": "HYDRA build details: Version: 5.0.2", "library": "MPICH Version: 5.0.2"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    kind = {True: "mpiexec", False: "library"}
    monkeypatch.setattr(launch, "_output", lambda command: says[kind["--version" in command]])
    return says


needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="a script as mpiexec")


@needs_posix
def test_the_mpi_beside_this_python_is_found(answers, tmp_path):
    installation, reason = launch.find(tmp_path)
    assert installation == Installation(str(tmp_path / "mpiexec"), "MPICH")
    assert reason.startswith("MPICH, ")
    answers |= {"mpiexec": "mpiexec (Open MPI) 5.0.11", "library": "Open MPI v5.0.11, package"}
    assert launch.find(tmp_path)[0].maker == "Open MPI"
    intel = "Intel(R) MPI Library for Linux* OS, Version 2021.18 (based on MPICH)"
    answers |= {"mpiexec": intel, "library": intel}
    assert launch.find(tmp_path)[0].maker == "Intel MPI"


@needs_posix
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mpiexec": "Segmentation fault\n"}, r"mpiexec is broken: to --version it answers '?Seg"),
        ({"library": "x\nRuntimeError: cannot load MPI library"}, r"its MPI: RuntimeError: cannot"),
        ({"library": "Open MPI v5.0.11"}, "mpiexec is of MPICH, but mpi4py uses Open MPI: install"),
    ],
)
def test_a_broken_mpi_and_one_of_another_make_are_told(answers, tmp_path, changed, message):
    answers |= changed
    installation, reason = launch.find(tmp_path)
    assert installation is None
    assert launch.re.search(message, reason), reason


def test_no_mpi_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert launch.find()[1].startswith("mpi4py is not installed; pip install")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("PATH", str(tmp_path))
    installation, reason = launch.find(tmp_path)
    assert installation is None
    assert "there is no mpiexec" in reason


def test_an_answer_takes_no_longer_than_its_limit_and_needs_no_program():
    assert "error" in launch._output(["/no/such/program", "--version"])
    assert launch._output([sys.executable, "-c", "print(3)"]).strip() == "3"


def test_what_ranks_print_is_passed_on_and_what_mpiexec_adds_is_kept():
    """A progress bar has carriage returns, and blanks that clear it; its last line may be open."""
    text = "10 %\r    \rupdate 2: é\n\n=======\nAbort(3) on node 1\n20 %"
    output, printed = io.StringIO(), []
    launch._pass_on(io.BytesIO(text.encode()), output, printed)
    assert output.getvalue() == "10 %\r    \rupdate 2: é\n20 %"
    assert printed == ["\n", "=======\n", "Abort(3) on node 1\n"]


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the system does not tell the order")
def test_the_order_in_which_processes_go_is_known_also_where_it_is_seen_late(tmp_path):
    command = [sys.executable, "-c", "input()"]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(3)]
    lines = progress.create(tmp_path / "ranks", 3)
    lines["pid"] = [process.pid for process in processes]
    handles, gone = {}, []
    with select.epoll() as ends:
        launch._wait(lines, ends, handles, gone)
        assert gone == []
        for rank in (2, 0, 1):
            processes[rank].kill()
            processes[rank].wait()
        launch._wait(lines, ends, handles, gone)
    for handle in handles.values():
        os.close(handle)
    assert gone == [[2], [0], [1]]


def test_of_processes_that_went_before_they_were_watched_the_order_is_not_known(
    tmp_path, monkeypatch
):
    looks = iter([[2], [0, 1, 2], []])
    monkeypatch.setattr(failed_rank, "missing", lambda lines: next(looks))
    lines, gone = progress.create(tmp_path / "ranks", 3), []
    launch._wait(lines, None, {}, gone)
    launch._wait(lines, None, {}, gone)
    assert gone == [[0, 1, 2]]


# --- real ranks -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installation():
    found, reason = launch.find()
    if found is None:
        pytest.skip(reason)
    return found


def run(installation, capfd, *arguments, ranks=3, time_limit=60.0):
    ended = launch.run(
        [str(SUPPORT / arguments[0]), *arguments[1:]], ranks, installation, time_limit=time_limit
    )
    return ended, capfd.readouterr()


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_real_ranks_have_the_bits_of_one_process(installation, capfd, ranks):
    ended, printed = run(installation, capfd, "step_on_ranks.py", ranks=ranks)
    assert (ended.status, ended.message) == (0, None), printed.err
    assert printed.out == f"{ranks} ranks, 10 cases, differ: []\n"


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_twenty_updates_on_real_ranks_have_the_bits_of_one_process(
    installation, capfd, monkeypatch, ranks
):
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT.parents[1]))
    ended, printed = run(installation, capfd, "training_on_ranks.py", ranks=ranks)
    assert (ended.status, ended.message) == (0, None), printed.err
    digests = [digest(trained(name, 1, options=options)[-1].state) for name, options in CASES]
    assert printed.out.split() == digests


AGREED = {
    "raise": "x: wanted 64 features, as the experts read, got 63",
    "divide": "ZeroDivisionError: integer division or modulo by zero",
    "exit 0": r"it ended by sys.exit(0)",
    "exit 3": r"it ended by sys.exit(3)",
    "left out": "wanted to take part in the exchange 'combine'",
    "end": "got no exchange, it has ended",
    "counts": "combine: rank 0 wanted",
    "width": "got the exchange 'combine' (Send, rows of 7, float64)",
}


@pytest.mark.mpi
@pytest.mark.parametrize("fault", AGREED)
def test_an_error_on_one_rank_ends_all_with_its_name(installation, capfd, fault):
    ended, printed = run(installation, capfd, "faulty_rank.py", fault, "1")
    lines = sorted(printed.out.splitlines())
    assert len(lines) == 3, printed.err
    for rank, line in enumerate(lines):
        assert line.startswith(f"{rank} of 3 ends: rank 1: ")
        assert AGREED[fault] in line
    assert ended.status != 0
    assert ended.message is None  # the ranks have said it themselves
    assert ended.seconds < 50


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        # Intel MPI ends with status 255 for a rank that was killed
        ("kill", r"rank 1: its process (was killed, or ended early,|ended with status 255) after"),
        ("exit at once", "rank 1: its process "),
        ("before", "rank 1: its process ended with status 1 before its first exchange"),
        ("silent before", "rank 1: its process "),
    ],
)
def test_a_rank_that_is_gone_is_named(installation, capfd, fault, message):
    """MPI ends the other ranks within milliseconds. Where the launcher then sees all of them gone
    at once, it names all that did not wait for another one, and none as the first.
    """
    ended, printed = run(installation, capfd, "faulty_rank.py", fault, "1")
    assert ended.status != 0
    several = r"rank (0, 1|1, 2|0, 1, 2): ended early"
    assert re.match(f"{message}|{several}", ended.message), printed.err
    assert "has ended well" not in printed.out
    assert "BAD TERMINATION" not in printed.out + printed.err
    assert ended.seconds < 50


@pytest.mark.mpi
def test_a_rank_that_comes_to_no_exchange_is_ended_by_the_time_limit(installation, capfd):
    ended, _ = run(installation, capfd, "faulty_rank.py", "sleep", "1", time_limit=4.0)
    assert ended.status != 0
    assert ended.message.startswith("rank 1: no exchange for 4 s, the time limit, after it came to")
    assert ended.message.endswith("'dispatch'; 2 others wait for it")
    assert ended.seconds < 50


@pytest.mark.mpi
def test_ranks_that_another_mpiexec_started_are_refused(installation):
    code = "from moe_np.parallel import mpi; mpi.world(3)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MPI: wanted 3 ranks, got 1: is the mpiexec" in done.stderr
