"""Pictures of a fitted mixture: the experts and the gating network along the features of X.

`experts` and `gate` are the methods `plot_experts` and `plot_gate` of the estimators. A feature
that is not drawn keeps its median over the given X.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from moe_np import plots
from moe_np.base import checks
from moe_np.base.types import Array, ArrayN, ArrayND
from moe_np.estimators.cases import read_inputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 300  # along one feature
SIDE = 120  # points along each side of the picture of two features


def experts(
    estimator: Any, X: Any, y: Any, *, feature: int | str, output: int, ax: Any = None
) -> "Axes":
    """Draw the output of every expert along `feature`, in the colours of `gate`; returns the Axes.

    Thin lines are the experts, thick where the gate gives an expert the largest weight. Black is
    the prediction of the mixture. With y the cases are drawn in the colour of the expert that has
    the largest responsibility.

    output    the number of the output; for a classifier of the class whose probability is drawn
    ax        the matplotlib Axes; None: the current one
    """
    ax = _axes(ax)
    x = read_inputs(estimator, X)
    number, name = _feature(estimator, feature)
    grid = _along(x, number)
    arguments = estimator.arguments(grid)
    weight = estimator.fit_.gate(**arguments)
    outputs = estimator.fit_.outputs(arguments["x"])[:, :, output]
    dominant = weight.argmax(axis=1)
    for e, colour in enumerate(_colours(weight)):
        line = outputs[:, e]
        ax.plot(grid[:, number], line, lw=1, ls=":", color=colour, scaley=y is None)
        ax.plot(grid[:, number], np.where(dominant == e, line, np.nan), lw=3.5, color=colour)
    mean = np.einsum("ne,ne->n", weight, outputs)
    ax.plot(grid[:, number], mean, lw=1.5, color=plots.BLACK)
    is_classifier = hasattr(estimator, "classes_")
    if y is not None and not is_classifier:
        colour = np.array(_colours(weight))[estimator.responsibilities(X, y).argmax(axis=1)]
        values = np.asarray(y, float).reshape(len(x), -1)[:, output]
        ax.scatter(x[:, number], values, s=10, c=colour, alpha=0.6, linewidths=0)
    ylabel = f"P({estimator.classes_[output]})" if is_classifier else "y"
    ax.set(xlabel=name, ylabel=ylabel)
    return ax


def gate(
    estimator: Any,
    X: Any,
    *,
    feature: int | str | tuple[int | str, int | str],
    ax: Any = None,
) -> "Axes":
    """Draw the mixture weights along `feature`, one line per expert; returns the Axes.

    With two features: the plane in the colour of the expert with the largest weight, paler where
    this weight is smaller.
    """
    ax = _axes(ax)
    x = read_inputs(estimator, X)
    if isinstance(feature, (tuple, list)):
        return _plane(estimator, x, feature, ax)
    number, name = _feature(estimator, feature)
    grid = _along(x, number)
    weight = estimator.fit_.gate(**estimator.arguments(grid))
    for e, colour in enumerate(_colours(weight)):
        ax.plot(grid[:, number], weight[:, e], lw=2.5, color=colour)
        best = weight[:, e].argmax()
        plots.label(ax, grid[best, number], weight[best, e], str(e), colour, weight="bold")
    ax.set(xlabel=name, ylabel="mixture weight", ylim=(-0.03, 1.06))
    return ax


def _plane(estimator, x, features, ax):
    """The largest mixture weight over two features."""
    from matplotlib.colors import to_rgb

    if len(features) != 2:
        raise checks.InputError(f"feature: wanted one or two features, got {len(features)}")
    (column, xlabel), (row, ylabel) = (_feature(estimator, feature) for feature in features)
    left, right = _limits(x[:, column])
    bottom, top = _limits(x[:, row])
    across, up = np.meshgrid(np.linspace(left, right, SIDE), np.linspace(bottom, top, SIDE))
    grid = np.tile(np.median(x, axis=0), (SIDE * SIDE, 1))
    grid[:, column] = across.ravel()
    grid[:, row] = up.ravel()
    weight = estimator.fit_.gate(**estimator.arguments(grid))
    colour = np.array([to_rgb(c) for c in _colours(weight)])[weight.argmax(axis=1)]
    strength = 0.75 * weight.max(axis=1)[:, None]
    image = (1 - strength + strength * colour).reshape(SIDE, SIDE, 3)
    ax.imshow(image, origin="lower", extent=(left, right, bottom, top), aspect="auto")
    for e in np.unique(weight.argmax(axis=1)):
        place = grid[weight.argmax(axis=1) == e].mean(axis=0)
        plots.label(ax, place[column], place[row], str(e), size=18, weight="bold")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def _axes(ax):
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.gca()


def _feature(estimator: Any, feature: int | str) -> tuple[int, str]:
    """(number, name) of a feature of X."""
    names = list(getattr(estimator, "feature_names_in_", ()))
    if isinstance(feature, str) and feature in names:
        return names.index(feature), feature
    if isinstance(feature, str):
        raise checks.InputError(f"feature: wanted one of {', '.join(names)}; got {feature!r}")
    largest = estimator.n_features_in_ - 1
    number = checks.integer("feature", feature, minimum=0, maximum=largest)
    return number, names[number] if names else f"x{number}"


def _limits(values: ArrayN) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _along(x: ArrayND, number: int) -> ArrayND:
    """A grid along one feature; the others keep their median."""
    grid = np.tile(np.median(x, axis=0), (POINTS, 1))
    grid[:, number] = np.linspace(*_limits(x[:, number]), POINTS)
    return grid


def _colours(weight: Array) -> list[str]:
    """One colour per expert."""
    return [plots.COLOURS[e % len(plots.COLOURS)] for e in range(weight.shape[1])]
