"""Trained models are shared by their key, and go on after an interruption."""

import os

import pytest

from moe_np.experiments.common import pretrained
from moe_np.experiments.common.sweep import Sweep
from moe_np.language import run_folder

SMALL = {
    **{"d_model": 8, "layers": 1, "heads": 2, "kv_heads": 1, "d_head": 4, "experts": 3},
    **{"hidden": 8, "vocabulary": 300, "length": 8, "batch": 2, "validation_tokens": 50},
}


def folder_of(spec):
    return {"folder": os.environ.get(pretrained.FOLDER), "seed": spec["seed"]}


def spec(**changes):
    options = {"updates": 4, "seed": 0, "checkpoint_every": 2, "books": ("Jonah",)}
    return pretrained.spec_of("mixtral", **{**options, **SMALL, **changes})


@pytest.fixture
def store(tmp_path):
    with Sweep(tmp_path, progress=False) as sweep, pretrained.stored_with(sweep):
        yield tmp_path / "models"


def test_a_model_is_trained_once(store):
    run = pretrained.trained(spec())
    assert run.folder.parent == store
    assert pretrained.finished(run)
    updates, validations = pretrained.metrics(run)
    assert [record["step"] for record in updates] == [1, 2, 3, 4]
    assert [record["step"] for record in validations] == [2, 4]
    written = (run.folder / "state.safetensors").stat().st_mtime_ns
    assert pretrained.trained(spec()).folder == run.folder
    assert (run.folder / "state.safetensors").stat().st_mtime_ns == written


def test_a_run_that_was_interrupted_goes_on(store):
    folder = store / pretrained.key(spec())
    whole = spec()
    run = run_folder.open_run(
        folder,
        pretrained.corpus_of(whole),
        updates=4,
        changes=whole["changes"],
        checkpoint_every=2,
    )
    records = run_folder.train(run)
    next(records)
    records.close()
    assert not pretrained.finished(run)
    assert pretrained.finished(pretrained.trained(whole))


def test_the_key_changes_with_all_that_determines_a_model(store, monkeypatch):
    keys = {pretrained.key(spec(**change)) for change in ({}, {"seed": 1}, {"updates": 5})}
    keys |= {pretrained.key(spec(hidden=9)), pretrained.key(spec(books=("Ezra",)))}
    monkeypatch.setenv("MOE_NP_KERNELS", "numpy")
    keys.add(pretrained.key(spec()))
    assert len(keys) == 6 or (len(keys) == 5 and os.environ["MOE_NP_KERNELS"] == "numpy")


def test_the_held_out_books_are_not_trained_on(store):
    with pytest.raises(ValueError, match="books: wanted none that is held out, got"):
        pretrained.corpus_of(spec(books=("Jonah", "Rom")))
    assert pretrained.corpus_of(spec(books=())).train.startswith("In the beginning")


def test_the_folder_is_removed_where_nothing_is_stored():
    before = os.environ.get(pretrained.FOLDER)
    with Sweep(progress=False) as sweep, pretrained.stored_with(sweep):
        folder = os.environ[pretrained.FOLDER]
        assert os.path.isdir(folder)
    assert not os.path.exists(folder)
    assert os.environ.get(pretrained.FOLDER) == before


def test_workers_that_are_older_find_the_folder(tmp_path):
    with Sweep(tmp_path, jobs=2, progress=False) as sweep:
        before = sweep.map(folder_of, [{"seed": seed} for seed in range(2)])  # starts the workers
        with pretrained.stored_with(sweep):
            inside = sweep.map(folder_of, [{"seed": seed} for seed in range(2, 6)])
    assert {run["folder"] for run in before} == {os.environ.get(pretrained.FOLDER)}
    assert {run["folder"] for run in inside} == {str(tmp_path / "models")}
