"""Trees that learn case by case: against batch least squares, what the weight is for, compiled
against NumPy.
"""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.mixtures import hme, hme_em, hme_online
from moe_np.mixtures.hme_online import Options
from moe_np.mixtures.least_squares import make_design, weighted_least_squares
from tests.support.mixtures import random_tree
from tests.support.signatures import defaults

# --- One case -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1.0, 1e6])
def test_recursive_least_squares_is_the_batch_solution(width):
    """With λ = 1: R is the inverse of 1/width + Σ h x xᵀ, and coefficients updated with it are the
    ridge solution.
    """
    rng = np.random.default_rng(0)
    x, y, h = rng.normal(size=(40, 3)), rng.normal(size=(40, 2)), rng.uniform(0, 1, (40, 4))
    z = np.column_stack([x, np.ones(40)])
    R = np.tile(width * np.eye(4), (4, 1, 1))
    coef = np.zeros((4, 4, 2))
    for n in range(40):
        R = hme_online.rls_update(R, z[n], h[n])
        coef += (h[n, :, None] * (R @ z[n]))[:, :, None] * (y[n] - z[n] @ coef)[:, None, :]
    for e in range(4):
        weighted = z * h[:, e : e + 1]
        gram = np.eye(4) / width + weighted.T @ z
        np.testing.assert_allclose(R[e], np.linalg.inv(gram), rtol=1e-6)
        wanted = np.linalg.solve(gram, weighted.T @ y)
        np.testing.assert_allclose(coef[e], wanted, rtol=1e-6, atol=1e-8)
    if width > 1e3:
        np.testing.assert_allclose(coef, weighted_least_squares(x, y, h), rtol=1e-4, atol=1e-5)


def test_forgetting_is_the_batch_with_fading_weights():
    rng = np.random.default_rng(0)
    z, h, lam = rng.normal(size=(30, 3)), rng.uniform(0.1, 1, (30, 1)), 0.9
    R = np.eye(3)[None]
    for n in range(30):
        R = hme_online.rls_update(R, z[n], h[n], lam)
    fading = lam ** np.arange(29, -1, -1)[:, None] * h
    gram = lam**30 * np.eye(3) + (fading * z).T @ z
    np.testing.assert_allclose(R[0], np.linalg.inv(gram), rtol=1e-8)


def test_the_forgetting_factor_approaches_one():
    options = Options(forgetting=0.9, shrink=0.5, shrink_every=10)
    factors = [hme_online.forgetting_factor(options, cases) for cases in (0, 9, 10, 25)]
    assert factors == pytest.approx([0.9, 0.9, 0.95, 0.975])


def test_the_memory_at_the_beginning():
    params, _, _ = random_tree((2, 3), "expert")
    memory = hme_online.init_memory(params)
    assert memory.cases == 0 and memory.n.tolist() == [100] * 6
    assert [len(S) for S in memory.S] == [1, 2]
    for stack in (memory.R, *memory.S):
        assert (stack == np.eye(len(params["U1"]) + 1)).all()
    assert (hme_online.init_memory(params, width=2.0).R == 2 * memory.R).all()
    assert (hme_online.init_memory(params, cases=7).n == 7).all()


def test_one_expert_learns_the_linear_map():
    """A tree of one expert is recursive least squares: one pass is the batch solution."""
    params, x, y = random_tree((1,), N=200)
    memory = hme_online.init_memory(params, width=1e8)
    options = Options(forgetting=1.0)
    new, *_ = hme_online.numpy_pass(params, memory, x, y, range(200), None, options)
    coef = weighted_least_squares(x, y, np.ones((200, 1)))
    np.testing.assert_allclose(np.vstack([new["W"][0], new["b"]]), coef[0], rtol=1e-5, atol=1e-7)


def test_a_gradient_step_is_that_of_the_batch():
    """One case, one step: hme.train on that case alone."""
    params, x, y = random_tree((2, 3))
    memory = hme_online.init_memory(params)
    options = Options(hold_variance=True)
    new, *_ = hme_online.gradient_step(params, memory, x[0], y[0], 0.1, options)
    _, batch = itertools.islice(hme.train(params, x[:1], y[:1], lr=0.1), 2)
    for name in params:
        np.testing.assert_allclose(new[name], batch.params[name], rtol=1e-12)


