"""Training steps of a sparse layer over ranks, and where their time goes: by all ranks in this
process, one after the other, or by this rank under MPI.

    python -m mpi4py -c PROGRAM SPEC.json RESULT.json

is what a rank runs. All skews take turns, so that a slow second of the machine falls on all.
"""

import json
import pathlib
import time
from typing import Any

import numpy as np

from moe_np.experiments.common.experiment import Result, Spec
from moe_np.parallel import in_process, layer_step, mpi, placement
from moe_np.parallel.exchanges import Send
from moe_np.parallel.layer_step import Problem, Sizes
from moe_np.parallel.placement import Placement

PROGRAM = f"import sys; from {__name__} import main; main(*sys.argv[1:])"
PACKED = "packed"  # experts are placed by the load of this batch, the best that packing can know


def problem_of(spec: Spec, skew: float) -> tuple[Problem, Placement, np.ndarray]:
    """The layer with its tokens, which rank has which experts, the load of the experts (E,)."""
    names = Sizes._fields[:-1]
    given = layer_step.problem(
        Sizes(*(spec[name] for name in names), skew), dtype=np.float32, seed=spec["seed"]
    )
    bounds = layer_step.bounds_of_pieces(given.sizes, 1)
    x = [given.x[bounds[0] : bounds[-1]]]
    routing = layer_step.route_pieces(given.router, x, given.sizes.k).routing
    load = np.bincount(routing.expert, minlength=given.sizes.experts)
    if spec["placement"] == PACKED:
        placed = placement.packed(load, spec["ranks"])
    else:
        placed = placement.contiguous(given.sizes.experts, spec["ranks"])
    return given, placed, load


# --- all ranks in this process --------------------------------------------------------------------


def computed(spec: Spec, skew: float) -> Result:
    """What each rank computes between two exchanges, the least of several steps: {"exchanges":
    [[name, the most bytes that a rank sends or gets]], "compute": seconds (exchanges + 1, R)}.
    """
    given, placed, _ = problem_of(spec, skew)
    least: Any = np.inf
    for _ in range(spec["repeats"] + 1):  # the first one also loads what is loaded once
        exchanges, seconds = _step(given, placed)
        least = np.minimum(least, seconds)
    return {"exchanges": exchanges, "compute": least.tolist()}


def _step(given, placed):
    ranks = placed.ranks
    spent: list[list[float]] = [[] for _ in range(ranks)]
    generators = [
        _timed(layer_step.on_a_rank(given, rank, ranks, placed), spent[rank])
        for rank in range(ranks)
    ]
    exchanges = [
        [exchanged[0].name, _busiest(exchanged)]
        for exchanged in in_process.exchanges(generators, [None] * ranks)
    ]
    return exchanges, np.array(spent).T


def _timed(generator, spent):
    """The same rank; `spent` gets the seconds until each exchange, and until the end."""
    answer = None
    while True:
        start = time.perf_counter()
        try:
            exchange = generator.send(answer)
        except StopIteration as stop:
            return stop.value
        finally:
            spent.append(time.perf_counter() - start)
        answer = yield exchange


def _busiest(exchanged):
    """The bytes of the rank that sends, or gets, the most of other ranks."""
    ranks = len(exchanged)
    sent = [mpi.bytes_sent(exchange, rank, ranks) for rank, exchange in enumerate(exchanged)]
    if not isinstance(exchanged[0], Send):
        return max(sent)
    rows = np.array([exchange.counts for exchange in exchanged])
    of_a_row = exchanged[0].rows.itemsize * int(np.prod(exchanged[0].rows.shape[1:]))
    arriving = (rows.sum(axis=0) - rows.diagonal()) * of_a_row
    return int(max(*sent, *arriving))


# --- this rank under MPI --------------------------------------------------------------------------


def measured(spec: Spec) -> list[Result]:
    """For each skew, of the fastest of several steps: {"seconds": of the whole step, "compute",
    "wait", "message": of each rank, "messages": {exchange: least seconds}}.
    """
    world = mpi.world(spec["ranks"])
    problems = [problem_of(spec, skew) for skew in spec["skews"]]
    best: list[Any] = [None] * len(problems)
    messages: list[dict[str, float]] = [{} for _ in problems]
    for _ in range(spec["repeats"] + 1):
        for i, (given, placed, _) in enumerate(problems):
            clock: list[mpi.Timing] = []
            world.Barrier()
            start = time.perf_counter()
            mpi.run(layer_step.on_a_rank(given, world.rank, world.size, placed), clock=clock)
            seconds = time.perf_counter() - start
            wait = sum(timing.wait for timing in clock)
            message = sum(timing.transfer for timing in clock)
            rows = world.allgather([seconds, seconds - wait - message, wait, message])
            whole, compute, waiting, transfer = np.array(rows).T
            for timing in clock:
                least = messages[i].get(timing.name, np.inf)
                messages[i][timing.name] = min(least, timing.transfer)
            if best[i] is None or whole.max() < best[i]["seconds"]:
                parts = {"compute": compute, "wait": waiting, "message": transfer}
                best[i] = {"seconds": whole.max(), **{n: v.tolist() for n, v in parts.items()}}
    return [{**row, "messages": of} for row, of in zip(best, messages, strict=True)]


def main(spec_file: str, result_file: str) -> None:
    """Measure, and let rank 0 write the result."""
    spec = json.loads(pathlib.Path(spec_file).read_text(encoding="utf-8"))
    rows = measured(spec)
    if mpi.world().rank == 0:
        pathlib.Path(result_file).write_text(json.dumps(rows), encoding="utf-8")
