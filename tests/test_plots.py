"""Pictures of load and specialisation: they draw the numbers they are given."""

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


def test_expert_load(ax):
    plots.expert_load(ax, [3, 1], [5, 1])
    assert [bar.get_height() for bar in ax.patches] == [5, 1, 3, 1]
    assert ax.get_title(loc="left") + ax.get_title() == "CV 0.50, max/mean 1.50, dropped 33.3 %"


@pytest.mark.parametrize("load", [[0, 0], np.arange(64)])
def test_expert_load_without_demand(ax, load):
    plots.expert_load(ax, load)
    assert "dropped" not in ax.get_title(loc="left") + ax.get_title()


def test_over_time(ax):
    plots.over_time(ax, [0, 1, 2], {"no loss": [1, 2, 3], "Switch": [1, 0.5, 0.1]}, even=0)
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 2, 3], [1, 0.5, 0.1]]
    assert [text.get_text() for text in ax.texts] == ["no loss", "Switch"]


def test_dispatch(ax):
    expert, label = np.array([0, 0, 0, 1, 3]), np.array([0, 0, 1, 1, 2])
    plots.dispatch(ax, diagnostics.table(expert, label), ["a", "b", "c"])
    shown = ax.images[0].get_array()
    np.testing.assert_allclose(shown, [[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]])
    H = diagnostics.dispatch_entropy(expert, label)
    assert f"entropy {H:.2f} of 1.10 nats" in ax.get_title(loc="left") + ax.get_title()
    assert sorted(text.get_text() for text in ax.texts) == ["100", "100", "33", "67"]


def test_information(ax):
    found = {
        "learned": diagnostics.Information(1.5, 0.2, 3.0, 2.0),
        "hash": diagnostics.Information(0.1, 0.3, 3.0, 2.0),
    }
    plots.information(ax, found)
    assert [bar.get_width() for bar in ax.patches] == [1.5, 0.2, 0.1, 0.1]
    assert [line.get_xdata()[0] for line in ax.lines] == [2.0, 2.0]
