# %% [markdown]
# # 14 · Counting: what 46.7B and 12.9B say, and what they do not
#
# Afterwards you can count any Transformer with experts on the back of an envelope, to the last parameter, and name the
# three situations in which its "active parameters" tell you nothing about its speed.
#
# | symbol | in code | Mixtral 8x7B | meaning |
# |---|---|---|---|
# | – | `vocab` | 32,000 | size of the vocabulary |
# | $d$ | `d` | 4,096 | size of a token's vector |
# | $L$ | `layers` | 32 | layers, each with attention and a mixture |
# | – | `heads`, `kv_heads`, `d_head` | 32, 8, 128 | heads of the queries; of keys and values; their size |
# | $E, k$ | `experts`, `k` | 8, 2 | experts of a layer, and how many a token takes |
# | $h$ | `d_expert` | 14,336 | hidden size of an expert |
# | $B$ | `B` | | tokens that go through the model at the same time |
#
# The sizes are in Table 1 of the paper (Jiang and others 2024, arXiv 2401.04088). Everything else we can derive.

# %%
from math import comb

import matplotlib.pyplot as plt
import numpy as np

from moe_np import accounting, plots
from moe_np.coursework import self_check
from moe_np.routing import contract
from moe_np.show import diagrams

plt.rcParams.update(plots.STYLE)
vocab, d, layers, heads, kv_heads, d_head, experts, k, d_expert = (
    32000,
    4096,
    32,
    32,
    8,
    128,
    8,
    2,
    14336,
)

# %% [markdown]
# ## 1. By hand
#
# First, what there is to count. A language model reads a text as *tokens*, which are words or parts of words. Each token
# becomes a vector of $d$ numbers, a row of the **embedding**. Then the vectors pass through $L$ blocks like this one, and
# at the end the **output** matrix turns each vector into one number per word of the vocabulary.

# %%
fig, ax = plt.subplots(figsize=(11, 6.6))
diagrams.transformer_block(ax)
plt.show()

# %% [markdown]
# No matrix of this model has a bias, so a parameter is an entry of a matrix, and it is enough to list the matrices. From
# the bottom of the block to its top:
#
# - **A norm** scales a vector to a standard length, and has $d$ factors. There are two per block, and one more after the
#   last block.
# - **Attention** mixes the vectors of different positions. A head compares the *query* of a token with the *keys* of the
#   tokens before it, and adds up their *values*, weighted by how well they match. Queries and output are
#   $d \times (\text{heads} \cdot d_{head})$ each. Several query heads share one head of keys and values, so these two
#   matrices are smaller: $d \times (\text{kv heads} \cdot d_{head})$. (Lesson 17 writes all of this out.)
# - **The router** is $d \times E$: a logit per expert.
# - **An expert** is a SwiGLU, a feed-forward net with a gate of its own:
#   $\big(\text{silu}(x W_{gate}) \odot x W_{up}\big) W_{down}$. These are three matrices of $d \times h$.
#
# **Embedding** and **output** are vocab × $d$ each, two different matrices.
#
# **Predict.** It is called 8x7B. Is the total 56 billion? Which part do you expect to be the largest, and what is the
# router's share: 10 %, 1 %, less?

# %%
expert = 3 * d * d_expert
attention = 2 * d * heads * d_head + 2 * d * kv_heads * d_head
router = d * experts
norms = 2 * d
once = 2 * vocab * d + d  # embedding, output, last norm

total = layers * (experts * expert + attention + router + norms) + once
active = layers * (k * expert + attention + router + norms) + once
for name, size in (
    ("expert", expert),
    ("attention", attention),
    ("router", router),
    ("norms", norms),
):
    print(f"one layer's {name:10s} {size:14,d}")
print(f"\ntotal   {total:,d}\nactive  {active:,d}")

counted = accounting.count("mixtral-8x7b")
assert (total, active) == (counted.total, counted.active) == (46_702_792_704, 12_879_925_248)

