"""The balance losses of Shazeer et al. 2017, switched on and off."""

import dataclasses
import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.shazeer2017 import experiment as shazeer
from moe_np.models.associative_memory import importance, load
from moe_np.routing import noisy_top_k

TINY = shazeer.Config(n_experts=6, n_keys=100, d_model=6, n_values=5, hidden=3, batch=50, epochs=2)


@pytest.fixture
def sweep():
    with Sweep(jobs=1, progress=False) as one:
        yield one


def test_the_rows_of_table_6_are_the_runs():
    assert [row[:2] for row in shazeer.PAPER["table6"]] == list(shazeer.Config().weights)
    assert set(shazeer.Config().centred) <= set(shazeer.Config().weights)


def test_a_weight_of_zero_is_no_loss():
    spec = shazeer.spec_of(TINY, (0, 0.2), 0.0, 1)
    gate = shazeer.gate_of(spec)
    assert gate.losses == ((0.2, load),) and gate.router is noisy_top_k
    assert gate.train == {"k": 2, "noise_epsilon": 1e-2}
    assert shazeer.gate_of({**spec, "weights": (0, 0)}).losses == ()
    assert shazeer.gate_of({**spec, "weights": (1, 0.1)}).losses == ((1, importance), (0.1, load))


def test_balance_by_hand():
    """Without noise the load is a count; with noise it is eq. (10), whose sum is k a token on
    average.
    """
    rng = np.random.default_rng(0)
    gate = shazeer.gate_of(shazeer.spec_of(TINY, (0, 0), 0.0, 0))
    params = {"router": noisy_top_k.init(rng, 6, 6, scale=1.0)}
    keys = rng.normal(size=(500, 6))
    found = shazeer.balance(gate, params, keys, None)
    logits = keys @ params["router"]["w"]
    two = np.argsort(-logits, axis=1)[:, :2]
    count = np.bincount(two.ravel(), minlength=6)
    assert found["cv_load"] == pytest.approx(count.std() / count.mean())
    assert found["max_mean"] == pytest.approx(count.max() / count.mean())
    e = np.exp(np.take_along_axis(logits, two, axis=1))
    weights = np.bincount(two.ravel(), (e / e.sum(axis=1, keepdims=True)).ravel(), minlength=6)
    assert found["cv_importance"] == pytest.approx(weights.std() / weights.mean())
    zero = {"router": {k: 0 * p for k, p in params["router"].items()}}
    noisy = shazeer.balance(gate, zero, keys, np.random.default_rng(1))
    assert noisy["cv_load"] < 0.1  # a gate that has learned nothing, made even by its noise
    assert shazeer.balance(gate, zero, keys, None)["cv_load"] == pytest.approx(
        np.sqrt(2)
    )  # ties: experts 0 and 1


def test_a_run_is_its_spec():
    spec = shazeer.spec_of(TINY, (0.1, 0.1), 2.0, 5)
    found = shazeer.run_one(spec)
    assert to_json(found) == to_json(shazeer.run_one(json.loads(json.dumps(spec))))
    others = ({"seed": 6}, {"weights": [0, 0]}, {"common": 0.0})
    assert all(found != shazeer.run_one({**spec, **other}) for other in others)
    assert set(found) == {"with noise", "without noise"}
    assert found["with noise"] != found["without noise"]


def test_the_result_and_its_table(sweep):
    result = shazeer.run(TINY, seeds=2, sweep=sweep)
    assert [(tuple(row["weights"]), row["common"]) for row in result["rows"]] == shazeer.plan(TINY)[
        1
    ]
    row = result["rows"][3]
    values = [one["with noise"]["cv_load"] for one in row["runs"]]
    assert row["summary"]["with noise"]["cv_load"]["mean"] == pytest.approx(np.mean(values))
    assert row["summary"]["with noise"]["cv_load"]["sd"] == pytest.approx(np.std(values, ddof=1))
    few = shazeer.run(TINY, seeds=1, sweep=sweep)
    assert all(a["runs"] == b["runs"][:1] for a, b in zip(few["rows"], result["rows"], strict=True))
    for one in (few, result):
        text = shazeer.table(json.loads(to_json(one)))
        for published in shazeer.PAPER["table6"]:
            assert f"| {published[2]:g} / " in text and f"| {published[5]:g} / " in text
        assert text.count("| 0.1, 0.1 |") == 2 and "What does not" in text


def test_quick_is_shorter_and_seeds_are_checked():
    config, cases, seeds, specs = shazeer.plan(quick=True)
    assert config.epochs == 1 and seeds == 1 and len(specs) == len(cases) == 8
    assert len(shazeer.plan()[3]) == 8 * shazeer.SEEDS
    with pytest.raises(InputError, match="seeds: wanted a whole number"):
        shazeer.plan(seeds=0)


@pytest.mark.slow
def test_without_a_loss_few_experts_work_and_less_is_remembered(sweep):
    config = dataclasses.replace(shazeer.Config(), weights=((0, 0), (0.1, 0.1)), centred=((0, 0),))
    _, cases, _, specs = shazeer.plan(config, seeds=1)
    runs = dict(zip(cases, sweep.map(shazeer.run_one, specs), strict=True))
    none, some, centred = (runs[case]["without noise"] for case in cases)
    assert none["cv_load"] > 1 and none["max_mean"] > 4
    assert some["cv_load"] < 0.2 and some["max_mean"] < 1.4
    assert none["perplexity"] > 1.3 * some["perplexity"]
    assert centred["cv_load"] < 0.7  # without anything in common the gate does not collapse
