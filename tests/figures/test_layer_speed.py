"""The figures of the layer's speed: crossings, and the history of the bench."""

import pytest

from figures import Job
from figures.layer_speed import history, scaling
from moe_np import plots


def entry(date, expert, floor, processor="P"):
    shape = {"tokens": 256, "d": 64, "experts": 8, "k": 2}
    case = {**shape, "seconds": 0.001, "floor": floor, "dense": 1.1, "peers": {}}
    ratios = [{**case, "mode": mode} for mode in history.MODES]
    return {
        "date": date,
        "machine": {"processor": processor, "blas": "openblas"},
        "expert": expert,
        "ratios": ratios,
    }


ENTRIES = [
    entry("2025-03-01", "relu", 2.0),
    entry("2025-04-01", "swiglu", 3.0),
    entry("2025-05-01", "relu", 1.5),
    entry("2025-05-02", "relu", 1.7, "Q"),
]


def test_a_line_per_machine_and_shape():
    lines = history.series(ENTRIES, "forward")
    assert lines == {
        ("P", 256, 64, 8): [(0, 2.0), (1, 3.0), (2, 1.5)],
        ("Q", 256, 64, 8): [(3, 1.7)],
    }


def test_the_picture_shows_all_entries():
    with plots.style():
        fig = history.picture(ENTRIES)
    axes = fig.axes
    assert [ax.get_title("left") for ax in axes] == [
        f"{kind}, {mode}" for kind in ("relu", "swiglu") for mode in history.MODES
    ]
    points = [
        line.get_xdata().tolist() for line in axes[0].get_lines() if line.get_marker() in "os"
    ]
    assert points == [[0, 1], [2]]


@pytest.mark.seconds
def test_the_section_of_the_report(tmp_path, monkeypatch):
    job = Job(None, tmp_path)
    path = tmp_path / "history.jsonl"
    monkeypatch.setattr(history.history, "default_file", lambda: path)
    assert "No run of the bench is recorded" in history.make(job)
    for e in ENTRIES:
        history.history.append(path, e)
    text = history.make(job)
    assert (tmp_path / "history.png").exists()
    assert "| 2025-05-02 | relu | Q | openblas | 1.70 to 1.70 | 1.10 to 1.10 |" in text


def test_the_crossing_is_the_last_one():
    times = [{"sparse": s, "same size": 1.0} for s in (0.5, 2.0, 4.0, 0.25)]
    assert scaling.crossing((1, 2, 4, 8), times) == pytest.approx(4 * 2**0.5)
    assert scaling.crossing((1, 2), times[1:3]) is None
