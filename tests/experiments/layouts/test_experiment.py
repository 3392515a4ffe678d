"""The layouts: equal parameters and operations, initial scales, and words that follow numbers."""

import json

import numpy as np
import pytest

from moe_np.base.params import leaves
from moe_np.experiments.common import pretrained
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.language_model import runs as language_models
from moe_np.experiments.layouts import experiment, runs
from moe_np.experiments.layouts.report import report
from moe_np.models import decoder

SMOKE = experiment.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("layouts") as sweep:
        return json.loads(to_json(experiment.run(SMOKE, sweep=sweep)))


@pytest.fixture
def store(tmp_path):
    with Sweep(tmp_path, progress=False) as sweep, pretrained.stored_with(sweep):
        yield tmp_path / "models"


def test_layers_and_experts_of_the_systems():
    assert runs.dense_layers(runs.EVERY, 4) == runs.dense_layers(runs.SMALL, 4) == []
    assert runs.dense_layers(runs.ALTERNATE, 4) == [0, 2]
    assert runs.dense_layers(runs.FIRST, 4) == [2, 3]
    assert runs.dense_layers(runs.SECOND, 4) == [0, 1]
    assert runs.experts_of(runs.EVERY, 4, 8) == 8
    assert {runs.experts_of(s, 4, 8) for s in (runs.ALTERNATE, runs.FIRST, runs.SECOND)} == {14}


def test_all_systems_have_the_same_parameters_but_for_the_routers(result):
    """2 layers: 2 routers with 4 experts, or one with 6, of width 16."""
    parameters = {name: ours["parameters"] for name, ours in result["summary"].items()}
    every = parameters[runs.EVERY]
    assert parameters[runs.SMALL] == every
    for system in (runs.ALTERNATE, runs.FIRST, runs.SECOND):
        assert parameters[system] == every - 16 * (2 * 4 - 6)


def test_the_model_of_every_layer_is_shared_with_the_language_models():
    ours = runs.spec_of(runs.Config(), runs.EVERY, 1)["model"]
    theirs = language_models.spec_of(language_models.Config(), language_models.EIGHT, 1)["model"]
    assert ours == theirs and pretrained.key(ours) == pretrained.key(theirs)


def test_loads_are_those_of_the_layers_with_experts(result):
    layers = {name: list(ours["load_cv"]) for name, ours in result["summary"].items()}
    assert layers[runs.EVERY] == ["0", "1"]
    assert layers[runs.ALTERNATE] == layers[runs.SECOND] == ["1"]
    assert layers[runs.FIRST] == ["0"]


def test_the_initial_scale_is_that_of_the_variance():
    config = decoder.Config(
        vocabulary=20, d_model=8, layers=2, heads=2, kv_heads=1, d_head=4, experts=3, hidden=4
    )
    params = decoder.init(np.random.default_rng(0), config)
    before = leaves(params)
    after = leaves(runs.scaled(params, 0.1))
    assert before.keys() == after.keys()
    for path, leaf in before.items():
        matrix = any(part in path for part in (".attention.", ".router.", ".experts."))
        factor = np.float32(0.1**0.5 if matrix else 1)
        assert after[path] == pytest.approx(factor * leaf, rel=1e-6), path
        assert after[path].dtype == leaf.dtype


def test_scale_1_gives_the_run_without_a_scale(store):
    """The initial parameters that are scaled are those that training would begin with."""
    spec = runs.spec_of(SMOKE, runs.EVERY, 0)["model"]
    ours = pretrained.metrics(runs.trained(spec))
    scaled = runs.trained({**spec, "initial_scale": 1.0})
    assert len(list(store.iterdir())) == 2
    for a, b in zip(ours, pretrained.metrics(scaled), strict=True):
        losses = [[r.get("loss", r.get("validation_loss")) for r in records] for records in (a, b)]
        assert losses[0] == losses[1]
    other = pretrained.metrics(runs.trained({**spec, "initial_scale": 0.1}))
    assert other[0][0]["loss"] != ours[0][0]["loss"]


def test_a_finished_run_is_not_scaled_again(store):
    spec = runs.spec_of(SMOKE, runs.SMALL, 0)["model"]
    run = runs.trained(spec)
    written = (run.folder / "state.safetensors").read_bytes()
    assert runs.trained(spec).folder == run.folder
    assert (run.folder / "state.safetensors").read_bytes() == written


def run_of(test=3.0, early=5.0, selective=(0.0, 0.0), whole=(0.0, 0.0)):
    changed = {
        "selective": [{"sets": share} for share in selective],
        "bfloat16": [{"sets": share} for share in whole],
    }
    return {"test": test, "validation": [early, 4.0], "rounded": changed}


def test_what_is_compared():
    a = [run_of(3.0, 5.0, (0.1, 0.3), (0.4, 0.6))]
    b = [run_of(3.5, 5.5)]
    assert experiment.measured("halves", a, b) == ([3.0], [3.5])
    assert experiment.measured("scale", a, b) == ([5.0], [5.5])
    assert experiment.measured("precision", a, a) == ([0.2], [0.5])


def test_verdicts_follow_the_seeds():
    by_system = {
        runs.SECOND: [run_of(3.0 + s) for s in (0, 0.1, 0.2)],
        runs.FIRST: [run_of(3.5 + s) for s in (0, 0.1, 0.2)],
    }
    (claim,) = experiment.claims(by_system).items()
    assert claim[0] == "halves" and claim[1]["verdict"] == "holds"
    assert claim[1]["interval"]["estimate"] == pytest.approx(-0.5)
    by_system[runs.SECOND], by_system[runs.FIRST] = by_system[runs.FIRST], by_system[runs.SECOND]
    assert experiment.claims(by_system)["halves"]["verdict"] == "not supported"


def test_a_comparison_that_nobody_published_has_no_verdict():
    both = {system: [run_of(), run_of()] for system in (runs.ALTERNATE, runs.EVERY)}
    claims = experiment.claims(both)
    assert list(claims) == ["precision", "alternate"]
    assert claims["alternate"]["verdict"] is None


def test_the_report_has_the_literature_beside_ours(result):
    text = report(result)
    assert "lower (DeepSpeed-MoE, section 4.1)" in text
    assert "-2.72 ± 0.01 at scale 0.1 and -3.60 ± 0.68 at scale 1" in text
    assert "GLaM (arXiv 2112.06905)" in text
    assert text.count("no experts") == 3
    assert "no model was trained in bfloat16" in text