def test_gates_follow_algorithm_2():
    """Cases in which every responsibility is given: the gate ends where the least squares on log h
    does.
    """
    rng = np.random.default_rng(0)
    x, h = rng.normal(size=(300, 2)), rng.dirichlet((2, 2), 300)
    target = hme_em.log_ratio(h, 10.0)
    coef = np.zeros((3, 2))
    S = 1e8 * np.eye(3)[None]
    for n in range(300):
        z = np.append(x[n], 1.0)
        S = hme_online.rls_update(S, z, np.ones(1))
        coef += np.outer(S[0] @ z, target[n] - z @ coef)
    wanted = hme_em.least_squares_gates(make_design(x), h[:, None], np.ones((300, 1)))[0]
    np.testing.assert_allclose(coef, wanted, rtol=1e-5, atol=1e-6)


# --- Passes over the data -------------------------------------------------------------------------


def two_linear_pieces(N=800, seed=0):
    """x and y = |x₁| with a little noise."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (N, 2))
    return x, np.abs(x[:, :1]) + 0.02 * rng.normal(size=(N, 1))


def squared_error(params, x, y):
    return float(((y - hme.predict(params, x)) ** 2).mean())


def test_the_weight_in_the_denominator():
    """Without h there an expert that was idle has lost its ability to learn: the error stays many
    times larger.
    """
    x, y = two_linear_pieces()
    errors = {}
    for weighted in (True, False):
        params = hme.init(np.random.default_rng(1), (2, 2), 2, 1, var=0.1)
        options = Options(weighted=weighted)
        training = hme_online.train(params, x, y, rng=np.random.default_rng(2), options=options)
        *_, last = itertools.islice(training, 3)
        errors[weighted] = squared_error(last.params, x, y)
    assert errors[True] < 1e-3 and errors[False] > 5 * errors[True], errors


def test_the_gradient_learns_as_well_and_raises_the_likelihood():
    x, y = two_linear_pieces(600)
    params = hme.init(np.random.default_rng(1), (2,), 2, 1, var=0.1)
    options = {"method": "gradient", "lr": 0.02, "options": Options(hold_variance=True)}
    training = hme_online.train(params, x, y, rng=np.random.default_rng(2), **options)
    passes = list(itertools.islice(training, 9))
    assert passes[-1].loss < passes[3].loss < passes[0].loss
    assert passes[-1].params["var"] == 0.1
    assert squared_error(passes[-1].params, x, y) < 0.3 * squared_error(params, x, y)


@pytest.mark.parametrize("covariance", ["full", None])
def test_the_gradient_serves_every_kind_of_expert(covariance):
    params, x, y = random_tree((2, 2), covariance, N=60)
    options = Options(hold_variance=covariance == "full")
    rng = np.random.default_rng(0)
    training = hme_online.train(params, x, y, rng=rng, method="gradient", lr=0.02, options=options)
    losses = [iteration.loss for iteration in itertools.islice(training, 5)]
    assert losses[-1] < losses[1] < losses[0]


CASES = [((2, 2, 2), "shared"), ((3, 2), "expert"), ((4,), "expert"), ((1, 3), "shared")]
OPTIONS = [
    Options(shrink_every=10),
    Options(hold_variance=True, clip=3.0),
    Options(weighted=False, forgetting=1.0),
]


@pytest.mark.parametrize(("tree", "covariance"), CASES)
@pytest.mark.parametrize("lr", [None, 0.02])
@pytest.mark.parametrize("options", OPTIONS)
def test_compiled_passes_are_those_of_numpy(tree, covariance, lr, options):
    pytest.importorskip("numba")
    params, x, y = random_tree(tree, covariance, N=25)
    before = {name: value.copy() for name, value in params.items()}
    order = np.random.default_rng(0).permutation(25)

    def two_passes(run_pass):
        memory = hme_online.init_memory(params)
        new, memory, _ = run_pass(params, memory, x, y, order, lr, options)
        return run_pass(new, memory, x, y, order, lr, options)

    wanted, wanted_memory, wanted_total = two_passes(hme_online.numpy_pass)
    new, memory, total = two_passes(hme_online.compiled_pass)
    for name in params:
        np.testing.assert_allclose(new[name], wanted[name], rtol=1e-8, atol=1e-10)
        np.testing.assert_array_equal(params[name], before[name])
        assert new[name].shape == params[name].shape and new[name].dtype == np.float64
    np.testing.assert_allclose(memory.R, wanted_memory.R, rtol=1e-8, atol=1e-10)
    for S, wanted_S in zip(memory.S, wanted_memory.S, strict=True):
        np.testing.assert_allclose(S, wanted_S, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(memory.n, wanted_memory.n)
    assert total == pytest.approx(wanted_total) and wanted_memory.cases == memory.cases == 50


def test_same_seed_same_bits():
    params, x, y = random_tree((2, 2))

    def last_loss(seed):
        training = hme_online.train(params, x, y, rng=np.random.default_rng(seed))
        *_, last = itertools.islice(training, 3)
        return last.loss

    assert last_loss(1) == last_loss(1) != last_loss(2)


RLS_PARAMS = "params: wanted Gaussian experts with one variance, or one per expert"


@pytest.mark.parametrize(
    ("covariance", "change", "words"),
    [
        ("shared", {"method": "newton"}, "method: wanted one of rls, gradient; got 'newton'"),
        (
            "shared",
            {"method": "gradient"},
            "lr: wanted a learning rate with the gradient, and none with rls",
        ),
        ("shared", {"lr": 0.1}, "lr: wanted a learning rate with the gradient"),
        ("full", {}, RLS_PARAMS),
        (None, {}, RLS_PARAMS),
        ("shared", {}, r"params\['c1'\]: wanted finite numbers"),
        ("shared", {"rng": 0}, r"rng: wanted a numpy\.random\.Generator, got 0"),
        ("shared", {"method": "gradient", "lr": -1}, "lr: wanted a finite number above 0"),
        (
            "shared",
            {"options": Options(forgetting=0)},
            r"options\.forgetting: wanted a finite number above 0",
        ),
        (
            "shared",
            {"options": Options(forgetting=1.01)},
            r"options\.forgetting: .* above 0 and at most 1, got 1\.01",
        ),
        (
            "shared",
            {"options": Options(shrink=2)},
            r"options\.shrink: .* of at least 0 and at most 1, got 2",
        ),
        (
            "shared",
            {"options": Options(shrink_every=0)},
            r"options\.shrink_every: wanted a whole number",
        ),
    ],
)
def test_inputs_are_checked(covariance, change, words):
    params, x, y = random_tree((2,), covariance)
    if "c1" in words:
        params["c1"][0, 0] = -np.inf
    with pytest.raises(InputError, match=words):
        next(hme_online.train(params, x, y, **{"rng": np.random.default_rng(0), **change}))


@pytest.mark.parametrize("backend", ["", "numpy"])
def test_memory_and_order_are_checked(monkeypatch, backend):
    """The compiled loop takes for granted that they fit parameters and cases."""
    monkeypatch.setenv("MOE_NP_KERNELS", backend)
    rng = np.random.default_rng(0)
    params = hme.init(rng, (2, 2), 3, 1)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 1))
    memory = hme_online.init_memory(params)
    order = np.arange(20)
    hme_online.run_pass(params, memory, x, y, order)
    bad = [memory._replace(R=memory.R[:2]), memory._replace(S=memory.S[:1])]
    bad += [memory._replace(R=memory.R[:, :2, :2]), memory._replace(n=np.ones(9)), None]
    for wrong in bad:
        with pytest.raises(InputError, match="memory"):
            hme_online.run_pass(params, wrong, x, y, order)
    for wrong in ([20], [-1], [0.5]):
        with pytest.raises(InputError, match="order"):
            hme_online.run_pass(params, memory, x, y, np.array(wrong))
    for wrong in (None, y[:3], y * np.nan):
        with pytest.raises(InputError, match="y: wanted"):
            next(hme_online.train(params, x, wrong, rng=rng))
    for x_type, y_type in (("f8", "f4"), ("f8", ">f8"), (">f8", "f8")):
        passes = hme_online.train(params, x.astype(x_type), y.astype(y_type), rng=rng)
        assert np.isfinite([next(passes).loss for _ in range(2)]).all()


def test_the_settings_unless_given():
    """Numbers that have been published with them depend on each."""
    assert defaults(hme_online.init_memory) == {"width": 1.0, "cases": 100.0}
    assert defaults(hme_online.train)["method"] == "rls"
    assert hme_online.DEFAULT._asdict() == {
        "forgetting": 0.99,
        "shrink": 0.4,
        "shrink_every": 1000,
        "clip": 10.0,
        "weighted": True,
        "hold_variance": False,
    }
