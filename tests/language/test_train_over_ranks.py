"""A training run in a folder over ranks: the same files, to the bit, on any number of ranks."""

import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.language import folder_lock, run_folder, run_request, run_state, train_over_ranks
from moe_np.language.evaluation import Evaluation
from moe_np.models import safetensors
from moe_np.parallel import in_process
from moe_np.parallel.exchanges import RankError
from moe_np.parallel.training_over_ranks import in_this_process
from tests.language.test_run_folder import SMALL, bits, lines_of, open_run

CLOCKS = ("seconds", "processor_seconds")


def trained(folder, ranks, stop=lambda: False, division=None, **options):
    run = open_run(folder, measure=False, **options)
    divided = train_over_ranks.divide(run, **(division or {}))
    world = in_this_process(ranks)
    run = train_over_ranks.measured(run, divided, world)
    return list(train_over_ranks.train(run, divided, world, stop=stop))


def without_clocks(folder):
    lines = [json.loads(line) for line in lines_of(folder)]
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in lines]


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks") / "run"
    return folder, trained(folder, 1)


@pytest.mark.seconds
@pytest.mark.parametrize("ranks", [2, 3])
def test_the_files_do_not_depend_on_the_number_of_ranks(one_rank, tmp_path, ranks):
    folder, records = one_rank
    found = trained(tmp_path, ranks)
    assert bits(tmp_path) == bits(folder)
    assert bits(tmp_path, "model.safetensors") == bits(folder, "model.safetensors")
    assert bits(tmp_path / "best", "model.safetensors") == bits(
        folder / "best", "model.safetensors"
    )
    assert without_clocks(tmp_path) == without_clocks(folder)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in folder.iterdir()}
    assert len(found) == len(records) == 12 + 3


def test_load_and_dropped_share_are_recorded(one_rank):
    _, records = one_rank
    updates = [record for record in records if not isinstance(record, Evaluation)]
    assert [len(load) for load in updates[0].load] == [4, 4]
    assert sum(updates[0].load[0]) == 2 * 4 * 16
    assert updates[0].dropped == [0.0, 0.0]
    assert updates[-1].loss < updates[0].loss - 0.5


def test_it_learns_what_the_loop_of_one_process_learns(one_rank, tmp_path):
    alone = list(run_folder.train(open_run(tmp_path)))
    wanted = [record.loss for record in alone]
    np.testing.assert_allclose([record.loss for record in one_rank[1]], wanted, rtol=1e-4)


@pytest.mark.parametrize("stop_at", [3, 4, 9])
def test_a_run_goes_on_on_other_ranks_to_the_same_bits(one_rank, tmp_path, stop_at):
    asked = []

    def stop():
        asked.append(True)
        return len(asked) > 2 * (stop_at - 1)  # each of the two ranks asks after every update

    records = trained(tmp_path, 2, stop)
    updates = [record.step for record in records if not isinstance(record, Evaluation)]
    assert updates == list(range(1, stop_at + 1))
    assert run_state.updates(tmp_path) == stop_at
    trained(tmp_path, 3)
    assert bits(tmp_path) == bits(one_rank[0])
    assert without_clocks(tmp_path) == without_clocks(one_rank[0])


@pytest.mark.parametrize(
    ("model", "changes", "division"),
    [
        ("dense", {"experts": 1}, {}),
        ("glam", {"dense_layers": [0]}, {"pieces": 3}),
        ("mixtral", {"router": "switch", "options": {"capacity_factor": 1.0}}, {"group": "piece"}),
        ("mixtral", {"router": "switch", "options": {"capacity_factor": 1.0}}, {"group": "batch"}),
        ("switch", {"encoder_layers": 2, "decoder_layers": 2, "balance": 0.1}, {}),
        ("lstm", {"expert_hidden": 16}, {}),
    ],
)
def test_every_model_has_the_same_bits_on_two_ranks(tmp_path, model, changes, division):
    fields = run_folder.kinds.KINDS[model].model.Config._fields
    of_loop = ("vocabulary", "length", "batch", "validation_tokens", "learning_rate", "warmup")
    small = {name: value for name, value in SMALL.items() if name in (*fields, *of_loop)}
    options = {"model": model, "updates": 3, "changes": small | changes, "checkpoint_every": 3}
    for ranks in (1, 2):
        records = trained(tmp_path / f"{ranks}", ranks, division=division, **options)
        assert records[0].gradient_norm > 0
    assert bits(tmp_path / "1") == bits(tmp_path / "2")
    assert without_clocks(tmp_path / "1") == without_clocks(tmp_path / "2")


