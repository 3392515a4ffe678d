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


def verdict(half, learned):
    """Of mean epochs of both tasks."""
    noise = np.random.default_rng(0).normal(size=10)
    shared = {"a tenth": 10, "nine tenths": 90, "epochs": 100, "bits": 1.0, "curve": [0, 1]}
    specs = [{"task": task} for task in ("vowels", "patches") for _ in noise]
    fallen = {"a tenth": 20, "half": learned, "nine tenths": 30}
    shared |= {"learned": learned, "fallen": fallen}
    results = [{**shared, "half": half + v} for _ in range(2) for v in noise]
    summary = when_experts_specialise.time_summary(specs, results)
    holds, _ = when_experts_specialise.time_verdict(summary)
    return holds, when_experts_specialise.time_sensitivity(summary)


def test_the_verdict_is_about_learning_and_not_about_the_length_of_the_run():
    holds, words = verdict(60, 30)
    assert holds == "holds" and "with 0.11, holds and with 0.44, holds" in words
    assert verdict(90, 90)[0] == "not supported", "late in the run, but not later than the task"
    assert verdict(30, 60)[0] == "not supported"


def test_the_length_of_a_run_does_not_depend_on_what_it_reaches():
    spec = {"task": "vowels", "seed": 0, "epochs": 60, "n": 100}
    run = when_experts_specialise.time_run(spec)
    assert run["epochs"] == 60 and len(run["curve"]) == 7
