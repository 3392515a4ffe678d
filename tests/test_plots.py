"""Pictures: they draw the numbers that they are given."""

import matplotlib
import numpy as np
import pytest

from moe_np import plots
from moe_np.layers import diagnostics

matplotlib.use("Agg")


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    yield ax
    fig.canvas.draw()  # what cannot be drawn fails here
    plt.close(fig)


def test_labelled_points(ax):
    x = np.array([[0.0, 1], [2, 3], [4, 5]])
    group = np.array([1, 0, 1])
    plots.labelled_points(ax, x, group, ["a", "b"], places=[(0, 0), (1, 2)])
    np.testing.assert_array_equal(ax.collections[1].get_offsets(), x[[0, 2]])
    assert [(t.get_text(), t.get_position()) for t in ax.texts] == [("a", (0, 0)), ("b", (1, 2))]


def test_straight_line_and_the_text_along_it(ax):
    ax.set(xlim=(0, 2), ylim=(0, 1))
    w = np.array([1.0, -2.0])
    b = 0.5
    (line,) = plots.straight_line(ax, w, b)
    np.testing.assert_allclose(np.stack(line.get_data(), axis=1) @ w + b, 0, atol=1e-12)
    assert ax.get_xlim() == (0, 2) and ax.get_ylim() == (0, 1)
    text = plots.text_along_line(ax, w, b, 0.5, "the line")
    assert text.xy == (0.5, 0.5)
    a, c = ax.transData.transform([(0.5, 0.5), (1.5, 1.0)])
    assert text.get_rotation() == pytest.approx(np.degrees(np.arctan2(*(c - a)[::-1])), abs=0.1)


def test_trajectories(ax):
    points = np.arange(12.0).reshape(3, 2, 2)
    plots.trajectories(ax, points, [plots.BLUE, plots.ORANGE])
    dots, first, last = ax.lines[3:]
    np.testing.assert_array_equal(np.stack(dots.get_data(), axis=1), points[:, 1])
    assert (first.get_xdata()[0], last.get_xdata()[0]) == (points[0, 1, 0], points[2, 1, 0])


def test_runs_beside_published(ax):
    values = [[1, 2, 3], [5]]
    published = [(2.5, 1.0), (4.0, 0.5)]
    plots.runs_beside_published(ax, ["a", "b"], values, published)
    assert [d.get_offsets()[:, 0].tolist() for d in ax.collections[::3]] == [[1, 2, 3], [5]]
    means = [line.get_xdata()[0] for line in ax.lines if line.get_marker() in ("o", "D")]
    assert means == [2, 2.5, 5, 4]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]


def test_expert_load(ax):
    plots.expert_load(ax, [3, 1], [5, 1])
    assert [bar.get_height() for bar in ax.patches] == [5, 1, 3, 1]
    assert ax.get_title(loc="left") + ax.get_title() == "CV 0.50, max/mean 1.50, dropped 33.3 %"


@pytest.mark.parametrize("load", [[0, 0], np.arange(64)])
def test_expert_load_without_demand(ax, load):
    plots.expert_load(ax, load)
    assert "dropped" not in ax.get_title(loc="left") + ax.get_title()


def test_training_curves(ax):
    series = {"no loss": [1, 2, 3], "Switch": [1, 0.5, 0.1]}
    plots.training_curves(ax, [0, 1, 2], series, balanced=0)
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 2, 3], [1, 0.5, 0.1]]
    assert [text.get_text() for text in ax.texts] == ["no loss", "Switch"]


def test_dispatch_table(ax):
    expert = np.array([0, 0, 0, 1, 3])
    label = np.array([0, 0, 1, 1, 2])
    plots.dispatch_table(ax, diagnostics.table(expert, label), ["a", "b", "c"])
    shown = ax.images[0].get_array()
    np.testing.assert_allclose(shown, [[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]])
    H = diagnostics.dispatch_entropy(expert, label)
    assert f"entropy {H:.2f} of 1.10 nats" in ax.get_title(loc="left") + ax.get_title()
    assert sorted(text.get_text() for text in ax.texts) == ["100", "100", "33", "67"]


def test_information_bars(ax):
    information = {
        "learned": diagnostics.Information(1.5, 0.2, 3.0, 2.0),
        "hash": diagnostics.Information(0.1, 0.3, 3.0, 2.0),
    }
    plots.information_bars(ax, information)
    assert [bar.get_width() for bar in ax.patches] == [1.5, 0.2, 0.1, 0.1]
    assert [line.get_xdata()[0] for line in ax.lines] == [2.0, 2.0]
