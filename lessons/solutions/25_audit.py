# %% [markdown]
# # 25 · Solutions

# %%
import numpy as np

from moe_np.audit import assert_router, audit
from moe_np.base.numerics import softmax
from moe_np.coursework import self_check


def best(logits, k):
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def silent(weights, valid):
    return weights if valid is None else weights * valid[:, None]


def gate_of(router, x, w, **options):
    weights, indices = router(x, w, **options)
    gate = np.zeros((len(x), w.shape[1]))
    np.put_along_axis(gate, indices, weights, axis=1)
    return gate


# %% [markdown]
# ## Hints
#
# 1. Choose with a stable sort of the negative logits, so that of equal ones the lower number comes first. The weights
#    are computed from the chosen logits only if k is 2 or more.
# 2. Subtract the largest logit of a row before `exp`. For k = 1 take the probability from a softmax over all experts.
#    At the end multiply by `valid[:, None]` where it is given.

# %% [markdown]
# ## Your turn


# %%
def my_router(x, w, k=2, valid=None):
    logits = x @ w
    indices = best(logits, k)
    scores = softmax(logits) if k == 1 else logits
    weights = np.take_along_axis(scores, indices, axis=1)
    return silent(weights if k == 1 else softmax(weights), valid), indices


def reference(x, w, k=2, valid=None):
    logits = x @ w
    indices = best(logits, k)
    scores = np.take_along_axis(softmax(logits), indices, axis=1)
    if k > 1:
        scores = softmax(np.take_along_axis(logits, indices, axis=1))
    return silent(scores, valid), indices


def cases(rng):
    for k in (2, 1, 3):
        yield rng.normal(size=(5, 4)), rng.normal(size=(4, 6)), k, None
    yield rng.normal(size=(5, 4)), rng.normal(size=(4, 6)), 2, np.arange(5) < 3
    yield 1000 * rng.normal(size=(4, 3)), rng.normal(size=(3, 4)), 2, None
    yield np.ones((2, 3)), np.zeros((3, 4)), 1, None


assert self_check(my_router, reference, cases)
assert not audit(my_router, k=2).faults and not audit(my_router, k=1).faults
assert_router(my_router, like="top_k", k=2, renormalise=True)

# %% [markdown]
# ## 1. Three repairs
#
# - `undivided`: divide by the sum.
# - `in_order`: sort the weights with the indices, by the same order.
# - `level`: leave the mean out. What it wanted, that no expert is the favourite of all, is the work of a balance loss
#   (lesson 09), or of a bias per expert that is moved between the batches (`bias_balanced`, lesson 11).


# %%
def first(x, w, k=2, valid=None):
    logits = x @ w
    indices = best(logits, k)
    weights = softmax(np.take_along_axis(logits, indices, axis=1))
    return silent(weights, valid), indices


def divided(x, w, k=2, valid=None):
    logits = x @ w
    indices = best(logits, k)
    chosen = np.take_along_axis(logits, indices, axis=1)
    weights = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return silent(weights, valid), indices


def in_order(x, w, k=2, valid=None):
    weights, indices = first(x, w, k, valid)
    order = np.argsort(indices, axis=1)
    return np.take_along_axis(weights, order, axis=1), np.take_along_axis(indices, order, axis=1)


def level(x, w, k=2, valid=None):
    logits = x @ w
    indices = best(logits, k)
    weights = softmax(np.take_along_axis(logits, indices, axis=1))
    return silent(weights, valid), indices


for router in (divided, in_order, level):
    assert_router(router, like="top_k", k=2, renormalise=True)
print("all three pass")

# %% [markdown]
# ## 2. What `undivided` tells the gate
#
# With $a \ge b$ its weights are $1$ and $e^{b - a}$. The first is constant. The second has the derivatives $-e^{b-a}$ with
# respect to $a$ and $e^{b-a}$ with respect to $b$. A softmax has $s = 1/(1 + e^{b-a})$ and $1 - s$, with the derivatives
# $\pm s(1 - s)$ of *both*.
#
# Let $c_a, c_b$ be the gradients from above. The gate is told $-c_b\,e^{b-a}$ about $a$ in the one case,
# $(c_a - c_b)\,s(1-s)$ in the other. So $c_a$, whether the better expert did well, is never heard: the gate compares the
# second expert with nothing. With $k = 1$ only the constant is left, and the slope is 0.
#
# And the output is too large, by up to a factor of 2: its weights sum to $1 + e^{b-a}$.


# %%
def undivided(x, w, k=2, valid=None):
    logits = x @ w
    indices = best(logits, k)
    chosen = np.take_along_axis(logits, indices, axis=1)
    weights = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    return silent(weights, valid), indices


rng = np.random.default_rng(0)
x, w, v = rng.normal(size=(8, 5)), rng.normal(size=(5, 4)), rng.normal(size=(5, 4))


def slope(router, which, step=1e-5):
    """The slope along v of the weights of the better (0) or of the second expert (1), summed."""
    up, down = (router(x, w + sign * step * v)[0][:, which].sum() for sign in (1, -1))
    return (up - down) / (2 * step)


for router in (undivided, first):
    print(f"{router.__name__:10s} better {slope(router, 0):7.3f}, second {slope(router, 1):7.3f}")
assert slope(undivided, 0) == 0 and abs(slope(undivided, 1)) > 0.01
assert np.isclose(slope(first, 0), -slope(first, 1))

# %% [markdown]
# ## 3. Three bugs of three kinds
#
# - A softmax without the subtraction of the largest logit is equal on small numbers: none of our questions notices. The
#   audit tries huge logits.
# - A temperature that was forgotten in the code, `first(2 * x, ...)`: consistent in every respect. Only a reference knows.
# - Numbers of experts in one byte, to save memory: expert 256 is called 0. The audit tries 4 experts unless it is told
#   another number. Give it the sizes of your model: `experts=300`.


# %%
def overflowing(x, w, k=2, valid=None):
    logits = x @ w
    indices = best(logits, k)
    e = np.exp(np.take_along_axis(logits, indices, axis=1))
    return silent(e / e.sum(axis=1, keepdims=True), valid), indices


def sharp(x, w, k=2, valid=None):
    return first(2 * x, w, k, valid)


def in_bytes(x, w, k=2, valid=None):
    weights, indices = first(x, w, k, valid)
    return weights, indices.astype(np.uint8).astype(int)


back = np.arange(4)[::-1]
for router in (overflowing, sharp, in_bytes):  # the four questions of the lesson
    gate = gate_of(router, x, w)
    assert np.allclose(gate_of(router, x, w[:, back]), gate[:, back])
    assert np.allclose(gate_of(router, np.concatenate([x[:4], x[4:] + 2]), w)[:4], gate[:4])
    longer, valid = np.concatenate([x, np.full((3, 5), 3.0)]), np.arange(11) < 8
    assert np.allclose(gate_of(router, longer, w, valid=valid)[:8], gate)
    assert abs(slope(router, 1)) > 0.01

options = {"renormalise": True}
for router in (overflowing, sharp, in_bytes):
    alone, held = audit(router, k=2), audit(router, k=2, like="top_k", options=options)
    print(f"{router.__name__:12s} without like: {[f.check for f in alone.faults]}")
    print(f"{'':12s} with like:    {[f.check for f in held.faults]}")
    assert bool(alone.faults) == (router is overflowing)
    assert bool(held.faults) == (router is not in_bytes)
assert audit(in_bytes, k=2, experts=300, like="top_k", options=options).faults
