import importlib.util
import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error, pair_error
from moe_np.base.numerics import sigmoid
from moe_np.data import vowel_task
from moe_np.mixtures import jacobs1991 as J

N, E, D, C, H = 9, 3, 2, 2, 4


def parameters(rng, kind="mixture", E=E, D=D, C=C, H=H):
    shapes = {"W": (E, D, C), "b": (E, C), "U": (D, E), "c": (E,)}
    if kind == "net":
        shapes = {"W": (D, H), "b": (H,), "V": (H, C), "c": (C,)}
    return {k: rng.normal(size=s) for k, s in shapes.items()}


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def small(errors):
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("kind", J.EXPERTS)
def test_experts_gradient(rng, kind):
    forward = lambda p, x: J.experts_forward(p, x, kind)  # noqa: E731
    params = {k: parameters(rng)[k] for k in ("W", "b")}
    small(pair_error(forward, J.experts_backward, params, rng.normal(size=(N, D)), rng))


def test_gate_gradient(rng):
    params = {k: parameters(rng)[k] for k in ("U", "c")}
    small(pair_error(J.gate_forward, J.gate_backward, params, rng.normal(size=(N, D)), rng))


@pytest.mark.parametrize("error", J.ERRORS)
def test_error_gradient(rng, error):
    forward, backward = J.ERRORS[error]
    o, p, d = rng.normal(size=(N, E, C)), rng.uniform(0.1, 1, (N, E)), rng.normal(size=(N, C))
    cache = forward(o, p, d)[1]
    dloss = rng.normal(size=N)
    do, dp = backward(dloss, cache)
    small(
        gradient_error(
            lambda q: (forward(q["o"], q["p"], d)[0] * dloss).sum(),
            {"o": o, "p": p},
            {"o": do, "p": dp},
            rng,
        )
    )


@pytest.mark.parametrize("error,kind", list(itertools.product(J.ERRORS, J.EXPERTS)))
def test_whole_mixture_gradient(rng, error, kind):
    d = rng.uniform(size=(N, C))
    forward = lambda p, x: J.system_forward(p, x, d, error, kind)  # noqa: E731
    small(pair_error(forward, J.system_backward, parameters(rng), rng.normal(size=(N, D)), rng))


@pytest.mark.parametrize("kind", J.EXPERTS)
def test_net_gradient(rng, kind):
    d = rng.uniform(size=(N, C))
    forward = lambda p, x: J.net_forward(p, x, d, kind)  # noqa: E731
    small(pair_error(forward, J.net_backward, parameters(rng, "net"), rng.normal(size=(N, D)), rng))


def test_the_three_errors_by_hand():
    """Two experts at 1 and 3, wanted 2, believed 1/4 and 3/4: blend 2.5."""
    o, p, d = np.array([[[1.0], [3.0]]]), np.array([[0.25, 0.75]]), np.array([[2.0]])
    assert J.cooperative_forward(o, p, d)[0][0] == pytest.approx(0.25)
    assert J.competitive_forward(o, p, d)[0][0] == pytest.approx(1)
    loss, cache = J.mixture_forward(o, p, d)
    assert loss[0] == pytest.approx(0.5)
    np.testing.assert_allclose(
        cache.resp, p
    )  # both equally far: nothing to learn about who is right


def test_collapsed_gate_gradient_is_the_chain(rng):
    params, x, d = parameters(rng), rng.normal(size=(N, D)), rng.uniform(size=(N, C))
    _, cache = J.system_forward(params, x, d)
    dloss = rng.normal(size=N)
    _, dp = J.mixture_backward(dloss, cache.scores)
    chain = J.gate_backward(dp, cache.gate)[1]
    collapsed = J.system_backward(dloss, cache)[1]
    for k in ("U", "c"):
        np.testing.assert_allclose(collapsed[k], chain[k], rtol=1e-12, atol=1e-14)


def test_the_mixture_stays_finite_far_out(rng):
    """Gates so sure that p underflows to 0, experts so wrong that every Gaussian does."""
    params = parameters(rng)
    params["U"] *= 1e4
    params["W"] *= 1e3
    d = np.full((N, C), 500.0)
    loss, cache = J.system_forward(params, rng.normal(size=(N, D)), d, "mixture", "linear")
    assert (cache.p == 0).any() and np.isfinite(loss).all()
    np.testing.assert_allclose(cache.scores.resp.sum(axis=1), 1)
    assert all(np.isfinite(g).all() for g in J.system_backward(np.ones(N), cache)[1].values())


