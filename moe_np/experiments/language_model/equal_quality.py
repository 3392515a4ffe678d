"""Inference at equal quality: the dense model that is as good as a mixture, and its time.

Three dense models of growing width give a line from test loss to processor seconds per token. For
each seed, the mixture's test loss is looked up on it: that is the time which a dense model of this
quality would take.

Criterion, fixed before the runs: a mixture *infers faster at equal quality* where the 95 % interval
of the ratio of the times, dense over mixture, lies above 1. It is given only where every seed's
loss lies between the dense models' losses.
"""

from moe_np.experiments.common.crossing import first_crossing
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import interval, markdown_table
from moe_np.experiments.common.statistics import t_interval
from moe_np.experiments.language_model.runs import DENSE, EIGHT, HALF, LARGE, MANY


def dense_seconds(loss: float, dense: list[Result]) -> float | None:
    """The seconds of a dense model with this test loss, by a line between two of those measured;
    None where the loss is outside of theirs.
    """
    points = sorted((run["test"]["loss"], run["inference"]) for run in dense)
    crossing = first_crossing([point[0] for point in points], loss)
    if crossing is None:
        return None
    i, share = crossing
    before, after = points[i][1], points[i + 1][1]
    return before + share * (after - before)


def equal_quality(by_system: dict[str, list[Result]]) -> dict:
    """{mixture: ratio of seconds, dense over mixture, and how its loss lies}; {} where a system is
    missing.
    """
    if not all(by_system.get(system) for system in (DENSE, HALF, LARGE)):
        return {}
    dense = list(zip(*(by_system[system] for system in (DENSE, HALF, LARGE)), strict=True))
    records = {}
    for system in (EIGHT, MANY):
        if not by_system.get(system):
            continue
        ratios = []
        ahead = 0
        for run, of_seed in zip(by_system[system], dense, strict=True):
            seconds = dense_seconds(run["test"]["loss"], list(of_seed))
            ratios.append(None if seconds is None else seconds / run["inference"])
            ahead += run["test"]["loss"] < min(other["test"]["loss"] for other in of_seed)
        inside = [ratio for ratio in ratios if ratio is not None]
        whole = len(inside) == len(ratios)
        records[system] = {
            "ratio": t_interval(inside).record() if whole else None,
            "inside": len(inside),
            "better than all": ahead,
            "worse than all": len(ratios) - len(inside) - ahead,
        }
    return records


def equal_quality_table(result: Result) -> str:
    """A row per mixture; empty where the dense models were not run."""
    rows = [
        (
            system,
            interval(ours["ratio"], 2),
            str(ours["inside"]),
            str(ours["better than all"]),
            str(ours["worse than all"]),
        )
        for system, ours in result["equal_quality"].items()
    ]
    if not rows:
        return ""
    head = ("at equal quality", "inference faster by", "seeds between the dense models")
    return markdown_table((*head, "better than all of them", "worse than all of them"), rows)
