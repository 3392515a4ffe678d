# %% [markdown]
# # 18 · Solutions

# %%
import numpy as np

from moe_np.base import optim
from moe_np.coursework import self_check
from moe_np.data.text import bible, windows
from moe_np.language import shipped_model
from moe_np.layers import specialisation
from moe_np.models import decoder

# %% [markdown]
# ## Hints
#
# 1. Make a table with a row per expert and a column per kind of token, and count. Which function adds up places that
#    occur twice?
# 2. In a column, the commonest expert has the largest count. Averaged over tokens, a column counts as often as its
#    kind occurs: the sum of the largest counts, divided by the number of tokens.
#
# ## Your turn
#
# Count how often each kind of token goes to each expert; the largest count of a kind is what its commonest expert
# gets.


# %%
def commonest_share(first, kinds):
    counts = np.zeros((first.max() + 1, kinds.max() + 1))
    np.add.at(counts, (first, kinds), 1)
    return counts.max(axis=0).sum() / len(first)


def reference(first, kinds):
    shape = (int(first.max()) + 1, int(kinds.max()) + 1)
    rng = np.random.default_rng(0)
    return specialisation.highest_share(first[:, None], kinds, shape, rng, permutations=1).value


def cases(rng):
    for n_tokens, n_kinds in ((1, 1), (6, 2), (40, 5), (200, 30)):
        yield rng.integers(0, 8, n_tokens), rng.integers(0, n_kinds, n_tokens)


assert self_check(commonest_share, reference, cases)

# %% [markdown]
# ## 1. Dense, at equal operations
#
# The three models of exercises 1 and 3 read the same windows. This cell takes about 10 seconds.

# %%
_, tokeniser = shipped_model.load()
split = bible.split()
train_tokens = tokeniser.encode(bible.running_text(split.train)[:400_000])
held_out_tokens = tokeniser.encode(bible.running_text(split.validation)[:30_000])

config = decoder.Config(
    vocabulary=tokeniser.size,
    d_model=48,
    layers=2,
    heads=3,
    kv_heads=1,
    d_head=16,
    experts=8,
    hidden=32,
    context=64,
    tied=True,
)


def train(config, updates, balance=decoder.SWITCH_LOSS):
    rng = np.random.default_rng(0)
    params = decoder.init(rng, config)
    windows_rng = np.random.default_rng(1)  # the same windows for every model
    state = None
    shares = []
    for update in range(updates):
        ids, targets = windows.random_windows(train_tokens, windows_rng, batch=16, length=64)
        loss, grads = decoder.loss_and_grads(params, ids, targets, config, losses=balance)
        rate = 0.01 * min(1, (update + 1) / 10)
        params, state = optim.adamw(params, grads, state, lr=rate)
        demand = loss.routings[-1].demand
        shares.append(demand.sum(axis=0) / demand.sum())
    ids, targets = windows.random_windows(
        held_out_tokens, np.random.default_rng(2), batch=32, length=64
    )
    return decoder.loss(params, ids, targets, config).task, np.array(shares)


dense = config._replace(experts=1, hidden=64)
sparse_loss, shares = train(config, 100)
dense_loss, _ = train(dense, 100)
print(f"held out after 100 updates: experts {sparse_loss:.2f}, dense {dense_loss:.2f} nats")
assert abs(sparse_loss - dense_loss) < 0.5

# %% [markdown]
# With one seed and 100 updates the two are close, and which is ahead says little: each expert has seen a quarter of
# the tokens, so a mixture learns more slowly at first. Its advantage, more parameters for the same work, shows with
# more text and more experts. One run per model is an anecdote; `python3 run.py moe-np run language_model` uses
# several seeds and plots the loss against tokens *and* seconds, since equal operations are not equal time.
#
# ## 2. What chance gives
#
# Three occurrences fall on 8 experts: all on one with probability 1/64, two on one with $3 \cdot \tfrac18 \cdot
# \tfrac78 = 21/64$, and on three different ones with 42/64. The expected share of the commonest is $(1 \cdot 1 + 21
# \cdot \tfrac23 + 42 \cdot \tfrac13)/64 = 29/64 = 0.45$. For one occurrence it is 1, and for a thousand it is a
# little more than 1/8. A table of "specialists" without a smallest number of occurrences and without a shuffled
# column is a table of rare words.

# %%
rng = np.random.default_rng(0)
for n in (1, 3, 10, 1000):
    drawn = [np.bincount(rng.integers(0, 8, n)).max() / n for _ in range(4000)]
    print(f"{n:4d} occurrences: {np.mean(drawn):.3f}")
    assert n != 3 or abs(np.mean(drawn) - 29 / 64) < 0.02

# %% [markdown]
# ## 3. Without the load-balancing loss
#
# The loss of the task is hardly different after 100 updates, so the curve that everybody watches shows nothing. The
# loads do: some experts get several times their share and others nearly nothing. Later one would notice that the
# model is no better than a smaller one, and on many machines that it is slower: a step takes as long as the fullest
# expert.

# %%
free_loss, free_shares = train(config, 100, balance=())
for name, value, of_experts in (
    ("with", sparse_loss, shares),
    ("without", free_loss, free_shares),
):
    late = of_experts[-20:].mean(axis=0)
    print(f"{name:8s} loss {value:.2f}, share of each expert {np.sort(late)[::-1].round(2)}")
assert free_shares[-20:].mean(axis=0).max() > 1.3 * shares[-20:].mean(axis=0).max()
assert abs(free_loss - sparse_loss) < 0.5
