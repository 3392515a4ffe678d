"""The walk through an exchange: counts, homes, and the picture."""

import numpy as np
import pytest

from moe_np import plots
from moe_np.parallel.layer_step import Sizes
from moe_np.show import walk
from moe_np.show.view.exchanged_rows import exchanged_rows


def test_every_exchange_is_a_state_and_the_rows_come_home():
    states = list(walk.exchange(3))
    assert [state.phase for state in states] == [
        *("counts", "dispatch", "combine", "dispatch back", "combine back", "router w"),
    ]
    for state in states:
        R = len(state["counts"])
        assert np.bincount(state["at"], minlength=R).tolist() == state["counts"].sum(0).tolist()
        assert state.note
    dispatch, combine = states[1], states[2]
    assert combine["counts"].tolist() == dispatch["counts"].T.tolist()
    assert dispatch["counts"].sum(axis=1).tolist() == [8, 8, 8]  # four tokens with two experts
    assert np.bincount(dispatch["home"]).tolist() == [8, 8, 8]
    for rank in range(3):
        homes = dispatch["home"][dispatch["at"] == rank]
        assert homes.tolist() == np.repeat(np.arange(3), dispatch["counts"][:, rank]).tolist()
    assert (combine["home"] == combine["at"]).all()
    assert states[3]["counts"].tolist() == dispatch["counts"].tolist()


def test_ranks_without_tokens_take_part():
    states = list(walk.exchange(4, Sizes(tokens=1, d_model=2, experts=4, hidden=2, k=2, pieces=4)))
    assert states[1]["counts"].sum() == 2
    with pytest.raises(ValueError, match="ranks: wanted at most one per expert, 6, got 7"):
        walk.exchange(7)


def test_the_picture_has_a_square_per_row_in_the_colour_of_its_home():
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_hex

    steps = walk.exchange(3)
    dispatch = list(steps)[1]
    assert steps.draw is exchanged_rows
    fig, ax = plt.subplots()
    steps.draw(ax, dispatch, [dispatch])
    colours = [to_hex(patch.get_facecolor()).upper() for patch in ax.patches]
    assert colours == [plots.COLOURS[home].upper() for home in dispatch["home"]]
    assert ax.get_title() == "dispatch"
    plt.close(fig)
