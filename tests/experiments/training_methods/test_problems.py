"""The problems of the comparison: gradients, quality, regions, and the EM of the mixtures."""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.data import piecewise
from moe_np.experiments.training_methods import problems
from moe_np.layers import experts
from moe_np.mixtures import em as em_mixture
from moe_np.training.methods import em, method


def test_a_problem_without_an_expert_is_refused():
    with pytest.raises(InputError, match="n_experts: wanted a whole number of at least 1, got 0"):
        problems.task("piecewise", 0)


@pytest.mark.parametrize("n_experts", [1, 4])
@pytest.mark.parametrize("name", problems.NAMES)
def test_gradient_of_a_problem(name, n_experts):
    problem = problems.task(name, n_experts).problem
    params = problem.init(np.random.default_rng(1))
    grads = method.backward(problem, method.forward(problem, params)[1])
    parts = method.PARTS if n_experts > 1 else ("experts",)  # the gate of one expert has no effect
    for part in parts:

        def loss(arrays, part=part):
            return method.loss_of(problem, {**params, part: arrays})

        errors = gradient_error(loss, params[part], grads[part], np.random.default_rng(2))
        assert max(errors.values()) < 1e-7


def test_cubic_experts_are_those_of_the_layer():
    rng = np.random.default_rng(0)
    params = experts.CUBIC.init(rng, 5, 3, 2)
    x = rng.normal(size=(7, 4, 5))
    o, cache = problems.cubic_forward(params, x)
    do = rng.normal(size=o.shape)
    _, grads = problems.cubic_backward(do, cache)
    rows = np.concatenate([x, x, x])
    offsets = np.array([0, 7, 14, 21])
    f, layer_cache = experts.CUBIC.forward(params, rows, offsets)
    np.testing.assert_allclose(o[:, :, 0].T.ravel(), f[:, 1] - f[:, 0], rtol=1e-10)
    d = do[:, :, 0].T.reshape(-1, 1)
    _, layer_grads = experts.CUBIC.backward(np.hstack([-d, d]), layer_cache)
    for name in ("w", "b"):
        np.testing.assert_allclose(grads[name], layer_grads[name], rtol=1e-9, atol=1e-12)


def test_quality_of_the_true_mixture():
    task = problems.task("piecewise")
    x = np.concatenate([task.problem.x, task.x_test])
    raw = np.random.default_rng(problems.DATA_SEED)
    parts = [piecewise.piecewise(raw, n) for n in problems.SIZES["piecewise"]]
    mean = parts[0].x.mean()
    sd = parts[0].x.std()
    np.testing.assert_allclose(x * sd + mean, np.concatenate([p.x for p in parts]), atol=1e-12)
    slope, value = np.array(piecewise.LINES).T
    lines = {"W": (slope * sd)[:, None, None], "b": (slope * mean + value)[:, None]}
    # a softmax that is steep enough cuts at CUTS: logits k·x − Σ of the cuts before k
    steep = 3000.0
    cuts = np.cumsum([0, *piecewise.CUTS])
    gate = {"U": steep * sd * np.arange(4.0)[None], "c": steep * (mean * np.arange(4) - cuts)}
    params = {"experts": lines, "gate": gate}
    best = 100 * (1 - piecewise.NOISE**2 / task.y_test.var())
    quality = task.problem.quality
    assert quality(params, task.x_test, task.y_test) == pytest.approx(best, abs=0.5)
    assert quality(params, task.x_test, task.y_test, hard=True) == pytest.approx(best, abs=0.5)


def test_quality_of_classes_by_hand():
    task = problems.task("vowels")
    params = task.problem.init(np.random.default_rng(0))
    params["experts"] = {"W": np.zeros((4, 2, 1)), "b": np.array([[9.0], [-9], [-9], [-9]])}
    params["gate"] = {"U": np.zeros((2, 4)), "c": np.log([0.6, 0.2, 0.1, 0.1])}
    ones = 100 * task.y_test.mean()
    quality = task.problem.quality
    assert quality(params, task.x_test, task.y_test) == pytest.approx(ones)
    params["gate"]["c"] = np.log([0.4, 0.3, 0.2, 0.1])
    assert quality(params, task.x_test, task.y_test) == pytest.approx(100 - ones)
    assert quality(params, task.x_test, task.y_test, hard=True) == pytest.approx(ones)


def test_regions():
    assert [np.bincount(problems.task(n).region).size for n in problems.NAMES] == [2, 4, 4]
    vowels = problems.task("vowels")
    second_formant = vowels.problem.x[:, 1]  # higher for [i] and [ɪ]
    front, back = (second_formant[vowels.region == i].mean() for i in (0, 1))
    assert front > back + 1


@pytest.mark.parametrize("name", problems.NAMES)
def test_em_is_monotone_on_the_problems(name):
    problem = problems.task(name).problem
    losses = [s.loss for s in itertools.islice(em.train(problem, np.random.default_rng(1)), 8)]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(losses)) and losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["piecewise", "vowels"])
def test_em_is_the_em_of_mixtures(name):
    """Step by step the same likelihood as `moe_np.mixtures.em` from the same parameters."""
    problem = problems.task(name).problem
    initial = problem.init(np.random.default_rng(3))
    losses = [s.loss for s in itertools.islice(em.train(problem, None, initial=initial), 7)]
    W = initial["experts"]["W"]
    b = initial["experts"]["b"]
    if name == "piecewise":
        family = em_mixture.Gaussian("fixed", problems.SIGMA**2)
        y = problem.y
        params = {"W": W, "b": b, "var": np.array(problems.SIGMA**2)}
    else:
        family = em_mixture.Categorical()
        y = problem.y[:, 0].astype(int)
        params = {"W": np.concatenate([0 * W, W], axis=2), "b": np.concatenate([0 * b, b], axis=1)}
    params |= initial["gate"]
    options = {"family": family, "rng": None, "initial": params, "max_iter": 6, "tol": 1e-15}
    with pytest.warns(em_mixture.ConvergenceWarning):
        fit = em_mixture.fit(problem.x, y, 4, **options)
    np.testing.assert_allclose(losses, -fit.history / len(y), rtol=1e-8)
