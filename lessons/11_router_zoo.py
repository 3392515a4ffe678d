# %% [markdown]
# # 11 · The router zoo: seven rules on one batch
#
# Afterwards you can read the rule of a router that you have never seen and say, before it runs: which tokens are dropped,
# whether the loads are even, whether it may be used to predict the next token, and why an even load is not yet a good
# one.
#
# Two words come up. A *decoder* is a model that writes a text token by token: it predicts each token from those before
# it (such a model is also called *autoregressive*). An *encoder* reads a text that is there as a whole.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $x$ | `x` | (N, D) | N tokens, in the order in which they were written |
# | – | `ids` | (N,) | which word of the vocabulary each token is |
# | $P_{ne}$ | `probs` | (N, E) | softmax of the router's logits $x\,w$, over the experts |
# | – | `routing` | | token, expert and weight of each assignment (lesson 10) |
# | $C$ | `C` | number | the capacity: the most tokens that an expert takes |
#
# All seven have a paper; they are in [the references](references.md) under their names.

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base.machine import one_blas_thread
from moe_np.base.numerics import softmax
from moe_np.coursework import self_check
from moe_np.experiments.router_zoo.experiment import Config, prepare, spec_of
from moe_np.layers import diagnostics
from moe_np.models import associative_memory
from moe_np.routing import (
    base_assignment,
    contract,
    expert_choice,
    gshard,
    hashing,
    kmeans,
    switch,
    top_k,
    top_p,
)
from moe_np.show import walk
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)
N, V, D, E = 40, 12, 6, 4
rng = np.random.default_rng(3)
words = rng.normal(size=(V, D))
frequency = 1 / np.arange(1, V + 1)  # a few words are common, most are rare, as in any text
ids = rng.choice(V, size=N, p=frequency / frequency.sum())
x = words[ids] + 0.3 * rng.normal(size=(N, D))
w = top_k.init(rng, D, E, scale=1.5)

probs = softmax(x @ w["w"])
favourite = probs.argmax(axis=1)
print("first four tokens:\n", probs[:4].round(2))
print("tokens whose favourite is expert 0, 1, 2, 3:", np.bincount(favourite))

# %% [markdown]
# Five of the seven rules below read this same matrix `probs`. What differs is only what they *do* with it.
#
# ## 1. The tokens choose: Switch and top-p
#
# **Switch** (Fedus, Zoph and Shazeer 2021). Each token goes to its favourite, with weight $P$. An expert takes
# $C = \lceil 1.25\,N/E \rceil$ tokens in the order in which they come, and drops the rest.
#
# **Top-p** (Huang and others 2024). Each token goes down its list of experts until their probabilities add up to a sum
# $p$, the expert that crosses it included. A sure token takes one expert, an unsure one takes more. There is no
# capacity. With $p = .4$, as in the paper, the tokens of this small batch would nearly all take one expert, so here
# $p = .7$.
#
# **Predict.** Here $C = 13$, and you have seen the favourites' counts. How many tokens does Switch drop? Are they the
# ones that are least sure, or what else do they have in common? And how many experts does top-p give to a token with
# $P = (.35, .30, .20, .15)$?

# %%
C = contract.capacity(N, E, 1, 1.25)
steps = walk.route(switch, w, x, capacity_factor=1.25)
steps.until("routing")

# %%
view(steps)  # forward, back, slider, play; where there are no widgets: next(steps), steps.back()

# %%
by_switch, _ = switch.route(w, x, capacity_factor=1.25)
by_top_p, _ = top_p.route(w, x, p=0.7)
dropped = np.setdiff1d(np.arange(N), by_switch.token)
print(f"C = {C}; dropped tokens: {dropped.tolist()}, of expert {favourite[dropped].tolist()}")
print(
    "their probability for the favourite:",
    probs[dropped].max(axis=1).round(2),
    "; the mean of all:",
    end=" ",
)
print(probs.max(axis=1).mean().round(2))
asked = np.bincount(by_top_p.token, minlength=N)
print("top-p, how many tokens have 1, 2, 3, 4 experts:", np.bincount(asked, minlength=E + 1)[1:])

assert len(dropped) == np.maximum(np.bincount(favourite) - C, 0).sum()
for n in dropped:  # 13 earlier tokens had the same favourite
    assert (favourite[:n] == favourite[n]).sum() >= C

