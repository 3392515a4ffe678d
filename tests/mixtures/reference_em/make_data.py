"""The data sets of the comparison with flexmix and mixtools, made from seeds: `python
tests/mixtures/reference_em/make_data.py`.

CSV, one case per row: inputs x1, x2, ..., then outputs y1, ... (numbers) or y1 (a label, counted
from 0).
"""

import pathlib

import numpy as np

from moe_np.base.numerics import softmax
from moe_np.data.speech import vowels
from moe_np.mixtures.em_families import draw_category

HERE = pathlib.Path(__file__).parent


def pieces(rng, N=250):
    """One input; two straight lines that meet, and noise that differs."""
    x = rng.uniform(-2, 2, (N, 1))
    right = rng.random((N, 1)) < 1 / (1 + np.exp(-x))
    return x, np.where(
        right, 1 - x + 0.2 * rng.normal(size=x.shape), 1 + 1.5 * x + 0.4 * rng.normal(size=x.shape)
    )


def branches(rng, N=400):
    """One input, up to three answers to it: x = t + .3 sin 2πt + noise, turned round (Bishop's
    inverse problem).
    """
    t = rng.uniform(0, 1, (N, 1))
    return t + 0.3 * np.sin(2 * np.pi * t) + rng.uniform(-0.1, 0.1, (N, 1)), t


def planes(rng, N=800, E=4):
    """Three inputs; four planes, chosen by a softmax of the inputs."""
    x = rng.normal(size=(N, 3))
    expert = draw_category(softmax(3 * x @ rng.normal(size=(3, E))), rng)
    W, b = rng.normal(size=(E, 3)), rng.normal(size=E)
    return x, ((x * W[expert]).sum(axis=1) + b[expert] + 0.3 * rng.normal(size=N))[:, None]


def lines(rng, N=300):
    """One input; three lines that cross, chosen with fixed probabilities."""
    x = rng.uniform(0, 10, (N, 1))
    expert = rng.choice(3, N, p=[0.5, 0.3, 0.2])
    slope, constant = np.array([1.0, -0.5, 0.2]), np.array([0.0, 6.0, -3.0])
    return x, slope[expert, None] * x + constant[expert, None] + 0.7 * rng.normal(size=x.shape)


def clouds(rng, N=500):
    """One input, two outputs: three correlated clouds, and x says which are likely."""
    x = rng.uniform(-1, 1, (N, 1))
    expert = draw_category(softmax(x * [-3.0, 0.0, 3.0] + [0.0, 0.5, 0.0]), rng)
    root = np.array([[[1, 0], [0.8, 0.5]], [[0.5, 0], [-0.4, 0.6]], [[0.7, 0], [0, 1.2]]])
    mean = np.array([[0.0, 0.0], [2.0, 2.0], [3.0, -1.0]])
    return x, mean[expert] + np.einsum("ncd,nd->nc", root[expert], rng.normal(size=(N, 2)))


def quadrants(rng, N=500):
    """Two inputs, two classes: opposite quadrants of the plane, 5 % of the labels turned round."""
    x = rng.normal(size=(N, 2))
    return x, ((x[:, :1] * x[:, 1:] > 0) ^ (rng.random((N, 1)) < 0.05)).astype(int)


def rings(rng, N=600):
    """Two inputs, three classes by the distance from the origin, with noise."""
    x = rng.normal(size=(N, 2))
    return x, np.digitize(
        np.linalg.norm(x, axis=1, keepdims=True) + 0.15 * rng.normal(size=(N, 1)), [0.8, 1.5]
    )


def coins(rng, N=500):
    """One input, two classes: two logistic regressions with opposite slopes, chosen with fixed
    probabilities.
    """
    x = rng.uniform(-3, 3, (N, 1))
    slope = np.where(rng.random((N, 1)) < 0.7, 3.0, -2.0)
    return x, (rng.random((N, 1)) < 1 / (1 + np.exp(-slope * x - 0.5))).astype(int)


def four_vowels(rng):
    """Peterson and Barney's (1952), not random: heed, hid, hod, hud by two formants in kHz."""
    table = vowels.peterson_barney()
    own = np.isin(table.arpabet, vowels.FOUR)
    label = np.array([vowels.FOUR.index(v) for v in table.arpabet[own]])
    return np.column_stack([table.F1, table.F2])[own] / 1000, label[:, None]


SETS = (pieces, branches, planes, lines, clouds, quadrants, rings, coins, four_vowels)


def main():
    for seed, make in enumerate(SETS, start=1):
        write(make.__name__, *make(np.random.default_rng(seed)))


def write(name, x, y):
    header = ",".join(
        [f"x{d + 1}" for d in range(x.shape[1])] + [f"y{c + 1}" for c in range(y.shape[1])]
    )
    formats = ["%.6g"] * x.shape[1] + ["%d" if y.dtype.kind == "i" else "%.6g"] * y.shape[1]
    rows = np.hstack([x, y])
    np.savetxt(HERE / "data" / f"{name}.csv", rows, formats, ",", header=header, comments="")


if __name__ == "__main__":
    main()
