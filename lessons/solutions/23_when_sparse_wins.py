# %% [markdown]
# # 23 · Solutions

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import accounting, plots
from moe_np.adapt import layer_parts
from moe_np.coursework import self_check
from moe_np.language import corpus, shipped_model
from moe_np.serving import cache_policies

plt.rcParams.update(plots.STYLE)

# %% [markdown]
# ## Hints
#
# 1. Keep a list of what is in the cache, the longest unused first. A hit moves an expert to the end of the list.
# 2. Within a step, go through the experts in rising order. What this step needs must not be thrown out by this step:
#    when room is needed, remove the first expert in the list that the step does not use.

# %% [markdown]
# ## Your turn
#
# A list with the latest use last is enough.


# %%
def lru_hits(trace, places):
    cache, hits = [], 0
    for needed in trace:
        needed = sorted(set(needed))
        hits += sum(expert in cache for expert in needed)
        cache = [expert for expert in cache if expert not in needed] + needed
        cache = cache[-places:]
    return hits


def reference(trace, places):
    return cache_policies.simulate(trace, places, "lru").hits


def cases(rng):
    yield [[0, 1], [1, 2], [0, 2], [3, 0]], 2
    for n, places in ((6, 3), (8, 4), (5, 5)):
        yield np.argsort(rng.random((30, n)), axis=1)[:, :2].tolist(), places
    yield [[3], [3], [3]], 1


assert self_check(lru_hits, reference, cases)

# %% [markdown]
# ## 1. Fine-grained experts
#
# The largest value stays: it is total over active, as soon as all experts are read and memory is what counts. It is
# reached at the same $B$, because a token still reads a quarter of the experts: $(1 - k/E)^B$ has the same base, $3/4$. So
# the curves lie on each other. What changes is not in this formula: smaller matrices, and more messages (lesson 22).


# %%
def modelled_ratio(B, s, e, E, k, W=2e12, F=3e14, number=2):
    operations = 2 * B * (s + k * e) / F
    read = E * (1 - (1 - k / E) ** B)
    sparse_time = np.maximum(number * (s + e * read) / W, operations)
    dense_time = np.maximum(number * (s + k * e) / W, operations)
    return sparse_time / dense_time


mixtral = accounting.count("mixtral-8x7b")
e = (mixtral.total - mixtral.active) / 6
s = mixtral.total - 8 * e
B = np.geomspace(1, 1e5, 2000)
coarse = modelled_ratio(B, s, e, 8, 2)
fine = modelled_ratio(B, s, e / 4, 32, 8)
_, ax = plt.subplots(figsize=(6, 3.2))
ax.loglog(B, coarse, color=plots.BLUE, linewidth=4, alpha=0.5)
ax.loglog(B, fine, "--", color=plots.ORANGE)
ax.set(xlabel="B, tokens in a step", ylabel="boundary")
plt.show()
np.testing.assert_allclose(fine, coarse)

# %% [markdown]
# ## 2. Three facts about the boundary
#
# The time of either model is a maximum of reading and computing, and the computing is the same. Sparse reads at least
# as much, so the ratio is at least 1, and at most
# (reading of the sparse model) / (reading of the dense one) $\le (s + E e)/(s + k e)$, total over active. It is 1 as soon as
# the sparse model computes longer than it reads. With all experts read that is
#
# $$ B \ge \frac{\text{bytes per number}}{2} \cdot \frac{F}{W} \cdot \frac{\text{total}}{\text{active}} . $$
#
# The first two factors belong to the machine (150 here), the last one to the model.

# %%
e_deepspeed = (52e9 - 1.3e9) / 127
for name, shared, each, E, k in (
    ("Mixtral 8x7B", s, e, 8, 2),
    ("DeepSpeed-MoE", 52e9 - 128 * e_deepspeed, e_deepspeed, 128, 1),
):
    share = (shared + E * each) / (shared + k * each)
    from_here = 150 * share
    curve = modelled_ratio(B, shared, each, E, k)
    print(
        f"{name:14s} at most {share:.1f}, largest {curve.max():.1f}; 1 from B = {from_here:.0f} on"
    )
    assert curve.max() <= share
    assert np.allclose(curve[from_here < B], 1) and curve[from_here * 0.9 > B].max() > 1
    assert curve[(from_here * 0.8 < B) & (from_here * 0.9 > B)].min() > 1

# %% [markdown]
# ## 3. One cache for all layers
#
# A token asks layer 0, 1, 2, 3 in turn, two experts each. When layer 0 comes again, six other experts have been used since:
# with 6 places or fewer its last two have just been thrown out, and nothing is ever found. With 8 places exactly the last
# token's experts are there. That is the cliff. LRU is the worst policy for whoever goes round in a circle that is a
# little larger than the cache.

# %%
model, tokeniser = shipped_model.load()
ids = np.array(tokeniser.encode(corpus.shipped().validation[:4000]))
n_tokens = len(ids) // 128 * 128
seen = layer_parts.on_text(model.config, model.params, ids[:n_tokens].reshape(-1, 128))
traces = [of_layer.routing.expert.reshape(-1, 2) for of_layer in seen]
together = [8 * layer + trace[n] for n in range(n_tokens) for layer, trace in enumerate(traces)]
found = {}
for places in (4, 6, 8, 16):
    common = cache_policies.simulate(together, places, "lru").hit_rate
    found[places] = common
    text = "no room for two experts per layer"
    if places >= 8:
        counts = [cache_policies.simulate(trace, places // 4, "lru") for trace in traces]
        text = f"{np.mean([count.hit_rate for count in counts]):.0%}"
    print(f"{places:2d} places: in common {common:4.0%}, divided among the layers {text}")
assert found[4] == found[6] == 0 < found[8]
