"""The learners of Jordan and Jacobs (1994) against least squares, scikit-learn and NumPy."""

import importlib.util
import itertools

import numpy as np
import pytest

from moe_np.data import arm
from moe_np.experiments import jordan1994
from moe_np.experiments.jordan1994 import learners, oblique_tree, runs
from moe_np.mixtures import hme, jacobs1991

SHORT = jordan1994.SMOKE["config"]


@pytest.fixture
def data():
    return runs.task(0, arm.DEFAULT, 150, 60)


def test_the_linear_row_is_least_squares(data):
    _, predict = next(learners.passes(runs.spec_of(SHORT, "linear", 0), data, None))
    inputs = [np.column_stack([x, np.ones(len(x))]) for x in (data.x_train, data.x_test)]
    coef = np.linalg.lstsq(inputs[0], data.y_train, rcond=None)[0]
    np.testing.assert_allclose(predict(data.x_test), inputs[1] @ coef, rtol=1e-9, atol=1e-11)


def test_every_learner_warms_up(data, monkeypatch):
    """It did not, and SciPy's import was most of the linear row's seconds."""
    calls = []

    def learner(spec, task, rng):
        for number in itertools.count():
            calls.append((spec["system"], len(task.x_train), number))
            yield None

    for system in jordan1994.SYSTEMS:
        monkeypatch.setitem(learners.LEARNERS, system, learner)
        learners.warm_up(runs.spec_of(SHORT, system, 0), data)
    assert calls == [(system, 3, number) for system in jordan1994.SYSTEMS for number in (0, 1)]


def test_the_cart_row_is_sklearn_s(data):
    if importlib.util.find_spec("sklearn") is None:
        pytest.skip("needs scikit-learn")
    from sklearn.tree import DecisionTreeRegressor

    x = data.x_train.astype(np.float32)
    x_test = data.x_test.astype(np.float32)
    y = data.y_train[:, 0]
    grown = learners.cart_grower(10, False)(data.x_train, y)
    wanted = DecisionTreeRegressor(min_samples_leaf=10, random_state=0).fit(x, y).predict(x_test)
    assert oblique_tree.predict(grown, x_test).tolist() == pytest.approx(wanted.tolist())


def test_the_delta_rule_is_that(data):
    """LMS by hand: w ← w + lr (y − w x) x, in the order of the generator."""
    spec = runs.spec_of(SHORT, "linear, on-line", 0, lr=0.01)
    passes = learners.passes(spec, data, np.random.default_rng(5))
    (_, _), (_, predict) = itertools.islice(passes, 2)
    rng = np.random.default_rng(5)
    initial = hme.init(rng, (1,), 12, 4, init_range=SHORT.spread)
    coef = np.vstack([initial["W"][0], initial["b"]])
    inputs = np.column_stack([data.x_train, np.ones(150)])
    for i in rng.permutation(150):
        coef += 0.01 * np.outer(inputs[i], data.y_train[i] - inputs[i] @ coef)
    wanted = data.x_test @ coef[:-1] + coef[-1]
    np.testing.assert_allclose(predict(data.x_test), wanted, rtol=1e-8, atol=1e-10)


def test_compiled_backprop_is_that_of_numpy():
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    params = jacobs1991.init_net(rng, 7, 5, 2, init_range=0.5)
    cases = rng.normal(size=(30, 5)), rng.normal(size=(30, 2)), rng.permutation(30)
    before = {name: value.copy() for name, value in params.items()}
    a = learners.net_pass(params, *cases, 0.05)
    b = learners.net_pass_numpy(params, *cases, 0.05)
    for name in params:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-9, atol=1e-12)
        assert a[name].shape == params[name].shape
        np.testing.assert_array_equal(params[name], before[name])
