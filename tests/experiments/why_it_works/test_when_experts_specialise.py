"""Specialisation against learning: what stays for good, and which of the two is later."""

import numpy as np

from moe_np.experiments.why_it_works import when_experts_specialise


def test_for_good_means_never_below_again():
    curve = np.array([0.0, 0.9, 0.2, 0.6, 0.8, 1.0])
    assert (
        when_experts_specialise.for_good(curve, 0.5) == 3
        and when_experts_specialise.for_good(curve, 0.1) == 1
    )
    assert when_experts_specialise.for_good(curve + 1, 0.5) == 0


def verdict(half, learned, slowed=200, trained=1):
    """Of mean epochs of both tasks, and of both controls."""
    noise = np.random.default_rng(0).normal(size=10)
    shared = {"a tenth": 10, "nine tenths": 90, "epochs": 100, "bits": 1.0, "curve": [0, 1]}
    halves = {"vowels": half, "patches": half}
    halves |= {when_experts_specialise.SLOWED: slowed, when_experts_specialise.TRAINED: trained}
    specs = [{"task": task} for task in halves for _ in noise]
    fallen = {"a tenth": 20, "half": learned, "nine tenths": 30}
    shared |= {"learned": learned, "fallen": fallen}
    results = [{**shared, "half": middle + v} for middle in halves.values() for v in noise]
    summary = when_experts_specialise.time_summary(specs, results)
    holds, text = when_experts_specialise.time_verdict(summary)
    return holds, text + when_experts_specialise.time_sensitivity(summary)


def test_the_verdict_is_about_learning_and_not_about_the_length_of_the_run():
    holds, words = verdict(60, 30)
    assert holds == "holds" and "with 0.11, holds and with 0.44, holds" in words
    assert verdict(90, 90)[0] == "not supported", "late in the run, but not later than the task"
    assert verdict(30, 60)[0] == "not supported"


def test_nothing_is_told_where_a_control_fails_with_any_share():
    for controls in ({"slowed": 60}, {"trained": 200}):
        holds, words = verdict(60, 60, **controls)
        assert holds == "cannot be told" and words.startswith("A control did not come out")
    words = verdict(60, 30)[1]
    assert "With another share than half: with a tenth of both, cannot be told" in words


def test_controls_are_what_they_say():
    shared = {"seed": 0, "epochs": 60, "n": 500}
    plain = when_experts_specialise.time_run({**shared, "task": "patches"})
    slowed = when_experts_specialise.time_run({**shared, "task": when_experts_specialise.SLOWED})
    assert slowed["half"] == 2 * plain["half"] > 0 and slowed["learned"] == plain["learned"]
    spec = {**shared, "epochs": 1500, "task": when_experts_specialise.TRAINED}
    trained = when_experts_specialise.time_run(spec)
    assert trained["half"] < trained["learned"], "the gate begins as it ended"


def test_the_length_of_a_run_does_not_depend_on_what_it_reaches():
    spec = {"task": "vowels", "seed": 0, "epochs": 60, "n": 100}
    run = when_experts_specialise.time_run(spec)
    assert run["epochs"] == 60 and len(run["curve"]) == 7
