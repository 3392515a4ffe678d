"""A training run in a folder: files, the same bits after an interruption, and refusals."""

import json
import subprocess
import sys

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.params import leaves
from moe_np.data.text import tokenisers
from moe_np.language import corpus, model_files, run_folder, run_request
from moe_np.language.evaluation import Evaluation
from moe_np.models import safetensors
from moe_np.training import loop

WORDS = ["the", "cat", "dog", "sat", "on", "mat", "log", "and"]
TEXT = " ".join(np.random.default_rng(0).choice(WORDS, 1500))
CORPUS = corpus.Corpus("words", TEXT[:5000], TEXT[5000:])
SMALL = {
    **{"d_model": 16, "layers": 2, "heads": 2, "kv_heads": 1, "d_head": 8, "experts": 4},
    **{"hidden": 16, "vocabulary": 280, "length": 16, "batch": 4, "validation_tokens": 100},
    **{"learning_rate": 0.02, "warmup": 2},
}


def open_run(folder, **options):
    options = {"updates": 12, "checkpoint_every": 4, "changes": SMALL, **options}
    return run_folder.open_run(folder, CORPUS, **options)


def bits(folder, name="state.safetensors"):
    return {name: array.tobytes() for name, array in safetensors.Reader(folder / name).items()}


def lines_of(folder):
    return (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, list(run_folder.train(open_run(folder)))


def test_a_run_writes_what_its_docstring_says(finished):
    folder, records = finished
    wanted = ["best", "config.json", "metrics.jsonl", "model.safetensors", "run.json"]
    wanted += ["state.safetensors", "tokeniser.json"]
    assert sorted(path.name for path in folder.iterdir()) == wanted
    assert sorted(path.name for path in (folder / "best").iterdir()) == [
        *("config.json", "model.safetensors", "tokeniser.json"),
    ]
    updates = [record for record in records if not isinstance(record, Evaluation)]
    assert [record.step for record in updates] == list(range(1, 13))
    lines = [json.loads(line) for line in lines_of(folder)]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    assert [line["step"] for line in lines if "perplexity" in line] == [4, 8, 12]
    assert updates[-1].loss < updates[0].loss - 0.5
    assert [len(load) for load in updates[0].load] == [4, 4]
    assert sum(updates[0].load[0]) == 2 * 4 * 16
    assert len(updates[0].balance) == 2


def test_the_stored_model_is_that_of_the_last_update(finished):
    folder, _ = finished
    model = model_files.load(folder)
    state = safetensors.Reader(folder / "state.safetensors")
    assert state.metadata["updates"] == "12"
    for path, leaf in leaves(model.params).items():
        np.testing.assert_array_equal(leaf, state[f"params.{path}"], err_msg=path)


def test_the_best_model_is_that_of_the_least_validation_loss(finished):
    folder, records = finished
    found = [record for record in records if isinstance(record, Evaluation)]
    best = model_files.load(folder / "best")
    loss = run_folder.validate(open_run(folder), best.params).loss
    assert loss == pytest.approx(min(record.loss for record in found), rel=1e-6)


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_a_run_that_was_closed_goes_on_to_the_same_bits(finished, tmp_path, stop):
    records = run_folder.train(open_run(tmp_path))
    while getattr(next(records), "step", 0) != stop:
        pass
    records.close()
    rest = [r.step for r in run_folder.train(open_run(tmp_path)) if hasattr(r, "step")]
    assert rest == list(range(stop + 1, 13))
    assert bits(tmp_path) == bits(finished[0])
    assert bits(tmp_path, "model.safetensors") == bits(finished[0], "model.safetensors")
    steps = [json.loads(line)["step"] for line in lines_of(tmp_path)]
    assert steps == sorted(steps)
    assert set(steps) == set(range(1, 13))


PROGRAM = """
import pathlib, sys
sys.path.insert(0, sys.argv[2])
from tests.language.test_run_folder import open_run
from moe_np.language import run_folder
for record in run_folder.train(open_run(pathlib.Path(sys.argv[1]))):
    print(getattr(record, "step", "validated"), flush=True)
"""


def in_a_process(folder, root):
    """A process that goes on with a run and prints every step."""
    program = [sys.executable, "-c", PROGRAM, str(folder), str(root)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path, request):
    """Killed, gone on with, and never interrupted: three new processes."""
    root = request.config.rootpath
    process = in_a_process(tmp_path / "killed", root)
    for line in process.stdout:
        if line.strip() == "7":
            break
    process.kill()
    process.wait()
    state = safetensors.Reader(tmp_path / "killed" / "state.safetensors")
    assert state.metadata["updates"] == "4"  # the last checkpoint before
    for folder in (tmp_path / "killed", tmp_path / "whole"):
        process = in_a_process(folder, root)
        process.communicate()
        assert process.returncode == 0
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


def test_the_last_line_of_metrics_may_be_cut(finished, tmp_path):
    records = run_folder.train(open_run(tmp_path))
    while getattr(next(records), "step", 0) != 5:
        pass
    records.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')
    list(run_folder.train(open_run(tmp_path)))
    steps = [json.loads(line)["step"] for line in lines_of(tmp_path)]
    assert sorted(set(steps)) == list(range(1, 13))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"updates": 13}, "its steps is 12, not 13"),
        ({"model": "dense"}, "its model is 'mixtral', not 'dense'"),
        ({"changes": {**SMALL, "batch": 5}}, "its batch is 4, not 5. The same"),
        ({"changes": {**SMALL, "seed": 1}}, "its seed is 0, not 1. The"),
        ({"changes": {**SMALL, "experts": 8}}, "its experts is 4, not 8. The"),
        ({"checkpoint_every": 5}, "its checkpoint_every is 4, not 5"),
    ],
)
def test_other_settings_for_the_same_folder_are_refused(finished, options, message):
    with pytest.raises(ValueError, match=f"holds another run: {message}"):
        open_run(finished[0], **options)


