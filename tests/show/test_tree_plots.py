"""The pictures of trees show the probabilities that they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from moe_np.mixtures import hme
from moe_np.show import tree_plots


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_a_tree_has_every_branch_and_leaf(ax):
    top, below = np.array([0.9, 0.1]), np.array([[0.5, 0.5], [0.25, 0.75]])
    leaf = top[:, None] * below
    tree_plots.tree(ax, top, below, leaf, "before")
    shown = [f"{p:.2f}" for p in (*top, *below.ravel(), *leaf.ravel())]
    assert sorted(texts(ax)) == sorted(shown)
    widths = sorted(line.get_linewidth() for line in ax.lines)
    assert widths[-1] == pytest.approx(1 + 9 * 0.9)


def test_regions_name_four_experts(ax):
    leaf = np.repeat([0, 1, 2, 3], 25)
    tree_plots.regions(ax, np.eye(4)[leaf], leaf)
    assert texts(ax) == ["0", "1", "2", "3"] and len(ax.images) == 1


@pytest.mark.parametrize("with_resp", [False, True])
def test_lines_and_gates_have_a_band_per_level(ax, with_resp):
    rng = np.random.default_rng(0)
    params = hme.init(rng, (2, 2), 1, 1, init_range=1.0, var=0.3)
    x = rng.uniform(-1, 1, (6, 1))
    resp = np.eye(4)[[0, 1, 2, 3, 0, 1]] if with_resp else None
    tree_plots.lines_and_gates(ax, x, x, params, resp)
    assert texts(ax) == ["top gate", "leaves"] and len(ax.images) == 2
    assert len(ax.collections) == 5, "the cases, and a line per expert"