def test_in_one_piece_a_replicated_model_is_that_of_the_loop(tmp_path):
    changes = {name: SMALL[name] for name in ("d_model", "heads", "d_head", "experts", "hidden")}
    changes |= {name: SMALL[name] for name in ("vocabulary", "length", "batch")}
    options = {"model": "switch", "updates": 3, "changes": changes}
    trained(tmp_path / "ranks", 1, division={"pieces": 1}, **options)
    list(run_folder.train(open_run(tmp_path / "loop", **options)))
    over_ranks, alone = (
        safetensors.Reader(tmp_path / name / run_state.STATE) for name in ("ranks", "loop")
    )
    for path, array in alone.items():
        np.testing.assert_allclose(over_ranks[path], array, rtol=1e-3, atol=1e-6, err_msg=path)


# --- micro-batches, and a number of updates that is measured --------------------------------------

MICRO_BATCHES = {**SMALL, "micro_batches": 3}


@pytest.mark.seconds
@pytest.mark.parametrize("model", ["mixtral", "switch"])
def test_micro_batches_go_on_on_other_ranks_to_the_same_bits(tmp_path, model):
    """A decoder, whose experts are divided, and a model that every rank has whole."""
    changes = MICRO_BATCHES
    if model == "switch":
        left_out = ("layers", "kv_heads")
        changes = {name: value for name, value in changes.items() if name not in left_out}
    options = {"model": model, "updates": 5, "changes": changes, "checkpoint_every": 3}
    records = trained(tmp_path / "1", 1, **options)
    assert records[0].tokens == 3 * 4 * (16 if model == "mixtral" else 9)
    asked = []
    trained(tmp_path / "2", 2, lambda: asked.append(True) or len(asked) > 6, **options)
    assert run_state.updates(tmp_path / "2") == 4
    trained(tmp_path / "2", 3, **options)
    trained(tmp_path / "3", 3, **options)
    for folder in (tmp_path / "2", tmp_path / "3"):
        assert bits(folder) == bits(tmp_path / "1")
        assert without_clocks(folder) == without_clocks(tmp_path / "1")


@pytest.mark.parametrize("ranks", [1, 2])
def test_minutes_become_a_number_of_updates_that_other_ranks_keep(tmp_path, ranks):
    minutes = {"updates": None, "minutes": 0.001}
    asked = []
    trained(tmp_path / "run", ranks, lambda: asked.append(True) or True, **minutes)
    number = run_request.stored_request(tmp_path / "run")["updates"]
    assert run_state.updates(tmp_path / "run") == 1
    assert len(asked) == ranks  # the updates that were timed are none of the run
    trained(tmp_path / "run", 3, **minutes)
    assert open_run(tmp_path / "run", **minutes).options.updates == number
    trained(tmp_path / "steps", 1, updates=number)
    assert bits(tmp_path / "run") == bits(tmp_path / "steps")


def test_minutes_that_were_not_measured_are_measured_when_the_run_goes_on(tmp_path, monkeypatch):
    options = {"updates": None, "minutes": 0.001}
    run = open_run(tmp_path, measure=False, **options)
    division = train_over_ranks.divide(run)
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(run_folder, "updates_in", _killed)
        train_over_ranks.measured(run, division, in_this_process(2))
    assert run_request.stored_request(tmp_path)["updates"] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "tokeniser.json"}
    again = open_run(tmp_path, measure=False, **options)
    assert again.options.updates == 0
    again = train_over_ranks.measured(again, division, in_this_process(3))
    assert again.options.updates == run_request.stored_request(tmp_path)["updates"] >= 1
    assert train_over_ranks.stored_division(again) == division


