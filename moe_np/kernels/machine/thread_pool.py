"""A small thread pool for compiled loops; the loops must release the GIL (`nogil=True`).

All threads run the same function, and each takes the next piece of work as soon as it is free: the
value that `add` returns from a shared counter tells which piece. `numba.prange` would spin beside
the threads of OpenBLAS, take twice as long to compile, and share the work in equal parts, although
another program may use one of the cores. With `concurrent.futures` it takes some 40 µs to hand over
a piece and to wait for its result, which for a small layer is as long as the piece itself.
"""

import functools
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numba import types
from numba.extending import lower_builtin, type_callable

from moe_np.base.machine import BLAS_LOCK
from moe_np.base.types import Array

# Seconds between two calls of a function that waits: a thread wakes some 50 µs late in any case.
# Measured as the time of the layer at 1024,64,8. To measure again:
#   python -m moe_np.experiments.layer_speed.thresholds machine.thread_pool.PAUSE VALUE ...
PAUSE = 5e-5

# added to the counter after an error: then the other threads take no more work, and wait for none
STOP = 1 << 40


@functools.cache
def _jobs(process):
    """The queue of the workers of this process; a forked process has no threads of its parent."""
    jobs = queue.SimpleQueue()
    for _ in range(max(1, os.cpu_count() - 1)):
        threading.Thread(target=_work, args=(jobs,), name="moe_np", daemon=True).start()
    return jobs


def _work(jobs):
    while True:
        function, counter, arguments, ended = jobs.get()
        error = None
        try:
            _run(function, counter, arguments)
        except BaseException as raised:
            counter += STOP
            error = raised
        ended.put(error)
        # no array stays alive while the thread waits
        del function, counter, arguments, ended, error


def _run(function, counter, arguments):
    while not function(counter, *arguments):
        time.sleep(PAUSE)


def share(function: Callable[..., bool], arguments: tuple, scratch: Sequence[tuple]) -> None:
    """Call function(counter, *arguments, *scratch[t]) in thread t, for each entry of `scratch`.

    `counter` (4,) starts at zero; through `add` the threads tell each other which pieces are taken
    and which are done. A thread may begin late, or never if the others have finished: a function
    may wait for work that a thread has taken, but not for a thread. A function that has to wait
    returns False after a short time and is called again; at the end it returns True.

    Raises the error of a thread, after all threads have stopped.
    """
    counter = np.zeros(4, np.int64)
    ended = queue.SimpleQueue()
    jobs_given = 0
    errors = []
    with BLAS_LOCK:
        jobs = _jobs(os.getpid()) if len(scratch) > 1 else None
        try:
            for arrays in scratch[1:]:
                jobs.put((function, counter, (*arguments, *arrays), ended))
                jobs_given += 1
            _run(function, counter, (*arguments, *scratch[0]))
        except BaseException:
            counter += STOP
            raise
        finally:
            for _ in range(jobs_given):
                try:
                    jobs.get_nowait()  # no thread has begun this job, and no work is left
                except queue.Empty:
                    errors.append(ended.get())
    for error in filter(None, errors):
        raise error


_adding = threading.Lock()
if hasattr(os, "register_at_fork"):  # another thread may hold it, which the new process lacks
    os.register_at_fork(after_in_child=_adding._at_fork_reinit)


def add(counter: Array, i: int, n: int) -> int:
    """counter[i] += n without interruption by another thread: returns the value before.

    A thread that reads the sum also sees everything that was written before it was added.
    """
    with _adding:
        before = int(counter[i])
        counter[i] += n
    return before


@type_callable(add)
def _type_of_add(context):
    return lambda counter, i, n: types.int64(counter, types.int64, types.int64)


@lower_builtin(add, types.Array, types.int64, types.int64)
def _compiled_add(context, builder, signature, arguments):
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    place = builder.gep(array.data, [arguments[1]])
    return builder.atomic_rmw("add", place, arguments[2], "seq_cst")
