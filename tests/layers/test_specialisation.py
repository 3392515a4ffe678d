"""Measures of specialisation against values worked out by hand."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers.specialisation import (
    choices,
    co_activation,
    highest_share,
    independent,
    permutation_within,
    repetition,
    saturation,
    shares,
    top_tokens,
)
from moe_np.routing.contract import Routing

CHOICE = np.array([[0, 1], [1, 2], [3, 0], [0, 2], [0, 1]])


def rng():
    return np.random.default_rng(0)


def routing(token, expert, weight, n_tokens=2, n_experts=4):
    shape = (n_tokens, n_experts)
    demand = np.zeros(shape, bool)
    demand[token, expert] = True
    return Routing(
        np.array(token),
        np.array(expert),
        np.array(weight),
        np.zeros(shape),
        np.full(shape, 1 / n_experts),
        demand,
    )


def test_the_largest_weight_comes_first_whatever_the_order_of_the_rows():
    r = routing([1, 0, 0, 1], [2, 3, 1, 0], [0.4, 0.3, 0.7, 0.6])
    assert choices(r).expert.tolist() == [[1, 3], [0, 2]]
    assert choices(r).weight.tolist() == [[0.7, 0.3], [0.6, 0.4]]


@pytest.mark.parametrize("token", [[0, 0, 1], [0, 0]])
def test_tokens_with_different_numbers_of_experts_are_refused(token):
    with pytest.raises(InputError, match="the same number of experts for every token"):
        choices(routing(token, list(range(len(token))), [0.5] * len(token)))


# --- repetition -----------------------------------------------------------------------------------


def test_repetition_of_the_first_choice():
    """0 1 3 0 0: one of four neighbours. Loads 3/5, 1/5, 0, 1/5: Σ p² = 11/25."""
    got = repetition(CHOICE[:, :1], 4, rng())
    assert got.value == 1 / 4
    assert got.uniform == pytest.approx(1 / 4)
    assert got.by_loads == pytest.approx(11 / 25)
    assert got.by_tokens is None


def test_repetition_of_first_or_second_choice():
    """{01} {12} {03} {02} {01}: yes, no, yes, yes. Only {12} and {03} are disjoint: p = 1/5 each,
    and two orders, so 1 − 2/25.
    """
    got = repetition(CHOICE, 4, rng())
    assert got.value == 3 / 4
    assert got.uniform == pytest.approx(1 - 1 / 6)  # C(2, 2) / C(4, 2)
    assert got.by_loads == pytest.approx(1 - 2 / 25)


def test_the_published_baselines_of_mixtral():
    choice = np.array([[0, 1], [2, 3]])
    assert repetition(choice[:, :1], 8, rng()).uniform == pytest.approx(0.125)
    assert repetition(choice, 8, rng()).uniform == pytest.approx(13 / 28)


def test_a_permuted_order_has_the_repetition_of_the_loads():
    """Σ over pairs that are not the token itself: (N Σ p² − 1) / (N − 1)."""
    choice = np.repeat([0, 1, 2], [50, 30, 20])[:, None]
    got = repetition(choice, 3, rng(), permutations=400)
    assert got.by_loads == pytest.approx(0.38)
    assert got.value == 97 / 99
    assert got.permuted == pytest.approx(37 / 99, abs=0.01)


def test_what_the_order_of_the_words_explains():
    """The expert is the token's: all of it. The expert alternates without the tokens: nothing."""
    ids = np.tile([0, 0, 1, 1], 25)
    explained = repetition(ids[:, None], 2, rng(), ids=ids)
    assert explained.by_tokens == explained.value == 50 / 99
    alternating = repetition(np.tile([0, 1], 50)[:, None], 2, rng(), ids=ids, permutations=200)
    assert alternating.value == 0
    assert alternating.by_tokens == pytest.approx(0.5, abs=0.02)


def test_many_sets_are_counted_in_blocks(monkeypatch):
    from moe_np.layers import specialisation

    choice = np.argsort(rng().random((60, 9)), axis=1)[:, :3]
    member = np.zeros((60, 9), bool)
    member[np.arange(60)[:, None], choice] = True
    pairs = (member[:, None] & member[None]).any(axis=2).mean()
    assert repetition(choice, 9, rng()).by_loads == pytest.approx(pairs)
    monkeypatch.setattr(specialisation._by_loads, "__defaults__", (7,))
    assert repetition(choice, 9, rng()).by_loads == pytest.approx(pairs)


def test_a_permutation_within_labels():
    label = np.array([2, 0, 2, 1, 0, 2, 2])
    orders = [permutation_within(label, np.random.default_rng(seed)) for seed in range(50)]
    for order in orders:
        assert sorted(order) == list(range(7))
        assert (label[order] == label).all()
    assert len({tuple(order) for order in orders}) > 20  # of 4! · 2!


# --- saturation, co-activation --------------------------------------------------------------------


def test_saturation():
    """|{01} ∩ {10}| = 2, |{12} ∩ {23}| = 1, |{30} ∩ {12}| = 0: 3/6."""
    last = np.array([[1, 0], [2, 3], [1, 2]])
    assert saturation(CHOICE[:3], last, 4, rng()).value == 1 / 2
    assert saturation(last, last, 4, rng()).value == 1


def test_saturation_by_chance_is_k_of_e_with_equal_loads():
    choice = np.argsort(rng().random((4000, 8)), axis=1)[:, :2]
    assert saturation(choice, choice, 8, rng()).permuted == pytest.approx(0.25, abs=0.01)


def test_saturation_wants_the_same_text():
    with pytest.raises(InputError, match="earlier: wanted the shape of last"):
        saturation(CHOICE[:3], CHOICE, 4, rng())


