"""The file in which ranks say where they stand."""

import os

import pytest

from moe_np.parallel import progress


@pytest.fixture
def lines(tmp_path, monkeypatch):
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "ranks"))
    return progress.create(tmp_path / "ranks", 3)


def test_a_rank_writes_its_own_line(lines):
    assert progress.is_rank()
    progress.note(1)
    progress.note(1, name="counts")
    progress.note(1, name="dispatch", waiting=True)
    assert lines["waiting"].tolist() == [0, 1, 0]
    progress.note(1, waiting=False)
    assert not lines["waiting"].any()
    assert lines["exchanges"].tolist() == [0, 2, 0]
    assert lines["name"].tolist() == [b"", b"dispatch", b""]
    assert lines["pid"].tolist() == [0, os.getpid(), 0]
    assert not lines["ended"].any()
    progress.note(1, ended=True)
    assert lines["ended"].tolist() == [0, 1, 0]
    assert lines["exchanges"][1] == 2
    progress.note(1)
    assert lines["ended"].tolist() == [0, 1, 0], "it is there, and has ended"
    progress.note(1, ended=False)
    assert not lines["ended"].any(), "it goes on, in another run"


def test_a_long_name_is_cut(lines):
    progress.note(0, name="é" * 99)
    assert len(lines["name"][0]) == 64


def test_without_a_launcher_nothing_is_written(monkeypatch):
    monkeypatch.delenv(progress.VARIABLE, raising=False)
    assert not progress.is_rank()
    progress.note(7, name="counts")
