"""Classification with training, validation and test sets, and test sets whose inputs have changed.

    vowels    ten vowels by three formants (Peterson and Barney 1952): other speakers in every set,
              men and women; shifted: children
    regions   eight clouds of inputs, in each a linear rule of its own; a tenth of the labels drawn
              anew; shifted: all inputs moved by the same vector
    smooth    one cloud of inputs and one smooth rule for all; the rest as in regions

Inputs have mean 0 and variance 1 over the training set. The last input is a constant 1, so that the
gating network has a bias. All systems see the same data of a seed. A seed draws regions and smooth
anew, with their rules; of the vowels, which are one table, it draws only which adults are in which
set, and the children are the same for every seed.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import ArrayN, ArrayND, Rng
from moe_np.data.speech.vowels import VOWELS, peterson_barney

PROBLEMS = ("vowels", "regions", "smooth")
INPUTS = {  # of the training set -> (share of the cases, factor, whether their labels are redrawn)
    "clean": (0.0, 1.0, False),
    "5 % ten times as long": (0.05, 10.0, False),
    "5 % a tenth longer": (0.05, 1.1, False),
    "40 % ten times as long, labels redrawn": (0.4, 10.0, True),
}
MOST = {"vowels": 400}  # training cases, where there is a limit
HELD_OUT = 400  # cases of the validation set
TESTED = 1000  # cases of a test set
NOISE = 0.3  # standard deviation of what is added to the inputs of the noisy test set
CLASSES = 5  # of the drawn problems
FEATURES = 6
REGIONS = 8
CLOUD = 0.6  # standard deviation of a cloud whose centre is a corner of a cube of half-width 1
WAVES = 8
REDRAWN = 0.1  # share of the labels
SHIFT = 1.0  # length of the vector that moves the inputs, before they are scaled


class Cases(NamedTuple):
    """Inputs and classes."""

    x: ArrayND
    y: ArrayN


class Data(NamedTuple):
    """The sets of one problem."""

    train: Cases
    validation: Cases
    test: Cases
    noisy: Cases  # the test set with noise on its inputs
    shifted: Cases
    shifted_twice: Cases  # by twice the vector; the vowels have none, and it is the shifted set
    classes: int


def data(problem: str, cases: int, inputs: str, seed: int) -> Data:
    """The sets of a problem, drawn from a seed.

    cases    number of training cases
    inputs   a key of INPUTS: the outliers among the training cases
    """
    checks.choice("problem", problem, PROBLEMS)
    share, factor, redrawn = INPUTS[checks.choice("inputs", inputs, tuple(INPUTS))]
    cases = checks.integer("cases", cases)
    rng, outliers = np.random.default_rng([seed, 11]).spawn(2)
    sets, classes = (_vowels if problem == "vowels" else _drawn)(rng, cases, problem)
    middle = sets[0].x.mean(axis=0)
    deviation = sets[0].x.std(axis=0)
    sets = [Cases((part.x - middle) / deviation, part.y) for part in sets]
    sets[0] = with_outliers(sets[0], outliers, share, factor, classes if redrawn else 0)
    train, validation, test, *shifted = sets
    noisy = Cases(test.x + NOISE * rng.normal(size=test.x.shape), test.y)
    near, far = shifted
    sets = (train, validation, test, noisy, near, far)
    return Data(*(_with_constant(part) for part in sets), classes=classes)


def with_outliers(part: Cases, rng: Rng, share: float, factor: float, classes: int = 0) -> Cases:
    """The same cases, a share of them with inputs that are `factor` times as long; with classes
    above 0 these get labels that are drawn anew.
    """
    x = part.x.copy()
    y = part.y.copy()
    chosen = rng.permutation(len(x))[: round(share * len(x))]
    x[chosen] *= factor
    if classes:
        y[chosen] = rng.integers(classes, size=len(chosen))
    return Cases(x, y)


def _with_constant(part):
    x = np.concatenate([part.x, np.ones((len(part.x), 1))], axis=1)
    return Cases(x.astype(np.float32), part.y)


def _vowels(rng, cases, problem):
    """[train, validation, test, children, children] of different speakers, 20 cases each."""
    limit = MOST[problem]
    if cases > limit:
        raise checks.InputError(f"cases: wanted at most {limit} for the vowels, got {cases}")
    table = peterson_barney()
    x = np.log(np.stack([table.F1, table.F2, table.F3], axis=1))
    y = np.array([list(VOWELS).index(name) for name in table.arpabet])
    adults = rng.permutation(np.unique(table.speaker[table.type != "c"]))
    per_speaker = 2 * len(VOWELS)
    trained = -(-cases // per_speaker)
    limit = limit // per_speaker
    groups = [adults[:trained], adults[limit : limit + 14], adults[limit + 14 :]]
    rows = [np.flatnonzero(np.isin(table.speaker, group)) for group in groups]
    rows[0] = rng.permutation(rows[0])[:cases]
    rows += 2 * [np.flatnonzero(table.type == "c")]
    return [Cases(x[chosen], y[chosen]) for chosen in rows], len(VOWELS)


def _drawn(rng, cases, problem):
    """[train, validation, test, shifted, shifted twice] of a rule that is drawn first."""
    draw, classes_of = (_regions if problem == "regions" else _smooth)(rng)
    direction = rng.normal(size=FEATURES)
    direction *= SHIFT / np.linalg.norm(direction)
    sets = []
    sizes = ((HELD_OUT, 0), (TESTED, 0), (TESTED, 1), (TESTED, 2), (cases, 0))
    for n, shift in sizes:  # the training set last: the others do not depend on its size
        x = draw(n) + shift * direction
        y = classes_of(x)
        chosen = rng.random(n) < REDRAWN
        y[chosen] = rng.integers(CLASSES, size=chosen.sum())
        sets.append(Cases(x, y))
    return [sets[-1], *sets[:-1]], CLASSES


def _regions(rng) -> tuple[Callable, Callable]:
    """Clouds at corners of a cube; the class is the largest of C linear functions per cloud."""
    corner = rng.permutation(2**FEATURES)[:REGIONS]
    centres = 2.0 * ((corner[:, None] >> np.arange(FEATURES)) & 1) - 1
    slopes = rng.normal(size=(REGIONS, FEATURES, CLASSES))

    def draw(n):
        return centres[rng.integers(REGIONS, size=n)] + CLOUD * rng.normal(size=(n, FEATURES))

    def classes_of(x):
        region = ((x[:, None, :] - centres) ** 2).sum(axis=2).argmin(axis=1)
        scores = np.einsum("nd,ndc->nc", x - centres[region], slopes[region])
        return scores.argmax(axis=1)

    return draw, classes_of


def _smooth(rng) -> tuple[Callable, Callable]:
    """One cloud; the class is the largest of C sums of the same sines."""
    directions = rng.normal(size=(FEATURES, WAVES)) / np.sqrt(FEATURES)
    phases = rng.uniform(0, 2 * np.pi, WAVES)
    weights = rng.normal(size=(WAVES, CLASSES))

    def draw(n):
        return rng.normal(size=(n, FEATURES))

    def classes_of(x):
        return (np.sin(2 * x @ directions + phases) @ weights).argmax(axis=1)

    return draw, classes_of
