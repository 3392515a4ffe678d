# %% [markdown]
# # 23 · When sparse wins: batch, memory, disk
#
# Afterwards you can say, for a given number of tokens per step, whether a model with experts is faster than a dense one
# *of the same quality*, what it needs in memory, and what becomes of it when its experts do not fit.
#
# Lesson 14 showed by a formula that "active parameters" say little about speed between the smallest and the largest
# batches. Here the formula meets a clock, and then the question that decides: faster than *what*?
#
# | symbol | in code | meaning |
# |---|---|---|
# | $B$ | `B` | tokens in one step of the model |
# | $D, H$ | `D, H` | size of a token, hidden units of an expert |
# | $E, k$ | `E, k` | experts of a layer, and how many of them a token uses |
# | $s, e$ | `s, e` | parameters that every token uses; parameters of one expert of every layer |
# | $W, F$ | `W, F` | bytes per second from memory; operations per second |
# | $m$ | `m` | size of a dense model, as a multiple of the active parameters of the sparse one |

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

from moe_np import accounting, plots
from moe_np.adapt import layer_parts
from moe_np.base.machine import one_blas_thread
from moe_np.coursework import self_check
from moe_np.language import corpus, shipped_model
from moe_np.serving import cache_policies
from moe_np.show.steps import Steps, state
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)

# %% [markdown]
# ## 1. A layer and a clock
#
# One SwiGLU layer of 32 experts, 2 per token: 25 million parameters, 100 MB in float32. Against it two dense nets: one with
# the hidden units of 2 experts, which does the same *operations* per token (6 MB), and one with those of all 32, which has
# the same *size*.
#
# In a whole model, other layers are computed between two calls of this one, and push its weights out of the processor's
# cache. So before each measurement we write 64 MB of something else.
#
# **Predict.** Write down the ratio of times, sparse over dense of equal operations, for 1, 32 and 1,024 tokens. And sparse
# over dense of equal size?


# %%
def swiglu(x, w1, w3, w2):
    a = x @ w1
    return (a / (1 + np.exp(-a)) * (x @ w3)) @ w2


D, H, E, k = 256, 1024, 32, 2
rng = np.random.default_rng(0)
w1, w3 = (rng.standard_normal((E, D, H), np.float32) / 16 for _ in range(2))
w2 = rng.standard_normal((E, H, D), np.float32) / 32


def side_by_side(n):
    """The first n experts as one dense net."""
    wide = [np.ascontiguousarray(np.concatenate(w[:n], axis=1)) for w in (w1, w3)]
    return (*wide, np.concatenate(w2[:n]))


def sparse(x, choice, weight):
    """Expert by expert, those alone that some token chose."""
    out = np.zeros_like(x)
    for m in np.unique(choice):
        token, place = np.nonzero(choice == m)
        out[token] += weight[token, place, None] * swiglu(x[token], w1[m], w3[m], w2[m])
    return out


def seconds(run, rounds=3):
    """The least time of some calls, each with a cold cache, on one thread."""
    least = np.inf
    with one_blas_thread():
        for _ in range(rounds):
            np.add(elsewhere, 1, out=elsewhere)
            start = time.perf_counter()
            run()
            least = min(least, time.perf_counter() - start)
    return least


elsewhere = np.zeros(16_000_000, np.float32)
active_net, total_net = side_by_side(k), side_by_side(E)
batches = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
print("about five seconds; milliseconds per step")
print("    B    sparse   dense, equal operations   dense, equal size")
clock = {"sparse": [], "active": [], "total": []}
for B in batches:
    x = rng.standard_normal((B, D), np.float32)
    choice = np.argsort(rng.random((B, E)), axis=1)[:, :k]
    weight = np.full((B, k), 1 / k, np.float32)
    clock["sparse"].append(seconds(lambda: sparse(x, choice, weight)))  # noqa: B023
    clock["active"].append(seconds(lambda: swiglu(x, *active_net)))  # noqa: B023
    slow = seconds(lambda: swiglu(x, *total_net)) if B <= 32 else np.nan  # noqa: B023
    clock["total"].append(slow)
    now = [1e3 * times[-1] for times in clock.values()]
    print(f"{B:5d} {now[0]:9.2f} {now[1]:14.2f} {now[2]:22.2f}", flush=True)

measured = np.array(clock["sparse"]) / np.array(clock["active"])
print(
    f"sparse over equal operations: {measured[0]:.1f} at 1, {measured.max():.1f} at worst, ", end=""
)
print(f"{measured[-1]:.1f} at {batches[-1]} tokens")
print(f"sparse over equal size at 1 token: {clock['sparse'][0] / clock['total'][0]:.2f}")
assert measured.max() > 2 and clock["sparse"][0] < 0.5 * clock["total"][0]