# %% [markdown]
# **Answer.** No: **46.7B in all and 12.9B active**, as published. The experts are by far the largest part. The router,
# which everything in this course is about, is 1 parameter in 45,000.
#
# ## 2. What the name means
#
# Only the experts are there eight times. Call all that is *shared* $s$, and one expert of *every* layer together $e$:
#
# $$ \text{total} = s + E\,e, \qquad \text{active} = s + k\,e . $$
#
# **Predict.** Mistral 7B has the same sizes, but one feed-forward net in place of router and experts. What is $s + e$?

# %%
s = layers * (attention + router + norms) + once
e = layers * expert
for copies in (0, 1, 2, 8):
    print(f"s + {copies}e = {(s + copies * e) / 1e9:5.2f}B")
mistral_7b = s - layers * router + e
assert mistral_7b == 7_241_732_096  # what its published weights have

fig, ax = plt.subplots(figsize=(9, 2.4))
for row, copies in enumerate((experts, k, 1)):
    ax.barh(row, s / 1e9, color=plots.ORANGE)
    for i in range(copies):
        ax.barh(
            row, e / 1e9, left=(s + i * e) / 1e9, color=plots.BLUE, edgecolor="white", linewidth=2
        )
    ax.text((s + copies * e) / 1e9 + 0.5, row, f"{(s + copies * e) / 1e9:.1f}B", va="center")
ax.set_yticks(range(3), ["total", "active", "Mistral 7B"])
ax.set(xlabel="billion parameters (orange: shared, blue: an expert of every layer)", xlim=(0, 52))
ax.invert_yaxis()
plt.show()

# %% [markdown]
# **Answer.** 7.24B, apart from the router. 7B is a model with *one* expert per layer. Eight of them share one attention, so
# 8x7B is not 56B: it is $8e + s$ and not $8(e + s)$.
#
# > **Seen in public**: its larger sister, Mixtral 8x22B, is given as "176 billion parameters" in several places:
# > $8 \times 22$. It has 141B, of which 39B are active. Exercise 1.
#
# ## 3. Its kin
#
# The same dozen lines count the others (`moe_np/accounting/published.py`; each size with its source). The last column
# is new: how many different sets of experts a token can be sent to in a layer, $\binom{E}{k}$.
#
# **Predict.** Switch-Base has 128 experts and takes one, DeepSeekMoE has 64 small ones and takes six. Which has the
# smaller active share? And which offers more choices to a token?

# %%
print(f"{'':16s} {'total':>18s} {'active':>15s}  share  published      sets of experts")
sets = {}
for name in ("mixtral-8x7b", "switch-base", "glam-64b-64e", "deepseekmoe-16b"):
    model, c = accounting.MODELS[name], accounting.count(name)
    sets[name] = comb(model.experts, model.k)
    published, share = (
        " / ".join(c.published.get(key, "") for key in ("total", "active")),
        c.active / c.total,
    )
    print(
        f"{name:16s} {c.total:18,d} {c.active:15,d} {share:6.1%}  {published:15s} {sets[name]:13,d}"
    )
assert sets["mixtral-8x7b"] == 28 and sets["deepseekmoe-16b"] == 74_974_368

# %% [markdown]
# **Answer.** Switch-Base has the smaller active share, 3 %, and DeepSeekMoE offers far more choices: that is its point. An expert of a quarter of the width costs a quarter, so for the same price a token takes four times
# as many, and the number of *combinations* explodes. (Switch-Base was published as 7410M, and the count
# here is 7415M. Without its routers it would be 7414M, which has the same three digits; whether the paper left them out
# is not known. A count that comes out to the last digit is also a test of whether one has understood a model:
# exercise 2.)
#
# ## 4. What "active" does not say: memory
#
# Which experts a token needs is known only in the layer itself. So *all* of them have to be in memory.
#
# **Predict.** How much memory do Mixtral's weights take at 2 bytes each (bfloat16)? How much does a dense model of
# 12.9B take? And training with Adam in float32, with gradient and two moments?

