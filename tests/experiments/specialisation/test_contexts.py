"""Table 9 as a procedure, on a text of eight tokens."""

import numpy as np

from moe_np.experiments.specialisation import contexts
from moe_np.experiments.specialisation.snapshots import Routings


def routings():
    """a b a b a c a b d, of which the last is never routed; layer 0 alone."""
    tokens = np.array([0, 1, 0, 1, 0, 2, 0, 1, 3])
    choice = np.array([[[0, 1], [1, 0], [0, 1], [1, 2], [0, 2], [2, 1], [0, 1], [1, 0]]])
    weight = np.array([[[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]] * 2])
    return Routings(tokens[:-1], tokens[1:], tokens[1:], choice, weight)


def test_contexts_are_sorted_by_weight():
    """Expert 1: weights .1 .6 .3 .8 at places 0 to 3, .4 at 5, .3 at 6, .8 at 7."""
    places = contexts.places_of(routings(), 0, 1)
    # place 3 (a b a), 7 (a b d), 1 has the context of 3, 5 (a c a), 2 (b a b), 6 (c a b), 0
    assert places.tolist() == [3, 7, 5, 2, 6, 0]


def test_the_words_around_a_place():
    text_of = "abcd".__getitem__
    assert contexts.in_context(routings(), 0, text_of) == ["", "a", "b"]
    assert contexts.in_context(routings(), 7, text_of) == ["a", "b", "d"]


def test_uniformity_is_the_share_of_the_commonest():
    assert contexts.uniformity(np.array([3, 1, 3, 2])) == 0.5


def test_the_rule_picks_what_hands_would_pick():
    """Expert 2 has b, a and c once; expert 0 has a four times beside b; no fourth expert."""
    got = contexts.compared(routings(), 4, "abcd".__getitem__, np.random.default_rng(0))
    picked = [(e["layer"], e["expert"]) for e in got["picked"]]
    uniform = [e["uniformity"] for e in got["picked"]]
    assert sorted(picked) == [(0, 0), (0, 1), (0, 2)]
    assert uniform == sorted(uniform, reverse=True)
    assert got["picked"][-1]["expert"] == 2 and uniform[-1] == 1 / 3
    assert got["uniformity"]["picked"] >= got["uniformity"]["all"]
    assert len(got["random"]) == 3
