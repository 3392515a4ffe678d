"""Many independent runs: in parallel, with progress, each finished one stored at once and never run again.

A run is `run_one(spec) -> result`, a top-level function of a JSON-able dict that returns a JSON-able dict and
draws every random number from seeds in the spec. So it does not matter which process runs it, or when: `jobs=1`
and `jobs=2` give the same bits, and a sweep that was killed goes on where it stopped. A result is stored under a
hash of everything that determines it: function, spec, kernels, and the package's own source (editing a line that
computes makes old results invisible, not wrong).
"""

import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed

import numpy as np

from moe_np import kernels
from moe_np.checks import InputError, integer

NOT_COMPUTING = ("cli.py", "plots.py", "__main__.py")  # files that only show results


def write_atomically(path, text):
    """Write `text` to `path` so that a reader, or a kill, sees the old file or the whole new one."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


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
    root = pathlib.Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".csv") and path.name not in NOT_COMPUTING:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def one_blas_thread(_state=[]):  # noqa: B006 - a cache: building the controller takes 1 ms, using it 9 µs
    import threadpoolctl

    if not _state:
        if (
            kernels.backend() == "numba"
        ):  # compiled products use SciPy's BLAS, which the controller only sees once loaded
            import scipy.linalg.cython_blas  # noqa: F401
        _state.append(threadpoolctl.ThreadpoolController())
    return _state[0].limit(limits=1, user_api="blas")


def _guarded(run_one, spec):
    """Run one spec with one BLAS thread: two would change the order of sums, and crowd the other processes."""
    with one_blas_thread():
        return run_one(spec)


@contextlib.contextmanager
def _interrupts_ignored():
    """Ctrl-C reaches every process of a terminal; children started in here leave the answer to their parent."""
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
            # spawn, not fork: a forked child inherits locks of BLAS and Numba threads, and spawn is the same everywhere
            self._own = ProcessPoolExecutor(self.jobs, mp_context=multiprocessing.get_context("spawn"))
        return self._own

    def path(self, run_one, spec):
        """Where the result of this spec is stored."""
        name = run_one.__module__.rpartition(".")[2]
        what = json.dumps(
            [run_one.__module__, run_one.__qualname__, spec, kernels.backend(), source_fingerprint()], sort_keys=True
        )
        return self.store / name / f"{hashlib.sha256(what.encode()).hexdigest()[:20]}.json"

    def load(self, run_one, spec):
        """The stored result of this spec, or None if it has not finished yet. InputError for a damaged file."""
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

    def map(self, run_one, specs, desc="runs"):
        """Results in the order of `specs`. Finished runs are read back; each new one is stored the moment it ends."""
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
            if self._executor is None and (self.jobs == 1 or len(todo) <= 1):
                for i in todo:
                    results[i] = self._save(run_one, specs[i], _guarded(run_one, specs[i]))
                    bar.update()
            else:
                pool = self._pool()
                with _interrupts_ignored():  # inherited by the processes that this starts
                    futures = {pool.submit(_guarded, run_one, specs[i]): i for i in todo}
                for future in as_completed(futures):
                    i = futures[future]
                    results[i] = self._save(run_one, specs[i], future.result())
                    bar.update()
        return results


def versions():
    """Versions of everything that touches the numbers, for the result files."""
    import importlib.metadata
    import platform

    import moe_np

    out = {"moe_np": moe_np.__version__, "python": platform.python_version(), "kernels": kernels.backend()}
    for name in ("numpy", "scipy", "numba"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            out[name] = importlib.metadata.version(name)
    return out
