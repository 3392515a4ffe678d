"""Removed, merged and added experts: what is trained, and words that follow the numbers."""

import pytest

from moe_np.experiments.changing_experts import experiment
from moe_np.experiments.changing_experts.report import report, verdict

SMOKE = experiment.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("changing_experts") as sweep:
        return experiment.run(SMOKE, sweep=sweep)


def test_all_ways_begin_with_the_same_model(result):
    first = {r["losses"]["0"] for r in result["runs"] if r["system"] in experiment.SMALLER}
    first |= {r["old"][0] for r in result["runs"] if r["system"] in experiment.LEARNING}
    assert len(first) == 1


def test_only_the_new_expert_and_the_router_are_trained(result):
    sizes = SMOKE.sizes
    trained = {s: result["summary"][s]["trained"] for s in experiment.LEARNING}
    expert = 3 * sizes.d_model * sizes.hidden
    assert trained[experiment.EXPERT_AND_ROUTER] == expert + sizes.d_model * (sizes.experts + 1)
    assert trained[experiment.EXPERT_ALONE] == expert + sizes.d_model
    assert trained[experiment.EVERYTHING] > 3 * trained[experiment.EXPERT_AND_ROUTER]


def test_the_differences_are_by_seed():
    by_system = {
        "loss": [{"losses": {"2": 3.0}}, {"losses": {"2": 4.0}}],
        "random": [{"losses": {"2": 3.5}}, {"losses": {"2": 4.5}}],
    }
    found = experiment.differences(by_system, SMOKE)
    assert found["loss less random"]["high"] == pytest.approx(-0.5)
    assert list(found) == ["loss less random"]


def test_the_words_follow_the_numbers(result):
    assert "Lu et al. 2024" in report(result)
    assert verdict({"low": -2, "high": -1}) == "holds"
    assert verdict({"low": 1, "high": 2}) == "the opposite holds"
    assert verdict({"low": -1, "high": 2}) == "cannot be told"
    assert verdict({"low": None, "high": None}) == "one seed cannot tell"
