"""Stored at once, never run twice, the same bits for any number of jobs, nothing lost to a kill."""

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.files import write_atomically
from moe_np.experiments.common import sweep as sweeping
from moe_np.experiments.common.sweep import Sweep, to_json

pytestmark = pytest.mark.seconds  # its runs are of no module of the package, so all sources count


def noise(spec):
    """A run whose result shows every bit of its arithmetic, and that counts how often it ran."""
    if "count" in spec:
        with open(spec["count"], "a") as file:
            file.write("x")
    a = np.random.default_rng(spec["seed"]).normal(size=(300, 300))
    return {"sum": float((a @ a).sum()), "nested": [np.float32(0.1), np.arange(3)]}


def fail_on_two(spec):
    if spec["seed"] == 2:
        raise RuntimeError("two")
    return noise(spec)


def timed(spec):
    start = time.monotonic()
    time.sleep(0.02)
    return {"process": os.getpid(), "start": start, "end": time.monotonic()}


def specs(n, **more):
    return [{"seed": s, **more} for s in range(n)]


@pytest.mark.slow
def test_jobs_give_the_same_bits_in_the_order_of_the_specs():
    with Sweep(jobs=1, progress=False) as one, Sweep(jobs=2, progress=False) as two:
        assert to_json(one.map(noise, specs(6))) == to_json(two.map(noise, specs(6)))


def test_any_executor_will_do():
    from concurrent.futures import ThreadPoolExecutor

    with (
        ThreadPoolExecutor(2) as pool,
        Sweep(executor=pool, progress=False) as a,
        Sweep(progress=False) as b,
    ):
        assert a.map(noise, specs(4)) == b.map(noise, specs(4))


def test_a_finished_run_is_not_run_again(tmp_path):
    count = str(tmp_path / "count")
    with Sweep(tmp_path / "runs", progress=False) as sweep:
        first = sweep.map(noise, specs(3, count=count))
        again = sweep.map(noise, specs(5, count=count))
    assert again[:3] == first
    assert (tmp_path / "count").read_text() == "x" * 5


def test_runs_started_ahead_are_stored_and_not_run_again(tmp_path):
    count = str(tmp_path / "count")
    with Sweep(tmp_path / "runs", jobs=2, progress=False) as sweep:
        ahead = sweep.submit(noise, specs(3, count=count))
        assert len(sweep.submit(noise, specs(3, count=count))) == 3
        results = [future.result() for future in ahead]
        assert sweep.map(noise, specs(4, count=count))[:3] == results
    assert (tmp_path / "count").read_text() == "x" * 4
    with Sweep(tmp_path / "runs", jobs=2, progress=False) as sweep:
        assert sweep.submit(noise, specs(4, count=count)) == []


def test_with_one_job_nothing_is_started_ahead():
    with Sweep(progress=False) as sweep:
        assert sweep.submit(noise, specs(3)) == []


def test_a_failure_keeps_what_is_finished(tmp_path):
    with Sweep(tmp_path, progress=False) as sweep:
        with pytest.raises(RuntimeError, match="two"):
            sweep.map(fail_on_two, specs(4))
        assert [sweep.load(fail_on_two, s) is not None for s in specs(4)] == [
            True,
            True,
            False,
            False,
        ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"spec": {"seed": 9}, "result": {}}',
        b'{"result": {}}',
        b'{"spec": {"seed": 0}, "result": {}}',
        b"\xff\xfe{}",
        b"[" * 100_000,
    ],
)
def test_a_damaged_result_is_named_and_not_believed(tmp_path, content):
    with Sweep(tmp_path, progress=False) as sweep:
        sweep.map(noise, specs(1))
        path = sweep.path(noise, {"seed": 0})
        path.write_bytes(content)
        with pytest.raises(InputError, match="wanted a stored run, got a damaged file") as error:
            sweep.map(noise, specs(1))
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_changed_digit_is_noticed(tmp_path):
    with Sweep(tmp_path, progress=False) as sweep:
        (result,) = sweep.map(noise, specs(1))
        path = sweep.path(noise, {"seed": 0})
        digits = str(result["sum"])  # of the last digit several may be the same number
        changed = digits[:-6] + ("1" if digits[-6] != "1" else "2") + digits[-5:]
        path.write_text(path.read_text().replace(digits, changed))
        with pytest.raises(InputError, match="its digest is that of another result"):
            sweep.map(noise, specs(1))


