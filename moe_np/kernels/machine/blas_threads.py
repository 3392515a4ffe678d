"""How many threads there are, and a BLAS of one thread. Works without Numba."""

import contextlib
import functools
import os
import threading

import scipy.linalg.cython_blas  # noqa: F401 - loads the BLAS of compiled code, before the controller looks for it
import threadpoolctl

one_at_a_time = threading.RLock()  # the number of BLAS threads belongs to the whole process


@functools.cache
def _controller():
    return threadpoolctl.ThreadpoolController()


def threads():
    """As many as BLAS may use: who limits the one (threadpoolctl, OPENBLAS_NUM_THREADS) limits the
    other.
    """
    found = [c.num_threads for c in _controller().lib_controllers if c.user_api == "blas"]
    return max(found, default=0) or os.cpu_count()


@contextlib.contextmanager
def one_blas_thread():
    """A BLAS of one thread, for many small products: two would spend most of the time waiting for
    each other.
    """
    with one_at_a_time, _controller().limit(limits=1, user_api="blas"):
        yield
