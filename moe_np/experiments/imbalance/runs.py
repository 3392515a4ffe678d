"""The runs: a training step of one SwiGLU layer with its router, over ranks, for several skews.

    1 rank, 2 ranks     contiguous shares of the experts, under a real MPI
    2 ranks, packed     experts placed by the load of this very batch (`parallel.placement`)
    4 ranks             more than many small machines have processors: not measured

The skew is added to the logit of the first expert, and less for each next one: 0 is a nearly even
load. What each rank computes between two exchanges is timed for all systems, in one process, one
rank after the other. From it the model of `moe_np.parallel.cost` makes a step:

    Σ over the parts between exchanges of the slowest rank + Σ over exchanges of α(R − 1) + bytes/β

with the bytes of the rank that sends or gets the most. α and β are those of the messages of
"2 ranks" without skew.
"""

import dataclasses
import functools
import json
import pathlib
import tempfile

import numpy as np

from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.imbalance import timed_steps
from moe_np.parallel import launch
from moe_np.parallel.layer_step import Sizes

ONE = "1 rank"
TWO = "2 ranks"
TWO_PACKED = "2 ranks, packed"
FOUR = "4 ranks"
SYSTEMS = (ONE, TWO, TWO_PACKED, FOUR)
RANKS = {ONE: 1, TWO: 2, TWO_PACKED: 2, FOUR: 4}
PAPER: dict = {}  # systems print what balancing gains, but no curve against the skew


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours."""

    tokens: int = 4096
    d_model: int = 256
    experts: int = 8
    hidden: int = 1024
    k: int = 2
    pieces: int = 4
    skews: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
    repeats: int = 5
    mpi: bool = True  # False: nothing is measured under MPI
    seeds: int = 3


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed, with all skews."""
    return {
        "system": system,
        "seed": seed,
        "ranks": RANKS[system],
        "placement": timed_steps.PACKED if system == TWO_PACKED else "contiguous",
        **{name: getattr(config, name) for name in Sizes._fields[:-1]},
        "skews": list(config.skews),
        "repeats": config.repeats,
        "mpi": _installation()[0] if config.mpi and system != FOUR else None,
    }


@functools.cache
def _installation():
    """The MPI of this machine: (mpiexec, its maker) or None, and what there is to say of it."""
    installation, reason = launch.find()
    return installation and list(installation), reason


def run_one(spec: Spec) -> Result:
    """A row per skew: the load of each rank, what each computes, and the step as measured."""
    rows = []
    measured = _under_mpi(spec) if spec["mpi"] else [None] * len(spec["skews"])
    for skew, of_step in zip(spec["skews"], measured, strict=True):
        _, placed, load = timed_steps.problem_of(spec, skew)
        of_ranks = np.bincount(placed.rank, load[placed.expert], placed.ranks)
        computed = timed_steps.computed(spec, skew)
        rows.append({"skew": skew, "load": of_ranks.tolist(), **computed, "measured": of_step})
    maker = spec["mpi"] and spec["mpi"][1]
    return {"system": spec["system"], "seed": spec["seed"], "by": maker, "rows": rows}


def _under_mpi(spec):
    """A row per skew, as `timed_steps.measured` has it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        given = pathlib.Path(folder) / "spec.json"
        result = pathlib.Path(folder) / "result.json"
        given.write_text(json.dumps(spec), encoding="utf-8")
        arguments = ["-c", timed_steps.PROGRAM, str(given), str(result)]
        ended = launch.run(arguments, spec["ranks"], launch.Installation(*spec["mpi"]))
        if ended.status:
            raise RuntimeError(ended.message or f"the ranks ended with status {ended.status}")
        return json.loads(result.read_text(encoding="utf-8"))


def summarise(runs: list[Result]) -> list[Result]:
    """A row per skew: medians over the seeds of one system, times in seconds."""
    rows = []
    for same in zip(*(run["rows"] for run in runs), strict=True):
        load = np.array([row["load"] for row in same])
        compute = np.array([np.sum(row["compute"], axis=0) for row in same])
        medians = {
            "skew": same[0]["skew"],
            "busiest": float(np.median(load.max(axis=1) / load.sum(axis=1))),
            "compute": np.median(compute, axis=0).tolist(),
            "slowest": _median([np.max(row["compute"], axis=1).sum() for row in same]),
            "exchanges": same[0]["exchanges"],
        }
        times = [row["measured"] for row in same if row["measured"] is not None]
        if times:
            medians["measured"] = _median([time["seconds"] for time in times])
            medians["low"] = min(time["seconds"] for time in times)
            medians["high"] = max(time["seconds"] for time in times)
            waiting = [np.array(time["wait"]) / time["seconds"] for time in times]
            medians["waiting"] = np.median(waiting, axis=0).tolist()
            medians["messages"] = {
                name: _median([time["messages"][name] for time in times])
                for name in times[0]["messages"]
            }
        rows.append(medians)
    return rows


def _median(values):
    return float(np.median(values))