def test_co_activation():
    """Expert 0 has four tokens, two of them with 1, one with 2, one with 3."""
    got = co_activation(CHOICE, 5)
    assert got[0].tolist() == [1, 2 / 4, 1 / 4, 1 / 4, 0]
    assert got[1] == pytest.approx([2 / 3, 1, 1 / 3, 0, 0])
    assert got[3].tolist() == [1, 0, 0, 1, 0]
    assert got[4].tolist() == [0, 0, 0, 0, 0]


def test_independent_second_choices():
    """Pairs (0, 1) and (2, 3) only; mixed, 0 goes with 3 half of the time. (0, 1) and (0, 0): the
    tokens with 0 twice are left out.
    """
    choice = np.array([[0, 1], [2, 3]] * 500)
    assert co_activation(choice, 4)[0, 3] == 0
    assert co_activation(independent(choice, rng()), 4)[0, 3] == pytest.approx(0.5, abs=0.05)
    repeated = independent(np.array([[0, 1], [1, 0]] * 500), rng())
    assert 400 < len(repeated) < 600
    assert (repeated[:, 0] != repeated[:, 1]).all()


# --- domains and vocabulary -----------------------------------------------------------------------


def test_domain_specialisation():
    """Domain 0 has tokens 0 to 2, domain 1 tokens 3 and 4; a column sums to k = 2."""
    share, count = shares(CHOICE, np.array([0, 0, 0, 1, 1]), (4, 3))
    assert count.tolist() == [3, 2, 0]
    assert share[:, 0] == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 3])
    assert share[:, 1].tolist() == [1, 1 / 2, 1 / 2, 0]
    assert share[:, 2].tolist() == [0, 0, 0, 0]


def test_vocabulary_specialisation():
    """First choices 0 1 3 0 0; token 5 occurs at the first, third and last place."""
    share, count = shares(CHOICE[:, :1], np.array([5, 6, 5, 6, 5]), (4, 7))
    assert count[5:].tolist() == [3, 2]
    assert share[:, 5] == pytest.approx([2 / 3, 0, 0, 1 / 3])
    assert share[:, 6].tolist() == [1 / 2, 1 / 2, 0, 0]


def test_the_highest_share_and_its_minimum():
    ids = np.array([5, 6, 5, 6, 5])
    got = highest_share(CHOICE[:, :1], ids, (4, 7), rng())
    assert got.value == pytest.approx((3 * 2 / 3 + 2 * 1 / 2) / 5)
    assert highest_share(CHOICE[:, :1], ids, (4, 7), rng(), minimum=3).value == pytest.approx(2 / 3)
    assert highest_share(CHOICE[:, :1], ids, (4, 7), rng(), minimum=4) == (0, 0)


def test_rare_tokens_are_specialists_by_chance():
    """Every token once: each has the share 1 at its expert, and so has chance."""
    choice = rng().integers(8, size=(100, 1))
    assert highest_share(choice, np.arange(100), (8, 100), rng()) == (1, 1)
    frequent = highest_share(choice, np.zeros(100, int), (8, 1), rng())
    assert frequent.value == pytest.approx(frequent.permuted)
    assert frequent.value < 0.3


def test_a_permutation_within_tokens_keeps_what_the_vocabulary_explains():
    """Experts by token, tokens by domain: all is explained. Experts by domain: half of it is."""
    ids = np.arange(400) % 4
    domain = ids // 2
    by_token = highest_share(ids[:, None], domain, (4, 2), rng(), within=ids)
    assert by_token.value == by_token.permuted == 1 / 2
    domain = np.arange(400) // 200
    by_domain = highest_share(domain[:, None], domain, (2, 2), rng(), within=ids)
    assert by_domain.value == 1
    assert by_domain.permuted == pytest.approx(0.5, abs=0.06)


def test_top_tokens():
    first = np.array([0, 0, 1, 0, 1, 1, 1, 0])
    ids = np.array([4, 4, 4, 7, 7, 2, 2, 3])
    rows = top_tokens(first, ids, (3, 8), minimum=2, n=2)
    assert [token[::2] for token in rows[0]] == [(4, 3), (7, 2)]
    assert rows[0][0].share == pytest.approx(2 / 3)
    assert rows[1] == [(2, 1.0, 2), (7, 0.5, 2)]
    assert rows[2] == []
    assert top_tokens(first, ids, (3, 8), minimum=1, n=1)[0] == [(3, 1.0, 1)]


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InputError, match="choice: wanted numbers from 0 to 2, got 0 to 3"):
        co_activation(CHOICE, 3)
    with pytest.raises(InputError, match="choice: wanted k different experts per token"):
        co_activation(np.array([[0, 1], [2, 2]]), 4)
    with pytest.raises(InputError, match="choice: wanted at least 2 tokens, got 1"):
        repetition(CHOICE[:1], 4, rng())
    with pytest.raises(InputError, match="label"):
        shares(CHOICE, np.array([0, 1]), (4, 2))


def test_choices_are_rows_of_whole_numbers():
    choice = CHOICE.tolist()
    np.testing.assert_array_equal(co_activation(choice, 4), co_activation(CHOICE, 4))
    np.testing.assert_array_equal(independent(choice, rng()), independent(CHOICE, rng()))
    for call in (lambda c: co_activation(c, 4), lambda c: independent(c, rng())):
        with pytest.raises(InputError, match=r"choice: wanted shape \(N, k\), got \(5,\)"):
            call(CHOICE[:, 0])
        with pytest.raises(InputError, match="choice: wanted integer numbers"):
            call(CHOICE / 1)
