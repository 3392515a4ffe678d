"""What all estimators share: results, warm start, weights, pickling, pipelines, grid search."""

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moe_np.base.checks import InputError
from moe_np.data.piecewise import piecewise
from moe_np.estimators import (
    HierarchicalMixtureClassifier,
    HierarchicalMixtureRegressor,
    MixtureOfExpertsClassifier,
    MixtureOfExpertsRegressor,
    log_score,
)
from moe_np.estimators.mixture_estimator import generator

CASES = piecewise(np.random.default_rng(0), 120)
X = np.column_stack([CASES.x, np.random.default_rng(1).normal(size=120)])
SIZE = {
    MixtureOfExpertsRegressor: {"n_experts": 4},
    MixtureOfExpertsClassifier: {"n_experts": 4},
    HierarchicalMixtureRegressor: {"tree": (2, 2)},
    HierarchicalMixtureClassifier: {"tree": (2, 2)},
}
four = pytest.mark.parametrize("cls", SIZE)


def targets(cls):
    return CASES.y[:, 0] if "Regressor" in cls.__name__ else np.array(list("dabc"))[CASES.piece]


def small(cls, **options):
    return cls(**SIZE[cls] | {"restarts": 2, "tol": 1e-3, "random_state": 0, **options})


@four
def test_what_a_fit_tells(cls):
    y = targets(cls)
    model = small(cls).fit(X, y)
    weights = model.mixture_weights(X)
    posterior = model.responsibilities(X, y)
    assert weights.shape == posterior.shape == (120, 4)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    mean = np.einsum("ne,ne...->n...", weights, model.expert_outputs(X))
    answer = model.predict_proba(X) if hasattr(model, "classes_") else model.predict(X)
    np.testing.assert_allclose(answer, mean, atol=1e-12)
    assert model.log_density(X, y).sum() == pytest.approx(model.log_likelihood_)
    assert model.bic() - model.aic() == pytest.approx((np.log(120) - 2) * model.fit_.n_parameters())
    assert model.converged_ and model.n_iter_ >= 2 and model.score(X, y) > 0.7
    assert log_score(model, X, y) == pytest.approx(model.log_likelihood_ / 120)


@four
def test_samples_have_the_shape_and_the_spread_of_the_targets(cls):
    y = targets(cls)
    model = small(cls).fit(X, y)
    drawn = model.sample(X, random_state=3)
    assert drawn.shape == y.shape and drawn.dtype.kind == y.dtype.kind
    np.testing.assert_array_equal(drawn, model.sample(X, random_state=np.random.RandomState(3)))
    many = model.sample(np.repeat(X[:1], 3000, axis=0), random_state=np.random.default_rng(0))
    if hasattr(model, "classes_"):
        share = [(many == c).mean() for c in model.classes_]
        np.testing.assert_allclose(share, model.predict_proba(X[:1])[0], atol=0.03)
    else:
        distribution = model.predict_distribution(X[:1])
        assert many.mean() == pytest.approx(distribution.mean()[0], abs=0.02)
        assert many.std() == pytest.approx(distribution.std()[0], rel=0.1)


@four
def test_a_copy_from_a_pickle_is_the_same(cls):
    model = small(cls).fit(X, targets(cls))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.bic() == model.bic()
    fresh = clone(model)
    assert fresh.get_params() == model.get_params() and not hasattr(fresh, "fit_")


@four
def test_warm_start_goes_on(cls):
    y = targets(cls)
    model = small(cls, warm_start=True, max_iter=2, restarts=1)
    with pytest.warns(ConvergenceWarning, match="not converged after max_iter=2 steps"):
        model.fit(X, y)
    first = model.log_likelihood_
    model.set_params(max_iter=500).fit(X, y)
    assert model.log_likelihood_ > first and model.converged_
    with pytest.raises(InputError, match=r"warm_start: wanted 4 experts, 2 inputs and \d outputs"):
        model.fit(X[:, :1], y)
    name = next(iter(SIZE[cls]))
    with pytest.raises(InputError, match="warm_start: wanted 4 experts"):
        model.set_params(**{name: 3 if name == "n_experts" else (3, 1)}).fit(X, y)


@pytest.mark.seconds
@four
def test_the_weights_of_cases(cls):
    y = targets(cls)
    weight = np.random.default_rng(2).integers(0, 3, 120)
    model = small(cls).fit(X, y, sample_weight=weight)
    same = small(cls).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    for key in model.params_:
        np.testing.assert_array_equal(model.params_[key], same.params_[key])
    assert model.bic() == same.bic()


@four
def test_names_of_features_and_lists(cls):
    pandas = pytest.importorskip("pandas")
    y = targets(cls)
    frame = pandas.DataFrame(X, columns=["place", "noise"])
    model = small(cls).fit(frame, pandas.Series(y))
    assert list(model.feature_names_in_) == ["place", "noise"]
    of_lists = small(cls).fit(X.tolist(), list(y))
    np.testing.assert_array_equal(model.predict(frame), of_lists.predict(X.tolist()))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={"noise": "other"}))


@four
def test_constant_columns_do_no_harm(cls):
    y = targets(cls)
    with_constant = np.column_stack([X, np.full(120, 7.3)])
    model = small(cls).fit(with_constant, y)
    assert np.isfinite(model.params_["W"]).all()
    assert model.score(with_constant, y) > 0.7


@four
def test_missing_values_are_an_error_that_names_them(cls):
    y = targets(cls)
    holes = X.copy()
    holes[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"Input X contains NaN"):
        small(cls).fit(holes, y)
    model = small(cls).fit(X, y)
    with pytest.raises(ValueError, match=r"Input X contains NaN"):
        model.predict(holes)
    with pytest.raises(ValueError, match=r"y.* NaN|NaN.*y"):
        small(cls).fit(X, np.where(np.arange(120) == 3, np.nan, CASES.y[:, 0]))


@four
def test_before_fit_there_is_nothing_to_tell(cls):
    model = cls()
    for ask in (model.bic, model.aic, lambda: model.sample(X), lambda: model.mixture_weights(X)):
        with pytest.raises(NotFittedError):
            ask()


@four
def test_settings_are_checked_by_fit(cls):
    y = targets(cls)
    bad = {"ridge": -1, "restarts": 0, "tol": -1, "max_iter": 0, "random_state": "x"}
    name = next(iter(SIZE[cls]))
    for key, value in {**bad, name: 0}.items():
        with pytest.raises(InputError, match=key):
            small(cls, **{key: value}).fit(X, y)


def test_in_a_pipeline_with_grid_search():
    pipeline = make_pipeline(StandardScaler(), small(MixtureOfExpertsRegressor))
    grid = {"mixtureofexpertsregressor__n_experts": [1, 4]}
    search = GridSearchCV(pipeline, grid, scoring=log_score, cv=3).fit(X, CASES.y[:, 0])
    assert search.best_params_ == {"mixtureofexpertsregressor__n_experts": 4}
    assert search.best_estimator_.predict(X).shape == (120,)


def test_in_cross_validation_with_trees():
    model = small(HierarchicalMixtureClassifier)
    assert cross_val_score(model, X, targets(type(model)), cv=3).mean() > 0.8


def test_random_states():
    drawn = [generator(state).random() for state in (5, np.random.RandomState(5))]
    assert drawn[0] == drawn[1] != generator(6).random()
    rng = np.random.default_rng(0)
    assert generator(rng) is rng
    assert isinstance(generator(None), np.random.Generator)
