"""The sparse layer for few tokens, as in generation: its output alone, without checks.

    out_n = Σ_{a: token(a) = n} weight_a · expert(a)(x_n)

It is `forward` of `moe_np.layers.sparse_layer`, which has the equation in full, without what only
many tokens pay for: an order of the assignments, a plan of tasks, arrays for a backward pass. The
experts that tokens chose come one after the other. With Numba it runs in
`moe_np.kernels.few_tokens`, and where the matrices are large in `moe_np.kernels.sparse_layer`, the
threads of which take an expert each.
"""

from typing import Annotated

import numpy as np

from moe_np import kernels
from moe_np.base.types import ArrayND, Params
from moe_np.layers import sparse_layer
from moe_np.layers.experts import Expert
from moe_np.routing.contract import Routing

MOST = 64  # assignments up to which this takes less time than the sparse layer
LARGE = 1 << 21  # multiplications per matrix from which on the threads of the sparse layer pay


def is_few(n_assignments: int, w2: Annotated[np.ndarray, "E, H, D_out"]) -> bool:
    """Whether one thread computes so many assignments in the least time."""
    return n_assignments <= MOST and n_assignments * w2[0].size < LARGE


def forward(params: Params, x: ArrayND, routing: Routing, expert: Expert) -> ArrayND:
    """x (N, D) -> out (N, D_out), equal to `sparse_layer.forward` to rounding."""
    E = routing.demand.shape[1]
    if expert.kernel is None or not kernels.compiled(x.dtype):
        with np.errstate(over="ignore", invalid="ignore"):
            return sparse_layer.forward_numpy(params, x, routing, expert, E)[0]
    name = expert.kernel[0]
    A = len(routing.token)
    if is_few(A, params["w2"]):
        return kernels.few_tokens.forward(params, x, routing[:3], E, name)
    s = kernels.sparse_layer.sort(*routing[:3], *routing.demand.shape)
    assert s is not None, "the routing is that of a router"
    return kernels.sparse_layer.forward(params, x, s, name, {})[0]
