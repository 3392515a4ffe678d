"""The digits of scikit-learn as three tasks of classification, and as sequences of pixels.

1,797 handwritten digits of 8 x 8 pixels with values from 0 to 16 (Alpaydin and Kaynak 1998). Who
wrote a digit is not known, so that training and test images share their writers.

    task                       class               cluster                    images
    digits                     digit               –                          as they are
    which rotation             −7.5° or +7.5°      digit                      each twice
    digits in four rotations   digit               0°, 90°, 180° or 270°      each once

`which rotation` is the idea of CIFAR-10-Rotate (Chen et al. 2022, section 6): is an image rotated
by 30 degrees? The kinds of images are the clusters. Three things differ here. Both halves are
rotated, by half the angle, since interpolation blurs and would tell the class. The rim is cut off,
since what comes in from outside would tell it too. And the angle between the halves is 15 degrees:
at 30 a logistic regression is right in 99 % of the cases.
"""

from functools import cache
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import ArrayN
from moe_np.experiments.common import extras
from moe_np.experiments.common.mixture_classifier import Data

Images = Annotated[np.ndarray, "N, 8, 8"]  # values from 0 to 16

DIGITS = "digits"
WHICH = "which rotation"
FOUR = "digits in four rotations"
TASKS = (DIGITS, WHICH, FOUR)
SIDE = 8
LARGEST = 16  # value of a pixel
ANGLE = 15.0  # degrees between the two halves
FIRST_DIGIT = LARGEST + 1  # the token of digit 0; the tokens below are values of pixels
VOCABULARY = FIRST_DIGIT + 10


class Part(NamedTuple):
    """Images of one part, with what they show."""

    images: Images
    digit: ArrayN


class Split(NamedTuple):
    """Images for training, for choices, and for the final number."""

    train: Part
    validation: Part
    test: Part


class Labelled(NamedTuple):
    """One part as a task of classification."""

    data: Data
    digit: ArrayN
    rotation: ArrayN  # the number of the rotation; zeros where there is one alone


@cache
def digits() -> Part:
    """All images. Raises InputError where scikit-learn is not installed."""
    extras.require("sklearn", "estimators")
    from sklearn.datasets import load_digits

    data = load_digits()
    return Part(data["images"], data["target"].astype(np.int64))


def split(seed: int, *, train: int, validation: int, test: int) -> Split:
    """A random split by seed, of these numbers of images."""
    images, digit = digits()
    for name, value in (("train", train), ("validation", validation), ("test", test)):
        checks.integer(name, value, minimum=1, maximum=len(images))
    total = checks.integer("train + validation + test", train + validation + test)
    checks.integer("train + validation + test", total, maximum=len(images))
    order = np.random.default_rng([seed, 0]).permutation(len(images))
    parts = np.split(order[:total], [train, train + validation])
    return Split(*(Part(images[rows], digit[rows]) for rows in parts))


def labelled(task: str, part: Part, seed: int) -> Labelled:
    """A part as one of TASKS; `seed` draws the rotations of `digits in four rotations`."""
    checks.choice("task", task, TASKS)
    images, digit = part
    rotation = np.zeros(len(images), np.int64)
    if task == WHICH:
        halves = [rotated(images, angle) for angle in (-ANGLE / 2, ANGLE / 2)]
        images = np.concatenate(halves) * _inside()
        digit = np.concatenate([digit, digit])
        rotation = np.repeat([0, 1], len(images) // 2)
    elif task == FOUR:
        rotation = np.random.default_rng([seed, 2]).integers(0, 4, len(images))
        turned = [np.rot90(image, turns) for image, turns in zip(images, rotation, strict=True)]
        images = np.stack(turned)
    x = (images.reshape(len(images), -1) / (LARGEST / 2) - 1).astype(np.float32)
    return Labelled(Data(x, rotation if task == WHICH else digit), digit, rotation)


def rotated(images: Images, degrees: float) -> Images:
    """The images rotated about their middle, with linear interpolation; 0 comes in from outside."""
    from scipy import ndimage

    return ndimage.rotate(images, degrees, axes=(1, 2), reshape=False, order=1)


@cache
def _inside():
    """(8, 8), 1 at the pixels that have nothing from outside in either rotation, 0 at the rim."""
    whole = np.ones((1, SIDE, SIDE))
    covered = [rotated(whole, angle)[0] > 1 - 1e-9 for angle in (-ANGLE / 2, ANGLE / 2)]
    return np.logical_and(*covered).astype(float)


def sequences(part: Part) -> Annotated[np.ndarray, "N, 65"]:
    """The token of the digit, and then its pixels row by row."""
    pixels = part.images.reshape(len(part.images), -1).astype(np.int64)
    return np.concatenate([part.digit[:, None] + FIRST_DIGIT, pixels], axis=1)
