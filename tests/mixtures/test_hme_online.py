"""Trees that learn case by case: against batch least squares, what the weight is for, compiled
against NumPy.
"""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.mixtures import hme, hme_em, hme_online, irls
from moe_np.mixtures.hme_online import Options
from tests.mixtures.test_hme import problem


def numba():
    return pytest.importorskip("numba")


@pytest.mark.parametrize("width", [1.0, 1e6])
def test_recursive_least_squares_is_the_batch_one(width):
    """With λ = 1: R is the inverse of 1/width + Σ h x xᵀ, and coefficients updated with it are the
    ridge solution.
    """
    rng = np.random.default_rng(0)
    x, y, h = rng.normal(size=(40, 3)), rng.normal(size=(40, 2)), rng.uniform(0, 1, (40, 4))
    z = np.column_stack([x, np.ones(40)])
    R, coef = np.tile(width * np.eye(4), (4, 1, 1)), np.zeros((4, 4, 2))
    for n in range(40):
        R = hme_online.rls(R, z[n], h[n])
        coef += (h[n, :, None] * (R @ z[n]))[:, :, None] * (y[n] - z[n] @ coef)[:, None, :]
    for e in range(4):
        gram = np.eye(4) / width + (z * h[:, e : e + 1]).T @ z
        np.testing.assert_allclose(R[e], np.linalg.inv(gram), rtol=1e-6)
        np.testing.assert_allclose(
            coef[e], np.linalg.solve(gram, (z * h[:, e : e + 1]).T @ y), rtol=1e-6, atol=1e-8
        )
    if width > 1e3:
        np.testing.assert_allclose(coef, irls.weighted_least_squares(x, y, h), rtol=1e-4, atol=1e-5)


def test_forgetting_is_the_batch_with_fading_weights():
    rng = np.random.default_rng(0)
    z, h, lam = rng.normal(size=(30, 3)), rng.uniform(0.1, 1, (30, 1)), 0.9
    R = np.eye(3)[None]
    for n in range(30):
        R = hme_online.rls(R, z[n], h[n], lam)
    fading = lam ** np.arange(29, -1, -1)[:, None] * h
    np.testing.assert_allclose(
        R[0], np.linalg.inv(lam**30 * np.eye(3) + (fading * z).T @ z), rtol=1e-8
    )


def test_one_expert_learns_the_linear_map():
    """A tree of one expert is recursive least squares: one pass is the batch solution."""
    params, x, y = problem((1,), N=200)
    mem = hme_online.memory(params, width=1e8)
    new, *_ = hme_online.numpy_pass(params, mem, x, y, range(200), None, Options(forget=1.0))
    coef = irls.weighted_least_squares(x, y, np.ones((200, 1)))
    np.testing.assert_allclose(np.vstack([new["W"][0], new["b"]]), coef[0], rtol=1e-5, atol=1e-7)


