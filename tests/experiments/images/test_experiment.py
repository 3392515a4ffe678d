"""The images: the tasks, what must not tell a class, and the drawn digits."""

import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments.common.sweep import to_json
from moe_np.experiments.images import digit_images, experiment, runs
from moe_np.experiments.images.digit_images import FOUR, WHICH
from moe_np.experiments.images.report import report


@pytest.fixture(scope="module")
def result(smoke_sweep):
    pytest.importorskip("sklearn")
    with smoke_sweep("images") as sweep:
        return json.loads(to_json(experiment.run(sweep=sweep, **experiment.SMOKE)))


def parts():
    pytest.importorskip("sklearn")
    return digit_images.split(0, train=100, validation=50, test=200)


def test_parts_have_no_image_in_common():
    split = parts()
    rows = [image.tobytes() for part in split for image in part.images]
    assert len(rows) == 350 and len(set(rows)) >= 349  # two digits may be drawn alike
    with pytest.raises(InputError, match="train \\+ validation \\+ test"):
        digit_images.split(0, train=1000, validation=500, test=400)


def test_neither_rim_nor_blur_tells_which_rotation():
    """Both halves have the same pixels that are never covered, and the same sharpness."""
    task = digit_images.labelled(WHICH, parts().test, 0)
    halves = [(task.data.x[task.data.y == label] + 1) * 8 for label in (0, 1)]
    empty = [(half == 0).all(axis=0).reshape(8, 8) for half in halves]
    assert all(rim[edge].all() for rim in empty for edge in (0, -1))
    assert all(rim[:, edge].all() for rim in empty for edge in (0, -1))
    sharpness = [np.abs(np.diff(half.reshape(-1, 8, 8), axis=2)).mean() for half in halves]
    assert sharpness[0] == pytest.approx(sharpness[1], rel=0.1)
    assert (task.data.y == task.rotation).all() and (np.bincount(task.digit) % 2 == 0).all()


def test_quarter_turns_keep_every_pixel():
    split = parts()
    task = digit_images.labelled(FOUR, split.test, 0)
    images = ((task.data.x + 1) * 8).reshape(-1, 8, 8)
    for image, original, turns in zip(images, split.test.images, task.rotation, strict=True):
        np.testing.assert_allclose(image, np.rot90(original, turns), atol=1e-5)
    assert (task.data.y == split.test.digit).all() and set(task.rotation) == {0, 1, 2, 3}


def test_a_sequence_is_the_digit_and_its_pixels():
    part = parts().validation
    rows = digit_images.sequences(part)
    assert rows.shape == (50, 65) and rows.max() < digit_images.VOCABULARY
    assert (rows[:, 0] - digit_images.FIRST_DIGIT == part.digit).all()
    assert (rows[3, 1:].reshape(8, 8) == part.images[3]).all()


def test_systems_are_paired_and_reported(result):
    assert {run["system"] for run in result["runs"]} == set(runs.SYSTEMS)
    assert {claim["task"] for claim in result["claims"]} == set(runs.ALL_TASKS)
    text = report(result)
    assert "80.31 ± 0.62" in text and "92.60 ± 2.01" in text and "CIFAR-10-Rotate" in text
    mixtures = [run for run in result["runs"] if run["system"].endswith(": mixture")]
    assert all("taken" in run for run in mixtures)
    four = next(run for run in mixtures if run["system"].startswith(FOUR))
    assert np.sum(four["counts"]["rotation"]) == np.sum(four["counts"]["digit"]) == 40


def test_drawn_digits_have_values_of_pixels(result):
    drawn = [np.array(run["samples"]) for run in result["runs"] if "samples" in run]
    assert len(drawn) == 3
    for samples in drawn:
        assert samples.shape == (10, runs.SAMPLES, 8, 8)
        assert samples.min() >= 0 and samples.max() <= digit_images.LARGEST
