"""The thread pool: every piece of work is done once, and errors and interruptions end the work."""

import threading

import numpy as np
import pytest

from tests.support.kernels import numba, threads_only

if numba:
    from moe_np.kernels.machine import thread_pool


def test_every_piece_is_taken_once_whoever_takes_it():
    taken = []
    takers = set()

    def work(counter, pieces, name):
        while (i := thread_pool.add(counter, 0, 1)) < pieces:
            taken.append(i)
            takers.add(name)
        return True

    for names in (["a"], ["a", "b"], ["a", "b", "c"]):
        taken.clear()
        thread_pool.share(work, (100,), [(name,) for name in names])
        assert sorted(taken) == list(range(100)) and takers <= set(names)
    taken.clear()
    thread_pool.share(work, (0,), [("a",), ("b",)])
    assert not taken


def count_to(counter, n, counts):
    i = thread_pool.add(counter, 0, 1)
    while i < n:
        counts[i] += 1
        i = thread_pool.add(counter, 0, 1)
    return True


@threads_only
def test_no_count_is_lost_between_threads():
    counts = np.zeros(1 << 20, np.int64)
    thread_pool.share(numba.njit(nogil=True)(count_to), (len(counts), counts), [()] * 2)
    assert (counts == 1).all()


@pytest.mark.parametrize("failing", ["a", "b"])
def test_an_error_in_a_thread_arrives_and_the_other_does_not_wait_for_it(failing):
    begun = threading.Barrier(2)

    def work(counter, name):
        if thread_pool.add(counter, 0, 1) < 2:
            begun.wait(60)
        if name == failing:
            raise ZeroDivisionError
        return thread_pool.add(counter, 1, 0) >= 2  # the other's piece, which is never done

    with pytest.raises(ZeroDivisionError):
        thread_pool.share(work, (), [("a",), ("b",)])


def test_work_that_is_interrupted_is_not_done_later():
    """Ctrl-C when the workers have got their jobs, and before this thread begins."""
    done = []
    begin = threading.Event()

    def work(counter, name):
        begin.wait(60)
        while thread_pool.add(counter, 0, 1) < 3:
            done.append(name)
        return True

    class Interrupted(list):
        def __getitem__(self, i):
            if i == 0:
                threading.Timer(0.1, begin.set).start()
                raise KeyboardInterrupt
            return super().__getitem__(i)

    with pytest.raises(KeyboardInterrupt):
        thread_pool.share(work, (), Interrupted([("a",), ("b",), ("c",)]))
    assert not done
    thread_pool.share(work, (), [("d",)])
    assert done == ["d"] * 3


def test_a_function_that_waits_is_called_until_it_is_done():
    calls = []

    def work(counter):
        calls.append(thread_pool.add(counter, 2, 1))
        return len(calls) == 3

    thread_pool.share(work, (), [()])
    assert calls == [0, 1, 2]
