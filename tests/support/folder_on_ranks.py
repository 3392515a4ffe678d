"""A program over ranks that trains in a folder, and of which one rank may fail after an update:
`python -m mpi4py folder_on_ranks.py FOLDER [FAULT]`.
"""

import os
import pathlib
import signal
import sys
import time

from moe_np.language import run_state, train_over_ranks
from moe_np.parallel import mpi
from moe_np.parallel.exchanges import RankError
from moe_np.parallel.training_over_ranks import mpi_world
from tests.language.test_run_folder import open_run

FAULTS = {
    "exit": lambda: sys.exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sleep": lambda: time.sleep(600),
}


def main(folder, fault=None):
    """Rank 1 fails after update 6. Every rank prints the error with which it ends."""
    world = mpi_world(mpi.world().size)
    rank = world.here[0]
    asked = []

    def stop():
        asked.append(True)
        if rank == 1 and len(asked) == 6 and fault in FAULTS:
            FAULTS[fault]()
        return False

    run = open_run(pathlib.Path(folder))
    if rank == 1 and fault == "other parameters":
        read = run_state.read
        run_state.read = lambda *arguments: _moved(read(*arguments))
    if rank == 0 and fault == "full disk":
        run_state.write = _full
    try:
        for _ in train_over_ranks.train(run, train_over_ranks.divide(run), world, stop=stop):
            pass
    except RankError as error:
        sys.stdout.write(f"{rank} ends: {error}\n")
        return 1
    return 0


def _moved(read):
    state, best = read
    state.params["layers"][1]["router"]["w"][0, 0] += 1e-6
    return state, best


def _full(*arguments):
    raise OSError(28, "No space left on device")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
