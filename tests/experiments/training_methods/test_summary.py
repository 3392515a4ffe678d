"""What several runs show: stuck, unfinished and failed runs, and the passes to the level."""

import numpy as np
import pytest

from moe_np.experiments.training_methods.summary import median_of_reached, summarise
from tests.support.training_runs import made_up


def test_stuck_unfinished_failed_and_passes():
    joint = [(0.05, 0), (0.5, 0.09), (0.305, 0.3), (0.9, 0.6)]
    result = made_up(**{"one expert": [(1, 1)] * 4, "joint": joint})
    summary = summarise(result, "p")
    assert summary["level"] == pytest.approx(0.1)
    assert summary["alone"] == 1 and summary["best"] == 0
    values = summary["systems"]["joint"]
    # the last checkpoint is all there is of the last fifth
    assert (values["stuck"], values["unfinished"]) == (2, 0)
    assert values["reached"] == [10, 100, None, None]
    assert values["passes"] == 100 and values["seconds"] == pytest.approx(1)
    assert summary["systems"]["one expert"]["passes"] is None
    median = np.median([100, 95.5, 85, 70])
    assert summary["failure"] == pytest.approx((median + 50) / 2)
    assert values["failed"] == int((median + 50) / 2 > 70)


def test_stuck_is_told_from_unfinished_by_the_last_fifth():
    result = made_up(**{"one expert": [(1, 1)], "joint": [(0.5, 0)]})
    result["checkpoints"] = {name: [10, 80, 100] for name in result["checkpoints"]}
    for (run,) in result["systems"]["p"].values():
        early, final = run["losses"]
        run["losses"] = [early, 0.5 if final == 0 else 1, final]
    joint = result["systems"]["p"]["joint"]
    joint += [
        {**joint[0], "loss": 0.4, "losses": [1, 0.405, 0.4]},
        {**joint[0], "loss": 0.4, "losses": [1, 0.42, 0.4]},
    ]
    values = summarise(result, "p")["systems"]["joint"]
    assert (values["stuck"], values["unfinished"]) == (1, 1)


def test_without_one_expert_there_is_no_level():
    summary = summarise(made_up(joint=[(0.5, 0), (0.5, 0.2)]), "p")
    assert summary["level"] is summary["failure"] is summary["alone"] is None
    values = summary["systems"]["joint"]
    assert values["loss"]["mean"] == pytest.approx(0.1) and values["whole"] == pytest.approx(1)
    assert not {"stuck", "reached", "passes", "seconds"} & set(values)


def test_the_deviation_of_one_run_is_zero():
    values = summarise(made_up(joint=[(0.5, 0.25)]), "p")["systems"]["joint"]
    assert values["loss"] == {"mean": 0.25, "sd": 0.0}


def test_the_median_of_what_may_never_be_reached():
    assert median_of_reached([None, 5, 7]) == 7
    assert median_of_reached([None, None, 7]) is None
