"""Chen et al. 2022: the pairs, their gradients, a naive loop, the compiled passes, the stop rule."""

import itertools
import math
import os

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.base.checks import InputError
from moe_np.models import patch_cnn, patch_cnn_training

N, P, D, J, E = 23, 3, 5, 2, 4
ALL = list(itertools.product(patch_cnn.ACTIVATIONS, patch_cnn.GATES, patch_cnn.LOSSES))
JIT_OFF = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"


def problem(seed=0, n=N, dtype=np.float64):
    rng = np.random.default_rng(seed)
    params = patch_cnn.init(rng, E, J, D, scale=1.5, dtype=dtype)
    params["theta"] = (0.3 * rng.normal(size=(E, D))).astype(dtype)
    x, y, noise = rng.normal(size=(n, P, D)), rng.integers(0, 2, n), rng.random((n, E))
    return params, x.astype(dtype), y, noise.astype(dtype), rng


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", patch_cnn.ACTIVATIONS)
def test_gradient_of_experts(activation):
    params, x, _, _, rng = problem()
    expert = rng.integers(0, E, N)
    experts = {k: params[k] for k in ("w", "b")}
    errors = gradcheck.pair_error(
        lambda p, x: patch_cnn.expert_forward(p, x, expert, activation=activation),
        patch_cnn.expert_backward,
        experts,
        x,
        rng,
    )
    assert set(errors) == {"x", "w", "b"}
    assert max(errors.values()) < 1e-7


def test_gradient_of_router():
    params, x, _, _, rng = problem()
    theta = {"theta": params["theta"]}
    errors = gradcheck.pair_error(
        patch_cnn.router_forward, patch_cnn.router_backward, theta, x, rng
    )
    assert set(errors) == {"x", "theta"}
    assert max(errors.values()) < 1e-7


@pytest.mark.parametrize("gate", patch_cnn.GATES)
def test_gradient_of_gate(gate):
    _, _, _, noise, rng = problem()
    h, dweight = rng.normal(size=(N, E)), rng.normal(size=N)
    (expert, _), cache = patch_cnn.gate_forward(h, noise, gate=gate)

    def weight(params):
        (chosen, weight), _ = patch_cnn.gate_forward(params["h"], noise, gate=gate)
        assert (chosen == expert).all()  # the check stays away from ties
        return (weight * dweight).sum()

    dh = patch_cnn.gate_backward(dweight, cache)
    assert gradcheck.gradient_error(weight, {"h": h}, {"h": dh}, rng, step=1e-4)["h"] < 1e-7


@pytest.mark.parametrize(("activation", "gate", "loss"), ALL)
def test_gradient_of_mixture_and_loss(activation, gate, loss):
    params, x, y, noise, rng = problem()

    def value(p, x):
        out, cache = patch_cnn.mixture_forward(p, x, noise, activation=activation, gate=gate)
        result, loss_cache = patch_cnn.loss_forward(out, y, loss=loss)
        return result, (loss_cache, cache)

    def back(dloss, caches):
        return patch_cnn.mixture_backward(patch_cnn.loss_backward(dloss, caches[0]), caches[1])

    errors = gradcheck.pair_error(value, back, params, x, rng, step=1e-4)
    assert set(errors) == {"x", "w", "b", "theta"}
    assert max(errors.values()) < 1e-7


# --- what the numbers are -------------------------------------------------------------------------


