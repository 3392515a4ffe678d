"""The verdicts on the claims under other thresholds."""

import pytest

from moe_np.experiments.training_methods import claims
from moe_np.experiments.training_methods.sensitivity import THRESHOLDS, sensitivity
from moe_np.experiments.training_methods.summary import DEFAULT
from tests.support.training_runs import summarised


@pytest.fixture
def result():
    """Joint training gets to a tenth of the way early, alternating training late, and to a
    twentieth neither does but at the end.
    """
    ends = {"joint": [(0.08, 0.0)] * 9, "alternating": [(0.5, 0.0)] * 9}
    result = summarised(**{"one expert": [(1, 1)] * 9, **ends})
    result["lines"] = dict.fromkeys(result["systems"]["p"], 1)
    result["claims"] = claims.claims(result)
    return result


def test_every_threshold_is_varied_and_in_both_directions():
    changed = [
        {name: value for name, value in t._asdict().items() if value != getattr(DEFAULT, name)}
        for t in THRESHOLDS.values()
    ]
    assert all(len(values) == 1 for values in changed)
    for name in ("level", "gain", "late"):
        values = [v[name] for v in changed if name in v]
        assert min(values) < getattr(DEFAULT, name) < max(values)


def test_a_verdict_that_hangs_on_a_threshold_is_named(result):
    assert [claim["verdict"] for claim in result["claims"]] == ["holds"]
    rows = {row["thresholds"]: row for row in sensitivity(result)}
    assert list(rows) == list(THRESHOLDS)
    at_a_twentieth = rows["level at a twentieth of the way"]
    assert at_a_twentieth["cells"] == at_a_twentieth["of"] == 1
    (changed,) = at_a_twentieth["changed"]
    assert changed["claim"] == "slower" and changed["verdict"] == "cannot be told"
    assert rows["stuck below twice the gain"]["cells"] == 0