# %% [markdown]
# **Answer.** Near 1 at both ends and ten times or more in between. Against the net of equal size, sparse is far ahead
# for a single token, and ahead everywhere. (With other programs at work the numbers shake; the shape stays.)
#
# The cause is what has to be *read*. One token reads 2 experts. Sixty-four tokens read all 32, each for four rows, while
# the dense net of equal operations reads its 2 experts for 64 rows. Only when every expert has many rows is the
# arithmetic what counts.
#
# ## 2. Two constants: the roofline
#
# $$ \text{time} = \max\left( \frac{\text{bytes read}}{W},\; \frac{\text{operations}}{F} \right), \qquad
# \text{experts read} = E \left( 1 - (1 - k/E)^B \right) $$
#
# The first is the time of the memory, the second that of the arithmetic; drawn against each other they look like a roof
# (Williams, Waterman and Patterson 2009).
# We take $W$ from the large dense net at 8 tokens (for a single row, libraries use another routine, which reads faster),
# and $F$ from the small one where it was fastest per operation: two constants for eleven points.
#
# **Predict.** Where will the model of two constants be most wrong?

# %%
each = 3 * D * H  # parameters of an expert; float32: 4 bytes
W = 4 * E * each / clock["total"][batches.index(8)]
F = (2 * np.array(batches) * k * each / np.array(clock["active"])).max()


def experts_read(B, E, k):
    return E * (1 - (1 - k / E) ** B)


def modelled_ratio(B, s, e, E, k, W, F, number):
    """Sparse over dense of equal operations; s + E·e parameters of `number` bytes each."""
    operations = 2 * B * (s + k * e) / F
    sparse_time = np.maximum(number * (s + e * experts_read(B, E, k)) / W, operations)
    dense_time = np.maximum(number * (s + k * e) / W, operations)
    return sparse_time / dense_time


def draw_ratios(B, modelled):
    _, ax = plt.subplots(figsize=(7, 3.8))
    ax.loglog(B, modelled, color=plots.GREY, linewidth=2, label="two constants")
    ax.loglog(batches, measured, "o", color=plots.BLUE, label="measured")
    ax.axhline(1, color=plots.GREY, linestyle="--")
    ax.legend(frameon=False, loc="upper right")
    ax.set(xlabel="B, tokens in a step", ylabel="time, sparse / dense\nof equal operations")
    ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    ax.minorticks_off()
    plt.show()


B_fine = np.geomspace(1, 4096, 100)
draw_ratios(B_fine, modelled_ratio(B_fine, 0, each, E, k, W, F, 4))
print(
    f"memory {W / 1e9:.1f} GB/s, arithmetic {F / 1e9:.0f} GFLOP/s: {F / W:.1f} operations per byte"
)

# %% [markdown]
# **Answer.** Around the corner, where memory and arithmetic take equally long and do not overlap as perfectly as the
# maximum has it. And where each expert has few rows, whose products are slow, while a part of the small dense net is still
# in the cache: there the dots can lie above 16, the ratio of the sizes. But the shape is that of the formula: rise
# with the experts read, fall once the arithmetic takes over.
#
# ## 3. Faster than what?
#
# Nobody buys a model for its operations. The fair rival is a dense model **of the same quality**, and it is larger than
# the active part. Let it have $m$ times the active parameters. A dense model's time is proportional to its size, both in
# reading and in arithmetic. So it takes $m$ times as long as the dense model of equal operations, and
#
# $$ \text{sparse is faster} \iff m > \text{ratio}(B) . $$
#
# One curve per model is the boundary. Two published ones, with the rival that their authors name:
#
# | | parameters, active | as good as a dense model of | $m$ |
# |---|---|---|---|
# | Mixtral 8x7B (Jiang and others 2024) | 46.7B, 12.9B | 70B (Llama 2) | 5.4 |
# | DeepSpeed-MoE, 128 experts, $k = 1$ (Rajbhandari and others 2022) | 52B, 1.3B | 6.7B | 5.2 |
#
# **Predict.** Both are worth five times their active size. On *one* large accelerator: is each of them faster than its
# rival for every $B$, for none, or for some? The total over the active size is 3.6 for the first and 40 for the second.

# %%
W_large, F_large = 2e12, 3e14  # a data-centre accelerator, as in lesson 14; 2 bytes per number
mixtral = accounting.count("mixtral-8x7b")
e_mixtral = (mixtral.total - mixtral.active) / (8 - 2)
e_deepspeed = (52e9 - 1.3e9) / (128 - 1)
models = {  # s, e, E, k, m
    "Mixtral 8x7B": (mixtral.total - 8 * e_mixtral, e_mixtral, 8, 2, 70e9 / mixtral.active),
    "DeepSpeed-MoE": (52e9 - 128 * e_deepspeed, e_deepspeed, 128, 1, 6.7 / 1.3),
}
B_wide = np.geomspace(1, 1e5, 400)
boundary = {
    name: modelled_ratio(B_wide, s, e, n, choices, W_large, F_large, 2)
    for name, (s, e, n, choices, m) in models.items()
}


