"""The verdicts on the claims under other thresholds: the same runs, summarised anew."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.training_methods.claims import claims
from moe_np.experiments.training_methods.summary import DEFAULT, summarise

THRESHOLDS = {  # in words -> thresholds of which one is not the default
    "level at a twentieth of the way": DEFAULT._replace(level=0.05),
    "level at a fifth": DEFAULT._replace(level=0.2),
    "the way begins at the best method of equal budget": DEFAULT._replace(
        best="median of equal budget"
    ),
    "the way begins at the single best run": DEFAULT._replace(best="single run"),
    "a run that misses the level needs at most 3 times its budget": DEFAULT._replace(ceiling=3),
    "at most 30 times": DEFAULT._replace(ceiling=30),
}


def sensitivity(result: Result) -> list[Result]:
    """The claims whose verdict changes under each of the other thresholds.

    result   of `experiment.run`, with its claims
    -> [{"thresholds": in words, "cells": how many decisions change their verdict, "of": how many
    there are, "changed": [{"claim", "verdict"}]}]
    """
    rows = []
    for words, thresholds in THRESHOLDS.items():
        summaries = {p: summarise(result, p, thresholds) for p in result["systems"]}
        under = claims({**result, "summary": summaries})
        pairs = [(claim, under[key]) for key, claim in result["claims"].items()]
        cells = [
            before["verdict"] != after["verdict"]
            for claim, other in pairs
            for before, after in zip(claim["decisions"], other["decisions"], strict=True)
        ]
        changed = [
            {name: other[name] for name in ("claim", "verdict")}
            for claim, other in pairs
            if claim["verdict"] != other["verdict"]
        ]
        row = {"thresholds": words, "cells": sum(cells), "of": len(cells), "changed": changed}
        rows.append(row)
    return rows
