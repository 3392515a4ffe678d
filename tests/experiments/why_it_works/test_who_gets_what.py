"""Who takes what: which source of chance explains it."""

import numpy as np
import pytest

from moe_np.experiments.why_it_works import who_gets_what


def test_what_is_explained_is_beyond_what_is_kept_with_nothing():
    noise = 0.02 * np.random.default_rng(0).normal(size=10)
    specs = [{"task": "vowels", "scale": 0.5, "seed": seed} for seed in range(10)]
    results = [{"experts": 0.2, "gate": 1.0, "nothing": 0.2 + value} for value in noise]
    (cell,) = who_gets_what.start_summary(specs, results)
    assert cell["n"] == 10 and cell["explained"]["gate"] == pytest.approx(1)
    assert cell["explained"]["experts"] == pytest.approx(0, abs=0.02)
    assert cell["se"]["gate"] == pytest.approx(noise.std(ddof=1) / 10**0.5 / 0.8, rel=0.02)
    holds, words = who_gets_what.start_verdict([cell])
    assert holds == "holds" and "it holds for vowels at 0.5. That it decides more" in words
    assert words.endswith("another source: it holds for vowels at 0.5, gate against experts.")
    follows_experts = [{**result, "gate": 0.2, "experts": 1.0} for result in results]
    summary = who_gets_what.start_summary(specs, follows_experts)
    assert who_gets_what.start_verdict(summary)[0] == "not supported"
