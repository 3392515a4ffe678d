"""A program over ranks: steps of the sparse layer, compared with one process, and the exchanges."""

import itertools
import sys

import numpy as np

from moe_np.parallel import layer_step, mpi
from moe_np.parallel.exchanges import Gather


def uneven(rank):
    """Arrays of different lengths, of rank 0 none."""
    return (yield Gather(np.full((rank, 2), rank), "uneven"))


def main():
    """Rank 0 prints the names of the arrays that differ, and how many cases there were."""
    world = mpi.world()
    cases = list(
        itertools.product(
            ["float32", "float64"], [(101, 8, 3), (24, 7, 3), (5, 8, 4), (2, 9, 3), (0, 5, 3)]
        )
    )
    differ = []
    clock = []
    for dtype, (N, E, k) in cases:
        sizes = layer_step.Sizes(tokens=N, d_model=16, experts=E, hidden=16, k=k, skew=0.5)
        given = layer_step.problem(sizes, dtype=dtype)
        result = mpi.run(layer_step.whole(given, world.rank, world.size), clock=clock)
        found = layer_step.differences(layer_step.in_one_process(given), result)
        differ += [(dtype, N, E, name) for name, value in found.items() if value is not None]
    gathered = mpi.run(uneven(world.rank))
    assert [array.tolist() for array in gathered] == [[[r, r]] * r for r in range(world.size)]
    assert len(clock) == 11 * len(cases)
    assert all(min(timing[1:]) >= 0 for timing in clock)
    all_differ = world.gather(differ)
    if world.rank == 0:
        names = list(itertools.chain(*all_differ))
        print(f"{world.size} ranks, {len(cases)} cases, differ: {names}")


if __name__ == "__main__":
    sys.exit(main())
