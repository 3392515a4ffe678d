"""Controls with runs of their own: they come out in short runs too, and a failed one is told."""

import json

import numpy as np
import pytest

from moe_np.base.machine import one_blas_thread
from moe_np.experiments import why_it_works
from moe_np.experiments.common.controlled_claims import MUST_FAIL, MUST_HOLD, of_role
from moe_np.experiments.common.sweep import to_json
from moe_np.experiments.why_it_works import further_controls
from moe_np.experiments.why_it_works.experiment import QUESTIONS
from moe_np.experiments.why_it_works.further_controls import CONTROLS
from moe_np.experiments.why_it_works.questions import FIRST_SEED

FAST = ("learns", "k", "equal", "errors", "time", "start")


def values(question, role, n=2):
    """What the control with this role gives in n short runs."""
    (control,) = (c for c in CONTROLS[question] if c.role == role)
    with one_blas_thread():
        return [control.value(seed, True) for seed in range(n)]


def test_every_question_has_a_control_of_either_kind():
    own = {
        "help": {MUST_HOLD, MUST_FAIL},
        "learns": {MUST_FAIL},
        "harder": {MUST_FAIL},
        "collapse": {MUST_HOLD, MUST_FAIL},
        "k": {MUST_HOLD},
        "random": {MUST_HOLD, MUST_FAIL},
    }
    for name in QUESTIONS:
        roles = [control.role for control in CONTROLS.get(name, ())]
        assert {*roles, *own.get(name, ())} == {MUST_HOLD, MUST_FAIL}, name
        if roles:
            assert len(roles) == len(set(roles))


@pytest.mark.parametrize("question", FAST)
def test_values_lie_where_they_must(question):
    rule = QUESTIONS[question].criterion
    for control in CONTROLS[question]:
        found = np.mean(values(question, control.role, 30 if question == "start" else 3))
        assert (found > rule.smallest) == (control.role == MUST_HOLD), control.case


@pytest.mark.slow
def test_values_of_the_fits_by_em_lie_where_they_must():
    with one_blas_thread():
        assert further_controls.steps_on_the_right(1, False) >= 1
        stays = [further_controls.network_that_stays(seed, False) for seed in range(4)]
        grows = [further_controls.network_that_grows_more(seed, False) for seed in range(2)]
    assert np.mean(stays) > 0.1 > np.mean(grows)


def test_seeds_are_new_and_their_number_can_be_capped():
    specs = further_controls.specs("time", None, False)
    assert len(specs) == 50 and min(spec["seed"] for spec in specs) > FIRST_SEED + 5000
    assert len(further_controls.specs("time", 3, False)) == 6
    assert len(further_controls.specs("time", None, True)) == 4
    assert further_controls.specs("help", None, False) == []


def test_a_control_that_does_not_come_out_is_told():
    specs = [
        *({"task": "vowels", "seed": seed} for seed in range(3)),
        *further_controls.specs("time", None, True),
    ]
    run = {"a tenth": 10, "half": 40, "nine tenths": 90, "learned": 10, "epochs": 100, "bits": 1.0}
    run |= {"fallen": {"a tenth": 5, "half": 10, "nine tenths": 20}, "curve": [0.0, 1.0]}
    runs = [{**run, "half": 40 + i} for i in range(3)]
    for hold, verdict in ((1.0, "holds"), (-1.0, "cannot be told")):
        controls = [{"value": v} for v in (hold, hold + 1e-3, -1.0, -1.001)]
        answer = json.loads(to_json(why_it_works.summarise("time", specs, runs + controls)))
        assert answer["holds"] == verdict
        told = answer["verdict"].startswith("A control did not come out: must hold: patches")
        assert told == (verdict != "holds")
        assert len(of_role(answer["decisions"], MUST_HOLD)) == 1
