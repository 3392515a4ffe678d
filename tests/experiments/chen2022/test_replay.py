"""The replay: the position of the stream where the notebooks printed numbers, the bookkeeping, and
(slow) whole notebooks.
"""

import json

import numpy as np
import pytest

from moe_np import kernels
from moe_np.base.checks import InputError
from moe_np.base.machine import one_blas_thread
from moe_np.data import torch_random
from moe_np.experiments.chen2022 import replay

SHORTEST = 3  # the setting whose replay takes the least time


@pytest.mark.parametrize(
    ("setting", "loads"),
    [
        (1, [2015, 1975, 2004, 2034, 2046, 1973, 1934, 2019]),
        (2, [1997, 2056, 1993, 1941, 1938, 2013, 2020, 2042]),
    ],
)
def test_loads_before_training_are_those_that_the_notebook_printed(setting, loads):
    """The router is zero, so the first pass sends every sample where its noise is largest."""
    _, stream = replay._load(None, setting)
    replay.start_mixture(stream)
    noise = torch_random.rand(stream, replay.N, replay.E)
    assert np.bincount(noise.argmax(axis=1), minlength=replay.E).tolist() == loads


def test_the_initialisation_is_small_and_has_a_router_of_zeros():
    params = replay.start_mixture(torch_random.manual_seed(11))
    assert {k: (v.shape, v.dtype.name) for k, v in params.items()} == {
        "w": ((8, 16, 50), "float32"),
        "b": ((8, 16), "float32"),
        "theta": ((8, 50), "float32"),
    }
    assert not params["theta"].any()
    assert 0.9e-3 / np.sqrt(50) < np.abs(params["w"]).max() < 1.001e-3 / np.sqrt(50)


def fake_run(stream, kind, data, epochs, *, first):
    """A run that takes one number of the stream per epoch, and is short."""
    entropy = torch_random.rand(stream, 3 + epochs % 7).round(6).tolist()
    accuracy = round(float(torch_random.rand(stream, 1)[0]), 5)
    return {"accuracy": accuracy, "epochs": len(entropy), "entropy_per_epoch": entropy}


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(replay, "train_and_test", fake_run)
    monkeypatch.setattr(replay, "_data", lambda setting: None)


def test_the_result_has_ten_runs_of_each_kind_in_the_order_of_the_notebook(fake):
    result = replay.replay(3, progress=False)
    assert result["setting"] == 3
    for kind in ("moe_nonlinear", "moe_linear"):
        of_kind = result[kind]
        for name in ("accuracy", "entropy", "entropy_per_epoch", "difference"):
            assert len(of_kind[name]) == 10
        assert of_kind["entropy"] == [curve[-1] for curve in of_kind["entropy_per_epoch"]]
        assert of_kind["recorded"]["accuracy"] == replay.PAPER[3][kind].accuracy
    _, stream = replay._load(None, 3)
    chain = [
        fake_run(stream, kind, None, 601 if i == 0 else 501, first=first)
        for i, (kind, first) in enumerate(replay.PLAN)
    ]
    assert [run["accuracy"] for run in chain[1:11]] == result["moe_nonlinear"]["accuracy"]
    assert [run["accuracy"] for run in chain[12:]] == result["moe_linear"]["accuracy"]
    assert chain[11] == result["moe_linear"]["first_run"]
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("killed_in", [0, 1, 7, 11, 21])
def test_a_killed_replay_continues_with_the_same_numbers(fake, monkeypatch, tmp_path, killed_in):
    whole = replay.replay(2, progress=False)
    calls = []

    def killed_run(*args, **kwargs):
        calls.append(args)
        if len(calls) == killed_in + 1:
            raise KeyboardInterrupt
        return fake_run(*args, **kwargs)

    monkeypatch.setattr(replay, "train_and_test", killed_run)
    with pytest.raises(KeyboardInterrupt):
        replay.replay(2, store=tmp_path, progress=False)
    calls = [None] * 100  # from here on no run is killed
    assert replay.run_one({"setting": 2, "limit": 22, "store": str(tmp_path)}) == whole
    assert len(calls) == 100 + len(replay.PLAN) - killed_in  # only what was missing
    assert replay.replay(2, store=tmp_path, progress=False) == whole
    assert len(calls) == 122 - killed_in