def vee(N=800, seed=0):
    """y = |x₁| with a little noise: two linear pieces."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (N, 2))
    return x, np.abs(x[:, :1]) + 0.02 * rng.normal(size=(N, 1))


def error(params, x, y):
    return float(((y - hme.predict(params, x)) ** 2).mean())


def test_the_weight_in_the_denominator():
    """Without h there an expert that was idle has lost its ability to learn: the error stays many
    times larger.
    """
    x, y = vee()
    found = {}
    for weighted in (True, False):
        start = hme.init(np.random.default_rng(1), (2, 2), 2, 1, var=0.1)
        options = Options(weighted=weighted)
        steps = hme_online.train(start, x, y, rng=np.random.default_rng(2), options=options)
        found[weighted] = error(next(itertools.islice(steps, 2, None)).params, x, y)
    assert found[True] < 1e-3 and found[False] > 5 * found[True], found


def test_the_gradient_learns_as_well_and_raises_the_likelihood():
    x, y = vee(600)
    start = hme.init(np.random.default_rng(1), (2,), 2, 1, var=0.1)
    rng, options = np.random.default_rng(2), Options(hold=True)
    steps = list(
        itertools.islice(
            hme_online.train(start, x, y, rng=rng, method="gradient", lr=0.02, options=options), 9
        )
    )
    assert steps[-1].loss < steps[3].loss < steps[0].loss and steps[-1].params["var"] == 0.1
    assert error(steps[-1].params, x, y) < 0.3 * error(start, x, y)


def test_a_step_of_the_gradient_is_that_of_the_batch():
    """One case, one step: hme.train on that case alone."""
    params, x, y = problem((2, 3))
    options = Options(hold=True)
    new, *_ = hme_online.descend(params, hme_online.memory(params), x[0], y[0], 0.1, options)
    batch = list(itertools.islice(hme.train(params, x[:1], y[:1], lr=0.1), 2))[1].params
    for name in params:
        np.testing.assert_allclose(new[name], batch[name], rtol=1e-12)


@pytest.mark.parametrize("like", ["full", None])
def test_the_gradient_serves_every_kind_of_expert(like):
    params, x, y = problem((2, 2), like, N=60)
    options = Options(hold=like == "full")
    steps = hme_online.train(
        params, x, y, rng=np.random.default_rng(0), method="gradient", lr=0.02, options=options
    )
    losses = [step.loss for step in itertools.islice(steps, 5)]
    assert losses[-1] < losses[1] < losses[0]


CASES = [((2, 2, 2), "shared"), ((3, 2), "expert"), ((4,), "expert"), ((1, 3), "shared")]


@pytest.mark.parametrize(("tree", "like"), CASES)
@pytest.mark.parametrize("lr", [None, 0.02])
@pytest.mark.parametrize(
    "options",
    [Options(every=10), Options(hold=True, clip=3.0), Options(weighted=False, forget=1.0)],
)
def test_compiled_passes_are_those_of_numpy(tree, like, lr, options):
    numba()
    params, x, y = problem(tree, like, N=25)
    before = {name: value.copy() for name, value in params.items()}
    order = np.random.default_rng(0).permutation(25)
    runs = []
    for one_pass in (hme_online.numpy_pass, hme_online._compiled_pass):
        now, mem = params, hme_online.memory(params)
        for _ in range(2):
            now, mem, total = one_pass(now, mem, x, y, order, lr, options)
        runs.append((now, mem, total))
    (a, mem_a, total_a), (b, mem_b, total_b) = runs
    for name in params:
        np.testing.assert_allclose(b[name], a[name], rtol=1e-8, atol=1e-10)
        np.testing.assert_array_equal(params[name], before[name])
        assert b[name].shape == params[name].shape and b[name].dtype == np.float64
    np.testing.assert_allclose(mem_b.R, mem_a.R, rtol=1e-8, atol=1e-10)
    for s, t in zip(mem_a.S, mem_b.S, strict=True):
        np.testing.assert_allclose(t, s, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(mem_b.n, mem_a.n)
    assert total_b == pytest.approx(total_a) and mem_a.cases == mem_b.cases == 50


def test_same_seed_same_bits():
    params, x, y = problem((2, 2))
    ends = [
        list(itertools.islice(hme_online.train(params, x, y, rng=np.random.default_rng(s)), 3))[-1]
        for s in (1, 1, 2)
    ]
    assert ends[0].loss == ends[1].loss != ends[2].loss


def test_gates_follow_algorithm_2():
    """Cases in which every responsibility is given: the gate ends where the least squares on log h
    does.
    """
    rng = np.random.default_rng(0)
    x, h = rng.normal(size=(300, 2)), rng.dirichlet((2, 2), 300)
    target, coef = hme_em.log_ratio(h, 10.0), np.zeros((3, 2))
    S = 1e8 * np.eye(3)[None]
    for n in range(300):
        z = np.append(x[n], 1.0)
        S = hme_online.rls(S, z, np.ones(1))
        coef += np.outer(S[0] @ z, target[n] - z @ coef)
    wanted = hme_em.least_squares_gates(irls.design(x), h[:, None], np.ones((300, 1)))[0]
    np.testing.assert_allclose(coef, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("like", "options", "words"),
    [
        ("shared", {"method": "newton"}, "method: wanted one of rls, gradient; got 'newton'"),
        (
            "shared",
            {"method": "gradient"},
            "lr: wanted a step size with the gradient, and none with rls",
        ),
        ("shared", {"lr": 0.1}, "lr: wanted a step size with the gradient"),
        ("full", {}, "params: wanted Gaussian experts with one variance, or one an expert"),
        (None, {}, "params: wanted Gaussian experts"),
        ("shared", {}, r"params\['c1'\]: wanted finite numbers"),
        ("shared", {"rng": 0}, r"rng: wanted a numpy\.random\.Generator, got 0"),
        ("shared", {"method": "gradient", "lr": -1}, "lr: wanted a finite number above 0"),
        (
            "shared",
            {"options": hme_online.Options(forget=0)},
            r"options\.forget: wanted a finite number above 0",
        ),
        (
            "shared",
            {"options": hme_online.Options(forget=1.01)},
            r"options\.forget: .* above 0 and at most 1, got 1\.01",
        ),
        (
            "shared",
            {"options": hme_online.Options(nearer=2)},
            r"options\.nearer: .* of at least 0 and at most 1, got 2",
        ),
        (
            "shared",
            {"options": hme_online.Options(every=0)},
            r"options\.every: wanted a whole number",
        ),
    ],
)
def test_inputs_are_checked(like, options, words):
    params, x, y = problem((2,), like)
    if "c1" in words:
        params["c1"][0, 0] = -np.inf
    with pytest.raises(InputError, match=words):
        next(hme_online.train(params, x, y, **{"rng": np.random.default_rng(0), **options}))
