"""Processors and BLAS threads: their numbers, and the limit to one thread."""

import os
import signal
import subprocess
import sys

import pytest

from moe_np.base.machine import blas_threads, cores, one_blas_thread, starting_processes


def test_cores_are_between_one_and_all():
    assert 1 <= cores() <= os.cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_cores_follow_the_affinity_of_the_process():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from moe_np.base.machine import cores; print(cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1"


def test_one_blas_thread_inside_and_the_former_number_outside():
    before = blas_threads()
    with one_blas_thread():
        assert blas_threads() == 1
        with one_blas_thread():  # the lock may be taken again by the same thread
            assert blas_threads() == 1
        assert blas_threads() == 1
    assert blas_threads() == before


def test_it_decorates_a_function():
    assert one_blas_thread()(blas_threads)() == 1


def test_importing_it_loads_neither_scipy_nor_threadpoolctl():
    code = "import sys, moe_np.base.machine; print({'scipy', 'threadpoolctl'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


# --- forks ----------------------------------------------------------------------------------------

FORKS = """
import os, threading, time, warnings
import numpy as np
from moe_np.base import machine
from moe_np.layers import experts, sparse_layer
from moe_np.routing import top_k

warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside a thread
rng = np.random.default_rng(0)
x = rng.normal(size=(2048, 64))
router = top_k.init(rng, 64, 8)
params = experts.RELU.init(rng, 64, 8, 128)

def run():
    routing, _ = top_k.route(router, x, k=2, renormalise=True)
    out, cache = sparse_layer.forward(params, x, routing, experts.RELU)
    return out.tobytes() + sparse_layer.backward(out, cache)[0].tobytes()

def child(expected):
    pid = os.fork()
    if not pid:
        os._exit(0 if run() == expected and machine.blas_threads() == threads else 1)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hung"

expected = run()
threads = machine.blas_threads()
stop = threading.Event()
"""
BESIDE_A_LAYER = """
def work():
    while not stop.is_set():
        run()
thread = threading.Thread(target=work)
thread.start()
print([child(expected) for _ in range(8)])
stop.set()
thread.join()
print(run() == expected)
"""
BESIDE_A_LONG_CALL = """
machine.LONGEST_WAIT = 0.1
def work():
    with machine.one_blas_thread(), machine.one_blas_thread():
        inside.set()
        stop.wait()
inside = threading.Event()
thread = threading.Thread(target=work)
thread.start()
inside.wait()
print([child(expected) for _ in range(2)])
stop.set()
thread.join()
print(run() == expected, machine.blas_threads() == threads)
"""
INSIDE = """
with machine.one_blas_thread():
    pid = os.fork()
if not pid:
    os._exit(0 if run() == expected and machine.blas_threads() == threads else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no forks")
@pytest.mark.skipif(sys.platform == "darwin", reason="BLAS of macOS does not run after a fork")
@pytest.mark.parametrize(
    "code, printed",
    [
        (BESIDE_A_LAYER, f"{[0] * 8}\nTrue\n"),
        (BESIDE_A_LONG_CALL, "[0, 0]\nTrue True\n"),
        (INSIDE, "0\n"),
    ],
    ids=["beside a layer", "beside a long call", "inside"],
)
def test_a_forked_process_runs_the_layer(code, printed):
    done = subprocess.run(
        [sys.executable, "-c", FORKS + code], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == printed, done.stderr


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals of Windows")
def test_ctrl_c_while_a_process_starts_is_answered_afterwards(answers_interrupts):
    """With the signal ignored it would be lost, and the program would run to its end."""
    reached = False
    with pytest.raises(KeyboardInterrupt), starting_processes():
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert reached


@pytest.mark.seconds
@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals of Windows")
def test_a_process_that_started_so_does_not_answer_ctrl_c():
    code = "import time; print('ready', flush=True); time.sleep(1); print('whole')"
    with starting_processes():
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "whole\n"
