"""The pictures of a run show what metrics.jsonl has."""

import json

import numpy as np
import pytest
from matplotlib import pyplot as plt

from moe_np.language import run_pictures


def metrics(folder, updates=5, layers=2):
    rng = np.random.default_rng(0)
    with open(folder / "metrics.jsonl", "w", encoding="utf-8") as file:
        for step in range(1, updates + 1):
            load = rng.integers(1, 9, (layers, 4)).tolist()
            record = {"step": step, "loss": 5 - step / 2, "balance": [0.01] * layers}
            record |= {"gradient_norm": 1.0, "load": load}
            file.write(json.dumps(record) + "\n")
            if step % 2 == 0:
                file.write(json.dumps({"step": step, "validation_loss": 4.5}) + "\n")


@pytest.fixture
def figures(monkeypatch):
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    yield kept
    monkeypatch.undo()
    for figure in kept:
        plt.close(figure)


@pytest.mark.seconds
def test_curves_and_routing_are_drawn(tmp_path, figures):
    metrics(tmp_path)
    written = run_pictures.write(tmp_path)
    assert [path.name for path in written] == ["curves.png", "routing.png"]
    assert all(path.stat().st_size > 5000 for path in written)
    curves, routing = figures
    training, held_out = curves.axes[0].lines
    assert training.get_ydata().tolist() == [4.5, 4.0, 3.5, 3.0, 2.5]
    assert held_out.get_xdata().tolist() == [2, 4]
    share = routing.axes[0].images[0].get_array()
    assert share.shape == (4, 5)
    np.testing.assert_allclose(share.sum(axis=0), 100)


def test_a_dense_model_has_no_picture_of_its_routing(tmp_path, figures):
    metrics(tmp_path, layers=0)
    assert [path.name for path in run_pictures.write(tmp_path)] == ["curves.png"]


def test_a_run_without_updates_has_no_pictures(tmp_path):
    assert run_pictures.write(tmp_path) == []