def naive(params, x, y, noise, activation, gate, loss):
    """Loss and expert of each sample, number by number."""
    total, experts = 0.0, []
    for n in range(len(x)):
        h = [
            sum(params["theta"][m, d] * x[n, p, d] for p in range(P) for d in range(D))
            for m in range(E)
        ]
        noisy = [a + b for a, b in zip(h, noise[n], strict=True)]
        m = noisy.index(max(noisy))
        weight = noisy[m] if gate == "raw" else math.exp(h[m]) / sum(math.exp(v) for v in h)
        out = [0.0, 0.0]
        for j, p in itertools.product(range(2 * J), range(P)):
            z = params["b"][m, j] + sum(params["w"][m, j, d] * x[n, p, d] for d in range(D))
            out[j // J] += weight * (z**3 if activation == "cubic" else z)
        for _ in range(2 if loss == "twice" else 1):
            out = [math.exp(v) / sum(math.exp(u) for u in out) for v in out]
        total -= math.log(out[y[n]])
        experts.append(m)
    return total / len(x), experts


@pytest.mark.parametrize(("activation", "gate", "loss"), ALL)
def test_naive_loop(activation, gate, loss):
    params, x, y, noise, _ = problem()
    value, expert = naive(params, x, y, noise, activation, gate, loss)
    kinds = {"activation": activation, "gate": gate, "loss": loss}
    got, chosen, _ = patch_cnn_training.gradients_numpy(
        params, patch_cnn_training.batch(x, y), noise, **kinds
    )
    assert got == pytest.approx(value, rel=1e-12)
    assert chosen.tolist() == expert


def test_loss_twice_has_a_floor():
    y = np.array([0, 1])
    sure = np.array([[500.0, -500.0], [-500.0, 500.0]])
    assert patch_cnn.loss_forward(sure, y, loss="twice")[0] == pytest.approx(
        math.log(1 + math.exp(-1))
    )
    assert patch_cnn.loss_forward(sure, y, loss="once")[0] == 0
    assert patch_cnn.loss_forward(-sure, y, loss="once")[0] == 1000


def test_ties_go_to_the_lowest_index_and_a_raw_weight_may_be_negative():
    (expert, weight), _ = patch_cnn.gate_forward(np.array([[-2.0, -1.0, -1.0]]), None, gate="raw")
    assert (expert[0], weight[0]) == (1, -1)


def test_noise_decides_but_does_not_weigh_a_softmax_gate():
    h, noise = np.zeros((1, 3)), np.array([[0.1, 0.2, 0.9]])
    (expert, weight), _ = patch_cnn.gate_forward(h, noise, gate="softmax")
    assert (expert[0], weight[0]) == (2, pytest.approx(1 / 3))


def test_permuting_experts_changes_names_only():
    params, x, y, noise, _ = problem()
    batch, order = patch_cnn_training.batch(x, y), np.array([2, 0, 3, 1])
    kinds = {"activation": "cubic", "gate": "softmax", "loss": "once"}
    value, expert, grads = patch_cnn_training.gradients(params, batch, noise, **kinds)
    moved, chosen, dmoved = patch_cnn_training.gradients(
        {k: v[order] for k, v in params.items()}, batch, noise[:, order], **kinds
    )
    assert moved == pytest.approx(value)
    assert (order[chosen] == expert).all()
    for k in grads:
        np.testing.assert_allclose(dmoved[k], grads[k][order], atol=1e-12)


def test_entropy_at_its_ends():
    cluster = np.arange(4).repeat(50)
    assert patch_cnn.entropy(cluster, cluster, 8, 4) == 0
    assert patch_cnn.entropy(np.zeros(200, int), cluster, 8, 4) == pytest.approx(math.log(4))
    assert patch_cnn.entropy(cluster // 2, cluster, 8, 4) == pytest.approx(math.log(2))


# --- compiled -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("activation", "gate", "loss"), ALL)
def test_compiled_pass_equals_numpy(activation, gate, loss, dtype):
    clusters = pytest.importorskip("moe_np.kernels.patch_cnn", exc_type=ImportError)
    # blocks of the router and a short one; bins, full or not
    n = 157 if dtype == np.float64 or JIT_OFF else 1157
    tolerance = 1e-11 if dtype == np.float64 else 3e-4
    params, x, y, noise, _ = problem(n=n, dtype=dtype)
    batch = patch_cnn_training.batch(x, y)
    for r in (noise, None):
        kinds = {"activation": activation, "gate": gate}
        value, expert, grads = patch_cnn_training.gradients_numpy(
            params, batch, r, loss=loss, **kinds
        )
        got, chosen, dgot = clusters.gradients(params, batch, r, loss=loss, **kinds)
        assert got == pytest.approx(value, rel=tolerance)
        assert (chosen == expert).all()
        for k in grads:
            assert dgot[k].dtype == dtype
            np.testing.assert_allclose(
                dgot[k], grads[k], rtol=0, atol=tolerance * np.abs(grads[k]).max()
            )


@pytest.mark.parametrize("activation", patch_cnn.ACTIVATIONS)
@pytest.mark.parametrize("n", [1, 128, 300])
def test_compiled_pass_with_an_expert_that_gets_nearly_everything(activation, n):
    clusters = pytest.importorskip("moe_np.kernels.patch_cnn", exc_type=ImportError)
    params, x, y, noise, _ = problem(n=n)
    noise[: max(n - 2, 1), 2] += 100  # experts 0, 1 and 3 fill their bins with one sample or none
    batch, kinds = (
        patch_cnn_training.batch(x, y),
        {"activation": activation, "gate": "softmax", "loss": "twice"},
    )
    value, expert, grads = patch_cnn_training.gradients_numpy(params, batch, noise, **kinds)
    assert (expert == 2).sum() >= max(n - 2, 1)
    got, chosen, dgot = clusters.gradients(params, batch, noise, **kinds)
    assert got == pytest.approx(value, rel=1e-12)
    assert (chosen == expert).all()
    for k in grads:
        np.testing.assert_allclose(dgot[k], grads[k], rtol=0, atol=1e-11 * np.abs(grads[k]).max())


@pytest.mark.parametrize("activation", patch_cnn.ACTIVATIONS)
def test_compiled_single_model_equals_numpy(activation):
    clusters = pytest.importorskip("moe_np.kernels.patch_cnn", exc_type=ImportError)
    params, x, y, _, _ = problem(n=157)
    single, batch = {k: params[k][:1] for k in ("w", "b")}, patch_cnn_training.batch(x, y)
    value, grads = patch_cnn_training.single_gradients_numpy(single, batch, activation=activation)
    got, dgot = clusters.single_gradients(single, batch, activation=activation)
    assert got == pytest.approx(value, rel=1e-12)
    for k in grads:
        np.testing.assert_allclose(dgot[k], grads[k], atol=1e-12 * np.abs(grads[k]).max() + 1e-15)


def test_ties_in_a_pass_go_to_the_lowest_index():
    params, x, y, _, _ = problem()
    params["theta"][:] = 0
    noise = np.tile([0.1, 0.7, 0.7, 0.2], (N, 1))
    kinds = {"activation": "linear", "gate": "raw", "loss": "once"}
    for r, chosen in ((None, 0), (noise, 1)):
        _, expert, _ = patch_cnn_training.gradients(
            params, patch_cnn_training.batch(x, y), r, **kinds
        )
        assert (expert == chosen).all()


def test_a_pass_gives_the_same_bits_again():
    params, x, y, noise, _ = problem(n=700, dtype=np.float32)
    batch, kinds = (
        patch_cnn_training.batch(x, y),
        {"activation": "cubic", "gate": "softmax", "loss": "twice"},
    )
    (value, _, grads), (again, _, dagain) = (
        patch_cnn_training.gradients(params, batch, noise, **kinds) for _ in range(2)
    )
    assert value == again
    assert all((grads[k] == dagain[k]).all() for k in grads)


def test_an_expert_without_samples_gets_no_gradient_and_stays():
    params, x, y, noise, _ = problem()
    noise[:, 3] = -100
    batch, kinds = (
        patch_cnn_training.batch(x, y),
        {"activation": "cubic", "gate": "raw", "loss": "once"},
    )
    _, expert, grads = patch_cnn_training.gradients(params, batch, noise, **kinds)
    assert 3 not in expert
    assert all((grads[k][3] == 0).all() for k in grads)
    *_, step = patch_cnn_training.train_mixture(
        params, batch, expert % 2, lambda shape: noise, epochs=2, lr=0.1, lr_router=0, **kinds
    )
    assert (step.params["w"][3] == params["w"][3]).all()
    assert (step.params["w"][:3] != params["w"][:3]).any()


def test_trajectories_are_equal(monkeypatch):
    pytest.importorskip("numba")
    paths = {}
    for backend in ("numpy", "numba"):
        monkeypatch.setenv("MOE_NP_KERNELS", backend)
        params, x, y, _, _ = problem(n=60)
        steps = patch_cnn_training.train_mixture(
            params,
            patch_cnn_training.batch(x, y),
            y,
            patch_cnn_training.uniform_noise(np.random.default_rng(3), np.float64),
            epochs=15,
            activation="cubic",
            gate="raw",
            loss="twice",
            lr=0.05,
            lr_router=0.1,
            stop=False,
        )
        paths[backend] = [(s.loss, s.entropy, s.params["w"].sum()) for s in steps]
    np.testing.assert_allclose(paths["numba"], paths["numpy"], rtol=1e-9)
    losses = [loss for loss, *_ in paths["numpy"]]
    assert losses[-1] < losses[0]


# --- training -------------------------------------------------------------------------------------


def stopped_at(monkeypatch, losses, stop=True):
    params, x, y, _, _ = problem()
    zeros = {k: np.zeros_like(v) for k, v in params.items()}
    told = iter(losses)
    monkeypatch.setattr(
        patch_cnn_training,
        "gradients",
        lambda *args, **kinds: (next(told), np.zeros(N, int), zeros),
    )
    steps = patch_cnn_training.train_mixture(
        params,
        patch_cnn_training.batch(x, y),
        y,
        None,
        epochs=len(losses),
        activation="cubic",
        gate="raw",
        loss="twice",
        lr=1,
        lr_router=1,
        stop=stop,
    )
    *_, last = steps
    return last.epoch, last.stopped


def test_stop_rule(monkeypatch):
    assert stopped_at(monkeypatch, [0.6, 0.61, 0.5]) == (2, False)  # a little worse: goes on
    assert stopped_at(monkeypatch, [0.6, 0.5, 0.521, 0.4]) == (
        2,
        True,
    )  # above the smallest by more than .02
    assert stopped_at(monkeypatch, [0.6, 0.3138, 0.3139, 0.3]) == (
        2,
        True,
    )  # near the floor and no longer falling
    assert stopped_at(monkeypatch, [0.3138, 0.3138, 0.3137]) == (
        2,
        False,
    )  # near the floor and not rising
    assert stopped_at(monkeypatch, [0.5, 0.9, 0.9], stop=False) == (2, False)


def test_a_step_of_an_expert_has_the_same_length_however_few_its_samples():
    params, x, y, noise, _ = problem()
    kinds = {
        "activation": "cubic",
        "gate": "raw",
        "loss": "twice",
        "norm": "joint",
        "lr": 0.01,
        "lr_router": 0.1,
    }
    (step,) = patch_cnn_training.train_mixture(
        params, patch_cnn_training.batch(x, y), y, lambda s: noise, epochs=1, **kinds
    )
    moved = sum(((step.params[k] - params[k]) ** 2).reshape(E, -1).sum(axis=1) for k in ("w", "b"))
    np.testing.assert_allclose(np.sqrt(moved), 0.01)


def test_what_experts_know():
    v = np.eye(D)[:3]
    params = {"w": np.zeros((2, 4, D)), "b": np.zeros((2, 4)), "theta": np.zeros((2, D))}
    params["w"][0, 1, 0], params["w"][1, 2, 2], params["theta"][1, 0] = -3, 2, -1
    known = patch_cnn_training.alignment(params, v, v[::-1])
    assert known["expert_feature"].tolist() == [[3, 0, 0], [0, 0, 2]]
    assert known["expert_center"].tolist() == [[0, 0, 3], [2, 0, 0]]
    assert known["router_feature"].tolist() == [[0, 0, 0], [1, 0, 0]]
    x = np.zeros((4, 1, D))
    x[:, 0, 0] = [1, -1, 1, -1]  # expert 0 says class 0 for −1 (its filter is −3 and of class 0)
    right = patch_cnn_training.expert_accuracy(
        params,
        patch_cnn_training.batch(x, np.array([1, 0, 0, 0])),
        np.array([0, 0, 1, 1]),
        activation="cubic",
    )
    assert right[0].tolist() == [100, 50]


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: patch_cnn_training.batch(np.zeros((3, 5)), np.zeros(3, int)),
            r"x: wanted shape \(N, P, D\), got \(3, 5\)",
        ),
        (
            lambda: patch_cnn_training.batch(np.full((1, 1, 1), np.nan), np.zeros(1, int)),
            "x: wanted finite numbers, got nan",
        ),
        (
            lambda: patch_cnn_training.batch(np.zeros((3, 2, 2)), np.zeros(2, int)),
            r"y: wanted shape \(3,\), got \(2,\)",
        ),
        (
            lambda: patch_cnn_training.batch(np.zeros((2, 2, 2)), np.array([-1, 1])),
            "y: wanted classes 0 and 1, got -1 to 1",
        ),
        (
            lambda: patch_cnn.init(np.random.default_rng(0), 0, 8, 50),
            "n_experts: wanted a whole number of at least 1",
        ),
        (
            lambda: patch_cnn_training.gradients(
                {}, None, None, activation="cube", gate="raw", loss="once"
            ),
            "activation: wanted one of cubic, linear; got 'cube'",
        ),
        (
            lambda: patch_cnn_training.predict({}, None, None, activation="cubic", gate="hard"),
            "gate: wanted one of raw, softmax; got 'hard'",
        ),
    ],
)
def test_bad_input(call, said):
    with pytest.raises(InputError, match=said):
        call()
