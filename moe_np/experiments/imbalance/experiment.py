"""An uneven load: all systems as measured, and as the model makes them."""

import statistics

from moe_np.experiments.common import system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.imbalance.runs import (
    PAPER,
    RANKS,
    SYSTEMS,
    TWO,
    Config,
    run_one,
    spec_of,
    summarise,
)
from moe_np.parallel import cost
from moe_np.parallel.cost import Machine

OPTIONS: tuple[Option, ...] = ()
SMALL = Config(tokens=64, d_model=8, hidden=16, skews=(0.0, 8.0), repeats=1, mpi=False, seeds=2)
SMOKE = {"config": SMALL}
QUICK = Config(tokens=1024, hidden=512, skews=(0.0, 1.0, 8.0), repeats=2, seeds=1)
UNMEASURED = Machine(bandwidth=1e9, node=1, alpha=20e-6)  # where there is no MPI


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """One spec per system and seed."""
    config = config or (QUICK if quick else Config())
    return system_runs.specs_of(spec_of, config, SYSTEMS, seeds=seeds, only=only)


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All systems: what is written as imbalance.json. Runs are made one at a time, and their
    times are those of an idle machine with two processors, or they are noise.
    """
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with sweep.one_at_a_time() as single:
        runs = single.map(run_one, chosen, "imbalance")
    summary = {
        system: summarise(of_system)
        for system, of_system in system_runs.by_system(runs, SYSTEMS, only).items()
    }
    machine, is_measured = machine_of(summary)
    return system_runs.result_of(
        "imbalance",
        config,
        runs,
        summary,
        PAPER,
        by={run["system"]: run["by"] for run in runs},
        machine={"alpha": machine.alpha, "bandwidth": machine.bandwidth, "measured": is_measured},
        model={
            system: [modelled(row, RANKS[system], machine) for row in rows]
            for system, rows in summary.items()
        },
    )


def machine_of(summary: Result) -> tuple[Machine, bool]:
    """α and β: the message of the counts, and those of the rows, of two ranks at the first skew;
    UNMEASURED without them.
    """
    rows = summary.get(TWO, [])
    if not rows or "messages" not in rows[0]:
        return UNMEASURED, False
    seconds = rows[0]["messages"]
    alpha = seconds["counts"]
    rates = [
        n_bytes / max(seconds[name] - alpha, 1e-9)
        for name, n_bytes in rows[0]["exchanges"]
        if name.startswith(("dispatch", "combine")) and n_bytes
    ]
    return UNMEASURED._replace(alpha=alpha, bandwidth=statistics.median(rates)), True


def modelled(row: Result, ranks: int, machine: Machine) -> float:
    """The seconds of a step by the model: the slowest rank of each part, then the messages."""
    total = row["slowest"]
    for _, n_bytes in row["exchanges"] if ranks > 1 else ():
        # what crosses of n bytes is n(1 − 1/R)
        total += cost.all_to_all(n_bytes * ranks / (ranks - 1), ranks, machine)
    return total
