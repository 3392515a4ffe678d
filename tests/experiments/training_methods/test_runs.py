"""One run of a training method: curves, variety, budgets, and that its spec determines it."""

import json
import types

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments.common.sweep import to_json
from moe_np.experiments.training_methods import problems, runs

TINY = runs.Config(passes=24, longer=2)


def test_variety_by_hand():
    a = np.array([0, 0, 1, 1])
    b = np.array([0, 1, 0, 1])
    assert runs.variety([a, 3 - a]) == 0  # only the numbers differ
    # together under a: 01, 23; under b: 02, 13: four of the six pairs of cases disagree
    assert runs.variety([a, b]) == pytest.approx(100 * 4 / 6)
    assert runs.variety([a, b, a]) == pytest.approx(100 * 8 / 18)


def test_curves_hold_the_last_step_within_each_checkpoint():
    steps = [types.SimpleNamespace(number=n, passes=p) for n, p in enumerate([0, 3, 50, 90, 101])]
    kept = runs.sampled(iter(steps), 100)
    points = runs.checkpoints(100)
    assert len(kept) == runs.POINTS
    assert points[0] == pytest.approx(2) and points[-1] == pytest.approx(100)
    for point, step in zip(points, kept, strict=True):
        assert step.passes == max(s.passes for s in steps if s.passes <= point)
    late = runs.sampled(iter([types.SimpleNamespace(number=0, passes=500), steps[-1]]), 100)
    assert all(step.passes == 500 for step in late)  # the first step is never left out


@pytest.mark.parametrize(
    "system", ["joint", "separate, true regions", "REINFORCE", "evolution strategy"]
)
def test_a_run_is_its_spec(system):
    spec = runs.spec_of(TINY, "piecewise", system, 3)
    result = runs.run_one(spec)
    assert to_json(result) == to_json(runs.run_one(json.loads(json.dumps(spec))))
    assert result["loss"] != runs.run_one({**spec, "seed": 4})["loss"]
    assert len(result["losses"]) == runs.POINTS and result["losses"][-1] == result["loss"]
    assert result["passes"] <= 24
    assert ("tuned_loss" in result) == (system in runs.TUNED)


def test_what_the_experts_gain_is_theirs_alone(monkeypatch):
    gates = []
    train = runs.alternating.train

    def watched(*args, initial, **options):
        for step in train(*args, initial=initial, **options):
            gates.append(step.params["gate"] is initial["gate"])
            yield step

    monkeypatch.setattr(runs.alternating, "train", watched)
    result = runs.run_one(runs.spec_of(TINY, "piecewise", runs.PERMUTED, 3))
    assert len(gates) == 13 and all(gates) and result["tuned_loss"] < result["loss"]


def test_controls_are_the_methods_that_they_vary():
    joint, anew, slow = (
        runs.spec_of(TINY, "vowels", system, 3) for system in ("joint", runs.ANEW, runs.SLOW)
    )
    assert anew == {**joint, "system": runs.ANEW, "seed": 3 + runs.ANEW_FROM}
    assert slow == {**joint, "system": runs.SLOW, "knob": pytest.approx(joint["knob"] / 10)}
    permuted = runs.METHODS[runs.PERMUTED].options(problems.task("piecewise"), 24)["labels"]
    region = problems.task("piecewise").region
    assert (np.sort(permuted) == np.sort(region)).all() and (permuted != region).mean() > 0.5


def test_budgets():
    spec = runs.spec_of(TINY, "vowels", runs.LONGER, 0)
    assert spec["passes"] == 48 and runs.spec_of(TINY, "vowels", "joint", 0)["passes"] == 24
    assert runs.run_one(spec)["passes"] <= 50


def test_every_method_with_a_knob_has_a_value_on_every_problem():
    assert len(runs.Config().knobs) == 3 * len(runs.WITH_KNOB)
    assert set(runs.SYSTEMS) - set(runs.WITH_KNOB) == {"EM", "separate, true regions"}
    assert runs.spec_of(TINY, "vowels", "EM", 0)["knob"] is None
    tied = runs.spec_of(TINY, "vowels", "separate, true regions", 0)["knob"]
    assert tied == runs.spec_of(TINY, "vowels", "separate", 0)["knob"] == 1.0


@pytest.mark.parametrize(
    ("bad", "words"), [({"system": "hope"}, "system: wanted one of"), ({"problem": "x"}, "problem")]
)
def test_bad_specs(bad, words):
    with pytest.raises(InputError, match=words):
        runs.run_one({**runs.spec_of(TINY, "vowels", "joint", 0), **bad})


@pytest.mark.slow
def test_em_finds_the_lines_and_clusters_of_x_alone_do_not():
    ends = {}
    for system in ("EM", "separate"):
        results = [
            runs.run_one(runs.spec_of(runs.Config(), "piecewise", system, seed))
            for seed in range(3)
        ]
        ends[system] = [(r["loss"], r["quality"], r["specialisation"]) for r in results]
    for loss, quality, specialisation in ends["EM"]:
        assert loss < -0.57 and quality > 90 and specialisation > 90
    for loss, quality, specialisation in ends["separate"]:
        assert loss > -0.3 and quality < 80 and specialisation < 80
