# %% [markdown]
# # 16 · Solutions

# %%
import numpy as np

from moe_np.coursework import self_check

# %% [markdown]
# ## Your turn


# %%
def first_best(logits):
    best = np.zeros(len(logits), int)
    for i in range(1, logits.shape[1]):
        best = np.where(logits[:, i] > logits[np.arange(len(logits)), best], i, best)
    return best


def cases(rng):
    for _ in range(3):
        yield (rng.integers(3, size=(6, 4)).astype(float),)


assert self_check(first_best, lambda logits: logits.argmax(axis=1), cases)

# %% [markdown]
# ## 1 to 3
#
# Each expert gets about a third of the tokens. All of them, under its new name. Those with equal
# logits.

# %%
noise = 1e-9 * np.random.default_rng(0).normal(size=(300, 3))
assert (np.bincount(noise.argmax(axis=1)) > 70).all()
