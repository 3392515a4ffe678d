"""The load-balancing losses of Shazeer et al. 2017, on and off."""

import dataclasses
import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments import shazeer2017
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.shazeer2017 import experiment
from moe_np.experiments.shazeer2017.experiment import PAPER, SEEDS, SMOKE, Config
from moe_np.layers import balance
from moe_np.models.associative_memory import Forward
from moe_np.routing import noisy_top_k

TINY = SMOKE["config"]


@pytest.fixture
def sweep():
    with Sweep(jobs=1, progress=False) as runs:
        yield runs


def test_the_rows_of_table_6_are_the_runs():
    assert [row[:2] for row in PAPER["table6"]] == list(Config().weights)
    assert set(Config().centred) <= set(Config().weights)


def test_a_weight_of_zero_is_no_loss():
    spec = experiment.spec_of(TINY, (0, 0.2), 0.0, 1)
    setup = experiment.setup_of(spec)
    assert setup.router is noisy_top_k and setup.options == {"k": 2, "noise_epsilon": 1e-2}
    rng = np.random.default_rng(0)
    params, x = noisy_top_k.init(rng, 6, 6, scale=1.0), rng.normal(size=(20, 6))
    routing, cache = noisy_top_k.route(params, x, **setup.options, rng=rng)
    importance, load = balance.importance(routing), balance.load(cache)

    def pairs(weights):
        losses = experiment.setup_of({**spec, "weights": weights}).losses
        return [(w, loss.value) for w, loss in losses(Forward(routing, cache, None))]

    assert pairs((0, 0)) == []
    assert pairs((0, 0.2)) == [(0.2, load.value)]
    assert pairs((0.2, 0)) == [(0.2, importance.value)]
    assert pairs((1, 0.1)) == [(1, importance.value), (0.1, load.value)]


def test_evenness_by_hand():
    """Without noise the load is a count; with noise it is eq. (10), whose sum is k per token on
    average.
    """
    rng = np.random.default_rng(0)
    setup = experiment.setup_of(experiment.spec_of(TINY, (0, 0), 0.0, 0))
    params = {"router": noisy_top_k.init(rng, 6, 6, scale=1.0)}
    keys = rng.normal(size=(500, 6))
    measured = experiment.evenness(setup, params, keys, None)
    logits = keys @ params["router"]["w"]
    two = np.argsort(-logits, axis=1)[:, :2]
    count = np.bincount(two.ravel(), minlength=6)
    assert measured["cv_load"] == pytest.approx(count.std() / count.mean())
    assert measured["max_mean"] == pytest.approx(count.max() / count.mean())
    e = np.exp(np.take_along_axis(logits, two, axis=1))
    weights = np.bincount(two.ravel(), (e / e.sum(axis=1, keepdims=True)).ravel(), minlength=6)
    assert measured["cv_importance"] == pytest.approx(weights.std() / weights.mean())
    zero = {"router": {k: 0 * p for k, p in params["router"].items()}}
    noisy = experiment.evenness(setup, zero, keys, np.random.default_rng(1))
    assert noisy["cv_load"] < 0.1  # a gate that has learned nothing, made even by its noise
    ties = experiment.evenness(setup, zero, keys, None)  # all tokens go to experts 0 and 1
    assert ties["cv_load"] == pytest.approx(np.sqrt(2))


def test_a_run_is_its_spec():
    spec = experiment.spec_of(TINY, (0.1, 0.1), 2.0, 5)
    result = experiment.run_one(spec)
    assert to_json(result) == to_json(experiment.run_one(json.loads(json.dumps(spec))))
    for change in ({"seed": 6}, {"weights": [0, 0]}, {"common": 0.0}):
        assert result != experiment.run_one({**spec, **change})
    assert set(result) == {"with noise", "without noise"}
    assert result["with noise"] != result["without noise"]


def test_the_result_and_its_report(sweep):
    result = shazeer2017.run(TINY, seeds=2, sweep=sweep)
    rows = [(tuple(row["weights"]), row["common"]) for row in result["rows"]]
    assert rows == experiment.cases(TINY)
    row = result["rows"][3]
    values = [run["with noise"]["cv_load"] for run in row["runs"]]
    summary = row["summary"]["with noise"]["cv_load"]
    assert summary["mean"] == pytest.approx(np.mean(values))
    assert summary["sd"] == pytest.approx(np.std(values, ddof=1))
    fewer = shazeer2017.run(TINY, seeds=1, sweep=sweep)
    for a, b in zip(fewer["rows"], result["rows"], strict=True):
        assert a["runs"] == b["runs"][:1]
    for record in (fewer, result):
        text = shazeer2017.report(json.loads(to_json(record)))
        for published in PAPER["table6"]:
            assert f"| {published[2]:g} / " in text and f"| {published[5]:g} / " in text
        assert text.count("| 0.1, 0.1 |") == 2 and "What does not" in text


def test_quick_is_shorter_and_seeds_are_checked():
    quick = shazeer2017.specs(quick=True)
    assert len(quick) == len(experiment.cases(Config())) == 8
    assert all(spec["epochs"] == 1 and spec["seed"] == 0 for spec in quick)
    assert len(shazeer2017.specs()) == 8 * SEEDS
    with pytest.raises(InputError, match="seeds: wanted a whole number"):
        shazeer2017.specs(seeds=0)
    with pytest.raises(InputError, match="only: wanted nothing"):
        shazeer2017.specs(only=("noise",))


@pytest.mark.slow
def test_without_a_loss_few_experts_work_and_less_is_remembered(sweep):
    config = dataclasses.replace(Config(), weights=((0, 0), (0.1, 0.1)), centred=((0, 0),))
    results = sweep.map(experiment.run_one, shazeer2017.specs(config, seeds=1))
    none, some, centred = (result["without noise"] for result in results)
    assert none["cv_load"] > 1 and none["max_mean"] > 4
    assert some["cv_load"] < 0.2 and some["max_mean"] < 1.4
    assert none["perplexity"] > 1.3 * some["perplexity"]
    assert centred["cv_load"] < 0.7  # without anything in common the gate does not collapse
