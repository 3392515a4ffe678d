"""Layer and router against autograd in PyTorch, and against the Mixtral block of Transformers."""

import numpy as np
import pytest

from moe_np.experiments.layer_speed import numpy_contestants, torch_contestants
from moe_np.experiments.layer_speed.problem import EXPERTS, Shape, problem
from moe_np.layers import experts, sparse_layer
from moe_np.routing import top_k
from moe_np.routing.contract import Routing

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("backend")]


def compare(result, expected, tolerance):
    """(out, dx, gradients of router and experts): each to a part of its largest entry."""
    (out, dx, grads), (out2, dx2, grads2) = result, expected
    arrays = {"out": out, "x": dx, **grads}
    arrays2 = {"out": out2, "x": dx2, **grads2}
    assert set(arrays) == set(arrays2)
    for name, a in arrays.items():
        b = arrays2[name]
        assert a.shape == b.shape and a.dtype == b.dtype, name
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), name


@pytest.mark.parametrize("kind", EXPERTS)
@pytest.mark.parametrize("shape", [Shape(40, 6, 5), Shape(7, 4, 9, 3), Shape(30, 5, 4, 4)], ids=str)
def test_layer_and_router(kind, shape):
    p = problem(kind, shape, np.float64)
    rng = np.random.default_rng(1)
    params = {name: v + 0.3 * rng.normal(size=v.shape) for name, v in p.params.items()}
    p = p._replace(params=params)
    compare(numpy_contestants.moe_layer(p)(True), torch_contestants.torch_loop(p)(True), 1e-10)


@pytest.mark.parametrize("kind", ["gelu", "relu", "swiglu"])
def test_any_routing(kind):
    """The dense sum over all experts, for a routing with weights of any sign, a token without an
    expert, one with all experts, and an expert without tokens.
    """
    rng = np.random.default_rng(2)
    N, E, D, H = 25, 5, 6, 8
    demand = rng.random((N, E)) < 0.4
    demand[3] = False
    demand[4] = True
    demand[:, 1] = False
    token, expert = np.nonzero(demand)
    weight = rng.normal(size=len(token))
    x, dout = rng.normal(size=(2, N, D))
    kinds = {"gelu": experts.GELU, "relu": experts.RELU, "swiglu": experts.SWIGLU}
    params = kinds[kind].init(rng, D, E, H)
    params = {name: p + 0.3 * rng.normal(size=p.shape) for name, p in params.items()}
    routing = Routing(token, expert, weight, None, demand * 1.0, demand)
    out, cache = sparse_layer.forward(params, x, routing, kinds[kind])
    dx, grads, dweight = sparse_layer.backward(dout, cache)

    inputs = {**params, "x": x, "weight": weight}
    t = {name: torch.tensor(v, requires_grad=True) for name, v in inputs.items()}
    places = (torch.tensor(token), torch.tensor(expert))
    gate = torch.zeros(N, E, dtype=torch.float64).index_put(places, t["weight"])
    z = torch.einsum("nd,mdh->mnh", t["x"], t["w1"])
    if kind == "swiglu":
        y = (torch.nn.functional.silu(z) * torch.einsum("nd,mdh->mnh", t["x"], t["w3"])) @ t["w2"]
    else:
        act = {"gelu": torch.nn.functional.gelu, "relu": torch.relu}[kind]
        y = act(z + t["b1"][:, None]) @ t["w2"] + t["b2"][:, None]
    dense = torch.einsum("nm,mnd->nd", gate, y)
    dense.backward(torch.tensor(dout))
    dense_grads = {name: v.grad.numpy() for name, v in t.items()}
    expected = (dense.detach().numpy(), dense_grads.pop("x"), dense_grads)
    compare((out, dx, {**grads, "weight": dweight}), expected, 1e-10)


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_mixtral_block_of_transformers(implementation):
    pytest.importorskip("transformers", minversion="5.0")
    p = problem("swiglu", Shape(50, 16, 8))
    logits = np.sort(p.x @ p.router["w"], axis=1)
    margin = (logits[:, -2] - logits[:, -3]).min()
    assert margin > 1e-5, "a tie, which the two may break differently"
    mixtral = torch_contestants.transformers_mixtral(p, implementation)
    compare(numpy_contestants.moe_layer(p)(True), mixtral(True), 1e-5)


def test_the_router_of_mixtral():
    pytest.importorskip("transformers", minversion="5.0")
    p = problem("swiglu", Shape(50, 16, 8))
    block = torch_contestants.mixtral_block(p, "eager")
    _, weight, chosen = block.gate(torch.tensor(p.x))
    routing, _ = top_k.route(p.router, p.x, k=2, renormalise=True)
    np.testing.assert_array_equal(routing.expert, chosen.numpy().ravel())
    np.testing.assert_allclose(routing.weight, weight.detach().numpy().ravel(), rtol=1e-5)