# %%
for words, size in (("to run, bfloat16: 2 bytes", 2), ("to train, Adam in float32: 16", 16)):
    print(
        f"{words:30s} Mixtral {size * total / 1e9:4.0f} GB, dense and 12.9B {size * active / 1e9:4.0f} GB"
    )
assert counted.memory["bfloat16"] == 2 * total and counted.memory["adam"] == 16 * total

# %% [markdown]
# ## 5. What "active" does not say: a batch
#
# One token reads $k$ experts per layer. The next token reads *others*. If the choices were even and independent, an
# expert would be left out by one token with probability $1 - k/E$, by $B$ tokens with $(1 - k/E)^B$, so
#
# $$ \text{experts that are read} \;=\; E \left( 1 - (1 - k/E)^B \right) . $$
#
# **Predict.** Eight people talk to the model at once, $B = 8$. How many of the 8 experts of a layer are read for the
# next 8 tokens: 2, 5, or nearly all?

# %%
rng = np.random.default_rng(0)


def experts_read(B, E=experts, k=k):
    return E * (1 - (1 - k / E) ** B)


print("tokens   experts read: formula, simulated")
for B in (1, 2, 4, 8, 16, 64):
    drawn = [len(np.unique(contract.top_k(rng.random((B, experts)), k))) for _ in range(500)]
    print(f"{B:6d} {experts_read(B):15.2f} {np.mean(drawn):10.2f}")
    assert abs(np.mean(drawn) - experts_read(B)) < 0.15

# %% [markdown]
# Now put a clock to it. A chip reads its memory at some bandwidth and computes at some speed; a step takes as long as
# the slower of the two. Let it be 2 TB/s and 300 TFLOP/s, round numbers of a data-centre chip. (A model, not a
# measurement: no attention over the context, no communication, perfect overlap.)
#
# $$ \text{time of a step} = \max\left( \frac{2\,(s + e \cdot \text{experts read})}{2 \cdot 10^{12}},\;
# \frac{2 B\,(s + k\,e)}{3 \cdot 10^{14}} \right) $$
#
# **Predict.** Draw tokens per second against $B$, relative to a dense model of 12.9B, in words: at $B = 1$, at
# $B = 50$, at $B = 5{,}000$, is Mixtral as fast as the dense model, faster or slower?


# %%
def tokens_per_second(B, shared, each, n_experts, k):
    """The model of the text: B tokens per step; bytes of what is read, operations of what is active."""
    read = 2 * (shared + each * experts_read(B, n_experts, k)) / 2e12
    compute = 2 * B * (shared + k * each) / 3e14
    return B / np.maximum(read, compute)


B = np.geomspace(1, 10000, 200)
speed = {
    "dense, 12.9B": tokens_per_second(B, 0, active, 1, 1),
    "Mixtral": tokens_per_second(B, s, e, experts, k),
    "dense, 46.7B": tokens_per_second(B, 0, total, 1, 1),
}
fig, ax = plt.subplots(figsize=(8, 4.4))
places = {"dense, 12.9B": (20, 1.09), "Mixtral": (4.5, 0.6), "dense, 46.7B": (1.1, 0.255)}
for (name, values), style in zip(speed.items(), ("--", "-", ":"), strict=True):
    colour = plots.BLUE if name == "Mixtral" else plots.BLACK
    ax.loglog(B, values / speed["dense, 12.9B"], style, color=colour, linewidth=2.5)
    plots.label(ax, *places[name], name, colour, ha="left", size=12)