def draw_boundary():
    _, ax = plt.subplots(figsize=(8.5, 5))
    colours = {"Mixtral 8x7B": plots.BLUE, "DeepSpeed-MoE": plots.ORANGE}
    ax.loglog(batches, measured, "o", color=plots.GREY, label="the layer of section 1, measured")
    ax.legend(frameon=False, loc="upper right", fontsize=11)
    for name, curve in boundary.items():
        m = models[name][-1]
        ax.loglog(B_wide, curve, color=colours[name], linewidth=2.5)
        ax.axhline(m, color=colours[name], linestyle=":", linewidth=2)
        at = curve.argmax()
        ax.text(
            B_wide[at] * 1.5, curve[at] * 1.02, name, color=colours[name], ha="left", va="bottom"
        )
    ax.text(2300, 6.1, "what each is worth: m = 5", fontsize=11)
    ax.text(1.3, 26, "above its line\nsparse is faster", fontsize=12)
    ax.text(2000, 0.65, "below it dense is faster", fontsize=12)
    ax.set(
        xlabel="B, tokens in a step", ylabel="m, size of a dense rival\n(1: the active parameters)"
    )
    ax.set(ylim=(0.5, 60), xlim=(1, 1e5))
    ax.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    ax.minorticks_off()
    plt.show()


draw_boundary()
for name, curve in boundary.items():
    m = models[name][-1]
    lost = B_wide[curve > m]
    where = (
        f"dense is faster from B = {lost.min():.0f} to {lost.max():.0f}"
        if len(lost)
        else "sparse is faster for every B"
    )
    print(f"{name:14s} m = {m:.1f}, boundary at most {curve.max():.1f}: {where}")
assert boundary["Mixtral 8x7B"].max() < models["Mixtral 8x7B"][-1]
assert boundary["DeepSpeed-MoE"].max() > models["DeepSpeed-MoE"][-1]

# %% [markdown]
# **Answer.** Mixtral for every $B$: even where all its experts are read it is smaller than its rival. DeepSpeed-MoE for
# small and for very large batches, but not between some 16 and 1,100 tokens, which is where a server with one
# accelerator works. That is not an argument against it, but the reason why its experts are spread over
# many devices (lesson 22): together they collect the tokens that fill every expert.
#
# So "sparse is for high throughput" is right, "sparse is for few users" is right as well, and both are wrong in the
# middle, by a number that you can compute.
#
# ## 4. Memory
#
# **Predict.** The two models and their rivals, at 2 bytes per parameter: which sparse model needs more memory than the
# dense one of the same quality, and how much more?

# %%
for name, total, rival in (("Mixtral 8x7B", mixtral.total / 1e9, 70), ("DeepSpeed-MoE", 52, 6.7)):
    print(f"{name:14s} {2 * total:6.1f} GB, dense of equal quality {2 * rival:6.1f} GB: ", end="")
    print(f"{total / rival:.1f} times")

# %% [markdown]
# **Answer.** Mixtral needs *less* than its rival, DeepSpeed-MoE eight times as much. "A mixture needs more memory" is true
# against a dense model of the same operations, always. Against one of the same quality it depends on how many experts it
# has.
#
# ## 5. When it does not fit: experts on disk
#
# A token needs few experts, so one can leave the others on disk and keep some in memory, as a cache. When the cache is
# full, somebody has to leave. **LRU**, *least recently used*: the one that was used longest ago.
#
# The trace comes from the small Mixtral of this package: which two of eight experts each token of a text that it has
# not seen wants, layer by layer. Step through the cache of layer 3, with four places.

# %%
model, tokeniser = shipped_model.load()
ids = np.array(tokeniser.encode(corpus.shipped().validation[:6000]))
n_tokens = len(ids) // 128 * 128
seen = layer_parts.on_text(model.config, model.params, ids[:n_tokens].reshape(-1, 128))
traces = [of_layer.routing.expert.reshape(-1, 2) for of_layer in seen]
print(
    f"{n_tokens} tokens, {len(traces)} layers; the first five tokens of layer 3 want {traces[3][:5].tolist()}"
)


