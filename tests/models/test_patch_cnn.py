"""The models of Chen et al. 2022: the pairs, their gradients, a naive loop."""

import itertools
import math

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.base.checks import InputError
from moe_np.models import patch_cnn, patch_cnn_training
from tests.support.patch_cnn import VARIANTS, D, E, J, N, P, problem

# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", patch_cnn.ACTIVATIONS)
def test_gradient_of_experts(activation):
    params, x, _, _, rng = problem()
    expert = rng.integers(0, E, N)
    experts = {name: params[name] for name in ("w", "b")}

    def forward(p, x):
        return patch_cnn.expert_forward(p, x, expert, activation=activation)

    errors = gradcheck.pair_error(forward, patch_cnn.expert_backward, experts, x, rng)
    assert set(errors) == {"x", "w", "b"}
    assert max(errors.values()) < 1e-7


def test_gradient_of_router():
    params, x, _, _, rng = problem()
    theta = {"theta": params["theta"]}
    pair = (patch_cnn.router_forward, patch_cnn.router_backward)
    errors = gradcheck.pair_error(*pair, theta, x, rng)
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


@pytest.mark.parametrize(("activation", "gate", "loss"), VARIANTS)
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
    total = 0.0
    experts = []
    for n in range(len(x)):
        h = [sum(params["theta"][m] @ x[n, p] for p in range(P)) for m in range(E)]
        noisy = [a + b for a, b in zip(h, noise[n], strict=True)]
        m = noisy.index(max(noisy))
        weight = noisy[m] if gate == "raw" else math.exp(h[m]) / sum(math.exp(v) for v in h)
        out = [0.0, 0.0]
        for j, p in itertools.product(range(2 * J), range(P)):
            z = params["b"][m, j] + params["w"][m, j] @ x[n, p]
            out[j // J] += weight * (z**3 if activation == "cubic" else z)
        for _ in range(2 if loss == "twice" else 1):
            out = [math.exp(v) / sum(math.exp(u) for u in out) for v in out]
        total -= math.log(out[y[n]])
        experts.append(m)
    return total / len(x), experts


@pytest.mark.parametrize(("activation", "gate", "loss"), VARIANTS)
def test_naive_loop(activation, gate, loss):
    params, x, y, noise, _ = problem()
    value, expert = naive(params, x, y, noise, activation, gate, loss)
    options = {"activation": activation, "gate": gate, "loss": loss}
    batch = patch_cnn_training.batch(x, y)
    got, chosen, _ = patch_cnn_training.gradients_numpy(params, batch, noise, **options)
    assert got == pytest.approx(value, rel=1e-12)
    assert chosen.tolist() == expert


def test_loss_twice_has_a_floor():
    y = np.array([0, 1])
    sure = np.array([[500.0, -500.0], [-500.0, 500.0]])
    floor = math.log(1 + math.exp(-1))
    assert patch_cnn.loss_forward(sure, y, loss="twice")[0] == pytest.approx(floor)
    assert patch_cnn.loss_forward(sure, y, loss="once")[0] == 0
    assert patch_cnn.loss_forward(-sure, y, loss="once")[0] == 1000


def test_ties_go_to_the_lowest_index_and_a_raw_weight_may_be_negative():
    (expert, weight), _ = patch_cnn.gate_forward(np.array([[-2.0, -1.0, -1.0]]), None, gate="raw")
    assert (expert[0], weight[0]) == (1, -1)


def test_noise_decides_but_does_not_weigh_a_softmax_gate():
    h, noise = np.zeros((1, 3)), np.array([[0.1, 0.2, 0.9]])
    (expert, weight), _ = patch_cnn.gate_forward(h, noise, gate="softmax")
    assert (expert[0], weight[0]) == (2, pytest.approx(1 / 3))


@pytest.mark.parametrize("activation", patch_cnn.ACTIVATIONS)
def test_no_samples(activation):
    params, x, _, _, _ = problem()
    expert = np.zeros(0, int)
    f, cache = patch_cnn.expert_forward(params, x[:0], expert, activation=activation)
    dx, grads = patch_cnn.expert_backward(f, cache)
    assert f.shape == (0, 2) and dx.shape == (0, P, D)
    assert all((g == 0).all() for g in grads.values())


def test_bad_sizes_are_named():
    with pytest.raises(InputError, match="n_experts: wanted a whole number of at least 1"):
        patch_cnn.init(np.random.default_rng(0), 0, 8, 50)
