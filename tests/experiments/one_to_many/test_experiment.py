import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.machine import one_blas_thread
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.one_to_many import experiment

SHORT = experiment.Config(n_train=120, n_test=200, restarts=2, rounds=2, max_iter=60)


@pytest.fixture(scope="module")
def result():
    with Sweep(jobs=1, progress=False) as sweep:
        return experiment.run(SHORT, seeds=2, sweep=sweep)


def test_a_result_has_what_the_contract_says(result):
    assert json.loads(to_json(result)) == json.loads(to_json(result))
    assert result["name"] == "one_to_many" and result["seeds"] == [0, 1] and result["paper"] == {}
    for run in result["runs"]:
        assert set(run["systems"]) == set(experiment.SYSTEMS)
        for one in run["systems"].values():
            assert all(np.isfinite(v) for v in one.values())
            assert one["log likelihood"] < run["exact"]
            assert one["mean, distance"] >= 0 and 0 <= one["mode, impossible"] <= 100
        line = run["systems"]["straight line"]
        assert line["mean, error"] == line["mode, error"]
        best, first = (run["systems"][name] for name in (experiment.BEST, experiment.SYSTEMS[2]))
        assert best != first or run["starts at the best"] >= 0.5
    table = experiment.table(result)
    assert table.count("| mode |") == 4 and "the exact density" in table and "nats a case" in table


def test_a_run_is_its_spec(result):
    spec = experiment.spec_of(SHORT, 1)
    with one_blas_thread():  # as a sweep runs it: two threads add up in another order
        again = experiment.run_one(json.loads(json.dumps(spec)))
    assert again == result["runs"][1]


def test_verdicts_come_from_the_numbers(result):
    swapped = json.loads(to_json(result))
    for run in swapped["runs"]:
        run["systems"]["net"], run["systems"][experiment.BEST] = (
            run["systems"][experiment.BEST],
            run["systems"]["net"],
        )
    swapped["summary"] = experiment.summarise(swapped["runs"])
    assert "likelier model in 0 of 2 seeds" in experiment.table(swapped)


@pytest.mark.slow
def test_the_mixture_answers_with_a_branch_and_the_net_between_them():
    spec = experiment.spec_of(experiment.Config(restarts=4), 0)
    with one_blas_thread():
        run = experiment.run_one(spec)
    net, best = run["systems"]["net"], run["systems"][experiment.BEST]
    assert best["log likelihood"] > net["log likelihood"] + 0.4
    by_em = run["systems"][experiment.EM]
    assert abs(best["log likelihood"] - by_em["log likelihood"]) < 0.02  # two methods, one maximum
    assert best["mode, impossible"] < 10 < 20 < net["mean, impossible"]
    assert best["mode, distance"] < 0.5 * net["mean, distance"]
    assert net["mean, error"] < best["mode, error"]  # squared error asks for the mean
    assert run["forward"] > 0.85 > 0.7 > run["inverse"]


def test_seeds_are_checked():
    with (
        Sweep(jobs=1, progress=False) as sweep,
        pytest.raises(InputError, match="seeds: wanted a whole number"),
    ):
        experiment.run(SHORT, seeds=0, sweep=sweep)
