"""TensorBoard events: the same records as without, each as numbers at its update."""

import sys
import types

import pytest

from moe_np.language import tensorboard
from moe_np.language.evaluation import Evaluation
from moe_np.language.run_progress import Progress


def progress(step):
    """The record of one update of a model with one router of two experts."""
    return Progress(step, 3.0, (1.5,), 0.5, 1e-3, 64, 2.0, 2.0, [[3, 1]], [0.25])


class Writer:
    """What `tensorboardX.SummaryWriter` is used for."""

    def __init__(self, folder, purge_step):
        self.folder = folder
        self.purge_step = purge_step
        self.scalars = []
        self.closed = False

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def close(self):
        self.closed = True


@pytest.fixture
def writers(monkeypatch):
    made = []

    def writer(folder, purge_step):
        made.append(Writer(folder, purge_step))
        return made[-1]

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=writer))
    return made


def records_of(*records, ends=None):
    try:
        yield from records
    finally:
        if ends is not None:
            ends.append(True)


def test_every_record_is_written_and_given_on(writers, tmp_path):
    held_out = Evaluation(nats=250.0, tokens=100, bytes=400)
    given = list(tensorboard.recorded(records_of(progress(7), progress(8), held_out), tmp_path))
    assert given == [progress(7), progress(8), held_out]
    (writer,) = writers
    assert writer.closed
    assert writer.folder == str(tmp_path / "tensorboard")
    assert writer.purge_step == 7
    assert ("training/loss", 3.0, 8) in writer.scalars
    assert ("training/tokens_per_second", 32.0, 7) in writer.scalars
    assert ("balance_loss/layer_0", 1.5, 7) in writer.scalars
    assert ("largest_load/layer_0", 0.75, 8) in writer.scalars
    assert ("dropped_share/layer_0", 0.25, 8) in writer.scalars
    assert ("held_out/loss", 2.5, 8) in writer.scalars


def test_closing_it_closes_the_run(writers, tmp_path):
    ends = []
    records = tensorboard.recorded(records_of(progress(1), progress(2), ends=ends), tmp_path)
    next(records)
    records.close()
    assert ends
    assert writers[0].closed


def test_without_the_package_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    ends = []
    records = tensorboard.recorded(records_of(progress(1), progress(2), ends=ends), tmp_path)
    assert next(records) == progress(1)
    records.close()
    assert ends
    assert not list(tmp_path.iterdir())
