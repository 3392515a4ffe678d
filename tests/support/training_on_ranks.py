"""A program over ranks: updates of decoders, and a digest of the whole state at the end of each."""

import hashlib
import sys

from moe_np.base.params import leaves
from moe_np.parallel import mpi, training_over_ranks
from tests.parallel.test_training_over_ranks import MICRO_BATCHES, OPTIONS, begun

CASES = [("mixtral", OPTIONS), ("noisy, dropout", OPTIONS), ("noisy, dropout", MICRO_BATCHES)]


def digest(state):
    """A hash of all bits of parameters and running means."""
    hashed = hashlib.sha256()
    for tree in (state.params, state.optimiser.m, state.optimiser.v):
        for leaf in leaves(tree).values():
            hashed.update(leaf.tobytes())
    return hashed.hexdigest()


def main():
    """Every rank has the whole state, which must be the same."""
    world = mpi.world()
    for name, options in CASES:
        _, state, _, plan = begun(name)
        ranks = training_over_ranks.mpi_world(world.size)
        *_, last = training_over_ranks.train(state, plan(world.size), options, ranks)
        digests = world.gather(digest(last.state))
        if world.rank == 0:
            assert len(set(digests)) == 1
            print(digests[0])


if __name__ == "__main__":
    sys.exit(main())
