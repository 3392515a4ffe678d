"""The pictures of the lessons on whole models show what they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from moe_np import plots
from moe_np.show import model_plots


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def colours(ax):
    return [plt.matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in ax.patches]


def test_a_block_has_two_sums_on_its_residual_stream(ax):
    model_plots.residual_block(ax)
    assert texts(ax).count("+") == 2
    assert {"x", "a", "x_next", "attention", "router", "experts"} <= set(texts(ax))
    assert len(ax.patches) == len(model_plots.BOXES)


def test_weights_have_the_words_at_both_axes(ax):
    P = np.tril(np.ones((2, 2)))
    model_plots.attention_weights(ax, P, ["in", "the"])
    assert np.array_equal(ax.images[0].get_array(), P) and ax.images[0].get_clim() == (0, 1)
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["in", "the"]


def test_every_position_of_a_pair_has_its_number(ax):
    model_plots.turning_pair(ax, np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert texts(ax) == ["0", "1"]


def test_baselines_are_lines_with_names(ax):
    model_plots.loss_with_baselines(ax, [3.0, 2.0], {"uniform": 3.5, "pairs": 2.5})
    assert texts(ax) == ["uniform", "pairs"]
    assert [line.get_ydata()[0] for line in ax.lines] == [3.0, 3.5, 2.5]


def test_shares_have_a_line_per_expert_and_the_even_share(ax):
    model_plots.shares_by_update(ax, [np.array([0.25, 0.75]), np.array([0.5, 0.5])])
    first, second, even = (list(line.get_ydata()) for line in ax.lines)
    assert (first, second, even) == ([0.25, 0.5], [0.75, 0.5], [0.5, 0.5])


def test_shares_are_sorted_by_model(ax):
    model_plots.sorted_shares(ax, {"a": np.array([0.25, 0.75]), "b": np.array([0.5, 0.5])})
    assert [bar.get_height() for bar in ax.patches] == [0.75, 0.25, 0.5, 0.5]
    assert colours(ax) == [plots.COLOURS[0]] * 2 + [plots.COLOURS[1]] * 2
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_gradients_into_the_past_are_on_a_logarithmic_axis(ax):
    model_plots.gradient_reach(ax, {"bias 0": np.array([1.0, 0.1, 0.01])})
    assert ax.get_yscale() == "log" and texts(ax) == ["bias 0"]


def test_tokens_that_are_kept_are_blue(ax):
    model_plots.next_tokens(ax, ["a", "b"], np.array([0.75, 0.25]), 1)
    assert colours(ax) == [plots.BLUE, plots.GREY]
