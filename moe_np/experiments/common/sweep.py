"""Many independent runs: in parallel, with progress, each finished one stored at once and never run
again.

A run is `run_one(spec) -> result`, a top-level function of a JSON-able dict that returns a
JSON-able dict and draws every random number from seeds in the spec. So it does not matter which
process runs it, or when: `jobs=1` and `jobs=2` give the same bits, and a sweep that was killed goes
on where it stopped. A result is stored under a hash of everything that determines it: function,
spec, kernels, and the package's own source (editing a line that computes makes old results
invisible, not wrong).
"""

import contextlib
import functools
import hashlib
import json
import multiprocessing
import pathlib
import signal
import sys
import threading
from concurrent.futures import Future, ProcessPoolExecutor, as_completed

import numpy as np

from moe_np import kernels
from moe_np.base.checks import InputError, integer
from moe_np.base.files import write_atomically

NOT_COMPUTING = ("cli.py", "plots.py", "__main__.py")  # files that only show results


def to_json(value):
    """JSON text of a result: two-space indent, arrays as lists, NaN refused."""
    return json.dumps(value, indent=1, allow_nan=False, default=_plain, ensure_ascii=False) + "\n"


def _plain(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"not JSON-able: {type(value).__name__}")


@functools.cache
def source_fingerprint():
    """A hash of every file of the package that can change a number."""
    root = pathlib.Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".csv") and path.name not in NOT_COMPUTING:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def one_blas_thread():
    """`moe_np.kernels.machine.blas_threads.one_blas_thread`, imported when it is first used:
    SciPy's BLAS takes a while to load.
    """
    from moe_np.kernels.machine import blas_threads

    return blas_threads.one_blas_thread()


def _guarded(run_one, spec):
    """Run one spec with one BLAS thread: two would change the order of sums, and crowd the other
    processes.
    """
    with one_blas_thread():
        return run_one(spec)


@contextlib.contextmanager
def _interrupts_ignored():
    """Ctrl-C reaches every process of a terminal; children started in here leave the answer to
    their parent.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Sweep:
    """Runs specs, `jobs` at a time. Use as a context manager: it keeps its processes until the end.

    store      folder for finished runs, or None to remember nothing
    jobs       processes; 1 runs in this process
    executor   any concurrent.futures executor instead of our own processes, e.g. dask's `Client.get_executor()`
    progress   show a bar on stderr
    """

    def __init__(self, store=None, *, jobs=1, executor=None, progress=True):
        self.store = None if store is None else pathlib.Path(store)
        self.jobs = integer("jobs", jobs, minimum=1)
        self.progress = progress
        self._executor = executor
        self._own = None
        self._flying = {}  # key of a submitted run -> future of its stored result

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self._own is not None:
            self._own.shutdown(wait=exc[0] is None, cancel_futures=True)
            if exc[0] is not None:
                for process in multiprocessing.active_children():
                    process.terminate()
            self._own = None

    def _pool(self):
        if self._executor is not None:
            return self._executor
        if self._own is None:
            # spawn, not fork: a forked child inherits locks of BLAS and Numba threads, and spawn is
            # the same everywhere
            self._own = ProcessPoolExecutor(
                self.jobs, mp_context=multiprocessing.get_context("spawn")
            )
        return self._own

    @staticmethod
    def key(run_one, spec):
        """A name for this run that changes with anything that could change its result."""
        code = [run_one.__module__, run_one.__qualname__, kernels.backend(), source_fingerprint()]
        digest = hashlib.sha256(json.dumps([*code, spec], sort_keys=True).encode()).hexdigest()
        return f"{run_one.__module__.rpartition('.')[2]}/{digest[:20]}.json"

    def path(self, run_one, spec):
        """Where the result of this spec is stored."""
        return self.store / self.key(run_one, spec)

    def load(self, run_one, spec):
        """The stored result of this spec, or None if it has not finished yet. InputError for a
        damaged file.
        """
        if self.store is None:
            return None
        path = self.path(run_one, spec)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            stored = json.loads(text)
            if stored["spec"] != json.loads(json.dumps(spec)):
                raise ValueError("it belongs to another configuration")
            return stored["result"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: wanted a stored run, got a damaged file ({error}); delete it to run it again"
            ) from None

    def _save(self, run_one, spec, result):
        text = to_json(result)
        if self.store is not None:
            write_atomically(self.path(run_one, spec), to_json({"spec": spec, "result": result}))
        return json.loads(text)  # the same types whether it was run now or read back

    def _in_process(self):
        return self._executor is None and self.jobs == 1

    def submit(self, run_one, specs):
        """Start runs that a later `map` will ask for, and return their futures. With one job there
        is nothing to start.

        A run that is finished or under way is not started again; each is stored the moment it ends.
        """
        futures, in_process = [], self._in_process()
        with _interrupts_ignored():  # inherited by the processes that this starts
            for spec in () if in_process else specs:
                key = self.key(run_one, spec)
                if key not in self._flying and self.load(run_one, spec) is None:
                    self._flying[key] = self._fly(run_one, spec)
                if key in self._flying:
                    futures.append(self._flying[key])
        return futures

    def _fly(self, run_one, spec):
        """Submit one run; the future that comes back is done when its result is stored."""
        stored = Future()

        def store(done):
            try:
                stored.set_result(self._save(run_one, spec, done.result()))
            except BaseException as error:
                stored.set_exception(error)

        self._pool().submit(_guarded, run_one, spec).add_done_callback(store)
        return stored

    def map(self, run_one, specs, desc="runs"):
        """Results in the order of `specs`. Finished runs are read back; each new one is stored the
        moment it ends.
        """
        from tqdm import tqdm

        specs = list(specs)
        results = [self.load(run_one, spec) for spec in specs]
        todo = [i for i, result in enumerate(results) if result is None]
        bar = tqdm(
            total=len(specs),
            initial=len(specs) - len(todo),
            desc=desc,
            unit="run",
            file=sys.stderr,
            disable=not self.progress,
            leave=False,
            dynamic_ncols=True,
        )
        with bar:
            if self._in_process():
                for i in todo:
                    results[i] = self._save(run_one, specs[i], _guarded(run_one, specs[i]))
                    bar.update()
            else:
                self.submit(run_one, [specs[i] for i in todo])
                keys = {i: self.key(run_one, specs[i]) for i in todo}
                for future in as_completed(
                    {self._flying[k] for k in keys.values() if k in self._flying}
                ):
                    future.result()  # a failure ends the sweep here
                    bar.update()
                for (
                    i,
                    key,
                ) in keys.items():  # a run may have been stored between the look and the submission
                    results[i] = (
                        self._flying[key].result()
                        if key in self._flying
                        else self.load(run_one, specs[i])
                    )
        return results


def versions():
    """Versions of everything that touches the numbers, for the result files."""
    import importlib.metadata
    import platform

    import moe_np

    out = {
        "moe_np": moe_np.__version__,
        "python": platform.python_version(),
        "kernels": kernels.backend(),
    }
    for name in ("numpy", "scipy", "numba"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            out[name] = importlib.metadata.version(name)
    return out
