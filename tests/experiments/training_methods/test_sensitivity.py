"""The verdicts on the claims under other thresholds."""

import pytest

from moe_np.experiments.training_methods import claims
from moe_np.experiments.training_methods.runs import ANEW, PROBLEMS, SLOW
from moe_np.experiments.training_methods.seed_ranges import passes
from moe_np.experiments.training_methods.sensitivity import THRESHOLDS, sensitivity
from moe_np.experiments.training_methods.summary import DEFAULT, summarise
from tests.support.training_runs import everywhere, with_summary


@pytest.fixture
def result():
    """Joint training gets to a tenth of the way early, alternating training late, and to a
    twentieth neither does but at the end.
    """
    ends = {"joint": [(0.08, 0.0)] * 9, "alternating": [(0.5, 0.0)] * 9}
    ends |= {"one expert": [(1, 1)] * 9, ANEW: ends["joint"], SLOW: [(0.6, 0.0)] * 9}
    result = with_summary(everywhere(PROBLEMS, ends))
    return {**result, "claims": claims.claims(result)}


def test_every_threshold_is_varied_and_in_both_directions():
    changed = [
        {name: value for name, value in t._asdict().items() if value != getattr(DEFAULT, name)}
        for t in THRESHOLDS.values()
    ]
    assert all(len(values) == 1 for values in changed)
    levels = [v["level"] for v in changed if "level" in v]
    assert min(levels) < DEFAULT.level < max(levels)
    ceilings = [v["ceiling"] for v in changed if "ceiling" in v]
    assert min(ceilings) < DEFAULT.ceiling < max(ceilings)


def test_a_verdict_that_hangs_on_a_threshold_is_named(result):
    assert [answer["verdict"] for answer in result["claims"].values()] == ["holds"]
    rows = {row["thresholds"]: row for row in sensitivity(result)}
    assert list(rows) == list(THRESHOLDS)
    at_a_twentieth = rows["level at a twentieth of the way"]
    # of six cases and two controls the one that must fail stays as it was
    assert (at_a_twentieth["cells"], at_a_twentieth["of"]) == (7, 8)
    (changed,) = at_a_twentieth["changed"]
    assert changed == {"claim": claims.SLOWER.claim, "verdict": "cannot be told"}
    assert rows["level at a fifth"]["cells"] == 0


def test_the_ceiling_bounds_what_is_not_known():
    """How many passes a run needs at most that misses the level."""
    ends = {"joint": [(0.5, 0.5)] * 9, "alternating": [(0.5, 0.0)] * 9}
    ends |= {"one expert": [(1, 1)] * 9, ANEW: ends["joint"], SLOW: [(0.6, 0.0)] * 9}
    result = with_summary(everywhere(PROBLEMS, ends))
    problem = PROBLEMS[0]
    for ceiling in (3, 30):
        thresholds = DEFAULT._replace(ceiling=ceiling)
        under = {**result, "summary": {problem: summarise(result, problem, thresholds)}}
        found = passes(under, problem, "joint")
        assert (found.greatest == ceiling * found.least).all()
