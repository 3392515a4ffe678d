"""The runs of the router zoo, its result and its report."""

import dataclasses
import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments import router_zoo
from moe_np.experiments.common.statistics import t_interval
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.router_zoo import experiment
from moe_np.experiments.router_zoo.experiment import (
    SEEDS,
    SMOKE,
    SYSTEMS,
    Config,
    by_chance,
    prepare,
    spec_of,
)
from moe_np.experiments.router_zoo.systems import TWO_MODES, WITH_CAPACITY
from moe_np.layers import diagnostics
from moe_np.models import associative_memory

TINY = SMOKE["config"]


@pytest.fixture
def sweep():
    with Sweep(jobs=1, progress=False) as runs:
        yield runs


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_runs_and_a_run_is_its_spec(system):
    spec = experiment.spec_of(TINY, system, 3)
    result = experiment.run_one(spec)
    assert to_json(result) == to_json(experiment.run_one(json.loads(json.dumps(spec))))
    assert result != experiment.run_one({**spec, "seed": 4})
    assert 1 < result["perplexity"] < 20
    assert ("drops" in result) == (system in WITH_CAPACITY)
    assert ("as trained" in result) == (system in TWO_MODES)
    if system != "soft mixture":
        assert result["cv"] >= 0 and 1 <= result["max_mean"] <= 16 and 0 <= result["dropped"] < 1
        assert 0 < result["experts"] <= 16


def test_larger_capacity_drops_less():
    result = experiment.run_one(experiment.spec_of(TINY, "Switch, α = .01", 0))
    drops = [case["dropped"] for case in result["drops"]]
    assert drops[0] > drops[1] > drops[2] >= 0 and result["dropped"] == drops[1]


def test_the_result_and_its_report(sweep):
    result = router_zoo.run(TINY, seeds=2, sweep=sweep, quick=True)  # one pass, as TINY has anyway
    assert list(result["systems"]) == list(SYSTEMS) and result["seeds"] == [0, 1]
    values = [run["perplexity"] for run in result["systems"]["hash"]]
    perplexity = result["summary"]["hash"]["perplexity"]
    assert perplexity["mean"] == pytest.approx(np.mean(values))
    assert perplexity["sd"] == pytest.approx(np.std(values, ddof=1))
    assert all(0 < ms < 1e4 for ms in result["milliseconds"].values())
    fewer = router_zoo.run(TINY, seeds=1, sweep=sweep, quick=True)
    assert all(fewer["systems"][name] == runs[:1] for name, runs in result["systems"].items())
    for record in (result, fewer):
        text = router_zoo.report(json.loads(to_json(record)))
        assert all(f"| {name} |" in text for name in SYSTEMS)
        assert "(9)" in text and "(4.95)" in text
        assert "| the earlier program | 15 | 5.5 | 0.1 |" in text
        assert "**Beside the earlier program.**" in text
        assert "at an advantage by construction" in text


def test_one_system_by_itself(sweep):
    result = router_zoo.run(TINY, seeds=1, only=("hash",), sweep=sweep, quick=True)
    everything = router_zoo.run(TINY, seeds=1, sweep=sweep, quick=True)
    assert list(result["systems"]) == list(result["milliseconds"]) == ["hash"]
    assert result["systems"]["hash"] == everything["systems"]["hash"]
    text = router_zoo.report(json.loads(to_json(result)))
    assert "| hash |" in text and "BASE" not in text
    with pytest.raises(InputError, match="only: wanted one of dense net"):
        router_zoo.specs(TINY, only=("no router",))


def test_quick_is_shorter():
    quick = router_zoo.specs(quick=True)
    shorter = dataclasses.replace(Config(), epochs=1)
    assert quick == [experiment.spec_of(shorter, system, 0) for system in SYSTEMS]
    assert experiment.step_times(TINY, rounds=1, steps=2).keys() == set(SYSTEMS)
    assert len(router_zoo.specs()) == SEEDS * len(SYSTEMS)


def test_by_chance_is_what_a_random_router_has():
    rng, config = np.random.default_rng(0), {"n_experts": 32, "batch": 512}
    for k in (1, 2):
        loads = (
            np.bincount(rng.random((512, 32)).argsort(axis=1)[:, :k].ravel(), minlength=32)
            for _ in range(200)
        )
        mean = np.mean([diagnostics.cv(load) for load in loads])
        assert by_chance(config, k) == pytest.approx(mean, rel=0.03)


@pytest.mark.parametrize(
    ("bad", "words"), [({"system": "none"}, "system: wanted one of"), ({"batch": 0}, "batch")]
)
def test_bad_specs(bad, words):
    with pytest.raises(InputError, match=words):
        experiment.run_one({**experiment.spec_of(TINY, "hash", 0), **bad})


def test_seeds_are_checked():
    with pytest.raises(InputError, match="seeds: wanted a whole number"):
        router_zoo.specs(seeds=0)


@pytest.mark.slow
def test_the_order_of_the_plainest_systems(sweep):
    """One seed at full length: the hash first, sparse before dense, chance last."""
    names = (
        "hash",
        "top-2, Switch loss",
        "noisy top-2",
        "straight-through",
        "dense net, same active size",
    )
    specs = [experiment.spec_of(Config(), name, 0) for name in names]
    results = sweep.map(experiment.run_one, specs)
    hashed, top, noisy, through, dense = (result["perplexity"] for result in results)
    assert hashed < top < noisy < min(through, dense)
    assert top < 10 and dense > 35
    assert results[0]["cv"] == pytest.approx(by_chance(specs[0], 1), rel=0.15)


def perplexity_with_redrawn_experts(share, seed):
    """That of the hash router, where a share of the keys gets another expert after every pass."""
    config = dataclasses.replace(Config(), n_keys=512, n_experts=8, batch=128, epochs=5)
    setup, keys, labels, params, rng = prepare(spec_of(config, "hash", seed))
    redraw = np.random.default_rng([seed, 5])
    options = {"epochs": 1, "batch": config.batch, "lr": 0.02, "rng": rng}
    for _ in range(config.epochs):
        *_, last = associative_memory.train(setup, params, keys, labels, **options)
        table = params["router"]["table"].copy()
        chosen = redraw.random(len(table)) < share
        table[chosen] = redraw.integers(config.n_experts, size=chosen.sum())
        params = {**last.params, "router": {"table": table}}
    measured = associative_memory.measure(setup, last.params, keys, labels, batch=config.batch)
    return measured["perplexity"]


def test_another_expert_for_some_keys_in_every_pass_costs_quality_by_itself():
    """An intervention, seed by seed: nothing but the table of the hash router differs."""
    perplexities = [
        [perplexity_with_redrawn_experts(share, seed) for share in (0.2, 0)] for seed in range(3)
    ]
    ratios = [np.log(redrawn / kept) for redrawn, kept in perplexities]
    assert t_interval(ratios).low > 0