# %% [markdown]
# **Answer.** The dropped tokens are the *last* ones: neither sure nor unsure, only late. With text that means the end of
# a sequence, or the sequence that stands last in the batch. And (.35, .30, .20, ...) gets three experts under top-p:
# .65 does not reach .7, and .85 does.
#
# ## 2. The experts choose: expert choice and BASE
#
# **Expert choice** (Zhou and others 2022). Turn the matrix round: each expert takes the $C = \lceil c\,N/E \rceil$
# tokens that are most probable *in its column*. The paper mostly has $c = 2$; here $c = 1$, as much work as Switch
# does.
#
# **BASE** (Lewis and others 2021). Exactly $N/E$ tokens per expert and one expert per token, such that the sum of all
# logits is as large as it can be: a linear assignment.
#
# **Predict.** Both loads are perfectly even, without any balance loss. Who pays? For each of the two: can a token end
# up with no expert? With two? With one that it hardly wanted?

# %%
by_expert_choice, _ = expert_choice.route(w, x, capacity_factor=1)
by_base, _ = base_assignment.route(w, x, training=True)
for name, routing in (("expert choice", by_expert_choice), ("BASE", by_base)):
    a_token = np.bincount(routing.token, minlength=N)
    how_many = np.bincount(a_token, minlength=3)
    print(f"{name:14s} load {diagnostics.load(routing)}   tokens with 0, 1, 2 experts: {how_many}")
moved = by_base.expert != favourite[by_base.token]
worst = probs[by_base.token, by_base.expert].min()
print(
    f"BASE sent {moved.sum()} of {N} tokens elsewhere than they wanted, one to an expert of probability {worst:.3f}"
)

assert (diagnostics.load(by_expert_choice) == N // E).all() and (
    diagnostics.load(by_base) == N // E
).all()

# %% [markdown]
# **Answer.** Even loads always have a price: with Switch late tokens are dropped; with expert choice some tokens are not
# among the first ten of any expert, and have none; with BASE some tokens go to an expert that their router gives a small
# probability.
#
# ## 3. Nobody chooses: hash and k-means
#
# **Hash** (Roller and others 2021). A fixed table from word to expert; the router learns nothing, and looks at nothing
# but the word. **k-means** (Gross and others 2017): the expert is the nearest of $E$ centroids, which are found before,
# without labels.
#
# **Predict.** The table sends each of the 12 words to one of 4 experts, drawn evenly. Are the loads even?

# %%
table = hashing.init(rng, D, E, vocabulary=V)
centroids, _ = kmeans.fit(rng, x, E)
by_hash, _ = hashing.route(table, x, ids=ids, n_experts=E)
by_kmeans, _ = kmeans.route(centroids, x, weights="one")
balanced_table = hashing.balanced(np.bincount(ids, minlength=V), E)
by_balanced, _ = hashing.route(balanced_table, x, ids=ids, n_experts=E)
print("random table  ", diagnostics.load(by_hash))
print(
    "balanced table",
    diagnostics.load(by_balanced),
    "  how often each word occurs:",
    np.bincount(ids, minlength=V),
)
print("k-means       ", diagnostics.load(by_kmeans))
assert (by_hash.weight == 1).all() and by_hash.logits is None

# %% [markdown]
# **Answer.** No: evenly drawn words are not evenly used words. Even the best table cannot split one very common word.
#
# ## 4. Side by side

# %%
by_top_2, _ = top_k.route(w, x, k=2, renormalise=True)
zoo = {
    "top-2": by_top_2,
    "Switch": by_switch,
    "top-p": by_top_p,
    "expert choice": by_expert_choice,
    "BASE": by_base,
    "hash": by_hash,
    "k-means": by_kmeans,
}
print(f"{'':14s} load              max/mean  dropped %  no expert %  experts per token")
for name, routing in zoo.items():
    load, lost = diagnostics.load(routing), diagnostics.dropped_share(routing)
    alone, uneven = diagnostics.unserved_share(routing), diagnostics.max_over_mean(load)
    each = len(routing.token) / N
    print(
        f"{name:14s} {load!s:16s} {uneven:9.2f} {100 * lost:9.0f} {100 * alone:11.0f} {each:15.2f}"
    )

