"""Classifiers: classes of any kind, and errors about classes."""

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from moe_np.base.checks import InputError
from moe_np.estimators import HierarchicalMixtureClassifier, MixtureOfExpertsClassifier
from tests.support.mixtures import random_data

both = pytest.mark.parametrize("cls", (MixtureOfExpertsClassifier, HierarchicalMixtureClassifier))
X, LABEL = random_data("labels")
NAMES = np.array(["low", "middle", "top"])


def small(cls, **options):
    return cls(restarts=1, tol=1e-2, random_state=0, **options)


@both
def test_classes_keep_their_names(cls):
    model = small(cls).fit(X, NAMES[LABEL])
    of_numbers = small(cls).fit(X, LABEL)
    assert list(model.classes_) == ["low", "middle", "top"]
    np.testing.assert_array_equal(model.predict(X), NAMES[of_numbers.predict(X)])
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    assert model.expert_outputs(X).shape == (60, len(model.params_["W"]), 3)


@both
def test_a_mixture_divides_what_a_line_cannot(cls):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (400, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    model = cls(restarts=3, ridge=0.01, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.95
    distribution = model.predict_distribution(x)
    assert (distribution.disagreement() <= distribution.entropy() + 1e-12).all()


@both
def test_one_class_only(cls):
    with pytest.raises(InputError, match="y: wanted at least two classes, got one class: 'a'"):
        small(cls).fit(X, np.full(60, "a"))


@both
def test_a_class_without_samples(cls):
    weight = (LABEL != 1).astype(float)
    message = "sample_weight: wanted samples with a weight above 0 in every class, got none in "
    with pytest.raises(InputError, match=message + "class 'middle'"):
        small(cls).fit(X, NAMES[LABEL], sample_weight=weight)


@both
def test_classes_that_fit_has_not_seen(cls):
    model = small(cls).fit(X, NAMES[LABEL])
    with pytest.raises(InputError, match="y: wanted classes that `fit` has seen, got 'new'"):
        model.log_density(X[:2], ["low", "new"])
    with pytest.raises(InputError, match="y: wanted 2 classes, as X has rows, got 3"):
        model.responsibilities(X[:2], ["low"] * 3)
    with pytest.raises(InputError, match="warm_start: wanted the classes of the fit before"):
        model.set_params(warm_start=True).fit(X, LABEL)
