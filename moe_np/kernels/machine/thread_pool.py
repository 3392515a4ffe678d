"""Work shared out to threads. It has to let go of Python's lock: compiled with `nogil=True`.

All threads run one function, in which whoever is free takes the next piece; `add`, to a counter,
tells which. Why not `prange`: its threads spin beside those of OpenBLAS, compiling for it takes
twice as long, and it hands out work in equal parts, although a core may have something else to do.
Why not `concurrent.futures`: handing over a piece and waiting for its result costs some 40 µs,
which for a small layer is as long as the piece takes.
"""

import functools
import os
import queue
import threading
import time

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from moe_np.base.machine import BLAS_LOCK

PAUSE = 5e-5  # seconds
# added where something went wrong: then nobody takes more, or waits for what will not be done
NO_MORE = 1 << 40


@functools.cache
def _jobs(process):
    """The queue that the workers of this process take from; a forked process has none of its
    parent's threads.
    """
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
            counter += NO_MORE
            error = raised
        ended.put(error)
        del function, counter, arguments, ended, error  # keeps no array alive while it waits


def _run(function, counter, arguments):
    while not function(counter, *arguments):
        time.sleep(PAUSE)


def share(function, arguments, own):
    """function(counter, *arguments, *own[t]) by each of as many threads t as `own` has entries.

    `counter` (4,) starts at zero, for the threads to tell each other through `add` what is taken
    and what is done. A thread may come late, or not at all when the others are through: nobody may
    wait for a thread, only for work that one has taken. A function that waits returns False before
    long, and is called again; otherwise it returns True.
    """
    counter, ended, asked, errors = np.zeros(4, np.int64), queue.SimpleQueue(), 0, []
    with BLAS_LOCK:
        jobs = _jobs(os.getpid()) if len(own) > 1 else None
        try:
            for mine in own[1:]:
                jobs.put((function, counter, (*arguments, *mine), ended))
                asked += 1
            _run(function, counter, (*arguments, *own[0]))
        except BaseException:
            counter += NO_MORE
            raise
        finally:
            for _ in range(asked):
                try:
                    jobs.get_nowait()  # nobody has begun with this one, and there is nothing left to do
                except queue.Empty:
                    errors.append(ended.get())
    for error in filter(None, errors):
        raise error


_adding = threading.Lock()


def add(counter, i, n):
    """counter[i] += n, with no other thread in between: -> the value before.

    What a thread has written before it adds, another one sees that finds the sum.
    """
    with _adding:
        before = int(counter[i])
        counter[i] += n
    return before


@intrinsic
def _add(typing, counter, i, n):
    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw(
            "add", builder.gep(array.data, [arguments[1]]), arguments[2], "seq_cst"
        )

    return types.int64(counter, types.int64, types.int64), generate


@overload(add)
def _compiled_add(counter, i, n):
    return lambda counter, i, n: _add(counter, i, n)