def test_one_expert_is_one_net_under_every_error(rng):
    params, x, d = parameters(rng, E=1), rng.normal(size=(N, D)), rng.uniform(size=(N, C))
    wanted = ((d - sigmoid(x @ params["W"][0] + params["b"][0])) ** 2).sum(axis=1)
    for error, scale in (("cooperative", 1), ("competitive", 1), ("mixture", 0.5)):
        loss, cache = J.system_forward(params, x, d, error)
        np.testing.assert_allclose(loss, scale * wanted)
        grads = J.system_backward(np.ones(N), cache)[1]
        np.testing.assert_allclose([abs(grads["U"]).max(), abs(grads["c"]).max()], 0, atol=1e-15)


def test_experts_can_be_renumbered(rng):
    params, x, d = parameters(rng), rng.normal(size=(N, D)), rng.uniform(size=(N, C))
    order = [2, 0, 1]
    moved = {
        "W": params["W"][order],
        "b": params["b"][order],
        "U": params["U"][:, order],
        "c": params["c"][order],
    }
    for error in J.ERRORS:
        np.testing.assert_allclose(
            J.system_forward(moved, x, d, error)[0], J.system_forward(params, x, d, error)[0]
        )
    np.testing.assert_allclose(J.predict(moved, x), J.predict(params, x))


def test_eq_3_rewards_the_better_expert_more_than_eq_2(rng):
    """The paper's argument: at equal p, eq. 3 adapts the best expert fastest in relation to the
    others.
    """
    o, p, d = np.array([[[1.1], [2.0]]]), np.array([[0.5, 0.5]]), np.array([[0.0]])
    share = {}
    for error in ("competitive", "mixture"):
        forward, backward = J.ERRORS[error]
        do = np.abs(backward(np.ones(1), forward(o, p, d)[1])[0][0, :, 0])
        share[error] = do[0] / do.sum()
    assert share["competitive"] < 0.5 < share["mixture"]


def test_steps_of_training(rng):
    task = vowel_task()
    start = J.init_mixture(rng, 4)
    steps = list(itertools.islice(J.train(start, task.x_train, task.d_train, lr=0.02), 30))
    assert [s.number for s in steps] == list(range(30))
    np.testing.assert_allclose(steps[0].cache.p, 0.25)
    assert all(b.loss < a.loss for a, b in itertools.pairwise(steps[5:]))
    np.testing.assert_array_equal(steps[0].params["W"], start["W"])
    assert steps[0].squared_error == pytest.approx(
        ((task.d_train - J.predict(start, task.x_train)) ** 2).mean()
    )


@pytest.mark.parametrize(
    "error,kind,C",
    [("cooperative", "logistic", 1), ("competitive", "linear", 1), ("mixture", "linear", 4)],
)
def test_every_error_learns_something(rng, error, kind, C):
    task = vowel_task(coding="one-hot" if C == 4 else "IY+IH")
    run = J.train_to_stop(
        J.init_mixture(rng, 2, C=C),
        task.x_train,
        task.d_train,
        lr=0.0005,
        stop=0.0,
        max_epochs=300,
        error=error,
        kind=kind,
    )
    first = next(
        J.train(
            J.init_mixture(rng, 2, C=C), task.x_train, task.d_train, lr=1, error=error, kind=kind
        )
    )
    assert run.epochs == 300 and not run.reached and run.squared_error < 0.8 * first.squared_error


def test_the_stop_rule(rng):
    task = vowel_task()
    start = J.init_net(rng, 6)
    none = J.train_to_stop(start, task.x_train, task.d_train, lr=0.03, stop=0.5)
    assert (none.epochs, none.reached) == (0, True)
    cut = J.train_to_stop(start, task.x_train, task.d_train, lr=0.03, max_epochs=7, keep=True)
    assert (cut.epochs, cut.reached) == (7, False) and cut.squared_error > 0.08
    assert cut.history["V"].shape == (8, 6, 1)
    np.testing.assert_array_equal(cut.history["V"][-1], cut.params["V"])
    np.testing.assert_array_equal(cut.history["W"][0], start["W"])


def test_starts_are_reproducible_and_in_range():
    a, b = (J.init_mixture(np.random.default_rng(3), 8, C=4, spread=0.5) for _ in range(2))
    assert all((a[k] == b[k]).all() for k in a)
    assert not a["U"].any() and not a["c"].any() and 0.4 < abs(a["W"]).max() <= 0.5
    net = J.init_net(np.random.default_rng(3), 12, spread=0.1)
    assert max(abs(v).max() for v in net.values()) <= 0.1 and all(v.all() for v in net.values())


