"""Pictures of experts and gate: what is drawn is what the estimator says."""

import matplotlib
import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from moe_np.base.checks import InputError
from moe_np.estimators import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from tests.support.mixtures import random_data


@pytest.fixture
def ax():
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    _, ax = plt.subplots()
    yield ax
    plt.close("all")


def regressor(**options):
    x, y = random_data("shared")
    model = MixtureOfExpertsRegressor(3, restarts=1, tol=1e-2, random_state=0, **options)
    return model.fit(x, y[:, 0]), x, y[:, 0]


def test_experts_of_a_regressor(ax):
    model, x, y = regressor()
    assert model.plot_experts(x, y, feature=1, ax=ax) is ax
    *lines, mean = ax.get_lines()
    grid = np.tile(np.median(x, axis=0), (300, 1))
    grid[:, 1] = np.linspace(x[:, 1].min(), x[:, 1].max(), 300)
    np.testing.assert_allclose(mean.get_xdata(), grid[:, 1])
    np.testing.assert_allclose(mean.get_ydata(), model.predict(grid))
    outputs = model.expert_outputs(grid)
    for e in range(3):
        np.testing.assert_allclose(lines[2 * e].get_ydata(), outputs[:, e])
    drawn = np.array([np.isfinite(line.get_ydata()) for line in lines[1::2]])
    assert (drawn.sum(axis=0) == 1).all()  # one thick line at every place
    assert len(ax.collections[0].get_offsets()) == 60
    assert ax.get_xlabel() == "x1" and ax.get_ylabel() == "y"


def test_experts_of_a_classifier(ax):
    x, y = random_data("labels")
    model = MixtureOfExpertsClassifier(2, restarts=1, tol=1e-2, random_state=0).fit(x, y)
    model.plot_experts(x, y, output=1, ax=ax)
    mean = ax.get_lines()[-1]
    assert ax.get_ylabel() == "P(1)" and not ax.collections
    assert ((mean.get_ydata() > 0) & (mean.get_ydata() < 1)).all()


def test_gate_along_a_feature(ax):
    model, x, _ = regressor()
    model.plot_gate(x, ax=ax)
    weights = np.array([line.get_ydata() for line in ax.get_lines()])
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    assert {text.get_text() for text in ax.texts} == {"0", "1", "2"}


def test_gate_over_two_features_with_names(ax):
    pandas = pytest.importorskip("pandas")
    x, y = random_data("shared")
    frame = pandas.DataFrame(x, columns=["a", "b"])
    model = MixtureOfExpertsRegressor(3, restarts=1, tol=1e-2, random_state=0).fit(frame, y)
    model.plot_gate(frame, feature=("b", "a"), ax=ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("b", "a")
    image = ax.get_images()[0].get_array()
    assert image.shape == (120, 120, 3) and image.min() >= 0 and image.max() <= 1
    assert len(np.unique(image.reshape(-1, 3).round(2), axis=0)) > 5
    with pytest.raises(InputError, match="feature: wanted one of a, b; got 'c'"):
        model.plot_gate(frame, feature="c", ax=ax)
    with pytest.raises(InputError, match="feature: wanted one or two features, got 3"):
        model.plot_gate(frame, feature=("a", "b", "a"), ax=ax)


def test_a_feature_that_is_not_there(ax):
    model, x, _ = regressor()
    with pytest.raises(InputError, match="feature: wanted a whole number of at least 0 and at m"):
        model.plot_experts(x, feature=2, ax=ax)
