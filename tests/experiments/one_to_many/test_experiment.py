"""The inverse problem: results, verdicts of the report, and what net and mixture predict."""

import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.machine import one_blas_thread
from moe_np.experiments import one_to_many
from moe_np.experiments.common.sweep import to_json
from moe_np.experiments.one_to_many.runs import BEST, EM, FIRST, LINE, MODELS, NET, spec_of

SHORT = one_to_many.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("one_to_many") as sweep:
        return one_to_many.run(sweep=sweep, **one_to_many.SMOKE)


def test_a_result_has_what_the_contract_says(result):
    assert json.loads(to_json(result)) == json.loads(to_json(result))
    assert result["name"] == "one_to_many" and result["seeds"] == [0, 1] and result["paper"] == {}
    for run in result["runs"]:
        assert tuple(run["systems"]) == MODELS
        for measures in run["systems"].values():
            assert all(np.isfinite(v) for v in measures.values())
            assert measures["log likelihood"] < run["exact"]
            assert measures["mean, distance"] >= 0 and 0 <= measures["mode, impossible"] <= 100
        line = run["systems"][LINE]
        assert line["mean, error"] == line["mode, error"]
        best, first = (run["systems"][name] for name in (BEST, FIRST))
        assert best != first or run["starts at the best"] >= 0.5
    text = one_to_many.report(result)
    assert text.count("| mode |") == 4 and "the exact density" in text and "nats per case" in text


def test_a_run_is_its_spec(result):
    spec = spec_of(SHORT, 1)
    with one_blas_thread():  # as a sweep runs it: two threads add up in another order
        repeated = one_to_many.run_one(json.loads(json.dumps(spec)))
    assert repeated == result["runs"][1]


def test_verdicts_come_from_the_numbers(result):
    swapped = json.loads(to_json(result))
    for run in swapped["runs"]:
        systems = run["systems"]
        systems[NET], systems[BEST] = systems[BEST], systems[NET]
    swapped["summary"] = one_to_many.summarise(swapped["runs"])
    text = one_to_many.report(swapped)
    assert "likelier model in 0 of 2 seeds" in text and "run away" not in text
    swapped["runs"][0]["systems"][NET]["mean, error"] = 1234.0
    text = one_to_many.report(swapped)
    assert "In 1 of 2 seeds the net's test error is above twice that of a line (up to 1" in text


def test_seeds_are_checked_and_there_are_no_systems_to_select():
    assert len(one_to_many.specs()) == 25 and len(one_to_many.specs(quick=True)) == 5
    with pytest.raises(InputError, match="seeds: wanted a whole number"):
        one_to_many.specs(seeds=0)
    with pytest.raises(InputError, match="one run of this experiment holds all systems"):
        one_to_many.specs(only=(NET,))


@pytest.mark.slow
def test_the_mixture_answers_with_a_branch_and_the_net_between_them():
    spec = spec_of(one_to_many.Config(restarts=4), 0)
    with one_blas_thread():
        run = one_to_many.run_one(spec)
    net, best, by_em = (run["systems"][name] for name in (NET, BEST, EM))
    assert best["log likelihood"] > net["log likelihood"] + 0.4
    assert abs(best["log likelihood"] - by_em["log likelihood"]) < 0.02  # two methods, one maximum
    assert best["mode, impossible"] < 10 < 20 < net["mean, impossible"]
    assert best["mode, distance"] < 0.5 * net["mean, distance"]
    assert net["mean, error"] < best["mode, error"]  # squared error asks for the mean
    assert run["forward"] > 0.85 > 0.7 > run["inverse"]
