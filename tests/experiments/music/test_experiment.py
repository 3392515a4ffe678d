"""The music: what is held out, the place of the voices, and MIDI files of what was drawn."""

import json

import numpy as np
import pytest

from moe_np.data.music import chorales, midi
from moe_np.experiments.common.sweep import to_json
from moe_np.experiments.music import experiment, runs
from moe_np.experiments.music.report import report


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("music") as sweep:
        return json.loads(to_json(experiment.run(sweep=sweep, **experiment.SMOKE))), sweep.store


def test_a_voice_keeps_its_place_through_the_whole_stream():
    pieces = chorales.chorales()[:3]
    tokens = runs.stream(pieces, (0, 2))
    columns = tokens.reshape(-1, 4)
    ends = columns == chorales.END
    assert (ends.all(axis=1) == ends.any(axis=1)).all() and ends.all(axis=1).sum() == 6
    length = pieces[0].grid.shape[1]
    assert (chorales.decode(tokens[: 4 * length]) == pieces[0].grid).all()


def test_a_chorale_that_leaves_the_range_is_left_out_in_that_key():
    high = max(chorales.chorales(), key=lambda piece: piece.grid.max())
    room = chorales.HIGHEST - int(high.grid.max())
    assert len(runs.stream([high], (0,))) == len(runs.stream([high], (0, room + 1)))


def test_continuations_begin_with_the_chorale_that_is_held_out(result):
    config = experiment.SMOKE["config"]
    continued = [run["continuation"] for run in result[0]["runs"] if "continuation" in run]
    assert len(continued) == 3
    held_out = {piece.name: piece for piece in chorales.split().test}
    for continuation in continued:
        grid = chorales.checked(np.array(continuation["grid"]))
        original = held_out[continuation["name"]].grid
        assert (grid[:, : config.prompt] == original[:, : config.prompt]).all()
        assert grid.shape[1] <= config.prompt + config.continuation


def test_the_files_lie_beside_the_runs(result):
    ours, store = result
    assert ours["listening"] and "mixture.mid" in report(ours)
    for name in ours["listening"]:
        assert (store / name).read_bytes()[:4] == b"MThd"
    grids = [run["continuation"]["grid"] for run in ours["runs"] if "continuation" in run]
    assert (store / ours["listening"][0]).read_bytes() == midi.midi_bytes(np.array(grids[0]))


def test_the_report_says_what_the_experts_take(result):
    text = report(result[0])
    assert "held or new" in text and "nats per note" in text
    assert {claim["against"] for claim in result[0]["claims"]} == set(runs.SYSTEMS) - {"mixture"}
