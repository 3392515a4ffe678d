"""A program over ranks of which one fails: `python -m mpi4py faulty_rank.py FAULT RANK`."""

import os
import signal
import sys
import time

import numpy as np

from moe_np.base.checks import InputError
from moe_np.parallel import layer_step, mpi
from moe_np.parallel.exchanges import RankError, Send


def _raise():
    raise InputError("x: wanted 64 features, as the experts read, got 63")


FAULTS = {
    "raise": _raise,
    "divide": lambda: 1 // 0,
    "exit 0": lambda: sys.exit(0),
    "exit 3": lambda: sys.exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit at once": lambda: os._exit(0),
    "sleep": lambda: time.sleep(600),
}


def faulty(generator, fault):
    """The same rank, with a fault in place of, or before, its third exchange."""
    answer = None
    for number in range(1000):
        try:
            exchange = generator.send(answer)
        except StopIteration as stop:
            return stop.value
        if number == 2 and fault == "left out":
            answer = np.zeros((int(exchange.expected.sum()), exchange.rows.shape[1]))
            continue
        if number == 2 and fault == "end":
            return None
        if number == 2 and fault == "counts":
            exchange = exchange._replace(counts=exchange.counts[::-1])
        if number == 2 and fault == "width" and isinstance(exchange, Send):
            exchange = exchange._replace(rows=exchange.rows[:, :-1])
        if number == 2 and fault in FAULTS:
            FAULTS[fault]()
        answer = yield exchange
    return None


def main(fault, rank):
    """Every rank prints the error with which it ends."""
    here = mpi.world().rank
    if here == rank and fault == "before":
        raise ValueError("before the first exchange")
    if here == rank and fault == "silent before":
        time.sleep(0.5)  # so that the launcher has seen the process
        os._exit(0)
    ranks = mpi.world().size
    given = layer_step.problem(layer_step.Sizes(tokens=40, d_model=8, hidden=8))
    step = layer_step.on_a_rank(given, here, ranks)
    try:
        mpi.run(faulty(step, fault) if here == rank else step)
    except RankError as error:
        sys.stdout.write(f"{here} of {ranks} ends: {error}\n")
        return 1
    sys.stdout.write(f"{here} of {ranks} has ended well\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