def test_the_number_of_updates_is_that_of_rank_0(tmp_path):
    run = open_run(tmp_path, measure=False, updates=None, minutes=1)
    ranks = [train_over_ranks._agreed(run, number, r) for r, number in enumerate((5, 7, 6))]
    assert in_process.run(ranks) == [5, 5, 5]
    assert open_run(tmp_path, updates=None, minutes=1).options.updates == 5


def _killed(minutes, steps):
    next(steps)
    raise KeyboardInterrupt


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "division", "message"),
    [
        ({}, {"pieces": 5}, r"--pieces: wanted a whole number of at least 1 and at most 4, got 5"),
        ({}, {"pieces": 0}, r"--pieces: wanted"),
        ({}, {"group": "rank"}, r"--group: wanted one of"),
        ({}, {"balance_group": "rank"}, r"--balance-group: wanted one of"),
        ({"changes": {**SMALL, "expert_dropout": 0.5}}, {}, r"--set expert_dropout: wanted 0 with"),
        (
            {"changes": {**SMALL, "router": "switch", "options": {"capacity_factor": 1.0}}},
            {},
            r"group: wanted one of piece, rank, batch for the router switch",
        ),
    ],
)
def test_a_division_that_does_not_fit_is_told(tmp_path, options, division, message):
    run = open_run(tmp_path, **options)
    with pytest.raises(InputError, match=message):
        train_over_ranks.divide(run, **division)
    assert train_over_ranks.stored_division(run) is None


def test_too_many_ranks_are_told(tmp_path):
    run = open_run(tmp_path, changes={**SMALL, "batch": 6})
    division = train_over_ranks.divide(run)
    with pytest.raises(InputError, match="--ranks: wanted at most one per piece, 6, got 7; a new"):
        train_over_ranks.plan_of(run, division, 7)
    with pytest.raises(InputError, match="ranks: wanted at most one per expert, 4, got 5"):
        train_over_ranks.plan_of(run, division, 5)
    dense = open_run(tmp_path / "dense", model="dense", changes={**SMALL, "batch": 6, "experts": 1})
    train_over_ranks.plan_of(dense, train_over_ranks.divide(dense), 6)  # replicated on all


def test_another_division_and_a_run_without_one_are_told(one_rank, tmp_path):
    run = open_run(one_rank[0])
    assert train_over_ranks.divide(run) == train_over_ranks.Division(4)
    with pytest.raises(InputError, match="holds another run: its pieces is 4, not 3"):
        train_over_ranks.divide(run, pieces=3)
    list(run_folder.train(open_run(tmp_path, updates=2)))
    with pytest.raises(InputError, match="holds another run: it was begun without --ranks"):
        train_over_ranks.divide(open_run(tmp_path, updates=2))


def test_a_locked_folder_ends_all_ranks(tmp_path):
    run = open_run(tmp_path)
    division = train_over_ranks.divide(run)
    with folder_lock.held(tmp_path), pytest.raises(RankError, match="rank 0: folder: wanted a fol"):
        next(train_over_ranks.train(run, division, in_this_process(2)))
    next(train_over_ranks.train(run, division, in_this_process(2)))


def test_a_checkpoint_that_cannot_be_written_ends_all_ranks(tmp_path, monkeypatch):
    def write(folder, state, best):
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(run_state, "write", write)
    with pytest.raises(RankError, match=r"rank 0: OSError: .*No space left on device"):
        trained(tmp_path, 2)


def test_numbers_that_are_too_large_end_all_ranks_with_the_update(tmp_path):
    with pytest.raises(RankError, match=r"rank 0: update \d+: "):
        trained(tmp_path, 2, changes={**SMALL, "learning_rate": 1e20, "clip": 1e30})