def test_all_that_differs_is_named(finished):
    changes = {**SMALL, "batch": 5, "seed": 1, "dense_layers": [0]}
    names = "its batch is 4, not 5, its seed is 0, not 1, its dense_layers is None, not"
    with pytest.raises(ValueError, match=names):
        open_run(finished[0], changes=changes)


def test_what_a_refused_command_leaves_is_not_believed(tmp_path):
    """A tokeniser without a run.json may be that of another text or size."""
    other = CORPUS._replace(train="abc " * 400)
    tokenisers.save(tmp_path / "tokeniser.json", tokenisers.train("words", other.train, 300))
    run = open_run(tmp_path)
    wanted = tokenisers.train("byte_pairs", CORPUS.train, SMALL["vocabulary"])
    assert run.tokeniser.encode(CORPUS.train).tolist() == wanted.encode(CORPUS.train).tolist()
    with pytest.raises(ValueError, match="context"):
        open_run(tmp_path / "refused", changes={**SMALL, "context": 8})
    assert not list((tmp_path / "refused").iterdir())


def test_another_text_for_the_same_folder_is_refused(finished):
    other = CORPUS._replace(train=CORPUS.train + ".")
    with pytest.raises(ValueError, match="holds another run: its digest is"):
        run_folder.open_run(finished[0], other, updates=12, checkpoint_every=4, changes=SMALL)


def test_the_coefficient_of_the_balance_loss_can_be_set(finished, tmp_path):
    """The value that is reported has the coefficient; without it there is no balance loss."""
    _, records = finished
    strong = next(run_folder.train(open_run(tmp_path / "a", changes={**SMALL, "balance": 0.1})))
    assert strong.balance == pytest.approx([10 * value for value in records[0].balance])
    none = next(run_folder.train(open_run(tmp_path / "b", changes={**SMALL, "balance": 0})))
    assert none.balance == (0.0, 0.0)


def test_the_lstm_is_trained_with_its_two_losses(tmp_path):
    changes = {"d_model": 8, "experts": 5, "expert_hidden": 8, "vocabulary": 270, "length": 8}
    run = open_run(tmp_path, model="lstm", updates=3, changes={**changes, "options": {"k": 2}})
    *_, last, found = run_folder.train(run)
    assert last.step == 3
    assert len(last.balance) == len(last.load) == 1
    assert found.loss < np.log(270) + 0.5


def test_minutes_become_a_number_of_updates_that_is_stored(tmp_path):
    run = open_run(tmp_path, updates=None, minutes=0.002)
    assert run.options.updates >= 1
    again = open_run(tmp_path, updates=None, minutes=0.002)
    assert again.options.updates == run.options.updates


def test_minutes_that_are_not_measured_here_are_measured_by_the_next_command(tmp_path):
    assert open_run(tmp_path, updates=None, minutes=0.002, measure=False).options.updates == 0
    run = open_run(tmp_path, updates=None, minutes=0.002)
    assert run.options.updates == run_request.stored_request(tmp_path)["updates"] >= 1