fig, axes = plt.subplots(len(zoo) + 1, 1, figsize=(11, 8.6), sharex=True)
axes[0].imshow(probs.T, cmap="Greys", vmin=0, vmax=1, aspect="auto")
axes[0].set_ylabel("probs", rotation=0, ha="right", va="center")
for ax, (name, routing) in zip(axes[1:], zoo.items(), strict=True):
    colour = np.array(plots.COLOURS)[routing.expert]
    ax.scatter(routing.token, routing.expert, s=70, c=colour, marker="s", linewidths=0)
    none = np.flatnonzero(np.bincount(routing.token, minlength=N) == 0)
    ax.vlines(none, -0.6, E - 0.4, color=plots.GREY, linewidth=5, alpha=0.45)
    ax.set_ylim(E - 0.4, -0.6)
    ax.set_ylabel(name, rotation=0, ha="right", va="center")
for ax in axes:
    ax.set_yticks([])
    ax.set_xlim(-0.7, N - 0.3)
axes[-1].set_xlabel(
    "token, in the order of the text      (one lane per expert; grey: a token without an expert)"
)
plt.show()

empty = {
    name: int((np.bincount(routing.token, minlength=N) == 0).sum()) for name, routing in zoo.items()
}
assert empty["Switch"] == len(dropped) and empty["top-2"] == empty["top-p"] == empty["hash"] == 0

# %% [markdown]
# ## 5. Who looks into the future?
#
# A language model predicts token $n + 1$ from tokens 1 to $n$. In training all N are there at once, so a router *could*
# use a later token to decide about an earlier one. Then the model trains on something it will not have when it writes.
# The check needs no theory: **change the last token, and see whether the expert or the weight of any other token changes.**
#
# **Predict.** Of the seven, which fail? And an eighth one: GShard's top-2 with a capacity, where the first choices of
# all tokens are placed before the second choices of any.

# %%
routes = {
    "top-2": lambda x, ids: top_k.route(w, x, k=2, renormalise=True)[0],
    "Switch": lambda x, ids: switch.route(w, x, capacity_factor=1.25)[0],
    "top-p": lambda x, ids: top_p.route(w, x, p=0.7)[0],
    "expert choice": lambda x, ids: expert_choice.route(w, x, capacity_factor=1)[0],
    "BASE": lambda x, ids: base_assignment.route(w, x, training=True)[0],
    "hash": lambda x, ids: hashing.route(table, x, ids=ids, n_experts=E)[0],
    "k-means": lambda x, ids: kmeans.route(centroids, x, weights="one")[0],
    "GShard": lambda x, ids: gshard.route(w, x, capacity_factor=1)[0],
}


def fates(routing):
    """What became of each token: a set of (expert, weight)."""
    out = [set() for _ in range(N)]
    for n, m, weight in zip(routing.token, routing.expert, routing.weight, strict=True):
        out[n].add((int(m), float(weight)))
    return out


def leaks(route, changes=40, seed=0):
    """How many of 40 changes of the last token changed the fate of an earlier one."""
    rng, before = np.random.default_rng(seed), fates(route(x, ids))
    found = 0
    for _ in range(changes):
        other_x, other_ids = x.copy(), ids.copy()
        other_ids[-1] = rng.integers(V)
        other_x[-1] = words[other_ids[-1]] + 0.3 * rng.normal(size=D)
        found += fates(route(other_x, other_ids))[:-1] != before[:-1]
    return found


leaking = {name: leaks(route) for name, route in routes.items()}
for name, found in leaking.items():
    print(f"{name:14s} {found:2d} of 40 changes reach back")
assert {name for name, found in leaking.items() if found} == {"expert choice", "BASE", "GShard"}

