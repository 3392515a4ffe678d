"""Words on the results of the comparison of training methods."""

from moe_np.experiments.training_methods.report import above_level_and_good
from tests.support.training_runs import summarised


def test_joint_training_is_not_compared_with_itself():
    ends = {"one expert": 1, "joint": 0.7, "EM": 0.7, "ES": 0}
    result = summarised(**{system: [(loss, loss)] * 3 for system, loss in ends.items()})
    systems = result["summary"]["p"]["systems"]
    assert not above_level_and_good(systems, "joint", 3)
    assert above_level_and_good(systems, "EM", 3)
    assert not above_level_and_good(systems, "ES", 3)