ax.set(
    xlabel="B, tokens in a step",
    ylabel="speed, 1: the dense model\nof the active size",
    ylim=(0.2, 1.4),
    yticks=(0.25, 0.5, 1),
)
ax.set_yticklabels(("1/4", "1/2", "1"))
ax.minorticks_off()
plt.show()
ratio = speed["Mixtral"] / speed["dense, 12.9B"]
slow, late = B[ratio < 1.02 * ratio.min()], B[(ratio > 0.99) & (B > 50)]
print(
    f"at worst {ratio.min():.2f} of its active size's speed, from B = {slow.min():.0f} to {slow.max():.0f}"
)
print(f"as fast as its active size again from B = {late.min():.0f} on")
assert ratio[0] > 0.99 and ratio[-1] > 0.99 and ratio.min() < 0.3

# %% [markdown]
# **Answer. "Active" is right at both ends and wrong in between.** Alone, a user reads $k$ experts. In a huge batch the
# arithmetic decides, and only $k$ experts compute. In between (a few dozen users: most servers) every step reads *all*
# experts to use each for a few tokens, and the model is as slow as a dense one of its **total** size. It is what you
# saw in lesson 10 as blocks of eight rows.
#
# ## 6. What "active" does not say: a long text
#
# The operations above are those with the weights. Attention also multiplies each new token with everything before it:
# scores and weighted sum, $2 \cdot \text{heads} \cdot d_{head} \cdot \text{context}$ in every layer. No parameter is
# involved.
#
# **Predict.** At which length of context does this outweigh the 12.9B active parameters: 4,000 tokens, 50,000, a
# million?

# %%
operations = counted.operations  # multiply-adds with weights, a token
model = accounting.MODELS["mixtral-8x7b"]
for context in (1000, 4096, 32768):
    extra = model.attention_operations(context)
    print(
        f"context {context:6,d}: attention adds {extra / 1e9:5.2f}G to {operations / 1e9:.2f}G multiply-adds"
    )
even = operations / model.attention_operations(1)
print(f"as much again at a context of {even:,.0f}")
cache = 2 * layers * kv_heads * d_head * 2  # keys and values, bfloat16
print(
    f"and keys and values take {cache:,d} bytes per token: {cache * 32768 / 1e9:.1f} GB for one text of 32,768 tokens"
)

assert (
    operations == active - vocab * d - (2 * layers + 1) * d
)  # a looked-up row and the norms are not multiplied with
assert 45_000 < even < 50_000

# %% [markdown]
# **Answer.** Near 50,000. One more detail is in the assert: the embedding counts as "active", all of it, although a token reads one
# row. The papers count so, and so do we; the operations are what is multiplied.
#
# And all this assumed *even* choices. With experts on different machines a step takes as long as the machine with the
# most tokens (max/mean, lessons 09 and 11).
#
# ## Your turn
#
# The card of a model tells four numbers: total and active parameters, $E$ and $k$. Read from them what the card does not
# tell. With section 2, find $s$, all that is shared, and $e$, one expert of every layer together. Then, with section 5,
# the share of all parameters that a step reads from memory when $B$ tokens go through the model together.


# %%
def read_card(total, active, E, k, B):
    """-> (s, e, the share of all parameters that a step of B tokens reads)."""
    # your code here
    return None


# %%
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


self_check(read_card, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the numbers** in the first cell and run sections 1 and 2 again, or use `accounting.Transformer`. Mixtral 8x22B: $d$ 6,144, 56 layers, 48 heads and 8 for keys and values of size 128, 8
#    experts of 16,384, $k = 2$, a vocabulary of 32,768. Total and active? What would "22B" be? And what is 176 not?
# 2. **Derive.** GLaM's paper does not say whether embedding and output are one matrix or two. Its sizes (Du and others
#    2021, Table 4) are in `accounting.MODELS["glam-64b-64e"]`, and 96.6B active parameters are published. Decide.
# 3. **Break it.** In section 5 let the router collapse: all tokens of a batch take the same two experts. What happens
#    to the dip in the figure? So collapse would be *good* for the speed of a server with one chip. What is it bad for?
#
# Solutions: `lessons/solutions/14_counting.py`.
#
# Next: 15, errata: twelve bugs, and the checks that find them.
