"""Any model that the loop trains is stored by its key, and goes on with the same bits."""

import json

import numpy as np
import pytest

from moe_np.base.params import leaves
from moe_np.experiments.common import pretrained, trained_tree
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.common.trained_tree import Training
from moe_np.experiments.shazeer2017_language.stacked_lstm import Loss
from moe_np.training import loop

SPEC = {"seed": 3, "updates": 7, "stop": None}
calls = []


def training_of(spec):
    """A line through points; `stop` is the update at which the process is killed."""
    calls.append(spec)
    options = loop.Options(spec["updates"], learning_rate=0.1, warmup=0, seed=spec["seed"])

    def gradients_of(params, x, rng):
        if rng.bit_generator.seed_seq.entropy == [spec["seed"], STOP.get("at")]:
            raise KeyboardInterrupt
        error = params["layers"][0]["w"] * x - 2 * x
        gradient = np.array([np.mean(2 * error * x)])
        grads = {"layers": [{"w": gradient}], "norm": {"g": np.zeros(1)}}
        return Loss(float(np.mean(error**2)), len(x)), grads

    return Training(
        {"layers": [{"w": np.zeros(1)}], "norm": {"g": np.ones(1)}},
        gradients_of,
        lambda rng: rng.normal(size=4),
        lambda params: abs(float(params["layers"][0]["w"][0]) - 0.25),  # best before the end
        options,
        checkpoint_every=2,
    )


STOP: dict = {}


@pytest.fixture
def store(tmp_path):
    STOP.clear()
    calls.clear()
    with Sweep(tmp_path, progress=False) as sweep, pretrained.stored_with(sweep):
        yield tmp_path / "models"


def test_a_model_is_trained_once_and_the_best_is_kept(store):
    model = trained_tree.trained(SPEC, training_of)
    assert [record["step"] for record in model.updates] == list(range(1, 8))
    assert [record["step"] for record in model.validations] == [2, 4, 6, 7]
    losses = [record["validation_loss"] for record in model.validations]
    assert min(losses) < losses[-1]
    assert abs(model.params["layers"][0]["w"][0] - 0.25) == min(losses)
    found = trained_tree.trained(SPEC, training_of)
    assert len(calls) == 1
    assert found.validations == model.validations
    assert leaves(found.params) == leaves(model.params)


def test_a_run_that_was_killed_goes_on_to_the_same_bits(store, tmp_path):
    whole = trained_tree.trained(SPEC, training_of)
    folder = store / trained_tree.key(SPEC, training_of)
    state = (folder / "state.safetensors").read_bytes()
    folder.rename(tmp_path / "whole")
    STOP["at"] = 6
    with pytest.raises(KeyboardInterrupt):
        trained_tree.trained(SPEC, training_of)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 5
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')  # a line that the kill cut
    STOP.clear()
    resumed = trained_tree.trained(SPEC, training_of)
    assert (folder / "state.safetensors").read_bytes() == state
    assert leaves(resumed.params) == leaves(whole.params)
    assert resumed.validations == whole.validations
    assert [r["loss"] for r in resumed.updates] == [r["loss"] for r in whole.updates]


def test_the_key_changes_with_the_spec_and_the_function(store):
    keys = {
        trained_tree.key(SPEC, training_of),
        trained_tree.key({**SPEC, "seed": 4}, training_of),
        trained_tree.key(SPEC, store_of_another_name),
    }
    assert len(keys) == 3


def store_of_another_name(spec):
    raise NotImplementedError