# %% [markdown]
# **Answer.** Expert choice and BASE fail: a late token with a high score takes the place of an earlier one. **GShard** is
# the one that surprises: a late token's *first* choice takes the place of an early token's *second*. Switch passes:
# places go in order of time, so a token's fate depends on the past alone (also on the past of the *other sequences* in
# the batch: it is causal, not private).
#
# > **Seen in public code** (errata 13). Issue 46 of the model OLMoE asks how expert choice was kept from seeing the future
# > in a decoder; the answer is that nothing is remembered to have been done about it, and that a model may find it hard
# > to learn to use it. The cards of the models trained with T5X, a library for Transformers, say that those with expert
# > choice use top-2 in the decoder, to stay autoregressive. BASE has another rule for use than for training: the
# > favourite of each token, whatever the others do.
#
# What to do: no capacity at all (Mixtral), places in the order of time (Switch), or such routers only where the whole
# text is there anyway, as in an encoder.
#
# ## 6. Even is not good
#
# Now let them learn. The task is an associative memory: 2,048 random keys, each with one of 64 random labels, to be
# remembered by 16 small experts. There is nothing to generalise, so what counts is how well stored keys are remembered:
# the *perplexity*, 64 for knowing nothing, 1 for knowing all. All routers get the same keys, the same minibatches and
# the same learning rate.
#
# We measure two numbers on the way. The **CV** of the load in a training batch (standard deviation over mean; 0 is even).
# And the **churn**: of the (key, expert) pairs of a pass, the share that the pass before did not have. It is 0 if each
# key always meets the same experts, and 1 if it never meets one of those it met last time.
#
# **Predict.** Ten gates: will the even ones remember best? Where will the hash be, which has learned nothing? (The next
# cell takes about ten seconds.)

# %%
CONFIG = dataclasses.replace(Config(), n_keys=2048, n_experts=16, batch=256)


