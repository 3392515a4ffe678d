"""The choices of routers at checkpoints: in the order of the text, and after an interruption."""

import numpy as np
import pytest

from moe_np.base.params import leaves
from moe_np.experiments.common import pretrained
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.specialisation import experiment, runs, snapshots
from moe_np.language import model_files, run_folder
from moe_np.models import decoder

SPEC = runs.spec_of(experiment.SMOKE["config"], runs.ONE, 0)["model"]


@pytest.fixture
def store(tmp_path):
    with Sweep(tmp_path, progress=False) as sweep, pretrained.stored_with(sweep):
        yield tmp_path / "models"


def test_routings_are_in_the_order_of_the_text():
    config = decoder.Config(
        vocabulary=20, d_model=8, layers=2, heads=2, kv_heads=1, d_head=4, experts=5, hidden=4
    )
    params = decoder.init(np.random.default_rng(0), config)
    tokens = np.random.default_rng(1).integers(20, size=45)
    got = snapshots.routings_of(params, config, tokens, length=8)
    assert got.ids.tolist() == tokens[:-1].tolist()
    assert got.following.tolist() == tokens[1:].tolist()
    assert got.choice.shape == got.weight.shape == (2, 44, 2)
    assert (got.weight[..., 0] >= got.weight[..., 1]).all()
    assert got.weight.sum(axis=2) == pytest.approx(1, abs=1e-6)

    logits, cache = decoder.forward(params, tokens[None, :8], config)  # the first window
    expert = cache.blocks[1].mixture.routing.expert.reshape(8, 2)
    assert got.choice[1, :8].tolist() == expert.tolist()
    assert got.predicted[:8].tolist() == logits[0].argmax(axis=1).tolist()


@pytest.mark.seconds
def test_choices_are_kept_of_every_checkpoint(store):
    trained = snapshots.trained(SPEC)
    assert list(trained.choices) == [3, 6]
    last = trained.choices[6]["English"]
    (tokens,) = trained.texts.values()
    assert last.shape == (2, len(tokens) - 1, 2)
    run = trained.run
    again = snapshots.routings_of(trained.params, run.config, tokens, length=run.settings.length)
    assert (again.choice == last).all()
    assert (trained.choices[3]["English"] != last).any()


def test_the_parameters_are_those_of_the_last_update(store):
    trained = snapshots.trained(SPEC)
    written = leaves(model_files.load(trained.run.folder).params)
    ours = leaves(trained.params)
    assert {path: leaf.shape for path, leaf in ours.items()} == {
        path: leaf.shape for path, leaf in written.items()
    }
    assert all((leaf == written[path]).all() for path, leaf in ours.items())


def test_training_goes_on_after_an_interruption(store, monkeypatch):
    """Killed after a checkpoint was written and before its choices were."""
    write_choices = snapshots._write_choices
    calls = []

    def killed(run, texts):
        calls.append(run)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write_choices(run, texts)

    monkeypatch.setattr(snapshots, "_write_choices", killed)
    with pytest.raises(KeyboardInterrupt):
        snapshots.trained(SPEC)
    monkeypatch.undo()
    monkeypatch.setenv(pretrained.FOLDER, str(store))
    (folder,) = store.iterdir()
    assert not (folder / "choices").exists()
    interrupted = snapshots.trained(SPEC)
    assert list(interrupted.choices) == [3, 6]

    monkeypatch.setenv(pretrained.FOLDER, str(store / "other"))
    whole = snapshots.trained(SPEC)
    for step, of_domain in whole.choices.items():
        assert (of_domain["English"] == interrupted.choices[step]["English"]).all()


def test_a_finished_model_is_not_trained_again(store, monkeypatch):
    snapshots.trained(SPEC)
    monkeypatch.setattr(run_folder, "train", None)
    assert list(snapshots.trained(SPEC).choices) == [3, 6]
