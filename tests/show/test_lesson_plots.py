"""The pictures of the lessons show what they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from moe_np import plots
from moe_np.show import lesson_plots


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


def test_a_token_stands_on_the_colour_of_its_expert(ax):
    lesson_plots.coloured_tokens(ax, ["In", " the", " end"], [2, 0, 2], per_row=8)
    shown = [text.get_text() for text in ax.texts]
    assert shown == ["In", "·the", "·end", "expert 0", "expert 2"]
    colours = [plt.matplotlib.colors.to_hex(patch.get_facecolor()) for patch in ax.patches]
    assert colours == [plots.COLOURS[2].lower(), plots.COLOURS[0].lower(), plots.COLOURS[2].lower()]
    assert ax.patches[2].get_y() < ax.patches[0].get_y(), "a full row ends"


def test_bars_of_parameters_say_the_share(ax):
    lesson_plots.bars_of_parameters(ax, ["a", "b"], [2.0, 1.0], [8.0, 1.0])
    shown = [text.get_text() for text in ax.texts]
    assert shown == ["2.0 of 8.0 billion: 25%", "1.0 of 1.0 billion: 100%"]


def test_a_mixture_s_density_is_the_weighted_sum(ax):
    grid = np.linspace(-1, 1, 201)
    o, p = np.array([-0.5, 0.5]), np.array([0.25, 0.75])
    lesson_plots.densities(ax, grid, grid > 0, (0.0, 0.5), o, p, 0.1)
    height = dict(zip(*ax.lines[1].get_data(), strict=True))
    peak = 1 / (0.1 * np.sqrt(2 * np.pi))
    assert height[grid[150]] == pytest.approx(0.75 * peak)
    assert height[grid[50]] == pytest.approx(0.25 * peak)


def test_arrows_stand_where_a_step_moves_a_belief():
    figure, axes = plt.subplots(1, 2)
    p = np.array([[0.5, 0.5], [0.9, 0.1]])
    moved = np.array([[0.8, 0.2], [0.9, 0.1]])
    lesson_plots.belief_and_responsibility(axes, p, moved, moved)
    assert [len(ax.texts) for ax in axes] == [2, 0]
    plt.close(figure)


def test_a_line_is_as_thick_as_its_share(ax):
    params = {"W": np.array([[[1.0], [1.0]], [[2.0], [1.0]]]), "b": np.array([[-2.0], [-3.0]])}
    one = {name: value[:1] for name, value in params.items()}
    x, d = np.array([[0.3, 2.5], [0.8, 1.0]]), np.array([1.0, 0.0])
    lesson_plots.lines_over_points(ax, x, d, params, np.array([0.9, 0.1]), dashed=one)
    widths = [line.get_linewidth() for line in ax.lines]
    assert widths == pytest.approx([0.7 + 5.4, 0.7 + 0.6, 1.5])
    assert ax.lines[2].get_linestyle() == "--"


def test_a_kept_expert_is_blue_and_its_chance_is_written(ax):
    clean, sigma, threshold = np.array([1.0, 0.0]), np.ones(2), np.array([0.0, 1.0])
    lesson_plots.chances_to_be_kept(ax, clean, sigma, clean, threshold, np.array([0.84, 0.16]))
    assert [t.get_text() for t in ax.texts] == ["P = 0.84", "P = 0.16"]
    assert [t.get_color() for t in ax.texts] == [plots.BLUE, plots.GREY]
