"""Stacked experts: E copies of one small network, each with its own parameters, on rows that are
sorted by expert. One file per kind of expert.

    LINEAR          y = x W + b                            `experts.linear`
    RELU, GELU      feed-forward, two layers               `experts.feed_forward`
    SWIGLU          gated feed-forward (Mixtral)           `experts.swiglu`
    CUBIC           patch filters of Chen et al. 2022      `experts.cubic`

Each of these is an `Expert`, all that the sparse layer (`moe_np.layers.sparse_layer`) knows:

    init(rng, d_model, n_experts, ...)          -> params
    forward(params, rows, offsets)              -> (y, cache)
    backward(dy, cache)                         -> (drows, grads)

An expert is a pair like any other. It does not know routers, mixture weights or tokens.
`with_dropout` makes a kind with dropout on its hidden layer.
`experts.expert` says what rows, offsets and shared parameters are.
"""

from moe_np.layers.experts import cubic, expert, feed_forward, linear, swiglu
from moe_np.layers.experts.cubic import CUBIC
from moe_np.layers.experts.expert import Expert, with_dropout
from moe_np.layers.experts.feed_forward import GELU, RELU
from moe_np.layers.experts.linear import LINEAR
from moe_np.layers.experts.swiglu import SWIGLU

__all__ = [
    "CUBIC",
    "GELU",
    "LINEAR",
    "RELU",
    "SWIGLU",
    "Expert",
    "cubic",
    "expert",
    "feed_forward",
    "linear",
    "swiglu",
    "with_dropout",
]
