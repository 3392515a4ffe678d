"""The pictures of the lessons show what they were given."""

import matplotlib.pyplot as plt
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
