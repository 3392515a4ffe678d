"""Processors and BLAS threads: their numbers, and the limit to one thread."""

import os
import subprocess
import sys

import pytest

from moe_np.base.machine import blas_threads, cores, one_blas_thread


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
