"""Distillation and fine-tuning in a folder: what is trained, the same bits after a kill."""

import json
import shutil

import numpy as np
import pytest

from moe_np.adapt import adapted_run, model_folder
from moe_np.adapt.adapted_run import Distillation, FineTuning
from moe_np.base.checks import InputError
from moe_np.base.params import leaves
from moe_np.language.evaluation import Evaluation
from moe_np.models import safetensors
from tests.support.adapted_folders import CHANGES, CONFIG, CORPUS, folder_of


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return model_folder.load(folder_of(tmp_path_factory.mktemp("model") / "old"))


def opened(folder, source, plan, updates=8, changes=None, every=4):
    is_distillation = isinstance(plan, Distillation)
    open_run = adapted_run.open_distillation if is_distillation else adapted_run.open_fine_tuning
    changes = {**CHANGES, **(changes or {})}
    facts = {"updates": updates, "changes": changes, "checkpoint_every": every}
    return open_run(folder, source, CORPUS, plan, **facts)


def bits(folder):
    reader = safetensors.Reader(folder / "state.safetensors")
    return {name: array.tobytes() for name, array in reader.items()}


PLANS = {
    "distil": Distillation("copied"),
    "distil to fewer": Distillation("fewer", soft=0.5, temperature=2.0),
    "finetune": FineTuning(("norms", "router"), mask=0.1, examples=6),
    "adapters": FineTuning(rank=2),
}


@pytest.mark.seconds
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_after_a_kill_it_goes_on_to_the_same_bits(plan, source, tmp_path):
    changes = {"dropout": 0.1, "expert_dropout": 0.2}
    records = list(adapted_run.train(opened(tmp_path / "whole", source, plan, changes=changes)))
    assert len(records) == 10
    begun = adapted_run.train(opened(tmp_path / "begun", source, plan, changes=changes))
    for record in begun:
        if not isinstance(record, Evaluation) and record.step == 6:
            break
    shutil.copytree(tmp_path / "begun", tmp_path / "killed")  # what a kill leaves
    with open(tmp_path / "killed" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 7, "lo')
    rest = list(adapted_run.train(opened(tmp_path / "killed", source, plan, changes=changes)))
    steps = [record.step for record in rest if not isinstance(record, Evaluation)]
    assert steps == [5, 6, 7, 8]
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("killed", "whole")]
    assert files[0] == files[1]
    assert list(adapted_run.train(opened(tmp_path / "whole", source, plan, changes=changes))) == []


def test_the_student_is_dense_and_learns(source, tmp_path):
    records = list(adapted_run.train(opened(tmp_path, source, PLANS["distil"], updates=30)))
    updates = [record for record in records if not isinstance(record, Evaluation)]
    assert updates[-1].loss < updates[0].loss - 0.5
    student = model_folder.load(tmp_path)
    assert student.config.experts == 1 and student.config.hidden == 16
    best = model_folder.load(tmp_path / "best")
    assert best.config == student.config


def test_what_is_frozen_keeps_its_bits(source, tmp_path):
    changes = {"weight_decay": 0.5}
    list(adapted_run.train(opened(tmp_path, source, PLANS["finetune"], changes=changes)))
    before, after = leaves(source.params), leaves(model_folder.load(tmp_path).params)
    for path, p in before.items():
        trained = "norm" in path or "router" in path
        assert np.array_equal(p, after[path]) != trained, path


def test_adapters_change_the_experts_alone_and_are_stored_merged(source, tmp_path):
    adapted = opened(tmp_path, source, PLANS["adapters"])
    list(adapted_run.train(adapted))
    before, after = leaves(source.params), leaves(model_folder.load(tmp_path).params)
    for path, p in before.items():
        assert np.array_equal(p, after[path]) != ("experts" in path), path
    names = set(safetensors.Reader(tmp_path / "state.safetensors"))
    assert "params.layers.0.w1.a" in names and "params.embed.w" not in names


def test_early_stopping_ends_a_run_for_good(source, tmp_path):
    plan = FineTuning(patience=2)
    changes = {"learning_rate": 1e-12}  # no gain
    facts = {"updates": 20, "changes": changes, "every": 1}
    adapted = opened(tmp_path, source, plan, **facts)
    records = list(adapted_run.train(adapted))
    losses = [record.loss for record in records if isinstance(record, Evaluation)]
    assert losses == adapted_run.stored_losses(adapted.run)
    assert len(losses) < 20
    assert min(losses[-2:]) >= min(losses[:-2])
    assert list(adapted_run.train(opened(tmp_path, source, plan, **facts))) == []


def test_a_student_in_a_folder(source, tmp_path):
    dense = folder_of(tmp_path / "student", CONFIG._replace(experts=1, layers=1), seed=3)
    plan = Distillation(str(dense))
    list(adapted_run.train(opened(tmp_path / "out", source, plan, updates=2)))
    assert model_folder.load(tmp_path / "out").config.layers == 1


def test_bad_input_is_one_clear_error(source, tmp_path):
    def refused(plan, match, **options):
        with pytest.raises(InputError, match=match):
            opened(tmp_path / "out", source, plan, **options)
        assert not (tmp_path / "out" / "run.json").exists()

    other = folder_of(tmp_path / "other", vocabulary=260)
    refused(Distillation(str(other)), "tokens of the teacher's vocabulary, got 260")
    refused(Distillation("nowhere"), r"new, copied, merged, task, fewer or a folder .*got nowhere")
    refused(Distillation(soft=2.0), "soft")
    refused(FineTuning(examples=0), "at least one example to train on, got an empty set")
    refused(FineTuning(("heads",)), "groups: wanted one of")
    refused(FineTuning(("norms",), rank=2), "no groups beside adapters")
    refused(FineTuning(mask=2.0), "mask")
    refused(FineTuning(patience=0), "patience")
    refused(FineTuning(), "the model has already", changes={"vocabulary": 300})
    refused(FineTuning(), "--set: wanted one of dropout", changes={"hidden": 3})
    refused(FineTuning(), "--set length: wanted at most 16, got 17", changes={"length": 17})


def test_another_run_in_the_same_folder_is_refused(source, tmp_path):
    opened(tmp_path, source, FineTuning())
    opened(tmp_path, source, FineTuning())
    with pytest.raises(InputError, match="holds another run: its mask is"):
        opened(tmp_path, source, FineTuning(mask=0.2))
    with pytest.raises(InputError, match="holds another run: its adapted is"):
        opened(tmp_path, source, Distillation())
    params = {**source.params, "norm": {"g": source.params["norm"]["g"] * 2}}
    with pytest.raises(InputError, match="holds another run: its models is"):
        opened(tmp_path, source._replace(params=params), FineTuning())
    assert json.loads((tmp_path / "run.json").read_text())["updates"] == 8