def remember(system, between=None, seed=0, config=CONFIG):
    """Train one gate of the zoo: perplexity, CV in training, churn. `between` may change the router between passes."""
    setup, keys, labels, params, rng = prepare(spec_of(config, system, seed))
    shuffle, noise = rng.spawn(2)
    total, done, state, before = config.epochs * (len(keys) // config.batch), 0, None, None
    churn, cv = [], []
    for _ in range(config.epochs):
        met = np.zeros((len(keys), config.n_experts), bool)
        for rows in shuffle.permutation(len(keys)).reshape(-1, config.batch):
            lr = config.lr * (1 - done / total)
            step = associative_memory.train_step(
                setup, params, state, keys[rows], labels[rows], rows, lr=lr, rng=noise
            )
            params, state, done = step.params, step.state, done + 1
            met[rows[step.routing.token], step.routing.expert] = True
            cv.append(diagnostics.cv(diagnostics.demand(step.routing)))
        if before is not None:
            churn.append(1 - (met & before).sum() / met.sum())
        before = met
        if between is not None and done < total:
            params = {**params, "router": between(params["router"])}
    found = associative_memory.measure(setup, params, keys, labels, batch=config.batch)
    return {"perplexity": found["perplexity"], "cv": np.mean(cv), "churn": np.mean(churn)}


GATES = ("hash", "top-2, Switch loss", "expert choice", "k-means", "top-p", "bias-balanced")
GATES += ("Switch, α = .1", "noisy top-2", "BASE", "REINFORCE")
with one_blas_thread():
    zoo_runs = {system: remember(system) for system in GATES}
for system, one in sorted(zoo_runs.items(), key=lambda item: item[1]["perplexity"]):
    print(
        f"{system:20s} perplexity {one['perplexity']:5.1f}   CV {one['cv']:.2f}   churn {one['churn']:.2f}"
    )

# %%
fig, axes = plt.subplots(1, 2, figsize=(12, 5), sharey=True)
perplexity = np.array([gate["perplexity"] for gate in zoo_runs.values()])
rank = {}
for ax, name, text in (
    (axes[0], "cv", "CV of the load: how uneven"),
    (axes[1], "churn", "churn: how unsteady"),
):
    values = np.array([gate[name] for gate in zoo_runs.values()])
    rank[name] = np.corrcoef(values.argsort().argsort(), perplexity.argsort().argsort())[0, 1]
    for number, (x_place, y_place) in enumerate(zip(values, perplexity, strict=True), 1):
        plots.label(ax, x_place, y_place, f"{number}", plots.BLUE, size=15, weight="bold")
    ax.set(title=f"{text}\nrank correlation {rank[name]:.2f}", yscale="log")
    ax.set(xlim=(-0.08 * values.max(), 1.08 * values.max()), ylim=(1, 1.3 * perplexity.max()))
    ax.set_yticks((1, 2, 4, 8, 16), ("1", "2", "4", "8", "16"))
    ax.minorticks_off()
axes[0].set_ylabel("perplexity (lower is better)")
fig.text(1.01, 0.5, "\n".join(f"{n}  {name}" for n, name in enumerate(zoo_runs, 1)), va="center")
plt.show()
assert zoo_runs["hash"]["churn"] == 0 and zoo_runs["hash"]["perplexity"] == min(
    one["perplexity"] for one in zoo_runs.values()
)
assert (
    zoo_runs["BASE"]["cv"] < 1e-9
    and zoo_runs["BASE"]["perplexity"] > 3 * zoo_runs["hash"]["perplexity"]
)

# %% [markdown]
# **Answer.** BASE is perfectly even and among the worst; the hash is uneven, has learned nothing, and is the best. What
# goes with quality here is the number on the right: **whether a key finds the expert again that has learned it**. Noise
# and sampling (noisy top-2, REINFORCE) send a key elsewhere by chance; BASE does so because the choice depends on the
# other keys of the batch, which differ each time.
#
# A correlation over ten gates is not yet a cause. So we intervene: take the hash, and between passes draw a new expert
# for a part of the keys. Nothing else changes, and the loads stay as even as they were.
#
# **Predict.** Almost half of BASE's keys get another expert in each pass, and its perplexity is about 9. If the hash
# changes the expert of 10 % of its keys from pass to pass, where will it be: at 1.5, at 3, at 12?


# %%
def redraw(rate, seed=0):
    rng = np.random.default_rng(seed)

    def between(router):
        new = router["table"].copy()
        hit = rng.random(len(new)) < rate
        new[hit] = rng.integers(CONFIG.n_experts, size=hit.sum())
        return {"table": new}

    return between


with one_blas_thread():
    disturbed = {rate: remember("hash", redraw(rate)) for rate in (0, 0.05, 0.1, 0.3)}
for rate, one in disturbed.items():
    rest = f"CV {one['cv']:.2f}   churn {one['churn']:.2f}"
    print(f"redrawn {100 * rate:3.0f} %:  perplexity {one['perplexity']:5.1f}   {rest}")
costs = [one["perplexity"] for one in disturbed.values()]
assert costs == sorted(costs) and costs[2] > zoo_runs["BASE"]["perplexity"] / 2

# %% [markdown]
# **Answer.** So on this task, where no key comes back in another form, churn does harm by itself. And a change at random does *more* harm than a change that a learned gate
# makes. A likely reason: a gate moves keys that lie between two experts, to the one that has learned their neighbours;
# chance moves them to an expert that has never seen anything like them.
#
# Note what this task is: pure memory, in which a key never recurs in another form. In language, similar words may share
# what they need; a hash of random ids cannot use that, and whether this outweighs its steadiness is a question for
# another task. And these are ten gates with one seed each. The full zoo has twenty gates with four seeds each:
# `python3 run.py figures router_zoo`.
#
# ## Your turn
#
# Write the rule of expert choice: each expert takes the C tokens with the highest score in its column; the earlier
# token wins a tie.


# %%
def experts_pick(scores, C):
    """scores (N, E) -> bool (N, E): True where expert e takes token n, C times in every column."""
    # your code here
    return None


def cases(rng):
    for tokens, n_experts, C in ((6, 3, 2), (9, 4, 3), (5, 2, 5), (1, 4, 1)):
        yield rng.normal(size=(tokens, n_experts)), C
    yield np.ones((4, 2)), 2  # ties


self_check(experts_pick, expert_choice.pick, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Let Switch's experts keep their most *probable* tokens and not their first ones (batch
#    prioritized routing). What is the mean probability of the dropped ones now? Run `leaks` on it before you decide to
#    use it.
# 2. **Derive.** Top-p with $p = .4$ and $E$ experts, of which all are equally probable: how many does a token get? At
#    the start of training every token is like this. What does that do to the cost of the first steps, and what would
#    the entropy loss do to it?
# 3. **Break it.** Generate with expert choice, one token at a time: route `x[:1]`, alone. How many experts take it, and
#    how many did it have in the batch? What would you say about a perplexity that was measured in batches?
#
# Solutions: `lessons/solutions/11_router_zoo.py`.
#
# Next: 12, the clusters of 2022: a case where one can prove why the experts part.
