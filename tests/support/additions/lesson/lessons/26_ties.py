# %% [markdown]
# # 26 · Ties: who gets a token that two experts want equally
#
# Afterwards you can say what a router does with equal logits, and why it has to be stated.

# %%
import numpy as np

from moe_np.coursework import self_check
from moe_np.routing import top_k

# %% [markdown]
# ## 1. Two equal logits
#
# **Predict.** Experts 1 and 2 have the same logit, the largest one. Which of them gets the token?

# %%
params = {"w": np.array([[0.0, 1.0, 1.0]])}
routing, _ = top_k.route(params, np.ones((4, 1)), k=1, renormalise=False)
print("experts:", routing.expert)
assert (routing.expert == 1).all()

# %% [markdown]
# The lowest index wins, in every router of this package.
#
# **Predict.** A router that is initialised with zeros has only ties. How many experts work?

# %%
params = {"w": np.zeros((1, 3))}
x = np.random.default_rng(0).normal(size=(100, 1))
routing, _ = top_k.route(params, x, k=1, renormalise=False)
print("experts in use:", np.unique(routing.expert))
assert (routing.expert == 0).all()

# %% [markdown]
# ## Your turn


# %%
def first_best(logits):
    """logits (N, E) -> (N,), the index of the largest; in a tie the lowest index."""
    # your code here
    return None


# %%
def cases(rng):
    for _ in range(3):
        yield (rng.integers(3, size=(6, 4)).astype(float),)


self_check(first_best, lambda logits: logits.argmax(axis=1), cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Add noise of 1e-9 to the logits. How many experts work now?
# 2. **Derive.** All logits are 0 and k = 1. Which share of the tokens does expert 0 get after a
#    permutation of the experts?
# 3. **Break it.** Let the highest index win. Which tests of `tests/routing/test_routers.py` notice?
#
# Solutions: `lessons/solutions/26_ties.py`.
