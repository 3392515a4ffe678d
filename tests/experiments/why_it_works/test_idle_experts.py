"""Experts that contribute nothing: counted, and what is lost without them."""

import numpy as np
import pytest

from moe_np.experiments.why_it_works import idle_experts
from moe_np.mixtures import jacobs1991


def verdict(four, eight, needed=0, shut_out=2):
    """Of the number of idle experts in ten runs each."""
    values = zip(idle_experts.EXPERTS, (four, eight, needed, shut_out), strict=True)
    specs, results = [], []
    for task, idle in values:
        for i in range(10):
            specs.append({"task": task, "seed": i})
            extra = i == 0 and task in ("4 experts", "8 experts")
            results.append({"idle": idle + extra, "in use": 2, "without the idle": 0.001})
    return idle_experts.idle_verdict(idle_experts.idle_summary(specs, results))


def test_the_verdict_changes_with_the_numbers():
    holds, words = verdict(2, 6)
    assert holds == "holds" and "the squared error changes by +0.0010" in words
    assert verdict(0, 6)[0] == "holds under a condition"
    assert verdict(0, 0)[0] == "cannot be told", "one run of ten with an idle expert"
    for controls in ({"needed": 1}, {"shut_out": 0}):
        holds, words = verdict(2, 6, **controls)
        assert holds == "cannot be told" and words.startswith("A control did not come out")


@pytest.mark.seconds
def test_runs_of_the_controls():
    needed, shut_out = (
        idle_experts.idle_run({"task": task, "seed": 0}) for task in idle_experts.ROLES
    )
    assert needed == {"idle": 0, "in use": 2, "without the idle": 0}
    assert shut_out["idle"] == 2 and abs(shut_out["without the idle"]) < 1e-6


def test_without_an_expert_the_others_share_its_part(monkeypatch):
    """Of two equal experts, one does the work of both; with one that is in use taken away, an error
    by hand.
    """
    params = jacobs1991.init_mixture(np.random.default_rng(0), 2)
    params["W"][1], params["b"][1] = params["W"][0], params["b"][0]
    data = idle_experts.vowels()
    both, one = (idle_experts._error(data, params, np.array(kept)) for kept in ([1, 1], [1, 0]))
    assert both == pytest.approx(one, abs=1e-15)
    y = jacobs1991.predict(params, data.x_train)
    assert both == pytest.approx(((data.d_train - y) ** 2).mean())
