"""A router, the layer and both backward passes in one call, for the tests of all routers together
with the layer.
"""

from typing import NamedTuple

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import experts, sparse_layer
from moe_np.routing import contract
from tests.support.routers import CASES, HASH, route

D, H, OUT = 5, 6, 3
KINDS = {"gelu": experts.GELU, "relu": experts.RELU, "swiglu": experts.SWIGLU}


def over(cases):
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


every = over(CASES)
learned = over({name: c for name, c in CASES.items() if c.learned})


class Pass(NamedTuple):
    routing: contract.Routing
    out: np.ndarray
    dx: np.ndarray  # through experts and router
    grads: dict  # of the experts
    router: dict


def make_experts(n_experts=4, d_model=D, kind="gelu", dtype=np.float64, seed=0):
    """Parameters away from zero, biases too."""
    rng = np.random.default_rng(seed)
    params = KINDS[kind].init(rng, d_model, n_experts, H, OUT)
    return {name: (p + 0.3 * rng.normal(size=p.shape)).astype(dtype) for name, p in params.items()}


def chain(case, params, own, x, *, seed=None, kind="gelu", dout=None):
    """Route, layer, and both backward passes from dout (by default: the gradient of ½ Σ out²)."""
    routing, gate = route(case, params, x, seed)
    out, cache = sparse_layer.forward(own, x, routing, KINDS[kind])
    dx, grads, dweight = sparse_layer.backward(out if dout is None else dout, cache)
    if case.router is HASH:
        return Pass(routing, out, dx, grads, {})
    dx_router, router = case.router.route_backward(dweight, None, gate)
    return Pass(routing, out, dx + dx_router, grads, router)


def arrays(p):
    return [p.out, p.dx, *p.grads.values(), *p.router.values(), p.routing.weight]


def naive(own, x, routing):
    """One assignment after the other."""
    out = np.zeros((len(x), OUT), x.dtype)
    for n, m, weight in zip(routing.token, routing.expert, routing.weight, strict=True):
        h = experts.gelu(x[n] @ own["w1"][m] + own["b1"][m])
        out[n] += weight * (h @ own["w2"][m] + own["b2"][m])
    return out


def close(a, b, **tolerance):
    np.testing.assert_allclose(a, b, **{"rtol": 1e-10, "atol": 1e-12, **tolerance})


def refused(case, params, x, words, **options):
    """One line that says so."""
    with pytest.raises(InputError, match=words) as error:
        case.router.route(params, x, **{**case.options, **options})
    assert "\n" not in str(error.value)
