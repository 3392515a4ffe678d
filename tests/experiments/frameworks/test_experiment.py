"""The frameworks: without any of them the table says so; with them they are the same layer."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from moe_np.base.checks import InputError
from moe_np.base.params import leaves
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.frameworks import (
    built_in,
    experiment,
    jax_layer,
    keras_layer,
    layer_problem,
    runs,
    torch_layer,
    weights,
)
from moe_np.experiments.frameworks.report import ratio, report

STATEMENTS = {"torch": torch_layer, "jax": jax_layer, "tensorflow": keras_layer}


def small(seed=0):
    return layer_problem.problem(seed, tokens=20, d_model=5, hidden=6, experts=4, k=2)


def test_without_a_framework_the_table_says_so(monkeypatch):
    monkeypatch.setattr(runs, "version", lambda system: None)
    with Sweep(jobs=1, progress=False) as sweep:
        result = json.loads(to_json(experiment.run(sweep=sweep, **experiment.SMOKE)))
    assert result["milliseconds"] == dict.fromkeys(runs.SYSTEMS)
    assert {ours["built in"] for ours in result["summary"].values()} == {None}
    text = report(result)
    assert text.count("not installed") == 3 and 'pip install "moe-np[frameworks]"' in text


def test_a_difference_is_a_share_of_the_largest_value():
    ours = {"y": np.array([1.0, -4.0]), "x": np.array([2.0]), "router.w": np.array([10.0])}
    theirs = {"y": np.array([1.0, -3.0]), "x": np.array([2.5]), "router.w": np.array([10.0])}
    differences = layer_problem.largest_difference(ours, theirs)
    assert differences == {"outputs": 0.25, "gradients": 0.25}


def test_a_ratio_of_times_has_an_interval(monkeypatch):
    ticks = iter(np.cumsum([0, 1, 0, 2] * 2 + [0, 1, 0, 2, 0, 1, 0, 4, 0, 1, 0, 8]) / 1e3)
    monkeypatch.setattr(runs, "version", lambda system: "1")
    monkeypatch.setattr(runs.layer_problem, "step_of", lambda problem: lambda: None)
    monkeypatch.setattr(runs.FRAMEWORKS["PyTorch"].statement, "step_of", lambda p: lambda: None)
    monkeypatch.setattr(runs.time, "process_time", lambda: next(ticks))
    config = dataclasses.replace(experiment.SMOKE["config"], rounds=3)
    measured = runs.times(config, "PyTorch")
    assert measured["ours"] == pytest.approx(1) and measured["theirs"] == pytest.approx(4)
    half = stats.t.ppf(0.975, 2) * np.log(2) / np.sqrt(3)
    wanted = (4, np.exp(np.log(4) - half), np.exp(np.log(4) + half))
    assert ratio(measured) == pytest.approx(wanted)
    assert ratio(None) is None


def test_words_of_experts_are_found_in_a_module():
    assert "Expert" in built_in.layers_of_experts("moe_np.layers.experts.expert")
    assert built_in.layers_of_experts("math") == built_in.NONE


@pytest.mark.parametrize(
    ("call", "package"), [(weights.to_torch, "torch"), (weights.to_jax, "jax")]
)
def test_a_framework_that_is_missing_is_one_error(call, package, monkeypatch):
    monkeypatch.setattr(weights.extras, "installed", lambda module: False)
    with pytest.raises(InputError, match=rf"{package}: wanted .* extra `frameworks`"):
        call({})


@pytest.mark.parity
@pytest.mark.parametrize("package", STATEMENTS)
def test_it_is_the_same_layer(package):
    pytest.importorskip(package)
    for seed in range(3):
        problem = small(seed)
        ours = layer_problem.step_of(problem)()
        theirs = STATEMENTS[package].step_of(problem)()
        assert set(ours) == set(theirs)
        for name, value in ours.items():
            np.testing.assert_allclose(theirs[name], value, rtol=2e-4, atol=2e-5)


@pytest.mark.parity
def test_weights_pass_to_torch_and_back():
    torch = pytest.importorskip("torch")
    params = small().params
    state = weights.to_torch(params)
    assert list(state) == list(leaves(params)) and state["router.w"].dtype == torch.float32
    module = torch_layer.module(small(seed=1))
    module.load_state_dict(state)
    back = weights.from_torch(module.state_dict())
    for path, array in leaves(params).items():
        np.testing.assert_array_equal(leaves(back)[path], array)
    leaves(back)["router.w"][:] = 0
    assert module.router["w"].abs().sum() > 0, "nothing is shared"
    half = {"w": torch.ones(2, dtype=torch.bfloat16)}
    assert weights.from_torch(half)["w"].dtype == np.float32
    with pytest.raises(InputError, match="wanted a tensor, got list"):
        weights.from_torch({"w": [1.0]})


@pytest.mark.parity
def test_weights_pass_to_jax_and_back():
    jax = pytest.importorskip("jax")
    params = {**small().params, "blocks": [{"w": np.ones((2, 3), np.float32)}]}
    tree = weights.to_jax(params)
    assert jax.tree_util.tree_structure(tree) == jax.tree_util.tree_structure(params)
    back = weights.from_jax(tree)
    for path, array in leaves(params).items():
        np.testing.assert_array_equal(leaves(back)[path], array)
    leaves(back)["blocks.0.w"][:] = 0
    assert float(tree["blocks"][0]["w"].sum()) == 6
    half = {"w": jax.numpy.ones(2, dtype=jax.numpy.bfloat16)}
    assert weights.from_jax(half)["w"].dtype == np.float32


@pytest.mark.parity
@pytest.mark.parametrize(
    ("system", "package"), [("PyTorch", "torch"), ("JAX", "jax"), ("TensorFlow", "tensorflow")]
)
def test_what_is_built_in_runs(system, package):
    pytest.importorskip(package)
    cells = built_in.table(system)
    assert list(cells) == list(built_in.FEATURES)
    for feature in ("the k largest, with gradient", "sum of rows by index"):
        assert not cells[feature].startswith(built_in.NONE), cells
    assert cells["a layer of experts"] == built_in.NONE