def test_foot_and_active_experts(rng):
    W, b = rng.normal(size=(5, 2)), rng.normal(size=5)
    foot = J.decision_foot(W, b)
    np.testing.assert_allclose((foot * W).sum(axis=1) + b, 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(foot, axis=1), np.abs(b) / np.linalg.norm(W, axis=1))
    p = np.eye(3)[[0] * 10 + [2] * 10] * 0.8
    assert list(J.active_experts(p)) == [True, False, True]


BAD = {
    "x: wanted shape": lambda p, x, d: (p, x[0], d),
    "x: wanted finite": lambda p, x, d: (p, np.where(x > 0, x, np.nan), d),
    "x: wanted at least one case": lambda p, x, d: (p, x[:0], d[:0]),
    "d: wanted shape": lambda p, x, d: (p, x, d[1:]),
    "params: wanted the keys": lambda p, x, d: ({"W": p["W"], "U": p["U"]}, x, d),
    "params: wanted at least one expert": lambda p, x, d: (
        {"W": p["W"][:0], "b": p["b"][:0], "U": p["U"][:, :0], "c": p["c"][:0]},
        x,
        d,
    ),
    r"params\['U'\]: wanted shape": lambda p, x, d: ({**p, "U": p["U"].T}, x, d),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(rng, message):
    params, x, d = parameters(rng), rng.normal(size=(N, D)), rng.uniform(size=(N, C))
    with pytest.raises(InputError, match=message) as caught:
        J.train_to_stop(*BAD[message](params, x, d), lr=0.1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["error", "kind"])
def test_bad_names(rng, name):
    with pytest.raises(InputError, match=f"{name}: wanted one of"):
        J.train_to_stop(parameters(rng), np.ones((N, D)), np.ones((N, C)), lr=0.1, **{name: "odd"})


# --- the compiled loops against the equations -----------------------------------------------------

numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="Numba is not installed"
)


@numba
@pytest.mark.parametrize(
    "system,C,N,D",
    [("mixture", 1, 13, 2), ("mixture", 3, 8, 2), ("net", 1, 9, 3), ("net", 3, 16, 2)],
)
def test_compiled_steps_are_the_written_ones(rng, system, C, N, D):
    from moe_np.kernels import jacobs1991 as vowels

    params = parameters(rng, system, C=C, D=D)
    x, d = rng.normal(size=(N, D)), np.eye(3)[rng.integers(3, size=N)][:, :C]
    kind = "logistic" if C == 1 else "softmax"
    wanted = list(itertools.islice(J.train(params, x, d, lr=0.05, kind=kind), 4))
    epochs, reached, error, last, history = vowels.train_to_stop(params, x, d, 0.05, 0.0, 3, True)
    assert (epochs, reached) == (3, False)
    assert error == pytest.approx(wanted[3].squared_error, rel=1e-12)
    for k in params:
        np.testing.assert_allclose(last[k], wanted[3].params[k], rtol=1e-11, atol=1e-13)
        np.testing.assert_array_equal(history[k][3], last[k])
        for step in range(4):
            np.testing.assert_allclose(
                history[k][step], wanted[step].params[k], rtol=1e-11, atol=1e-13
            )


@numba
def test_compiled_loop_survives_large_totals(rng):
    from moe_np.kernels import jacobs1991 as vowels

    params = parameters(rng, C=1)
    params = {k: 3000 * v for k, v in params.items()}
    x, d = rng.normal(size=(N, D)), rng.integers(2, size=(N, 1)).astype(float)
    _, _, error, last, _ = vowels.train_to_stop(params, x, d, 0.05, 0.0, 2, False)
    wanted = next(itertools.islice(J.train(params, x, d, lr=0.05), 2, None))
    assert error == pytest.approx(wanted.squared_error, rel=1e-9)
    assert all(np.isfinite(v).all() for v in last.values())


@numba
def test_a_run_that_is_no_longer_a_number_ends(rng):
    from moe_np.kernels import jacobs1991 as vowels

    params = parameters(rng, C=1)
    params["W"][0, 0, 0] = np.nan
    epochs, reached, error, _, _ = vowels.train_to_stop(
        params, np.ones((N, D)), np.ones((N, 1)), 0.1, 0.08, 5, False
    )
    assert (epochs, reached) == (0, False) and np.isnan(error)


@numba
def test_exponential():
    from moe_np.kernels.jacobs1991 import exp_negative

    x = -np.concatenate([[0.0], np.logspace(-8, 2.8, 400)])
    np.testing.assert_allclose([exp_negative(v) for v in x], np.exp(x), rtol=2e-15)
    assert (
        np.isnan(exp_negative(np.float64("nan"))) and 0 <= exp_negative(np.float64(-1e9)) < 1e-300
    )
