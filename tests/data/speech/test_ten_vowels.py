"""The ten vowels: sizes, splits without overlap, the context."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.data.speech.ten_vowels import FORMANTS, ten_vowels


@pytest.mark.parametrize(("context", "width"), [("none", 0), ("speaker", 75), ("m-f-c", 3)])
@pytest.mark.parametrize("formants", FORMANTS)
def test_parts_by_repetition(formants, context, width):
    train, test = ten_vowels(formants=formants, context=context)
    for part in (train, test):
        assert part.x.shape == part.hertz.shape == (750, len(formants.split()))
        assert part.context.shape == (750, width) and part.d.shape == (750, 10)
        np.testing.assert_array_equal(part.d.argmax(1), part.vowel)
        assert np.bincount(part.vowel).tolist() == [75] * 10 and 1 not in part.speaker
        if width:
            np.testing.assert_array_equal(part.context.sum(1), 1)
    np.testing.assert_array_equal(train.speaker, test.speaker)
    np.testing.assert_allclose(train.x.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(train.x.std(0), 1, atol=1e-12)
    assert np.corrcoef(train.x[:, 1], train.hertz[:, 1])[0, 1] == pytest.approx(1)


def test_the_context_is_the_speaker():
    train, test = ten_vowels(context="speaker", drop=17)
    for part in (train, test):
        column = dict(zip(part.speaker.tolist(), part.context.argmax(1).tolist(), strict=True))
        assert len(column) == len(set(column.values())) == 75 and 17 not in column
        np.testing.assert_array_equal(part.context.argmax(1), [column[s] for s in part.speaker])
    types = ten_vowels(context="m-f-c")[0]
    assert np.bincount(types.context.argmax(1)).tolist() == [320, 280, 150]
    assert types.speaker[types.context[:, 2] == 1].min() == 62


def test_the_speakers_of_the_test_set_are_new():
    train, test = ten_vowels(split="speakers", seed=3)
    assert len(train.x) == 1000 and len(test.x) == 500
    assert not set(train.speaker) & set(test.speaker)
    same, different = (ten_vowels(split="speakers", seed=seed)[0] for seed in (3, 4))
    np.testing.assert_array_equal(train.speaker, same.speaker)
    assert set(train.speaker) != set(different.speaker)


@pytest.mark.parametrize(
    "bad",
    [
        {"formants": "F0"},
        {"context": "age"},
        {"split": "odd"},
        {"drop": 77},
        {"split": "speakers", "seed": None},
    ],
)
def test_an_unknown_choice_is_refused(bad):
    with pytest.raises(InputError, match=list(bad)[-1]):
        ten_vowels(**bad)
