"""What the questions have in common: groups and means."""

import numpy as np

from moe_np.experiments.common.controlled_claims import (
    BESIDE,
    MUST_FAIL,
    MUST_HOLD,
    verdict_with_controls,
    words_of_controls,
)
from moe_np.experiments.why_it_works.questions import (
    grouped,
    mean_and_sd,
)


def test_groups_and_means():
    specs = [{"task": "b", "seed": 0}, {"task": "a", "seed": 0}, {"task": "b", "seed": 1}]
    groups = grouped(specs, [{"v": 1}, {"v": 5}, {"v": 3}], "task")
    assert list(groups.items()) == [(("b",), [{"v": 1}, {"v": 3}]), (("a",), [{"v": 5}])]
    assert mean_and_sd([1, 3]) == [2.0, np.sqrt(2)] and mean_and_sd([4]) == [4.0, 0.0]


def test_a_control_that_cannot_be_told_has_not_come_out():
    def decision(verdict, role=None):
        return {"case": role or "a case", "verdict": verdict, "role": role}

    cases = [decision("holds"), decision("not supported")]
    controls = [decision("holds", MUST_HOLD), decision("not supported", MUST_FAIL)]
    assert (
        verdict_with_controls([*cases, *controls, decision("holds", BESIDE)])
        == "holds under a condition"
    )
    assert words_of_controls([*cases, *controls]) == ""
    open_control = [*cases, controls[0], decision("cannot be told", MUST_FAIL)]
    assert verdict_with_controls(open_control) == "cannot be told"
    assert words_of_controls(open_control) == (
        "A control did not come out: must fail: must fail (cannot be told). "
    )
