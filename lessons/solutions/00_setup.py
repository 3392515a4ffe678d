# %% [markdown]
# # 00 · Solutions

# %%
import numpy as np

from moe_np.coursework import self_check
from moe_np.language import continuation, shipped_model
from moe_np.routing import top_k

# %% [markdown]
# ## Hints
#
# 1. The weight of an expert multiplies all C numbers of its answer. Which axis is missing in `weights`?
# 2. `weights[:, :, None]` has the shape (N, E, 1), and NumPy repeats it along the last axis. Then sum over the
#    experts, axis 1.

# %% [markdown]
# ## Your turn
#
# The weights need a third axis, so that each of the C numbers of an expert is multiplied by the same weight.


# %%
def mixture(weights, outputs):
    return (weights[:, :, None] * outputs).sum(axis=1)


def reference(weights, outputs):
    return np.einsum("ne,nec->nc", weights, outputs)


def cases(rng):
    for N, E, C in ((4, 3, 2), (2, 2, 2), (5, 4, 1)):
        yield rng.dirichlet(np.ones(E), size=N), rng.normal(size=(N, E, C))


assert self_check(mixture, reference, cases)

# %% [markdown]
# ## 1. The other layers
#
# In layers 0 to 2 one expert gets every " and" of this sentence. In layer 0 the router sees hardly more than the token
# itself; higher up its vector also has something of the tokens before it, and the same token may go to different experts.

# %%
model, tokeniser = shipped_model.load()
text = (
    "And God said, Let there be light: and there was light. And God saw the light, that it was "
    "good: and God divided the light from the darkness."
)
pieces = list(continuation.continue_text(model, tokeniser, text, tokens=0, temperature=0))
for layer in range(4):
    found = [piece.experts[layer][0] for piece in pieces if piece.text == " and"]
    print(f"layer {layer}: ' and' goes first to experts {found}")
    assert layer == 3 or len(set(found)) == 1

# %% [markdown]
# ## 2. The share in use
#
# All parameters: $S + L E e$. In use: $S + L k e$. The share $(S + L k e) / (S + L E e)$ falls towards 0 as $E$ grows with
# $k$ and $e$ held. The work per token stays, the memory does not.

# %%
S, L, e, k = 1.6e9, 32, 0.176e9, 2
shares = [(S + L * k * e) / (S + L * E * e) for E in (2, 8, 64, 1024)]
print("share in use with 2, 8, 64, 1024 experts:", np.round(shares, 3))
assert shares[0] == 1 and shares[-1] < 0.003

# %% [markdown]
# ## 3. Not renormalised
#
# The weights are then the probabilities of the two chosen experts in the softmax over all four. Their sum is below 1 and
# says how much of the probability was kept. A token whose weights are near 0 gets almost nothing from the layer; it
# passes on the residual connection around it, the grey line in the drawing.

# %%
rng = np.random.default_rng(0)
x = rng.normal(size=(6, 3))
router = top_k.init(rng, 3, 4)
for renormalise in (True, False):
    routing, _ = top_k.route(router, x, k=2, renormalise=renormalise)
    total = np.bincount(routing.token, routing.weight)
    print(f"renormalise={renormalise}: the weights of a token sum to {total.round(2)}")
    assert renormalise == np.allclose(total, 1)
