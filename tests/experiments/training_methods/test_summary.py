"""What several runs show: stuck, unfinished and failed runs, and the passes to the level."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments.training_methods.runs import LONGER
from moe_np.experiments.training_methods.summary import (
    Thresholds,
    median_of_reached,
    summarise,
)
from tests.support.training_runs import made_up


def test_stuck_unfinished_failed_and_passes():
    joint = [(0.05, 0), (0.5, 0.09), (0.305, 0.3), (0.9, 0.6)]
    result = made_up(**{"one expert": [(1, 1)] * 4, "joint": joint})
    summary = summarise(result, "p")
    assert summary["best"] == np.median([0, 0.09, 0.3, 0.6]) and summary["alone"] == 1
    assert summary["level"] == pytest.approx(0.195 + 0.1 * 0.805)
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
    joint += [joint[0]] * 2  # the median is 0
    values = summarise(result, "p")["systems"]["joint"]
    assert (values["stuck"], values["unfinished"]) == (1, 1)


def test_the_level_does_not_hang_on_the_single_best_run():
    ends = {"one expert": [(1, 1)] * 3, "joint": [(1, 0.4), (1, 0.2), (1, 0.3)]}
    level = summarise(made_up(**ends), "p")["level"]
    assert level == pytest.approx(0.3 + 0.07)
    lucky = made_up(**{**ends, "joint": [(1, 0.4), (1, -5), (1, 0.3)]})
    assert summarise(lucky, "p")["level"] == level
    assert summarise(lucky, "p", Thresholds(best="single run"))["level"] == pytest.approx(-4.4)


def test_the_level_may_leave_out_a_larger_budget():
    ends = {"one expert": [(1, 1)] * 3, "joint": [(1, 0.3)] * 3, LONGER: [(1, -1)] * 3}
    result = made_up(**ends, **{"separate, true regions": [(1, -2)] * 3})
    assert summarise(result, "p")["best"] == -2
    assert summarise(result, "p", Thresholds(best="median of equal budget"))["best"] == 0.3
    with pytest.raises(InputError, match=r"thresholds\.best: wanted one of median"):
        summarise(result, "p", Thresholds(best="mean"))


def test_thresholds_move_what_is_stuck_and_where_the_level_is():
    result = made_up(**{"one expert": [(1, 1)] * 3, "joint": [(0.5, 0.0), (0.505, 0.5), (1, 0.0)]})
    stuck = {
        gain: summarise(result, "p", Thresholds(gain=gain))["systems"]["joint"]["stuck"]
        for gain in (0.001, 0.02)
    }
    assert stuck == {0.001: 1, 0.02: 1}, "the last checkpoint is all there is of the last fifth"
    early = Thresholds(gain=0.001, late=0.05)
    assert summarise(result, "p", early)["systems"]["joint"]["unfinished"] == 1
    assert summarise(result, "p", Thresholds(level=0.6))["systems"]["joint"]["stuck"] == 0


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
