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
from moe_np.experiments.why_it_works.one_expert_or_two import CHOICES
from moe_np.experiments.why_it_works.questions import OTHER_SEED

FAST = ("k", "equal", "errors", "start")


def values(question, role, n=2):
    """What the control with this role gives in n short runs."""
    (control,) = (c for c in CONTROLS[question] if c.role == role)
    with one_blas_thread():
        return [control.value(seed, True) for seed in range(n)]


def test_every_question_has_a_control_of_either_kind():
    own = {
        "help": {MUST_HOLD, MUST_FAIL},
        "learns": {MUST_HOLD, MUST_FAIL},
        "idle": {MUST_HOLD, MUST_FAIL},
        "time": {MUST_HOLD, MUST_FAIL},
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
        flat = [further_controls.no_waves(seed, False) for seed in range(12)]
        net_stays = [further_controls.network_that_stays(seed, False) for seed in range(4)]
        taken_away = [further_controls.experts_taken_away(seed, False) for seed in range(8)]
    assert abs(np.mean(flat)) < 1.3
    assert np.mean(net_stays) > 0.1 > np.mean(taken_away)


def test_a_verdict_with_another_choice_has_all_controls():
    """Such a question judges its summary anew, in which the runs of further controls are not."""
    for name, question in QUESTIONS.items():
        assert question.sensitivity is None or name not in CONTROLS, name


def test_seeds_are_new_and_their_number_can_be_capped():
    specs = further_controls.specs("equal", None, False)
    assert len(specs) == 24 and min(spec["seed"] for spec in specs) == OTHER_SEED
    assert len(further_controls.specs("equal", 3, False)) == 6
    assert len(further_controls.specs("equal", None, True)) == 4
    assert further_controls.specs("help", None, False) == []


def test_a_control_that_does_not_come_out_is_told():
    specs = [
        *({"choice": choice, "seed": seed} for choice in CHOICES for seed in range(3)),
        *further_controls.specs("k", None, True),
    ]
    run = {"gradient": 1.0, "largest": 1.0, "bits": 1.0}
    errors = {"k = 1, renormalised": 3.0}
    runs = [
        {**run, "error": errors.get(spec["choice"], 1.0) * 1.01 ** spec["seed"] ** 2}
        for spec in specs
        if "choice" in spec
    ]
    for fails, verdict in ((-1.0, "holds under a condition"), (1.0, "cannot be told")):
        controls = [{"value": v} for v in (fails, fails + 1e-3)]
        answer = json.loads(to_json(why_it_works.summarise("k", specs, runs + controls)))
        assert answer["holds"] == verdict
        told = answer["verdict"].startswith("A control did not come out: must fail: told")
        assert told == (verdict == "cannot be told")
        assert len(of_role(answer["decisions"], MUST_FAIL)) == 1
