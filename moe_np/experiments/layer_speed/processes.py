"""One process per contestant, in an environment without the settings that slow down BLAS.

Pools of threads disturb each other in one process. And where the arrays of a process happen to lie
in memory changes the time of a small layer by some 5 %, so each round of the bench begins with new
processes.
"""

import contextlib
import importlib.metadata
import multiprocessing
import os
import platform
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from moe_np.base.machine import starting_processes
from moe_np.experiments.layer_speed.contestants import CONTESTANTS
from moe_np.experiments.layer_speed.floor import measure_peaks
from moe_np.experiments.layer_speed.problem import least_time, problem

# some shells export these, and then NumPy's products take twice as long
SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

PERIOD = 1021  # of the weights in a digest; prime, so that no two experts get the same weights


# --- in a contestant's process --------------------------------------------------------------------


def digest(result: tuple) -> dict[str, float]:
    """One number per array of (out, dx, grads), on the scale of its norm: two results that differ
    have different numbers.
    """
    out, dx, grads = result
    arrays = {"out": out, "x": dx, **grads}
    weights = np.cos(np.arange(PERIOD))
    numbers = {}
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array).reshape(-1)
        whole = len(flat) // PERIOD * PERIOD
        total = (flat[:whole].reshape(-1, PERIOD) @ weights).sum()
        total += flat[whole:] @ weights[: len(flat) - whole]
        numbers[name] = float(total / (np.linalg.norm(flat) + 1e-30))
    return numbers


def _serve(prepare, pipe):
    """The loop of a contestant's process. It answers, until it gets None:

    ("prepare", kind, shape, compare)   after the first calls: the digest of a result, or None
    ("time", backward, at_least)        the least time of a call in seconds
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which ends this process
    step = None
    while (message := pipe.recv()) is not None:
        if message[0] == "prepare":
            step = None  # frees the arrays of the last shape
            step = prepare(problem(message[1], message[2]))
            step(False)
            result = step(True)
            answer = digest(result) if message[3] else None
            del result
        else:
            answer = least_time(step, message[1], at_least=message[2])
        pipe.send(answer)


def _serve_peaks(pipe):
    """The loop of the process that measures the machine: each message asks for its peaks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    measure = measure_peaks()
    while pipe.recv() is not None:
        pipe.send((measure(), machine()))


def machine() -> dict[str, str]:
    """Processor, BLAS and versions, as this process sees them."""
    import threadpoolctl

    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    blas = " ".join(str(pools[0].get(k)) for k in ("internal_api", "version", "architecture"))
    libraries = ("moe_np", "numpy", "numba", "scipy", "torch", "transformers")
    versions = {"python": platform.python_version()}
    for name in libraries:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"processor": processor, "blas": blas, **versions}


# --- in the parent --------------------------------------------------------------------------------


class Runner:
    """The processes of the contestants and of the peaks; use it as a context manager.

    contestants   by name, with their `prepare`
    serve         the loop of a contestant's process, serve(prepare, pipe)
    """

    def __init__(
        self,
        names: Sequence[str],
        contestants: Mapping[str, Any] = CONTESTANTS,
        serve: Callable[..., None] | None = None,
    ):
        self._pipes = {}
        self._processes = {}
        for name in names:
            self._start(name, serve or _serve, contestants[name].prepare)
        self._start("peaks", _serve_peaks)

    def _start(self, name: str, serve: Callable, *prepare: Callable) -> None:
        context = multiprocessing.get_context("spawn")  # a new process reads the environment anew
        pipe, end_of_process = context.Pipe()
        process = context.Process(target=serve, args=(*prepare, end_of_process), daemon=True)
        with starting_processes():
            process.start()
        end_of_process.close()
        self._pipes[name] = pipe
        self._processes[name] = process

    def ask(self, name: str, *message: Any, timeout: float | None = None) -> Any:
        """Send the message to a process and wait for its answer, for `timeout` seconds or without
        an end.

        Raises ChildProcessError where the process has ended, or does not answer in time and is
        ended.
        """
        try:
            self._pipes[name].send(message)
            if timeout is not None and not self._pipes[name].poll(timeout):
                self._processes[name].terminate()
                raise ChildProcessError(f"{name}: no answer in {timeout:.0f} s")
            return self._pipes[name].recv()
        except (EOFError, ConnectionError):
            self._processes[name].join()
            status = self._processes[name].exitcode
            raise ChildProcessError(f"{name}: its process ended with status {status}") from None

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.terminate()
            process.join()


@contextlib.contextmanager
def unpinned() -> Iterator[dict[str, str]]:
    """The environment without `SETTINGS`, for processes that start in here; yields what was set."""
    settings = {name: os.environ.pop(name) for name in SETTINGS if name in os.environ}
    try:
        yield settings
    finally:
        os.environ.update(settings)
