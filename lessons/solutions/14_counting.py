# %% [markdown]
# # 14 · Solutions

# %%
import dataclasses

import numpy as np

from moe_np import accounting
from moe_np.coursework import self_check

# %% [markdown]
# ## Hints
#
# 1. There are two equations for two unknowns: $\text{total} = s + E e$ and $\text{active} = s + k e$. Subtract one from the
#    other.
# 2. A step reads all of $s$, and $E\,(1 - (1 - k/E)^B)$ times $e$. With $B = 1$ that is just what is active.

# %% [markdown]
# ## Your turn


# %%
def read_card(total, active, E, k, B):
    each = (total - active) / (E - k)
    shared = total - E * each
    experts_read = E * (1 - (1 - k / E) ** B)
    return shared, each, (shared + experts_read * each) / total


def reference(total, active, E, k, B):
    shared, each = np.linalg.solve([[1, E], [1, k]], [total, active])
    return shared, each, 1 - each * E * (1 - k / E) ** B / total


def cases(rng):
    yield 46_702_792_704, 12_879_925_248, 8, 2, 8
    yield 46_702_792_704, 12_879_925_248, 8, 2, 1
    for _ in range(3):
        E = int(rng.integers(4, 64))
        k = int(rng.integers(1, E))
        shared, each = rng.uniform(1e9, 9e9, size=2)
        yield shared + E * each, shared + k * each, E, k, int(rng.integers(1, 50))


assert self_check(read_card, reference, cases)

# %% [markdown]
# ## 1. Mixtral 8x22B
#
# 141B and 39B, as published. "22B" is $s + e$, one expert with everything around it, as 7B was; $8 \times 22$ counts
# attention, embedding and norms eight times over.


# %%
def count_moe(vocab, d, layers, heads, kv_heads, d_head, experts, k, d_expert):
    """Section 1 as a function: (total, active)."""
    attention = 2 * d * d_head * (heads + kv_heads)  # queries and output, keys and values
    shared = layers * (attention + d * experts + 2 * d) + 2 * vocab * d + d
    each = layers * 3 * d * d_expert
    return shared + experts * each, shared + k * each


total, active = count_moe(32768, 6144, 56, 48, 8, 128, 8, 2, 16384)
one, _ = count_moe(32768, 6144, 56, 48, 8, 128, 1, 1, 16384)
print(f"total {total / 1e9:.1f}B, active {active / 1e9:.1f}B, with one expert {one / 1e9:.1f}B")
assert (round(total / 1e9), round(active / 1e9), round(one / 1e9)) == (141, 39, 22)

# %% [markdown]
# ## 2. One matrix or two?
#
# With two, 98.7B would be active. With one it is 96.6B, to the printed digit, so it is one. (The configuration of GLaM
# that was released later in the library Praxis has a shared embedding and softmax too.)

# %%
glam = accounting.MODELS["glam-64b-64e"]
for tied in (True, False):
    print(
        f"tied = {tied}: {accounting.count(dataclasses.replace(glam, tied=tied)).active / 1e9:.1f}B active"
    )
assert round(accounting.count(dataclasses.replace(glam, tied=True)).active / 1e9, 1) == 96.6

# %% [markdown]
# ## 3. A collapsed router is fast
#
# All tokens read the same $k$ experts, whatever $B$ is: the dip is gone and the model is as fast as its active size
# everywhere. It is bad for what the memory was bought for (six of eight experts never work, and total parameters are
# then a lie as well), and on a machine with one expert a chip, two chips would do everything while six wait.

# %%
s, e = 1_605_636_096, 5_637_144_576
B = np.geomspace(1, 10000, 200)
compute = 2 * B * (s + 2 * e) / 3e14
collapsed = B / np.maximum(2 * (s + 2 * e) / 2e12, compute)
even = B / np.maximum(2 * (s + e * 8 * (1 - (1 - 2 / 8) ** B)) / 2e12, compute)
dense = B / np.maximum(2 * (s + 2 * e) / 2e12, compute)
print(
    f"slowest, relative to the dense model: collapsed {(collapsed / dense).min():.2f}, even {(even / dense).min():.2f}"
)
assert (collapsed == dense).all() and (even / dense).min() < 0.3
assert s + 8 * e == accounting.count("mixtral-8x7b").total
