"""A mixture beside other models, seed by seed: intervals, what the seeds can show, verdicts.

The measure of both models is taken from the same seed. The criterion is a constant of an
experiment. Its verdict is `holds` where the whole t interval of the paired differences lies beyond
the smallest difference of interest. The true difference for which this happens in 80 % of all
repetitions is that smallest difference plus `power.smallest_difference`: what the seeds can show.
"""

from collections.abc import Mapping, Sequence

from moe_np.experiments.common import power
from moe_np.experiments.common.dense_and_mixture import MIXTURE
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import decimal, interval, markdown_table
from moe_np.experiments.common.statistics import describe, paired_difference, t_interval
from moe_np.experiments.common.verdicts import Criterion, verdict

Values = Mapping[str, Sequence[float]]  # {model: one value per seed}
WORSE = "It is worse"
WORDS = {  # of the verdicts
    "holds": "The mixture helps",
    "not supported": "The mixture does not help by a difference of interest",
    "cannot be told": "Whether the mixture helps cannot be told",
}


def claims(values: Mapping[str, Values], criteria: Mapping[str, Criterion]) -> list[Result]:
    """The mixture less each other model of each task: interval, what can be shown, and verdict.

    values      {task: {model: one value per seed}}; a comparison without runs is left out
    criteria    {task: its criterion}
    """
    return [
        claim(task, other, of_models[MIXTURE], alone, criteria[task])
        for task, of_models in values.items()
        for other, alone in of_models.items()
        if other != MIXTURE and len(alone) and len(of_models.get(MIXTURE, ()))
    ]


def claim(
    task: str,
    other: str,
    mixture: Sequence[float],
    alone: Sequence[float],
    criterion: Criterion,
) -> Result:
    """One comparison, JSON-able. "shown" is None where there is one seed."""
    difference = paired_difference(list(mixture), list(alone))
    bounds = t_interval(difference, level=criterion.level)
    sd = describe(difference).sd
    shown = None
    if sd is not None:
        alpha = 1 - criterion.level
        needed = power.smallest_difference(len(difference), sd, alpha=alpha)
        shown = (criterion.smallest + needed) * (-1 if criterion.direction == "less" else 1)
    return {
        "task": task,
        "against": other,
        "interval": bounds.record(),
        "shown": shown,
        "criterion": criterion.text(),
        "direction": criterion.direction,
        "verdict": verdict(criterion, bounds),
    }


def section(records: Sequence[Result], *, digits: int = 2, unit: str = "") -> str:
    """The claims as a Markdown table and what follows; an empty text where there are none."""
    if not records:
        return ""
    rows = [
        (
            record["task"],
            record["against"],
            interval(record["interval"], digits),
            decimal(record["shown"], digits),
            record["verdict"],
        )
        for record in records
    ]
    unit = f", {unit}" if unit else ""
    head = ("task", "against", f"mixture less it{unit}", f"what the seeds can show{unit}")
    criteria = dict.fromkeys(record["criterion"] for record in records)
    return (
        f"{markdown_table((*head, 'a gain?'), rows)}\n\nFixed before the runs: "
        f"{' '.join(criteria)} The column of what the seeds can show has the true difference that "
        f"comes out as a gain in 80 % of all repetitions. {sentences(records)}"
    )


def sentences(records: Sequence[Result]) -> str:
    """One sentence per verdict: where the mixture helps, where it does not, where it is worse."""
    lines = []
    for outcome, text in WORDS.items():
        names = [f"{r['task']} against {r['against']}" for r in records if r["verdict"] == outcome]
        if names:
            lines.append(f"{text}: {'; '.join(names)}.")
    names = [f"{r['task']} against {r['against']}" for r in records if is_worse(r)]
    if names:
        lines.append(f"{WORSE}: {'; '.join(names)}.")
    return " ".join(lines)


def is_worse(record: Result) -> bool:
    """Whether the whole interval lies on the other side of 0."""
    low, high = record["interval"]["low"], record["interval"]["high"]
    if low is None or high is None:
        return False
    return high < 0 if record["direction"] == "greater" else low > 0