def test_other_source_or_kernels_mean_other_results(tmp_path, monkeypatch):
    sweep = Sweep(tmp_path)
    paths = {
        sweep.path(noise, {"seed": 0}),
        sweep.path(noise, {"seed": 1}),
        sweep.path(fail_on_two, {"seed": 0}),
    }
    monkeypatch.setattr(sweeping.sources, "fingerprint", lambda *modules: "edited")
    paths.add(sweep.path(noise, {"seed": 0}))
    monkeypatch.setattr(sweeping.kernels, "backend", lambda: "other")
    paths.add(sweep.path(noise, {"seed": 0}))
    assert len(paths) == 5


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    target = tmp_path / "result.json"
    write_atomically(target, "old")

    def no_replace(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", no_replace)
        with pytest.raises(OSError, match="disk full"):
            write_atomically(target, "new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_nan_is_refused_rather_than_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        to_json({"loss": float("nan")})


LONGEST_WAIT = 120  # seconds, on a machine with much other work


def wait_for(condition):
    """Whether the condition came true in time."""
    end = time.monotonic() + LONGEST_WAIT
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


SLOW_SWEEP = """
    import sys, time, pathlib
    from moe_np.experiments.common.sweep import Sweep

    def run(spec):
        time.sleep(0.3 if spec["seed"] < 3 else 600)
        return {"seed": spec["seed"]}

    if __name__ == "__main__":
        with Sweep(sys.argv[1], jobs=int(sys.argv[2]), progress=False) as sweep:
            sweep.map(run, [{"seed": s} for s in range(9)])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("how", "jobs"),
    [
        (signal.SIGINT, 2),
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, 2, marks=pytest.mark.slow),
    ],
)
def test_a_kill_loses_at_most_the_running_seeds(tmp_path, how, jobs):
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(SLOW_SWEEP))
    store = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, str(script), str(store), str(jobs)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a job in the background ignores Ctrl-C
    )
    wait_for(lambda: len(list(store.rglob("*.json"))) >= 3)
    os.killpg(process.pid, how)  # a terminal's Ctrl-C reaches the whole group as well
    process.wait(timeout=LONGEST_WAIT)
    finished = sorted(json.loads(p.read_text())["result"]["seed"] for p in store.rglob("*.json"))
    assert finished == [0, 1, 2]
    if how == signal.SIGINT:
        assert not list(store.rglob("*.tmp"))
        assert wait_for(lambda: not living(process.pid)), "workers outlive their parent"


def living(group):
    """Processes of the group that are not merely waiting to be collected."""
    rows = subprocess.run(
        ["ps", "-eo", "pgid=,stat="], capture_output=True, text=True
    ).stdout.split("\n")
    return [
        row
        for row in rows
        if row.split()[:1] == [str(group)] and not row.split()[1].startswith("Z")
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path, how):
    """A signal to the parent alone, as a batch system or a terminal sends it."""
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(SLOW_SWEEP))
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "store"), "2"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # `nohup` ignores it
    )
    wait_for(lambda: len(list(tmp_path.rglob("*.json"))) >= 3)
    os.kill(process.pid, how)
    process.communicate(timeout=LONGEST_WAIT)  # workers that live on would hold the pipe open
    assert wait_for(lambda: not living(process.pid)), "workers outlive their parent"
    assert len(list(tmp_path.rglob("*.json"))) >= 3


def test_timed_runs_are_made_one_at_a_time_and_stored(tmp_path):
    specs = [{"seed": seed} for seed in range(4)]
    with Sweep(tmp_path, jobs=2, progress=False) as sweep:
        with sweep.one_at_a_time() as single:
            runs = single.map(timed, specs)
        assert sweep.map(timed, specs) == runs
    (process,) = {run["process"] for run in runs}
    assert process != os.getpid()
    runs.sort(key=lambda run: run["start"])
    assert all(a["end"] <= b["start"] for a, b in itertools.pairwise(runs))


def test_one_job_needs_no_other_process(tmp_path):
    with Sweep(tmp_path, progress=False) as sweep, sweep.one_at_a_time() as single:
        assert single.map(timed, [{"seed": 0}])[0]["process"] == os.getpid()
