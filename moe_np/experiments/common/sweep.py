"""A sweep: many independent runs in parallel, each stored when it ends and never run again.

A run is `run_one(spec) -> result`, a top-level function that takes a JSON-able dict, returns a
JSON-able dict and draws every random number from seeds in the spec. It does not matter which
process makes a run, or when: `jobs=1` and `jobs=2` give the same bits, and a sweep that was killed
continues where it stopped. A result is stored under a hash of everything that determines it: the
function, the spec, the kernels, and the source of the modules that `run_one` reaches by import.
Editing a line that computes makes old results invisible; editing anything else throws nothing away.
"""

import contextlib
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from typing import Any

import numpy as np

from moe_np import kernels
from moe_np.base.checks import InputError, integer
from moe_np.base.files import write_atomically
from moe_np.base.machine import one_blas_thread, starting_processes
from moe_np.experiments.common import sources
from moe_np.experiments.common.experiment import Result, Spec


def to_json(value: Any) -> str:
    """A result as JSON text, arrays as lists. Raises ValueError for NaN and infinity."""
    return json.dumps(value, indent=1, allow_nan=False, default=_as_list, ensure_ascii=False) + "\n"


def _as_list(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"not JSON-able: {type(value).__name__}")


def _settings():
    """The environment variables of the package, as they are now."""
    return {name: value for name, value in os.environ.items() if name.startswith("MOE_NP_")}


def _guarded(run_one, spec, settings=()):
    """Run one spec with one BLAS thread. Two would change the order of sums, and take the cores of
    the other processes. `settings`: a worker that is older than the submission does not have them.
    """
    os.environ.update(settings)
    with one_blas_thread():
        return run_one(spec)