def lru(trace, places):
    """A state per token: who is in the cache, least recently used first."""
    cache, hits, misses, before = [], 0, 0, None
    for n, needed in enumerate(trace):
        needed = sorted(int(m) for m in needed)
        found = [m for m in needed if m in cache]
        hits += len(found)
        misses += len(needed) - len(found)
        cache = [m for m in cache if m not in needed] + needed  # the latest stand last
        cache = cache[-places:]  # who was used longest ago leaves
        arrays = {"needed": needed, "found": found, "cache": cache}
        arrays |= {"hits": hits, "misses": misses}
        before = state(f"token {n}", "", arrays, before=before, note=lru.__doc__)
        yield before


steps = Steps(lru(traces[3], places=4))
next(steps)

# %%
next(steps)

# %%
view(steps)

# %% [markdown]
# **Predict.** If all choices were equally likely, a cache of 4 of 8 experts would find half of what is wanted. Does a
# *trained* router repeat itself more than that, or less? And how far from the best possible is LRU? (The best possible,
# by Belady 1966, looks into the future and throws out what is needed latest. It is a bound, and no policy.)

# %%
uniform = np.argsort(rng.random((n_tokens, 8)), axis=1)[:, :2]
print("hit rates                 2 places   4 places   6 places")
rates = {}
for name, trace in (("uniform", uniform), *((f"layer {i}", t) for i, t in enumerate(traces))):
    for policy in ("lru", "belady") if name in ("uniform", "layer 3") else ("lru",):
        rates[name, policy] = [
            cache_policies.simulate(trace, places, policy).hit_rate for places in (2, 4, 6)
        ]
        print(f"{name:10s} {policy:10s}", *(f"{rate:10.0%}" for rate in rates[name, policy]))
assert rates["layer 3", "lru"][1] > rates["uniform", "lru"][1]

# %% [markdown]
# **Answer.** With four places, three of the four layers repeat themselves a little more, most of all the last one: there
# neighbouring tokens want the same experts. Layer 1 does not.
# Belady's bound is far above LRU, even for uniform choices, because knowing the future is worth much. Systems that
# *guess* the experts of the next layer, and read them early, get a part of that. (For Mixtral itself, with such caches and guesses: Eliseev and
# Mazur 2023, arXiv 2312.17238.)
#
# The caches are **per layer**. One common cache would be worse than it looks: layers take turns, so when a layer comes
# again, its experts are those that were used longest ago. Exercise 3.
#
# What does a hit rate mean in tokens per second? Mixtral at 4 bits per weight, experts on a disk of 3 GB/s, one user:

# %%
bytes_of_expert = accounting.MODELS["mixtral-8x7b"].d_expert * 3 * 4096 / 2
for hit_rate in (0, 0.25, 0.5, 0.75, 0.9):
    reading = 32 * 2 * (1 - hit_rate) * bytes_of_expert / 3e9
    print(
        f"hit rate {hit_rate:4.0%}: {reading:5.2f} s of reading per token, {1 / reading:4.1f} tokens/s at most"
    )
print(f"in memory: {32 * (4 * bytes_of_expert) / 1e9:.1f} GB of experts for 4 places in each layer")

# %% [markdown]
# A person reads some five tokens per second. And remember section 1: with several users a step wants nearly all experts,
# and no cache helps. **Offloading is for one user.**
#
# `python3 run.py moe-np generate FOLDER --memory 64MB` does it, with hit rates; `moe-np run offloading`, `batch_curve`
# and `serving` measure all of this properly.
#
# ## Your turn
#
# Count what an LRU cache finds. Each step of the trace is a list of experts that must be in the cache at the same time;
# within a step they count as used in rising order.


# %%
def lru_hits(trace, places):
    """trace: lists of whole numbers, one per step, each with at most `places` -> number of hits."""
    # your code here
    return None


def reference(trace, places):
    return cache_policies.simulate(trace, places, "lru").hits


def cases(rng):
    yield [[0, 1], [1, 2], [0, 2], [3, 0]], 2
    for n, places in ((6, 3), (8, 4), (5, 5)):
        yield np.argsort(rng.random((30, n)), axis=1)[:, :2].tolist(), places
    yield [[3], [3], [3]], 1


self_check(lru_hits, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Fine-grained experts: in section 3 let Mixtral have 32 experts of a quarter of the size and
#    $k = 8$. Total and active parameters stay. What happens to its boundary, to its largest value, and to the $B$ at which it is
#    reached? Draw both.
# 2. **Derive.** Show from the roofline that the boundary is never above total / active parameters, that it goes to 1 for
#    large $B$, and from which $B$ on it is exactly 1. Compute this $B$ for both models.
# 3. **Break it.** Put all four layers' experts into *one* LRU cache: a request is `[8 * layer + expert, ...]` per layer and token.
#    Compare 4, 6, 8 and 16 places with the same memory divided among the layers. Where is the cliff, and why?
#
# Solutions: `lessons/solutions/23_when_sparse_wins.py`.
#
# Next: [24, what articles say](24_articles.ipynb).
