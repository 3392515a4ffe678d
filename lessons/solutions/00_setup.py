# %% [markdown]
# # 00 · Solutions

# %%
import numpy as np

from moe_np.base import gradcheck
from moe_np.base.numerics import softmax, softmax_backward
from moe_np.coursework import self_check
from moe_np.layers import experts, sparse_layer
from moe_np.routing import top_k
from moe_np.show import walk

# %% [markdown]
# ## Your turn


# %%
def softmax_gradient(dp, p):
    return p * (dp - (p * dp).sum(axis=1, keepdims=True))


def cases(rng):
    for _ in range(3):
        yield rng.normal(size=(5, 4)), softmax(rng.normal(size=(5, 4)))


assert self_check(softmax_gradient, softmax_backward, cases)

# %% [markdown]
# ## 1. Not renormalised
#
# The weights are then the probabilities of the chosen: they add up to less than 1, and say how much of the softmax
# was kept. Renormalised, the logits that were not chosen get a gradient of exactly 0; not renormalised, every logit
# gets one, since each is in the softmax's denominator.

# %%
rng = np.random.default_rng(0)
N, D, E, H = 6, 3, 4, 5
x = rng.normal(size=(N, D))
router = top_k.init(rng, D, E)
params = experts.SWIGLU.init(rng, D, E, H)

for renormalise in (True, False):
    routing, _ = top_k.route(router, x, k=2, renormalise=renormalise)
    total = np.bincount(routing.token, routing.weight)
    dlogits = walk.route(top_k, router, x, k=2, renormalise=renormalise).until("backward, logits")[
        "dlogits"
    ]
    zeros = int((dlogits == 0).sum())
    print(
        f"renormalise={renormalise}: weights of a token add up to {total.round(2)}; {zeros} entries of dlogits are 0"
    )
    assert zeros == (N * (E - 2) if renormalise else 0)
    assert renormalise == np.allclose(total, 1)

# %% [markdown]
# ## 2. The gradient of a softmax
#
# With $Z = \sum_j e^{s_j}$:
#
# $$\partial p_j / \partial s_i = [i = j]\, e^{s_j} / Z - e^{s_j} e^{s_i} / Z^2 = p_j ([i = j] - p_i)$$
#
# Then $ds_i = \sum_j dp_j\, p_j ([i = j] - p_i) = p_i\, dp_i - p_i \sum_j p_j\, dp_j$. Summed over $i$ this is
# $\sum_i p_i\, dp_i - \sum_j p_j\, dp_j = 0$: adding the same number to all totals of a row changes no probability.

# %%
dp, p = rng.normal(size=(5, 4)), softmax(rng.normal(size=(5, 4)))
assert np.allclose(softmax_gradient(dp, p).sum(axis=1), 0)

# %% [markdown]
# ## 3. Half of a gradient
#
# `x` reaches the loss by two ways, through the experts and through the router. `w` is only on the second one, so only
# the error of `x` notices.

# %%
routing, router_cache = top_k.route(router, x, k=2, renormalise=True)
out, cache = sparse_layer.forward(params, x, routing, experts.SWIGLU)
dx, _, dweight = sparse_layer.backward(2 / out.size * out, cache)
dx_router, grads = top_k.route_backward(dweight, None, router_cache)


def loss(p):
    routing, _ = top_k.route({"w": p["w"]}, p["x"], k=2, renormalise=True)
    return (sparse_layer.forward(params, p["x"], routing, experts.SWIGLU)[0] ** 2).mean()


half = gradcheck.gradient_error(
    loss, {**router, "x": x}, {"w": grads["w"], "x": dx}, np.random.default_rng(1)
)
print({name: f"{e:.1e}" for name, e in half.items()})
assert half["w"] < 1e-7 and half["x"] > 1e-5

# %% [markdown]
# The error is small, because the router's part of `dx` is small here; it is still a thousand million times what
# rounding leaves. A check that forgives one percent would have let it pass.
