"""A mixture as the expert of a mixture: its gradient, and the mixture of its mixtures by hand."""

import numpy as np
import pytest

from moe_np.base.gradcheck import gradient_error
from moe_np.layers import experts, nested, sparse_layer
from moe_np.routing import top_k
from tests.support.layers import D, random_routing

pytestmark = pytest.mark.usefixtures("backend")


def setup(n_tokens=14):
    rng = np.random.default_rng(0)
    expert = nested.expert(top_k, {"k": 2, "renormalise": True}, experts.GELU)
    params = expert.init(rng, D, 3, 4, 6, 3)
    params = {name: p + 0.3 * rng.normal(size=p.shape) for name, p in params.items()}
    return expert, params, rng.normal(size=(n_tokens, D)), random_routing(rng, n_tokens, 3, 2)


@pytest.mark.parametrize("n_tokens", [14, 1, 0])
def test_gradient(n_tokens):
    expert, params, x, routing = setup(n_tokens)
    rng = np.random.default_rng(8)
    out, cache = sparse_layer.forward(params, x, routing, expert)
    dout = rng.normal(size=out.shape)
    dx, grads, dweight = sparse_layer.backward(dout, cache)

    def loss(p):
        nets = {name: v for name, v in p.items() if name in params}
        moved = routing._replace(weight=p["routing.weight"])
        return (sparse_layer.forward(nets, p["x"], moved, expert)[0] * dout).sum()

    point = {**params, "x": x, "routing.weight": routing.weight}
    gradient = {**grads, "x": dx, "routing.weight": dweight}
    errors = gradient_error(loss, point, gradient, rng, step=1e-4)
    assert max(errors.values()) < 1e-7, errors


def test_it_is_the_mixture_of_its_mixtures():
    expert, params, x, routing = setup()
    out, cache = sparse_layer.forward(params, x, routing, expert)
    expected = np.zeros_like(out)
    for m in range(3):
        nets = {name: p[m] for name, p in params.items() if not name.startswith("router.")}
        inner, _ = top_k.route({"w": params["router.w"][m]}, x, k=2, renormalise=True)
        y, _ = sparse_layer.forward(nets, x, inner, experts.GELU)
        rows = routing.expert == m
        token = routing.token[rows]
        expected[token] += routing.weight[rows][:, None] * y[token]
    np.testing.assert_allclose(out, expected, rtol=1e-11, atol=1e-13)
    inner_passes = cache.experts.inner
    assert len(inner_passes) == 3 and inner_passes[0].routing.probs.shape[1] == 4
