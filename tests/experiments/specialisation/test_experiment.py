"""The specialisation experiment: its claims by hand, its tables, and the models it keeps."""

import json

import pytest

from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.specialisation import experiment, runs
from moe_np.experiments.specialisation.report import published_repetition, report

SMOKE = experiment.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("specialisation") as sweep:
        return json.loads(to_json(experiment.run(SMOKE, sweep=sweep))), sweep.store


def test_every_measure_has_a_value_per_layer(result):
    for run in result[0]["runs"]:
        of_layers = [run["load_cv"], run["co_activation"], run["top_tokens"]["layers"]]
        of_layers += [*run["vocabulary"].values(), *run["saturation"]["values"]]
        of_layers += [rows for kinds in run["repetition"].values() for rows in kinds.values()]
        of_layers += [
            row for name in ("co-activation", "next token") for row in run["checkpoints"][name]
        ]
        assert {len(rows) for rows in of_layers} == {SMOKE.layers}
        assert run["saturation"]["steps"] == [3, 6]
        assert run["saturation"]["values"][-1] == [1.0, 1.0]


def test_means_over_seeds_have_the_structure_of_a_run():
    trees = [{"a": [1.0, {"b": 2.0}]}, {"a": [3.0, {"b": 2.0}]}]
    got = runs.averaged(trees)
    assert got["a"][0] == {"mean": 2.0, "sd": pytest.approx(2**0.5)}
    assert got["a"][1]["b"] == {"mean": 2.0, "sd": 0.0}


def test_a_domain_is_divided_among_the_experts(result):
    (one, three) = (result[0]["runs"][i] for i in (0, 1))
    assert one["domains"] is None and list(one["repetition"]) == ["English"]
    assert list(three["repetition"]) == ["English", "Spanish", "chorales"]
    for layer in three["domains"]:
        for shares in layer["shares"]:
            assert sum(shares) == pytest.approx(2)
        highest = sum(max(shares) for shares in layer["shares"]) / 3
        assert layer["value"] == pytest.approx(highest, abs=0.01)


def test_models_are_stored_and_found_again(result):
    numbers, store = result
    states = sorted((store / "models").rglob("state.safetensors"))
    assert len(states) == 4
    times = [path.stat().st_mtime_ns for path in states]
    for path in store.rglob("*.json"):
        if "models" not in path.parts:
            path.unlink()  # the results, not the models
    with Sweep(store, jobs=1, progress=False) as sweep:
        again = experiment.run(SMOKE, sweep=sweep)
    assert json.loads(to_json(again["runs"])) == numbers["runs"]
    assert [path.stat().st_mtime_ns for path in states] == times


def repeated(value, by_loads):
    return {"value": value, "by_loads": by_loads}


def run_of(saturation):
    return {
        "repetition": {"English": {"first": [repeated(0.2, 0.15), repeated(0.4, 0.25)]}},
        "saturation": {"steps": [100, 200, 300, 500], "values": saturation},
        "vocabulary": {
            "predicted": [{"value": 0.5, "permuted": 0.4}, {"value": 0.9, "permuted": 0.5}]
        },
        "domains": [{"value": 0.9, "by_words": 0.5}, {"value": 0.8, "by_words": 0.6}],
    }


def test_what_the_criteria_are_of():
    run = run_of([[0.1, 0.2], [0.3, 0.7], [0.5, 0.6], [1.0, 1.0]])
    assert experiment.measured("repetition", run) == pytest.approx(0.15 - 0.05)
    assert experiment.measured("saturation", run) == pytest.approx(0.7 - 0.3)  # 200 is 40 % of 500
    assert experiment.measured("prediction", run) == pytest.approx(0.4 - 0.1)
    assert experiment.measured("domains", run) == pytest.approx((0.4 + 0.2) / 2)


def test_verdicts_follow_the_seeds():
    rows = [[0.1, 0.2], [0.3, 0.7], [0.5, 0.6], [1.0, 1.0]]
    turned = [[0.1, 0.2], [0.7, 0.3], [0.5, 0.6], [1.0, 1.0]]
    holds = experiment.claims({runs.ONE: [run_of(rows), run_of(rows)]})
    assert holds["saturation"]["verdict"] == "holds"
    assert "domains" not in holds
    assert experiment.claims({runs.ONE: [run_of(turned)] * 2})["saturation"]["verdict"] == (
        "not supported"
    )
    mixed = experiment.claims({runs.ONE: [run_of(rows), run_of(turned)]})
    assert mixed["saturation"]["verdict"] == "cannot be told"
    assert list(experiment.claims({runs.THREE: [run_of(rows)]})) == ["domains"]


def test_the_report_has_ours_beside_theirs(result):
    text = report(result[0])
    assert "| Gutenberg | 13.9 | 26.1 | 26.3 | 49.5 | 63.1 | 52.2 |" in text
    assert "published, picked by hand: expert 752" in text
    assert "Who takes what" in text and "by its vocabulary alone" in text
    assert text.count("cannot be told") >= 1 or "holds" in text


def test_not_all_published_repetitions_are_above_chance():
    """What the note under the table says: 1 − (6/8)(5/7) = 46.4 %, and one value is below."""
    by_chance = 100 * (1 - 6 / 8 * 5 / 7)
    higher = {
        (text, layer): second[i]
        for text, (_, second) in runs.PAPER["mixtral"].items()
        for i, layer in ((1, 15), (2, 31))
    }
    below = {place: value for place, value in higher.items() if value < by_chance}
    assert below == {("DM Mathematics", 31): 44.5}
    assert "DM Mathematics has 44.5 at layer 31" in published_repetition()


def test_tokens_are_shown_with_signs_for_what_cannot_be_seen():
    assert runs.shown(" the\n") == "·the¶"