def _digest(result):
    """A hash of a result, stored beside it: a file that was changed later is not believed."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()[:16]


def _end_with_parent():
    """In a worker: end when the parent has ended, however that came about."""

    parent = multiprocessing.parent_process()
    assert parent is not None  # this process is a worker

    def wait():
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()


class Sweep:
    """Runs specs, `jobs` at a time. Used as a context manager, it keeps its processes until the
    end.

    store      folder of finished runs, or None to store nothing
    jobs       number of processes; 1 runs in this process
    executor   any concurrent.futures executor in place of our processes, such as
               dask's `Client.get_executor()`
    progress   show a progress bar on stderr
    """

    def __init__(
        self,
        store: str | pathlib.Path | None = None,
        *,
        jobs: int = 1,
        executor: Executor | None = None,
        progress: bool = True,
    ):
        self.store = None if store is None else pathlib.Path(store)
        self.jobs = integer("jobs", jobs, minimum=1)
        self.progress = progress
        self._executor = executor
        self._processes = None
        self._pending = {}  # key of a submitted run -> future of its stored result

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self._processes is not None:
            self._processes.shutdown(wait=exc[0] is None, cancel_futures=True)
            if exc[0] is not None:
                for process in multiprocessing.active_children():
                    process.terminate()
            self._processes = None

    def one_at_a_time(self) -> contextlib.AbstractContextManager["Sweep"]:
        """A sweep with the same store that makes one run after the other: for runs that are timed
        by the clock, which would be slower beside each other. They have a process of their own,
        unless this sweep makes its runs in this process.
        """
        if self._in_process():
            return contextlib.nullcontext(self)
        return _OneWorker(self.store, progress=self.progress)

    def _pool(self):
        if self._executor is not None:
            return self._executor
        if self._processes is None:
            # spawn, not fork: a forked child inherits locks of BLAS and Numba threads, and spawn is
            # the same everywhere
            self._processes = ProcessPoolExecutor(
                self.jobs,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_end_with_parent,
            )
        return self._processes

    @staticmethod
    def key(run_one: Callable[[Spec], Result], spec: Spec) -> str:
        """The name under which this run is stored: it changes with all that could change the
        result.

        The values of `spec` that name modules of the package ("moe_np.routing.top_k") count as
        imports of `run_one`. A `run_one` from outside the package counts as one that imports all.
        """
        modules = [run_one.__module__] if sources.file_of(run_one.__module__) else sources.modules()
        named = [v for v in spec.values() if isinstance(v, str) and sources.file_of(v)]
        source = sources.fingerprint(*modules, *named)
        code = [run_one.__module__, run_one.__qualname__, kernels.backend(), source]
        digest = hashlib.sha256(json.dumps([*code, spec], sort_keys=True).encode()).hexdigest()
        folder = run_one.__module__.removeprefix("moe_np.experiments.")
        return f"{folder.removesuffix('.experiment')}/{digest[:20]}.json"

    def path(self, run_one: Callable[[Spec], Result], spec: Spec) -> pathlib.Path:
        """The file in which the result of this spec is stored."""
        assert self.store is not None  # without a store no result has a file
        return self.store / self.key(run_one, spec)

    def load(self, run_one: Callable[[Spec], Result], spec: Spec) -> Result | None:
        """The stored result of this spec, None if there is none; InputError for a damaged file."""
        if self.store is None:
            return None
        path = self.path(run_one, spec)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            stored = json.loads(content.decode("utf-8"))
            if stored["spec"] != json.loads(json.dumps(spec)):
                raise ValueError("it belongs to another configuration")
            if stored["digest"] != _digest(stored["result"]):
                raise ValueError("its digest is that of another result")
            return stored["result"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path}: wanted a stored run, got a damaged file ({error}); "
                "delete it to run it again"
            ) from None

    def _save(self, run_one, spec, result):
        text = to_json(result)
        if self.store is not None:
            stored_result = json.loads(text)
            stored = {"spec": spec, "result": stored_result, "digest": _digest(stored_result)}
            write_atomically(self.path(run_one, spec), to_json(stored))
        return json.loads(text)  # the same types whether it was run now or read back

    def _in_process(self):
        return self._executor is None and self.jobs == 1

    def submit(self, run_one: Callable[[Spec], Result], specs: Iterable[Spec]) -> list[Future]:
        """Start runs that a later `map` will ask for, and return their futures.

        A run that is finished or under way is not started again, and each is stored when it ends.
        With one job nothing is started.
        """
        futures = []
        with starting_processes():  # inherited by the processes that this starts
            for spec in () if self._in_process() else specs:
                key = self.key(run_one, spec)
                if key not in self._pending and self.load(run_one, spec) is None:
                    self._pending[key] = self._start(run_one, spec)
                if key in self._pending:
                    futures.append(self._pending[key])
        return futures

    def _start(self, run_one, spec):
        """Submit one run; the future that comes back is done when its result is stored."""
        stored = Future()

        def store(done):
            try:
                stored.set_result(self._save(run_one, spec, done.result()))
            except BaseException as error:
                stored.set_exception(error)

        self._pool().submit(_guarded, run_one, spec, _settings()).add_done_callback(store)
        return stored

    def map(
        self, run_one: Callable[[Spec], Result], specs: Iterable[Spec], desc: str = "runs"
    ) -> list[Result]:
        """The results in the order of `specs`: finished runs are read, the others are run and each
        is stored when it ends. The first run that fails ends the sweep with its error.
        """
        from tqdm import tqdm

        specs = list(specs)
        results: list[Any] = [self.load(run_one, spec) for spec in specs]
        missing = [i for i, result in enumerate(results) if result is None]
        compute = self._one_by_one if self._in_process() else self._in_parallel
        with tqdm(
            total=len(specs),
            initial=len(specs) - len(missing),
            desc=desc,
            unit="run",
            file=sys.stderr,
            disable=not self.progress,
            leave=False,
            dynamic_ncols=True,
        ) as bar:
            computed = compute(run_one, [specs[i] for i in missing], bar)
        for i, result in zip(missing, computed, strict=True):
            results[i] = result
        return results

    def _one_by_one(self, run_one, specs, bar):
        results = []
        for spec in specs:
            results.append(self._save(run_one, spec, _guarded(run_one, spec)))
            bar.update()
        return results

    def _in_parallel(self, run_one, specs, bar):
        self.submit(run_one, specs)
        keys = [self.key(run_one, spec) for spec in specs]
        for future in as_completed({self._pending[k] for k in keys if k in self._pending}):
            future.result()
            bar.update()
        # a run that another process stored before the submission is not pending here
        return [
            self._pending[key].result() if key in self._pending else self.load(run_one, spec)
            for key, spec in zip(keys, specs, strict=True)
        ]


class _OneWorker(Sweep):
    """A sweep of one job in a process of its own."""

    def _in_process(self):
        return False


def versions() -> dict[str, str]:
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
