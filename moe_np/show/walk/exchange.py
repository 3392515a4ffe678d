"""The walk through a training step of the sparse layer over ranks: who sends what to whom.

One state per exchange (`moe_np.parallel.expert_parallel`), taken from the ranks themselves:

    counts   (R, R)   rows from each rank (first axis) to each rank
    home     (B,)     the rank whose tokens the rows belong to
    at       (B,)     the rank at which they arrive, in the order of their arrival

`moe_np.show.view` draws the rows at their ranks in the colours of their homes.
"""

from collections.abc import Iterator

import numpy as np

from moe_np.base import checks
from moe_np.parallel import in_process, layer_step
from moe_np.parallel.exchanges import Gather, Send
from moe_np.parallel.layer_step import Sizes
from moe_np.show.steps import State, Steps, state
from moe_np.show.view.exchanged_rows import exchanged_rows

AXES = {"counts": "sender receiver", "home": "B", "at": "B"}
NOTES = {
    "counts": "Each rank tells how many rows each expert will get: one number per expert.",
    "dispatch": "The rows of x go to the ranks of their experts, each token k times.",
    "combine": "The outputs of the experts go home. Weights never travel.",
    "dispatch back": "The rows of dout, weighted, go the way of the dispatch.",
    "combine back": "The gradients of the rows go home; those of the experts stay where they are.",
}
EQUATIONS = {
    "dispatch": r"x_{\mathrm{token}(a)} \to \mathrm{rank}(\mathrm{expert}(a))",
    "combine": r"y_a \to \mathrm{home}(a), \quad"
    r" \mathrm{out}_n = \sum_{a: \mathrm{token}(a) = n} \mathrm{weight}_a \, y_a",
    "dispatch back": r"\mathrm{weight}_a \, d\mathrm{out}_{\mathrm{token}(a)}"
    r" \to \mathrm{rank}(\mathrm{expert}(a))",
    "combine back": r"d\mathrm{rows}_a \to \mathrm{home}(a), \quad dx_n = \sum_a d\mathrm{rows}_a",
}


def exchange(ranks: int = 3, sizes: Sizes | None = None, *, seed: int = 0) -> Steps:
    """The exchanges of a training step of a small problem, one state each, as they take place.

    sizes   of the problem (`layer_step.Sizes`); None: 12 tokens, 6 experts, 2 per token

    Raises InputError for more ranks than experts or pieces.
    """
    checks.integer("ranks", ranks, minimum=1)
    if sizes is None:
        sizes = Sizes(tokens=12, d_model=4, experts=6, hidden=4, k=2, pieces=6)
    given = layer_step.problem(sizes, seed=seed)
    layer_step.check_ranks(sizes, ranks)
    steps = Steps(_states([layer_step.on_a_rank(given, rank, ranks) for rank in range(ranks)]))
    steps.draw = exchanged_rows
    return steps


def _states(generators) -> Iterator[State]:
    before = None
    for exchanged in in_process.exchanges(generators, [None] * len(generators)):
        before = _state(exchanged, before)
        yield before


def _state(exchanged, before):
    name = exchanged[0].name
    R = len(exchanged)
    if isinstance(exchanged[0], Send):
        counts = np.stack([of_rank.counts for of_rank in exchanged])
    else:  # all get the same
        counts = np.repeat([[len(of_rank.array)] for of_rank in exchanged], R, axis=1)
    sender = np.concatenate([np.repeat(np.arange(R), counts[:, rank]) for rank in range(R)])
    at = np.repeat(np.arange(R), counts.sum(axis=0))
    home = at if name.startswith("combine") else sender
    note = "Every rank gets the parts of all, and adds them in the order of the pieces."
    note = note if isinstance(exchanged[0], Gather) else NOTES[name]
    arrays = {"counts": counts, "home": home, "at": at}
    return state(name, EQUATIONS.get(name, ""), arrays, axes=AXES, note=note, before=before)
