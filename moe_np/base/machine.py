"""The machine: its processors, the threads of BLAS, how to limit BLAS to one thread, and the start
of other processes.

SciPy and threadpoolctl are imported at the first call, so importing this module costs nothing.
"""

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Iterator

from moe_np.base.types import Array

BLAS_LOCK = threading.RLock()  # the number of BLAS threads belongs to the whole process
LONGEST_WAIT = 5.0  # seconds that a fork waits for the end of another thread's work

_limits = []  # the limits of `one_blas_thread` that are in force, the first one outermost
_fork = threading.local()


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def starting_processes() -> Iterator[None]:
    """Processes that start in this context do not answer Ctrl-C, which reaches every process of a
    terminal: the parent ends them. A Ctrl-C that comes in here is answered at the end of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    received = []
    has_mask = hasattr(signal, "pthread_sigmask")
    # on Windows a child inherits only that the signal is ignored
    waiting = (lambda *_: received.append(True)) if has_mask else signal.SIG_IGN
    handler = signal.signal(signal.SIGINT, waiting)
    # a child inherits that the signal is blocked; here other threads may get it all the same
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if has_mask else None
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)


@functools.cache
def _controller():
    import scipy.linalg.cython_blas  # noqa: F401 - the controller sees only a BLAS that is loaded
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def blas_threads() -> int:
    """The number of threads that BLAS may use, as limited by threadpoolctl or OPENBLAS_NUM_THREADS.

    The compiled loops of this package use the same number.
    """
    libraries = _controller().lib_controllers
    numbers = [library.num_threads for library in libraries if library.user_api == "blas"]
    return max(numbers, default=0) or cores()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """A context, or a decorator of a function, in which BLAS uses one thread.

    Two threads add up in another order, and for small products they mostly wait for each other.
    """
    with BLAS_LOCK, _controller().limit(limits=1, user_api="blas") as limit:
        _limits.append(limit)
        try:
            yield
        finally:
            _limits.pop()


SMALL = 1 << 18  # multiplications below which OpenBLAS takes one thread anyway


def product(a: Array, b: Array) -> Array:
    """a · b of two matrices, with the same bits for any number of BLAS threads."""
    if a.size * b.shape[1] < SMALL:
        return a @ b
    with one_blas_thread():
        return a @ b


# --- forks ----------------------------------------------------------------------------------------

# A forked process has a copy of the lock, but not the thread that would release it. So a fork waits
# until no other thread holds the lock. Where that takes long, as in a fit of EM, the new process
# takes the lock and the limits of BLAS away from the thread that it does not have.


def _before_fork():
    _fork.locked = BLAS_LOCK.acquire(timeout=LONGEST_WAIT)


def _after_fork_in_parent():
    if _fork.locked:
        BLAS_LOCK.release()


def _after_fork_in_child():
    if _fork.locked:
        BLAS_LOCK.release()
        return
    BLAS_LOCK._at_fork_reinit()  # pyright: ignore[reportAttributeAccessIssue]
    if _limits:
        _limits[0].restore_original_limits()
    _limits.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
