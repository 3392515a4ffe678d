"""The mixture of 1991: gradients of every piece, the three errors, limits, and training."""

import itertools

import numpy as np
import pytest

from moe_np import kernels
from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error, pair_error
from moe_np.base.numerics import sigmoid
from moe_np.data import vowel_task
from moe_np.mixtures import jacobs1991
from moe_np.mixtures.jacobs1991 import OUTPUT_UNITS

N, E, D, C, H = 9, 3, 2, 2, 4


def random_params(rng, system="mixture", E=E, D=D, C=C, H=H):
    shapes = {"W": (E, D, C), "b": (E, C), "U": (D, E), "c": (E,)}
    if system == "net":
        shapes = {"W": (D, H), "b": (H,), "V": (H, C), "c": (C,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def check_small(errors):
    assert max(errors.values()) < 1e-7, errors


# --- Gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OUTPUT_UNITS)
def test_experts_gradient(rng, kind):
    def forward(params, x):
        return jacobs1991.experts_forward(params, x, kind)

    params = {name: random_params(rng)[name] for name in ("W", "b")}
    x = rng.normal(size=(N, D))
    check_small(pair_error(forward, jacobs1991.experts_backward, params, x, rng))


def test_gate_gradient(rng):
    params = {name: random_params(rng)[name] for name in ("U", "c")}
    x = rng.normal(size=(N, D))
    check_small(pair_error(jacobs1991.gate_forward, jacobs1991.gate_backward, params, x, rng))


@pytest.mark.parametrize("error", jacobs1991.ERRORS)
def test_error_gradient(rng, error):
    forward, backward = jacobs1991.ERRORS[error]
    o, p, d = rng.normal(size=(N, E, C)), rng.uniform(0.1, 1, (N, E)), rng.normal(size=(N, C))
    _, cache = forward(o, p, d)
    dloss = rng.normal(size=N)
    do, dp = backward(dloss, cache)

    def value(inputs):
        return (forward(inputs["o"], inputs["p"], d)[0] * dloss).sum()

    check_small(gradient_error(value, {"o": o, "p": p}, {"o": do, "p": dp}, rng))


@pytest.mark.parametrize("error,kind", list(itertools.product(jacobs1991.ERRORS, OUTPUT_UNITS)))
def test_whole_mixture_gradient(rng, error, kind):
    d = rng.uniform(size=(N, C))

    def forward(params, x):
        return jacobs1991.system_forward(params, x, d, error, kind)

    x = rng.normal(size=(N, D))
    check_small(pair_error(forward, jacobs1991.system_backward, random_params(rng), x, rng))


def test_the_gate_gradient_of_eq_3_is_that_of_the_chain(rng):
    params, x, d = random_params(rng), rng.normal(size=(N, D)), rng.uniform(size=(N, C))
    _, cache = jacobs1991.system_forward(params, x, d)
    dloss = rng.normal(size=N)
    _, dp = jacobs1991.mixture_backward(dloss, cache.scores)
    chain = jacobs1991.gate_backward(dp, cache.gate)[1]
    simplified = jacobs1991.system_backward(dloss, cache)[1]
    for name in ("U", "c"):
        np.testing.assert_allclose(simplified[name], chain[name], rtol=1e-12, atol=1e-14)


# --- The three errors -----------------------------------------------------------------------------


def test_the_three_errors_by_hand():
    """Two experts with outputs 1 and 3, target 2, p = 1/4 and 3/4: blend 2.5."""
    o, p, d = np.array([[[1.0], [3.0]]]), np.array([[0.25, 0.75]]), np.array([[2.0]])
    assert jacobs1991.cooperative_forward(o, p, d)[0][0] == pytest.approx(0.25)
    assert jacobs1991.competitive_forward(o, p, d)[0][0] == pytest.approx(1)
    loss, cache = jacobs1991.mixture_forward(o, p, d)
    assert loss[0] == pytest.approx(0.5)
    np.testing.assert_allclose(cache.resp, p)  # equal errors: the posterior is the prior


def test_eq_3_rewards_the_better_expert_more_than_eq_2():
    """The paper's argument: at equal p, eq. 3 adapts the best expert fastest in relation to the
    others.
    """
    o, p, d = np.array([[[1.1], [2.0]]]), np.array([[0.5, 0.5]]), np.array([[0.0]])
    share = {}
    for error in ("competitive", "mixture"):
        forward, backward = jacobs1991.ERRORS[error]
        do, _ = backward(np.ones(1), forward(o, p, d)[1])
        sizes = np.abs(do[0, :, 0])
        share[error] = sizes[0] / sizes.sum()
    assert share["competitive"] < 0.5 < share["mixture"]


def test_eq_3_stays_finite_in_extreme_cases(rng):
    """A saturated gate, whose p underflows to 0, and errors so large that every Gaussian does."""
    params = random_params(rng)
    params["U"] *= 1e4
    params["W"] *= 1e3
    x, d = rng.normal(size=(N, D)), np.full((N, C), 500.0)
    loss, cache = jacobs1991.system_forward(params, x, d, "mixture", "linear")
    assert (cache.p == 0).any() and np.isfinite(loss).all()
    np.testing.assert_allclose(cache.scores.resp.sum(axis=1), 1)
    grads = jacobs1991.system_backward(np.ones(N), cache)[1]
    assert all(np.isfinite(g).all() for g in grads.values())


# --- Limits ---------------------------------------------------------------------------------------


def test_one_expert_is_one_net_under_every_error(rng):
    params, x, d = random_params(rng, E=1), rng.normal(size=(N, D)), rng.uniform(size=(N, C))
    wanted = ((d - sigmoid(x @ params["W"][0] + params["b"][0])) ** 2).sum(axis=1)
    for error, factor in (("cooperative", 1), ("competitive", 1), ("mixture", 0.5)):
        loss, cache = jacobs1991.system_forward(params, x, d, error)
        np.testing.assert_allclose(loss, factor * wanted)
        grads = jacobs1991.system_backward(np.ones(N), cache)[1]
        np.testing.assert_allclose([abs(grads["U"]).max(), abs(grads["c"]).max()], 0, atol=1e-15)


def test_experts_can_be_renumbered(rng):
    params, x, d = random_params(rng), rng.normal(size=(N, D)), rng.uniform(size=(N, C))
    order = [2, 0, 1]
    renumbered = {name: params[name][order] for name in ("W", "b", "c")}
    renumbered["U"] = params["U"][:, order]
    for error in jacobs1991.ERRORS:
        loss, _ = jacobs1991.system_forward(params, x, d, error)
        np.testing.assert_allclose(jacobs1991.system_forward(renumbered, x, d, error)[0], loss)
    np.testing.assert_allclose(jacobs1991.predict(renumbered, x), jacobs1991.predict(params, x))


# --- Training -------------------------------------------------------------------------------------


def test_epochs_of_training(rng):
    task = vowel_task()
    params = jacobs1991.init_mixture(rng, 4)
    training = jacobs1991.train(params, task.x_train, task.d_train, lr=0.02)
    epochs = list(itertools.islice(training, 30))
    assert [epoch.number for epoch in epochs] == list(range(30))
    np.testing.assert_allclose(epochs[0].cache.p, 0.25)
    assert all(b.loss < a.loss for a, b in itertools.pairwise(epochs[5:]))
    np.testing.assert_array_equal(epochs[0].params["W"], params["W"])
    residual = task.d_train - jacobs1991.predict(params, task.x_train)
    assert epochs[0].squared_error == pytest.approx((residual**2).mean())


@pytest.mark.parametrize(
    "error,kind,C",
    [("cooperative", "logistic", 1), ("competitive", "linear", 1), ("mixture", "linear", 4)],
)
def test_every_error_learns_something(rng, error, kind, C):
    task = vowel_task(coding="one-hot" if C == 4 else "IY+IH")
    data = task.x_train, task.d_train
    options = {"error": error, "kind": kind}
    params = jacobs1991.init_mixture(rng, 2, C=C)
    run = jacobs1991.train_to_stop(params, *data, lr=0.0005, stop=0.0, max_epochs=300, **options)
    params = jacobs1991.init_mixture(rng, 2, C=C)
    first = next(jacobs1991.train(params, *data, lr=1, **options))
    assert run.epochs == 300 and not run.reached and run.squared_error < 0.8 * first.squared_error


def test_the_stop_rule(rng):
    task = vowel_task()
    net = jacobs1991.init_net(rng, 6)
    data = task.x_train, task.d_train
    at_once = jacobs1991.train_to_stop(net, *data, lr=0.03, stop=0.5)
    assert (at_once.epochs, at_once.reached) == (0, True)
    stopped = jacobs1991.train_to_stop(net, *data, lr=0.03, max_epochs=7, keep=True)
    assert (stopped.epochs, stopped.reached) == (7, False) and stopped.squared_error > 0.08
    assert stopped.history["V"].shape == (8, 6, 1)
    np.testing.assert_array_equal(stopped.history["V"][-1], stopped.params["V"])
    np.testing.assert_array_equal(stopped.history["W"][0], net["W"])


@pytest.mark.parametrize(
    ("error", "kind", "dtype", "compiled"),
    [
        ("mixture", "logistic", np.float64, True),
        ("mixture", "logistic", np.float32, False),
        ("mixture", "linear", np.float64, False),
        ("competitive", "logistic", np.float64, False),
    ],
)
def test_the_compiled_loop_trains_what_it_is_written_for(
    rng, monkeypatch, error, kind, dtype, compiled
):
    pytest.importorskip("numba")
    monkeypatch.setenv("MOE_NP_KERNELS", "numba")
    trained = []
    loop = kernels.jacobs1991.train_to_stop
    monkeypatch.setattr(
        kernels.jacobs1991, "train_to_stop", lambda *given: trained.append(1) or loop(*given)
    )
    params = {name: p.astype(dtype) for name, p in jacobs1991.init_mixture(rng, 2).items()}
    x, d = rng.normal(size=(5, 2)).astype(dtype), rng.uniform(size=(5, 1)).astype(dtype)
    options = {"lr": 0.01, "stop": 0.0, "max_epochs": 2, "error": error, "kind": kind}
    run = jacobs1991.train_to_stop(params, x, d, **options)
    assert run.epochs == 2 and bool(trained) == compiled


def test_initialisation_is_reproducible_and_in_range():
    def draw():
        return jacobs1991.init_mixture(np.random.default_rng(3), 8, C=4, init_range=0.5)

    params, repeated = draw(), draw()
    assert all((params[name] == repeated[name]).all() for name in params)
    assert not params["U"].any() and not params["c"].any() and 0.4 < abs(params["W"]).max() <= 0.5


# --- Analysis -------------------------------------------------------------------------------------


def test_foot_and_active_experts(rng):
    W, b = rng.normal(size=(5, 2)), rng.normal(size=5)
    foot = jacobs1991.decision_foot(W, b)
    np.testing.assert_allclose((foot * W).sum(axis=1) + b, 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(foot, axis=1), np.abs(b) / np.linalg.norm(W, axis=1))
    both = jacobs1991.decision_foot(np.stack([W, 2 * W]), np.stack([b, 3 * b]))  # at two epochs
    np.testing.assert_allclose(both, [foot, 1.5 * foot])
    p = np.eye(3)[[0] * 10 + [2] * 10] * 0.8
    assert list(jacobs1991.active_experts(p)) == [True, False, True]


# --- Input validation -----------------------------------------------------------------------------


def without_experts(p):
    return {"W": p["W"][:0], "b": p["b"][:0], "U": p["U"][:, :0], "c": p["c"][:0]}


BAD = {
    "x: wanted shape": lambda p, x, d: (p, x[0], d),
    "x: wanted finite": lambda p, x, d: (p, np.where(x > 0, x, np.nan), d),
    "x: wanted at least one case": lambda p, x, d: (p, x[:0], d[:0]),
    "d: wanted shape": lambda p, x, d: (p, x, d[1:]),
    "params: wanted the keys": lambda p, x, d: ({"W": p["W"], "U": p["U"]}, x, d),
    "params: wanted at least one expert": lambda p, x, d: (without_experts(p), x, d),
    r"params\['U'\]: wanted shape": lambda p, x, d: ({**p, "U": p["U"].T}, x, d),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(rng, message):
    params, x, d = random_params(rng), rng.normal(size=(N, D)), rng.uniform(size=(N, C))
    with pytest.raises(InputError, match=message) as caught:
        jacobs1991.train_to_stop(*BAD[message](params, x, d), lr=0.1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["error", "kind"])
def test_bad_names(rng, name):
    data = np.ones((N, D)), np.ones((N, C))
    with pytest.raises(InputError, match=f"{name}: wanted one of"):
        jacobs1991.train_to_stop(random_params(rng), *data, lr=0.1, **{name: "odd"})


@pytest.mark.parametrize("value", [None, "2", 1j, np.inf, np.nan])
@pytest.mark.parametrize("name", ["lr", "stop"])
def test_lr_and_stop_are_checked(name, value):
    rng = np.random.default_rng(0)
    params = jacobs1991.init_mixture(rng, 2)
    options = {"lr": 0.1, "stop": 0.1, name: value}
    with pytest.raises(InputError, match=f"{name}: wanted a finite number"):
        jacobs1991.train_to_stop(params, np.ones((3, 2)), np.ones((3, 1)), **options)
    with pytest.raises(InputError, match="E: wanted a whole number"):
        jacobs1991.init_mixture(rng, 0)
    with pytest.raises(InputError, match="H: wanted a whole number"):
        jacobs1991.init_net(rng, 1.5)
