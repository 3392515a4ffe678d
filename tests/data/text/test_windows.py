"""Windows of tokens: targets are the next tokens, and in evaluation each counts once."""

import numpy as np
import pytest

from moe_np.data.text.windows import UNCOUNTED, covering_windows, random_windows


def test_targets_are_the_next_tokens():
    tokens = np.arange(100) ** 2
    ids, targets = random_windows(tokens, np.random.default_rng(0), batch=50, length=7)
    assert ids.shape == targets.shape == (50, 7)
    np.testing.assert_array_equal(np.sqrt(targets), np.sqrt(ids) + 1)
    np.testing.assert_array_equal(ids[:, 1:], targets[:, :-1])


def test_all_places_are_drawn_and_no_other():
    tokens = np.arange(12)
    ids, targets = random_windows(tokens, np.random.default_rng(1), batch=500, length=5)
    assert set(ids[:, 0]) == set(range(7))
    assert targets.max() == 11


@pytest.mark.parametrize("n", [2, 3, 8, 9, 10, 23, 24, 25, 100])
@pytest.mark.parametrize("length", [1, 2, 5, 8])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_token_but_the_first_counts_once_with_half_a_window_before_it(n, length, batch):
    tokens = np.random.default_rng(n).permutation(n) + 1
    seen = []
    for ids, targets in covering_windows(tokens, batch=batch, length=length):
        assert ids.shape == targets.shape
        assert len(ids) <= batch
        assert ids.shape[1] == length
        for row, wanted in zip(ids, targets, strict=True):
            for t in np.flatnonzero(wanted != UNCOUNTED):
                place = np.flatnonzero(tokens == wanted[t])[0]
                seen.append(place)
                # the context is what stands before the target
                np.testing.assert_array_equal(row[: t + 1], tokens[place - t - 1 : place])
                assert t + 1 >= min(place, length - length // 2, length)
    assert sorted(seen) == list(range(1, n))


def test_the_first_window_may_count_its_second_half_alone():
    tokens = np.arange(1, 31)
    counted = [
        number
        for _, targets in covering_windows(tokens, batch=2, length=8, first_whole=False)
        for number in targets[targets != UNCOUNTED]
    ]
    assert sorted(counted) == list(range(6, 31))


def test_short_sequences_are_refused():
    with pytest.raises(ValueError, match="tokens: wanted more than a window of 5, got 5"):
        random_windows(np.arange(5), np.random.default_rng(0), batch=1, length=5)
    with pytest.raises(ValueError, match="tokens: wanted at least two, got 1"):
        next(covering_windows(np.arange(1), batch=1, length=4))
    with pytest.raises(ValueError, match="batch: wanted"):
        random_windows(np.arange(9), np.random.default_rng(0), batch=0, length=4)
