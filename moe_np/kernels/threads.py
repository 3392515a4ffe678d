"""Work shared out to threads, each with a BLAS of one thread. The work has to let go of Python's lock: compiled with
`nogil=True`, or large operations of NumPy.

Why not `prange`: its threads spin beside those of OpenBLAS, compiling for it takes twice as long, and it hands out work
in equal parts, although a core may have something else to do. Here whoever is free takes the next piece.
"""

import collections
import concurrent.futures
import contextlib
import functools
import os
import threading

import scipy.linalg.cython_blas  # noqa: F401 - loads the BLAS of compiled code, before the controller looks for it
import threadpoolctl

_one_at_a_time = threading.RLock()  # the number of BLAS threads belongs to the whole process


@functools.cache
def _controller():
    return threadpoolctl.ThreadpoolController()


@functools.cache
def _workers(process):
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "moe_np")


def threads():
    """As many as BLAS may use: who limits the one (threadpoolctl, OPENBLAS_NUM_THREADS) limits the other."""
    found = [c.num_threads for c in _controller().lib_controllers if c.user_api == "blas"]
    return max(found, default=os.cpu_count())


@contextlib.contextmanager
def one_blas_thread():
    """A BLAS of one thread, for many small products: two would spend most of the time waiting for each other."""
    with _one_at_a_time, _controller().limit(limits=1, user_api="blas"):
        yield


def share(function, calls, own):
    """function(*call, *own[t]) for every one of `calls`, by as many threads t as `own` has entries, BLAS with one each.

    Whoever is free takes the next call: a thread that wakes late, or whose core has something else to do, does less.
    """
    todo = collections.deque(calls)

    def work(mine):
        while todo:
            try:
                call = todo.popleft()
            except IndexError:  # another thread was quicker
                return
            function(*call, *mine)

    with _one_at_a_time, _controller().limit(limits=1, user_api="blas"):
        others = [_workers(os.getpid()).submit(work, mine) for mine in own[1 : len(todo)]]
        try:
            work(own[0])
        finally:
            for other in others:
                if not other.cancel():
                    other.result()
