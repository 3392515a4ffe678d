"""Every optimiser against the formula worked by hand or another implementation."""

import numpy as np
import pytest

from moe_np.base import optim


def frozen(*arrays):
    for a in arrays:
        a.flags.writeable = False
    return arrays


@pytest.fixture
def problem():
    rng = np.random.default_rng(2)
    params = {"w": rng.normal(size=(3, 4, 2)), "b": rng.normal(size=(3, 2))}
    grads = {k: rng.normal(size=p.shape) for k, p in params.items()}
    frozen(*params.values(), *grads.values())
    return params, grads


def test_gradient_descent(problem):
    params, grads = problem
    new = optim.gradient_descent(params, grads, lr=0.1)
    np.testing.assert_allclose(new["w"], params["w"] - 0.1 * grads["w"])


def test_momentum_is_a_geometric_sum(problem):
    params, grads = problem
    p = params
    v = None
    for _ in range(3):
        p, v = optim.momentum(p, grads, v, lr=0.1, beta=0.5)
    np.testing.assert_allclose(p["b"], params["b"] - 0.1 * grads["b"] * (1 + 1.5 + 1.75))


def test_adam_first_step_has_length_lr_and_later_ones_follow_the_recursion(problem):
    params, grads = problem
    p, state = optim.adam(params, grads, lr=0.01)
    np.testing.assert_allclose(p["w"], params["w"] - 0.01 * np.sign(grads["w"]), atol=1e-8)
    p, state = optim.adam(p, {k: -2 * g for k, g in grads.items()}, state, lr=0.01)
    g = grads["b"]
    m = 0.9 * 0.1 * g + 0.1 * (-2 * g)
    v = 0.999 * 0.001 * g**2 + 0.001 * 4 * g**2
    first = params["b"] - 0.01 * np.sign(g) / (1 + 1e-8 / np.abs(g))
    second = first - 0.01 * (m / (1 - 0.9**2)) / (np.sqrt(v / (1 - 0.999**2)) + 1e-8)
    np.testing.assert_allclose(p["b"], second, rtol=1e-12)
    assert state.t == 2


@pytest.mark.parity
def test_adam_equals_pytorch(problem):
    torch = pytest.importorskip("torch")
    params, grads = problem
    tensors = {k: torch.tensor(p.copy(), requires_grad=True) for k, p in params.items()}
    optimiser = torch.optim.Adam(tensors.values(), lr=0.01, weight_decay=5e-4)
    p = params
    state = None
    for step in range(5):
        g = {k: g * np.cos(step) for k, g in grads.items()}
        p, state = optim.adam(p, g, state, lr=0.01, weight_decay=5e-4)
        for k, t in tensors.items():
            t.grad = torch.tensor(g[k].copy())
        optimiser.step()
    for k, t in tensors.items():
        np.testing.assert_allclose(p[k], t.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("norm", ["sum", "joint", "parameter"])
def test_normalised_gradient_descent_moves_every_expert_by_the_same_length(problem, norm):
    params, grads = problem
    new = optim.normalised_gradient_descent(params, grads, lr=0.1, norm=norm)
    for e in range(3):
        dw = new["w"][e] - params["w"][e]
        db = new["b"][e] - params["b"][e]
        gw = np.linalg.norm(grads["w"][e])
        gb = np.linalg.norm(grads["b"][e])
        length = {"sum": gw + gb, "joint": np.hypot(gw, gb)}
        np.testing.assert_allclose(dw, -0.1 * grads["w"][e] / length.get(norm, gw))
        np.testing.assert_allclose(db, -0.1 * grads["b"][e] / length.get(norm, gb))


def test_an_expert_without_a_token_does_not_move(problem):
    params, grads = problem
    grads = {k: g.copy() for k, g in grads.items()}
    for g in grads.values():
        g[1] = 0
    new = optim.normalised_gradient_descent(params, grads, lr=0.1)
    for k in new:
        assert np.array_equal(new[k][1], params[k][1])
        assert not np.array_equal(new[k][0], params[k][0])


@pytest.mark.parametrize(
    "name", ["gradient_descent", "momentum", "adam", "normalised_gradient_descent"]
)
def test_float32_stays_float32(name):
    p = {"w": np.ones((2, 3), np.float32)}
    new = getattr(optim, name)(p, {"w": np.full((2, 3), 0.5, np.float32)}, lr=0.1)
    new = new[0] if isinstance(new, tuple) else new
    assert new["w"].dtype == np.float32


def test_unknown_norm_is_named():
    with pytest.raises(ValueError, match="norm: wanted one of sum, joint, parameter; got 'l3'"):
        optim.expert_norms({"w": np.ones((1, 2))}, "l3")


@pytest.mark.parametrize("lr", [0.1, np.float64(0.1), np.float32(0.1)])
def test_each_parameter_keeps_its_type(lr):
    """Of float32 and float64 parameters all became float64."""
    params = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 3))}
    steps = [
        optim.gradient_descent(params, params, lr=lr),
        optim.momentum(params, params, lr=lr)[0],
        optim.adam(params, params, lr=lr)[0],
        optim.normalised_gradient_descent(params, params, lr=lr),
    ]
    for new in steps:
        assert [new[name].dtype for name in ("a", "b")] == [np.float32, np.float64]