def test_nan_in_the_loss_stops_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    run = open_run(tmp_path)
    functions = run_folder._functions

    def broken(run):
        gradients_of, minibatch_of = functions(run)
        calls = []

        def gradients(*arguments):
            losses, grads = gradients_of(*arguments)
            calls.append(None)
            return losses._replace(task=float("nan")) if len(calls) == 7 else losses, grads

        return gradients, minibatch_of

    monkeypatch.setattr(run_folder, "_functions", broken)
    with pytest.raises(loop.NotFiniteError, match="update 7: wanted finite numbers"):
        list(run_folder.train(run))
    monkeypatch.undo()
    assert safetensors.Reader(tmp_path / "state.safetensors").metadata["updates"] == "4"
    assert np.isfinite(run_folder.validate(run, model_files.load(tmp_path).params).loss)


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("model", "layer"),
    [("mixtral", r"layer \d: "), ("switch", r"encoder, layer \d: "), ("lstm", "mixture: ")],
)
def test_a_run_that_diverges_says_in_which_update_and_layer(tmp_path, model, layer):
    """The learning rate is small for four updates and then far too large."""
    names = {"vocabulary", "length", "batch", "validation_tokens", "d_model"}
    changes = {name: value for name, value in SMALL.items() if name in names}
    run = open_run(tmp_path, model=model, changes={**changes, "learning_rate": 1e-3, "warmup": 0})
    list(run_folder.train(run._replace(options=run.options._replace(updates=4))))
    before = bits(tmp_path)
    fast = run._replace(options=run.options._replace(learning_rate=1e12), checkpoint_every=1)
    with pytest.raises(loop.UpdateError, match=rf"update [5-9]: .*{layer}.*wanted") as error:
        list(run_folder.train(fast._replace(checkpoint_every=100)))
    assert str(error.value).endswith(f"; {tmp_path} has the checkpoint of update 4")
    assert bits(tmp_path) == before
    assert np.isfinite(run_folder.validate(run, model_files.load(tmp_path).params).loss)


def test_what_the_held_out_text_cannot_bear_is_told_and_not_stored(tmp_path, monkeypatch):
    run = open_run(tmp_path)

    def refuse(*arguments):
        raise InputError("layer 1: too large")

    monkeypatch.setattr(run_folder, "validate", refuse)
    wanted = "update 4: the held-out text after it: layer 1: too large; .* has no checkpoint"
    with pytest.raises(loop.UpdateError, match=wanted):
        list(run_folder.train(run))
    assert not (tmp_path / "state.safetensors").exists()
    monkeypatch.setattr(run_folder, "validate", lambda *arguments: Evaluation(np.nan, 1, 1))
    with pytest.raises(loop.NotFiniteError, match="infinity in the loss of the held-out text"):
        list(run_folder.train(run))
    assert not (tmp_path / "best").exists()


def test_two_runs_at_once_in_a_folder_are_refused(tmp_path):
    records = run_folder.train(open_run(tmp_path))
    next(records)
    if sys.platform != "win32":
        with pytest.raises(ValueError, match="in which no training runs"):
            next(run_folder.train(open_run(tmp_path)))
    records.close()
    assert next(run_folder.train(open_run(tmp_path))).step == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batches": 3}, "--set: wanted one of batch, length, .* got batches"),
        ({"batch": 0}, "--set batch: wanted"),
        ({"tokeniser": "syllables"}, "--set tokeniser: wanted"),
        ({"learning_rate": -1}, "learning_rate: wanted"),
        ({"router": "expert_choice"}, "in a decoder a token would see its future"),
        ({"updates": 5}, "--set: wanted one of"),
        ({"heads": 3, "kv_heads": 2}, "heads: wanted a multiple of 2"),
        ({"eps": float("nan")}, "layer 0: eps: wanted"),
        ({"context": 4}, "ids: wanted 1 to 4 positions"),
        ({"options": {"k": 9, "renormalise": True}}, "k: wanted at most the 4 experts"),
    ],
)
def test_a_value_that_cannot_be_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        open_run(tmp_path, changes={**SMALL, **changes})
    assert not (tmp_path / "run.json").exists()
    open_run(tmp_path)  # the command without the mistake is not refused


def test_a_text_that_is_too_short_is_told(tmp_path):
    short = corpus.Corpus("short", "the cat sat", " on")
    with pytest.raises(ValueError, match=r"--text: wanted more than 16 tokens .* got "):
        run_folder.open_run(tmp_path, short, updates=1, changes=SMALL)
    assert not (tmp_path / "run.json").exists()


def test_a_damaged_state_is_told(finished, tmp_path):
    list(run_folder.train(open_run(tmp_path)))
    path = tmp_path / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="damaged"):
        next(run_folder.train(open_run(tmp_path)))
