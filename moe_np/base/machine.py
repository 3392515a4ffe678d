"""The machine: its processors, the threads of BLAS, and how to limit BLAS to one thread.

SciPy and threadpoolctl are imported at the first call, so importing this module costs nothing.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Iterator

BLAS_LOCK = threading.RLock()  # the number of BLAS threads belongs to the whole process


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    with BLAS_LOCK, _controller().limit(limits=1, user_api="blas"):
        yield