def test_a_limit_gives_the_beginning_and_a_later_call_the_rest(fake, tmp_path):
    whole = replay.replay(4, progress=False)
    part = replay.replay(4, store=tmp_path, progress=False, limit=3)
    assert part["moe_nonlinear"]["accuracy"] == whole["moe_nonlinear"]["accuracy"][:2]
    assert part["moe_linear"]["accuracy"] == [] and part["moe_linear"]["first_run"] is None
    assert "| 3 | 99.3375 | – |" in replay.report(part) and "of 2 runs" in replay.report(part)
    assert replay.replay(4, store=tmp_path, progress=False) == whole
    assert replay.replay(4, store=tmp_path, progress=False, limit=3) == part


def test_a_damaged_file_is_named(fake, tmp_path):
    replay.replay(1, store=tmp_path, progress=False)
    (path,) = (tmp_path / "replay_chen2022").iterdir()
    whole = json.loads(path.read_text())
    for damage in (
        '{"runs": [',
        "[]",
        json.dumps({**whole, "runs": []}),
        json.dumps({**whole, "runs": [1]}),
        json.dumps({**whole, "stream": [1, 2, 3]}),
        json.dumps({**whole, "stream": [625, *whole["stream"][1:]]}),
        json.dumps({**whole, "stream": [0, -1, *whole["stream"][2:]]}),
    ):
        path.write_text(damage)
        with pytest.raises(InputError, match="damaged file"):
            replay.replay(1, store=tmp_path, progress=False)


def test_an_unknown_setting_is_named():
    with pytest.raises(InputError, match="setting: wanted one of 1, 2, 3, 4; got 5"):
        replay.replay(5)


def test_difference_undoes_the_four_printed_digits():
    assert replay.difference(99.78125, 99.7812) == 0  # 15965 of 16000, printed with four digits
    assert replay.difference(95.65625, 95.6625) == -0.00625
    assert replay.difference(100.0, 99.9938) == 0.00625


def test_the_report_shows_every_run_and_how_many_agree(fake):
    result = replay.replay(2, progress=False)
    text = replay.report(result)
    assert text.count("\n|") == 14
    assert "| 3 | 93.7188 |" in text
    assert "89.49" in text, "the remark on the published notebook of setting 2"
    assert f"of {replay.N} test samples" in text


@pytest.mark.slow
def test_the_first_recorded_run_of_setting_1():
    """It ends after 209 passes, with every training and every test sample right, as printed."""
    if kernels.backend() == "numpy":
        pytest.skip("ten seconds in NumPy, one in the compiled loops")
    _, stream = replay._load(None, 1)
    with one_blas_thread():
        run = replay.train_and_test(stream, "moe_nonlinear", replay._data(1), 601, first=True)
    assert run["accuracy"] == run["accuracy_training"] == 100
    assert 201 < run["epochs"] < 301  # it printed epoch 201 and not 301
    assert run["entropy_per_epoch"][0] > 1.385 and run["entropy_per_epoch"][-1] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [s if s == SHORTEST else pytest.param(s, marks=pytest.mark.nightly) for s in replay.PAPER],
)
def test_every_recorded_accuracy(setting, tmp_path):
    result = replay.replay(setting, progress=False)
    for kind in replay.ACTIVATION:
        gaps = np.abs(result[kind]["difference"])
        assert gaps.max() <= (0.0126 if setting != 2 else 0.05)  # rounding decides the last samples
        assert (gaps == 0).sum() >= 5
