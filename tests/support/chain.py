"""A router, the layer and both backward passes in one call, for the tests of all routers together
with the layer.
"""

from typing import NamedTuple

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import experts, sparse_layer
from moe_np.routing import contract
from tests.support import routers
from tests.support.routers import CASES, route

D, H, OUT = 5, 6, 3
KINDS = {"gelu": experts.GELU, "relu": experts.RELU, "swiglu": experts.SWIGLU}


def over(cases):
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


every = over(CASES)
learned = over({name: case for name, case in CASES.items() if case.learned})


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


def chain(case, params, expert_params, x, *, seed=None, kind="gelu", dout=None):
    """Route, layer, and both backward passes from dout (by default: the gradient of ½ Σ out²)."""
    routing, router_cache = route(case, params, x, seed)
    out, cache = sparse_layer.forward(expert_params, x, routing, KINDS[kind])
    dx, grads, dweight = sparse_layer.backward(out if dout is None else dout, cache)
    dx_router, router_grads = case.router.route_backward(dweight, None, router_cache)
    return Pass(routing, out, dx + dx_router, grads, router_grads)


def arrays(p):
    return [p.out, p.dx, *p.grads.values(), *p.router.values(), p.routing.weight]


def naive(expert_params, x, routing):
    """One assignment after the other."""
    w1, b1, w2, b2 = (expert_params[name] for name in ("w1", "b1", "w2", "b2"))
    out = np.zeros((len(x), OUT), x.dtype)
    for n, m, weight in zip(routing.token, routing.expert, routing.weight, strict=True):
        h = experts.feed_forward.gelu(x[n] @ w1[m] + b1[m])
        out[n] += weight * (h @ w2[m] + b2[m])
    return out


def close(a, b, **tolerance):
    np.testing.assert_allclose(a, b, **{"rtol": 1e-10, "atol": 1e-12, **tolerance})


def refused(case, params, x, words, **options):
    """One line that states what came and what was wanted."""
    with pytest.raises(InputError, match=words) as error:
        case.router.route(params, x, **{**routers.options(case, x), **options})
    assert "\n" not in str(error.value)
