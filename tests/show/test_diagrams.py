"""The diagrams of the lessons: every expert is drawn, and the chosen ones have their weights."""

import matplotlib.pyplot as plt
import pytest

from moe_np.show import diagrams


@pytest.fixture
def axes():
    yield plt.subplots(1, 3)[1]
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_a_block_has_a_router_and_as_many_experts_as_asked_for(axes):
    diagrams.transformer_block(axes[0], n_experts=5, chosen=(0, 3))
    found = texts(axes[0])
    assert [name for name in found if name.isdigit()] == ["0", "1", "2", "3", "4"]
    assert {"× 0.7", "× 0.3", "sparse layer", "router: a score per expert"} <= set(found)


def test_three_kinds_of_sharing_have_three_titles(axes):
    diagrams.kinds_of_sharing(axes)
    assert [ax.get_title() for ax in axes] == [
        "a mixture in a mixture",
        "shared parameters",
        "a shared expert",
    ]
    assert [texts(ax).count("gate") for ax in axes] == [3, 0, 0]
