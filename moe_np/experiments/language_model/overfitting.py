"""Training on two books for many epochs: when the held-out loss begins to rise, and how far.

Criterion, fixed before the runs: a system of experts *overfits more* than the dense model of equal
operations where the 95 % interval of the paired difference of their rises lies above 0, and *less*
where it lies below. The rise is the last held-out loss minus the least one. The control is the
training on the whole text, in which a rise has to be next to nothing.
"""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import interval, markdown_table, mean_sd
from moe_np.experiments.common.statistics import describe, paired_interval
from moe_np.experiments.common.verdicts import side_of_0
from moe_np.experiments.language_model.runs import DENSE, TWO_BOOKS

HEAD = ("system", "parameters, million", "epochs", "least held-out loss", "at epoch")
HEAD += ("rise of it until the end", "training loss at the end", "rise, difference to dense")


def rise(run: Result) -> float:
    """The last held-out loss minus the least one, in nats per token."""
    return run["validation"][-1] - min(run["validation"])


def best_epoch(run: Result) -> float:
    """The epoch of the least held-out loss."""
    least = run["validation"].index(min(run["validation"]))
    return run["epochs"] * run["tokens"][least] / run["tokens"][-1]


def overfitting(by_system: dict[str, list[Result]]) -> dict:
    """{system: what is printed of it}; the difference to the dense model is None without one."""
    records = {}
    for system, runs in by_system.items():
        dense = by_system.get(f"{DENSE}, two books" if system in TWO_BOOKS else DENSE)
        compared = dense and system not in (DENSE, f"{DENSE}, two books")
        rises = [rise(run) for run in runs]
        against = paired_interval(rises, [rise(run) for run in dense]) if compared else None
        records[system] = {
            "parameters": runs[0]["parameters"],
            "epochs": runs[0]["epochs"],
            "least": describe([min(run["validation"]) for run in runs]).record("mean", "sd"),
            "at": describe([best_epoch(run) for run in runs]).record("mean", "sd"),
            "rise": describe(rises).record("mean", "sd"),
            "training": describe([run["training"][-1] for run in runs]).record("mean", "sd"),
            "against dense": against.record() if against else None,
        }
    return records


def overfitting_table(result: Result) -> str:
    """A row per system; the systems on the whole text are the control."""
    rows = [
        (
            system,
            f"{ours['parameters'] / 1e6:.2f}",
            f"{ours['epochs']:.1f}",
            mean_sd(ours["least"], 3),
            mean_sd(ours["at"], 1),
            mean_sd(ours["rise"], 3),
            mean_sd(ours["training"], 3),
            interval(ours["against dense"], 3),
        )
        for system, ours in result["overfitting"].items()
    ]
    return markdown_table(HEAD, rows)


def what_overfits(result: Result) -> str:
    """The answer by the criterion."""
    sentences = []
    for system, layer in TWO_BOOKS.items():
        difference = result["overfitting"].get(system, {}).get("against dense")
        if difference:
            sentences.append(
                f"On two books {layer} {verdict(difference)} the dense model of equal operations "
                f"(difference of the rises {interval(difference, 3)} nats)."
            )
    return "**Overfitting.** " + " ".join(sentences) if sentences else ""


def verdict(difference: Result) -> str:
    """By the criterion, from an interval's record."""
    return side_of_0(
        difference,
        negative="overfit less than",
        positive="overfit more than",
        neither="cannot be told from",
        single="cannot be told from",
    )
