"""The history of the bench: what an entry keeps, one line per entry."""

import datetime

import pytest

from moe_np.base.checks import InputError
from moe_np.experiments.layer_speed import history
from moe_np.experiments.layer_speed.bench import Facts, Result
from moe_np.experiments.layer_speed.problem import Shape

SHAPE = Shape(256, 64, 8)
DAY = datetime.date(2025, 3, 1)


def row(impl, seconds):
    ratios = {"ratio_dense": seconds / 0.002, "ratio_floor": seconds / 0.0005}
    shape = {"tokens": 256, "d": 64, "experts": 8, "k": 2, "hidden": 256}
    return {**shape, "mode": "forward", "impl": impl, "seconds": seconds, **ratios}


def result():
    facts = Facts(
        *("relu", 2, (1e11, 2.00000001e11), 3e10, {}, {SHAPE: 2}, [], 10.0),
        machine={"processor": "P", "blas": "B", "numpy": "2"},
        interrupted=False,
    )
    rows = [row("moe_np", 0.00123456), row("dense_numpy", 0.002), row("torch_loop", 0.004)]
    return Result(rows, facts)


def test_an_entry_is_small_and_has_ratios():
    entry = history.record(result(), DAY)
    assert entry["date"] == "2025-03-01" and entry["machine"]["processor"] == "P"
    assert entry["sgemm"] == [100000000000, 200000001000] and entry["bandwidth"] == 30000000000
    (case,) = entry["ratios"]
    assert (case["tokens"], case["mode"], case["seconds"]) == (256, "forward", 0.001235)
    assert (case["floor"], case["dense"]) == (2.469, 0.6173)
    assert case["peers"] == {"dense_numpy": 1.62, "torch_loop": 3.24}


def test_entries_are_appended_and_read_in_their_order(tmp_path):
    path = tmp_path / "history.jsonl"
    for day in (DAY, DAY.replace(day=2)):
        history.append(path, history.record(result(), day))
    assert [entry["date"] for entry in history.read(path)] == ["2025-03-01", "2025-03-02"]
    assert path.read_text().count("\n") == 2
    with open(path, "a", encoding="utf-8") as file:
        file.write("{}\n")
    with pytest.raises(InputError, match=r"history.jsonl, line 3: not an entry of the bench"):
        history.read(path)


def test_the_default_file_lies_in_the_checkout(monkeypatch, tmp_path):
    assert history.default_file().parent.is_dir()
    monkeypatch.setattr(history.moe_np, "__file__", str(tmp_path / "moe_np" / "__init__.py"))
    with pytest.raises(InputError, match="--record: wanted a file, because"):
        history.default_file()
