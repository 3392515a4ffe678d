# %% [markdown]
# # 09 · Collapse, balance losses, and what their values mean
#
# Afterwards you can see a gate collapse, keep it from collapsing in three ways, and read the value of a load-balancing
# loss for what it is.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | – | `demand` | (N, E) | which experts each token asked for, whether it found a place or not (lesson 10) |
# | Load | `load` | (E,) | tokens of each expert, a count |
# | Importance | `importance` | (E,) | sum of the weights that the tokens give to each expert |
# | CV² | `cv` is its root | number | variance / mean², over the experts: 0 when all are equal |
# | $f_i$ | `f` | (E,) | share of the choices that fell on expert $i$; sums to 1 |
# | $P_i$ | `P` | (E,) | mean over tokens of the **full** softmax; sums to 1 |
# | $\alpha$ | – | number | the coefficient of a balance loss when it is added to the loss of the task |
#
# A balance loss in this package is a function `loss(routing) -> BalanceLoss`. It returns a record with a value and a
# gradient, which is `dlogits` or `dweight`. The caller multiplies it by $\alpha$ and adds it.

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base import numerics
from moe_np.coursework import self_check
from moe_np.layers import balance, diagnostics
from moe_np.models import associative_memory
from moe_np.models.associative_memory import RouterSetup
from moe_np.routing import bias_balanced, top_k
from moe_np.show import walk
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)
TOP2 = {"k": 2, "renormalise": True}


def routed(logits, k):
    """The Routing of a top-k gate that has these logits."""
    return top_k.route({"w": np.eye(logits.shape[1])}, logits, k=k, renormalise=False)[0]


# %% [markdown]
# ## 1. Collapse
#
# A small task: remember a label, one of 32, for each of 512 vectors. One sparse layer, 16 experts of four hidden units
# each, $k = 2$: there is work for all of them. As in a real network, the vectors have something in common: one direction
# is large in all of them.
#
# **Predict.** Train gate and experts on the loss of the task alone, 400 steps. How much of all the choices falls on the
# two most used experts? An even share would be 2/16. (The next cell takes about ten seconds.)


# %%
def train(setup, common=6.0):
    """Shares of the choices (steps, E) over training, and measures of the trained model on all tokens."""
    task, initialisation, order = (np.random.default_rng([0, i]) for i in range(3))
    keys, labels = associative_memory.associations(task, 512, 16, 32, common=common)
    params = associative_memory.init(initialisation, setup, keys, 32, n_experts=16, hidden=4)
    shares, losses = [], []
    for step in associative_memory.train(
        setup, params, keys, labels, epochs=100, batch=128, lr=0.05, rng=order
    ):
        params = step.params
        shares.append(step.routing.demand.mean(axis=0) / 2)
        losses.append(step.loss)
    measured = associative_memory.measure(setup, params, keys, labels, batch=len(keys))
    routing = associative_memory.predict(setup, params, keys, np.arange(len(keys)))[1]
    measured["cv of importance"] = diagnostics.cv(diagnostics.importance(routing))
    measured["switch"] = balance.switch(routing).value
    measured["log Z"] = numerics.logsumexp(routing.logits).mean()
    assert np.mean(losses[-20:]) < np.mean(losses[:20])  # the task's loss falls, whatever the loads
    return np.array(shares), measured


def two_most_used(shares):
    """The share of the two most used experts in the last 20 steps."""
    return np.sort(shares[-20:].mean(axis=0))[-2:].sum()


def switch_loss_of_a_tenth(forward):
    """What is added to the loss of the task: pairs of a coefficient and a loss."""
    return [(0.1, balance.switch(forward.routing))]


task_alone = train(RouterSetup(top_k, TOP2))
with_switch = train(RouterSetup(top_k, TOP2, losses=switch_loss_of_a_tenth))
nothing_in_common = train(RouterSetup(top_k, TOP2), common=0.0)

# %%
fig, axes = plt.subplots(1, 2, figsize=(12, 4), sharey=True)
bands = plt.get_cmap("tab20").colors[:16]
for ax, name, (shares, measured) in (
    (axes[0], "the task alone", task_alone),
    (axes[1], "with Switch's loss, α = .1", with_switch),
):
    order = np.argsort(-shares[-20:].mean(axis=0))  # the most used expert at the bottom
    numbers = range(len(shares))
    ax.stackplot(numbers, shares[:, order].T, colors=bands, edgecolor="white", linewidth=0.3)
    ax.set(title=f"{name}: perplexity {measured['perplexity']:.1f}", xlabel="step")
    ax.set(ylim=(0, 1), xlim=(0, len(shares) - 1))
axes[0].set_ylabel("shares of the choices")
plt.show()

print("share of the two most used experts at the end")
for name, (shares, _) in (
    ("the task alone", task_alone),
    ("with Switch's loss", with_switch),
    ("the task alone, nothing in common", nothing_in_common),
):
    print(f"    {name:35} {two_most_used(shares):.2f}")
assert two_most_used(task_alone[0]) > 0.5
assert max(two_most_used(with_switch[0]), two_most_used(nothing_in_common[0])) < 0.3
assert with_switch[1]["perplexity"] < task_alone[1]["perplexity"] / 2

# %% [markdown]
# (Each band is one expert; a perplexity of 32 is guessing, 1 is perfect.) **Answer.** Two thirds and more. The rich get
# richer. A step that makes expert $i$ more attractive to one token moves column $i$ of $W_g$ along that token's vector.
# The direction that all tokens share is part of this vector, so expert $i$ becomes more attractive to *all* of them. It
# gets more tokens, learns more, and is preferred more. The other experts are hardly tried and hardly improve. Where the
# vectors have nothing in common (last line), there is no collapse.
#
# What does balance buy? The same layer, with the same number of parameters and the same work per token, remembers far
# more with all of its experts in use. But nothing in the task asks for that: its loss falls in both runs, only not as
# far. Balance has to be asked for.
#
# ## 2. How uneven is uneven?
#
# Shazeer et al. (2017) take the squared coefficient of variation over the experts,
# $\text{CV}^2 = \text{Var} / \text{mean}^2$, of two things: importance and load.
#
# **Predict.** CV² of the loads (3, 1)? Of $E$ experts of which one has everything? And: can the importance be
# perfectly even while the load is not?

# %%
for loads in ([3.0, 1.0], [8.0, 0, 0, 0]):
    print(f"CV² of {loads}: {balance.cv_squared(np.array(loads))[0]:g}")

# one token that is sure of expert 0, three each that hardly prefer expert 1, 2 or 3
hardly = np.full((3, 4), 0.68 / 3)
hardly[[0, 1, 2], [1, 2, 3]] = 0.32
probs = np.concatenate([[[0.96, 0.04 / 3, 0.04 / 3, 0.04 / 3]], np.repeat(hardly, 3, axis=0)])
example = routed(np.log(probs), 1)
print("\nload", diagnostics.load(example), "  importance", diagnostics.importance(example).round(2))
assert (
    diagnostics.cv(diagnostics.importance(example)) < 1e-12
    and diagnostics.cv(diagnostics.load(example)) > 0.3
)

balanced = np.full(4, 2.0)
value, gradient = balance.cv_squared(balanced)
mean, std = balanced.mean(), balanced.std()
with np.errstate(invalid="ignore"):
    # through std, and squared after
    by_root = 2 * (std / mean) * ((balanced - mean) / (4 * std)) / mean
print("\ngradient at perfect balance:", gradient, "  by way of the standard deviation:", by_root)
assert np.isnan(by_root).all() and (gradient == 0).all()
assert np.isclose(np.var([3, 1], ddof=1) / 2**2, 2 * 0.25)

# %% [markdown]
# **Answer.** ¼ and $E - 1$; and yes. CV² of the load goes from 0 to $E/k - 1$. Importance can be even where load is not:
# one expert has few tokens with large weights, another one many with small weights. Importance decides which experts
# learn, load decides which machine is overloaded. Hence there are two losses.
#
# > **Seen in public code** (errata 5). `ddof=1`, the default of PyTorch's `var`: twice the value at two experts,
# > undefined at one. Differentiating the standard deviation and squaring after: 0/0 exactly when the goal is
# > reached. Dividing by the mean, not by its square: the value depends on the batch size.
#
# ## 3. Switch's loss
#
# $$\text{value} = E \sum_i f_i P_i, \qquad f_i = \frac{\text{choices of } i}{\text{all choices}}, \qquad
# P_i = \frac1N \sum_n p_{ni},$$
#
# $$\frac{\partial\,\text{value}}{\partial\,\text{logits}_{ni}} =
# \frac{E}{N}\, p_{ni} \Bigl( f_i - \sum_j f_j\, p_{nj} \Bigr).$$
#
# $f$ is a count and has no gradient: it is held. $P$ is smooth. (Fedus, Zoph and Shazeer 2021, eqs. 4 to 6.) Step
# through it for eight tokens and four experts, $k = 1$.
#
# **Predict.** From the formula: which logits are pushed down, those of an expert that many asked for, or those of
# an expert that few asked for? How strongly for a token with $p = 0$?

# %%
rng = np.random.default_rng(1)
preference = np.array([1.0, 0, 0, -1.0])  # expert 0 is liked by all
steps = walk.balance("switch", routed(rng.normal(size=(8, 4)) + preference, 1))
next(steps)

# %%
steps.until("value")

# %%
next(steps)

# %%
view(steps)  # forward, back, slider, play; where there are no widgets: next(steps), steps.back()

# %% [markdown]
# **Answer.** Those of an expert that many asked for; and not at all where $p = 0$. A logit is pushed down if its expert's
# $f_i$ is larger than the average $f$ that this token sees, in proportion to $p_{ni}$. Each row sums to 0.
#
# ## 4. What the value means
#
# With perfect balance $f_i = P_i = 1/E$ and the value is 1. (If $f$ is divided by the number of tokens and not by
# all choices, it is $k$: ask which, before you compare two curves.)
#
# It is often said that 1 is the minimum.
#
# **Predict.** Two experts, so that $f_0$ and $P_0$ say it all. Where on the square of all $(f_0, P_0)$ is the value
# 1, and where is it below?

# %%
f, P = np.meshgrid(np.linspace(0, 1, 101), np.linspace(0, 1, 101))
value = 2 * (f * P + (1 - f) * (1 - P))


def at(probs):
    """(f_0, P_0, Switch's loss) of tokens with these probabilities."""
    routing = routed(np.log(np.maximum(probs, 1e-300)), 1)
    return routing.demand[:, 0].mean(), routing.probs[:, 0].mean(), balance.switch(routing).value


places = {
    "balance": at(np.array([[0.8, 0.2], [0.2, 0.8]] * 5)),
    "collapse": at(np.array([[0.99, 0.01]] * 10)),
    "nine at (.51, .49), one at (0, 1)": at(np.array([[0.51, 0.49]] * 9 + [[0.0, 1.0]])),
}
gap = np.where(
    np.arange(200) < 180, rng.normal(2, 0.02, size=200), -6.0
)  # a tenth are certain of expert 1
logits, path = np.stack([gap, np.zeros(200)], axis=1), []
for _ in range(500):
    routing = routed(logits, 1)
    path.append((routing.demand[:, 0].mean(), routing.probs[:, 0].mean()))
    logits = logits - 15 * balance.switch(routing).dlogits
path = np.array(path)

fig, ax = plt.subplots(figsize=(7.2, 5.6))
drawn = ax.contourf(f, P, value, levels=np.linspace(0, 2, 21), cmap="RdBu_r", alpha=0.75)
ax.contour(f, P, value, levels=[1.0], colors=plots.BLACK, linewidths=1.5)
fig.colorbar(drawn, ax=ax, label="value, 1 on the black lines", ticks=[0, 0.5, 1, 1.5, 2])
ax.plot(*path.T, color=plots.GREEN, linewidth=3)
ax.plot(
    *path[0],
    "o",
    markerfacecolor="white",
    markeredgecolor=plots.GREEN,
    markersize=9,
    markeredgewidth=2,
)
for (name, (f0, P0, _)), away in zip(
    places.items(), ((-0.1, 0.04), (-0.1, -0.04), (-0.2, -0.08)), strict=True
):
    ax.plot(f0, P0, "o", color=plots.BLACK, markersize=8, clip_on=False)
    plots.label(ax, f0 + away[0], P0 + away[1], name, size=12)
ax.set(xlabel="$f_0$, share of the choices", ylabel="$P_0$, mean probability")
plt.show()
for name, (f0, _, own) in places.items():
    print(f"{name:34} f = ({f0:.1f}, {1 - f0:.1f})   value {own:.3f}")
values = [2 * (a * b + (1 - a) * (1 - b)) for a, b in path]
print(
    f"the path: {values[0]:.3f} at its start, {min(values):.3f} at the lowest, {values[-1]:.3f} at the end",
    end="",
)
print(f", where f = ({path[-1, 0]:.2f}, {1 - path[-1, 0]:.2f})")
even = routed(
    np.array([np.roll([4.0, 2, 1, 0], n) for n in range(4)]), 2
)  # each expert in two of four tokens
by_choices, by_tokens = (balance.switch(even, divide_by_k=divide) for divide in (True, False))
print(
    f"k = 2 at balance: {by_choices.value:.3f}, or {by_tokens.value:.3f} if f is divided by tokens"
)
assert (
    abs(places["balance"][2] - 1) < 1e-12
    and abs(places["nine at (.51, .49), one at (0, 1)"][2] - 0.9344) < 1e-9
)
assert min(values) < 0.98 and abs(path[-1, 0] - 0.5) < 0.1

# %% [markdown]
# **Answer.** Balance is not a bottom. It is a **saddle**: the value is 1 on the two lines that cross there, and below 1
# wherever the gate leans one way on average and decides the other way.
#
# > **Seen in public code** (errata 6), and in papers: "the minimum is 1". With nine tokens at (.51, .49) and one at
# > (0, 1) it is 0.934, with loads .9 and .1; with eight experts it reaches 0.78 while one of them has 56 % of the
# > tokens (`tests/layers/test_balance.py`). Others take $f$ from the tokens that found a place, when an overfull expert no
# > longer looks overfull (exercise 3), or $P$ from the kept probabilities only.
#
# Why does it work, then? Because training does not descend this surface. $f$ is held, so the gradient can only move $P$,
# and moves it *down* where $f$ is above average. Follow the green path from the upper right: 200 tokens, most of them for expert 0, a
# tenth certain of expert 1, each free to move its own logits. The path goes straight down, with the loads as bad as
# ever and the value falling below 1. Only when tokens begin to change sides does $f$ follow, and the value comes
# *back up* to 1. **Watch the loads, not the value.**
#
# ## 5. The z-loss is no balance loss
#
# ST-MoE (Zoph et al. 2022, eq. 5) adds the mean of $(\log \sum_j e^{\text{logits}_j})^2$, so that logits do not
# drift to where float32 or bfloat16 are coarse. It is often listed among the balance losses.
#
# **Predict.** What is its value when all logits are 0, with eight experts? And when all logits are $-\ln 8$? Does it
# depend on the loads?

# %%
for name, logits in (("zero", np.zeros((3, 8))), ("all −ln 8", np.full((3, 8), -np.log(8)))):
    print(f"logits {name:10} value {balance.z_loss(routed(logits, 1)).value:.4f}")
lopsided = np.tile([5.0, 0, 0, 0, 0, 0, 0, 0], (3, 1))
lopsided -= numerics.logsumexp(lopsided, keepdims=True)
crowd = routed(lopsided, 1)
z, switch = balance.z_loss(crowd), balance.switch(crowd)
print(f"all on expert 0: z-loss {z.value:.4f}, Switch's {switch.value:.2f}")

batch = np.array([[1.0, 2, 3, 4], [0, 0, 0, 0]])  # a token, and a row of padding
counts = np.array([True, False])
print("one token:", round(balance.z_loss(routed(batch[:1], 1)).value, 3), end="   ")
left_out = balance.z_loss(routed(batch, 1), valid=counts)
print("padding left out:", round(left_out.value, 3), end="   ")
print("padding 'set to zero':", round(balance.z_loss(routed(batch, 1)).value, 3))
assert np.isclose(balance.z_loss(routed(np.zeros((3, 8)), 1)).value, np.log(8) ** 2)
assert balance.z_loss(routed(lopsided, 1)).value < 1e-20

# %% [markdown]
# **Answer.** $(\ln 8)^2$, 0, and no. It draws $\log Z$, the logarithm of the sum, to 0, and total collapse costs nothing.
# (What it does to the loads all the same, section 7 shows.)
#
# > **Seen in public code** (errata 7, 17). Padding is "masked" by setting logits to zero, and counts with
# > $(\ln E)^2$ per row, as above. And, for every balance loss: it is computed, stored in the module or in a global,
# > and **never added** to the loss. Several public models do this, and nothing fails: the number is on the dashboard,
# > and the gate collapses like the one on the left in section 1, where the task's loss falls as well. A loss that is
# > *returned* with its gradient is harder to forget. And there is one value per layer: with two sparse layers there
# > are two (lesson 15, bug 9).
#
# ## 6. Balance without a loss
#
# DeepSeek-V3 (2024, section 2.1.2) changes the selection instead. Its scores $s_i$ are sigmoids of the logits, and
# each expert has a bias $b_i$; the $k$ largest $s_i + b_i$ are chosen; after each step $b_i$ goes up by a little if
# expert $i$ had less than the mean load and down if it had more. No gradient is involved.
#
# **Predict.** A gate like this with a large bias on expert 3: does expert 3 get more tokens? Does its *weight* in a
# token's answer grow?

# %%
x = rng.normal(size=(64, 6))
plain = bias_balanced.init(rng, 6, 4)
pushed = {**plain, "bias": np.array([0.0, 0.0, 0.0, 0.5])}
a, b = (bias_balanced.route(p, x, **TOP2)[0] for p in (plain, pushed))
print(
    "loads without a bias:", diagnostics.load(a), "  with a bias on expert 3:", diagnostics.load(b)
)
same = (a.demand == b.demand).all(axis=1)  # tokens that chose the same two


def dense(routing):
    weights = np.zeros(routing.demand.shape)
    weights[routing.token, routing.expert] = routing.weight
    return weights


assert diagnostics.load(b)[3] > diagnostics.load(a)[3] and same.sum() > 5
assert np.allclose(dense(a)[same], dense(b)[same])  # the weights are the unbiased ones
scores = numerics.sigmoid(x @ plain["w"]) + pushed["bias"]
wrong = np.where(b.demand, scores, 0) / np.where(b.demand, scores, 0).sum(axis=1, keepdims=True)
n = np.flatnonzero(same & a.demand[:, 3])[0]
print(
    "weights of one token:",
    dense(b)[n].round(2),
    "  with the bias in them (wrong):",
    wrong[n].round(2),
)

params = plain
for _ in range(200):
    params = bias_balanced.update_bias(
        params, bias_balanced.route(params, x, **TOP2)[0], speed=0.01
    )
print(
    "loads after 200 updates of the bias:",
    diagnostics.load(bias_balanced.route(params, x, **TOP2)[0]),
)
assert np.ptp(diagnostics.load(bias_balanced.route(params, x, **TOP2)[0])) <= 6

# %% [markdown]
# **Answer.** More tokens, but not more weight: the weights come from the scores without the bias.
#
# > **Seen in public code** (errata 19): the bias is added to the scores once, and the weights are then taken from
# > the sum. Then balancing changes what the layer *computes*: an expert has a larger weight because it was idle. Or the
# > update of the bias compares a count with a probability, two different scales.
#
# ## 7. All of them
#
# **Predict.** The task of section 1 again. Sort by the CV of the load: the task alone, z-loss, importance, Switch,
# bias. Is it also the order of the perplexities? Of the values of Switch's loss? And what does the z-loss do to the loads?
# (The next cell takes about ten seconds.)


# %%
def after(params, routing):
    return bias_balanced.update_bias(params, routing, speed=0.05)


def z_loss(forward):
    return [(0.01, balance.z_loss(forward.routing))]


def importance_loss(forward):
    return [(0.5, balance.importance(forward.routing))]


runs = {
    "the task alone": task_alone,
    "z-loss, .01": train(RouterSetup(top_k, TOP2, losses=z_loss)),
    "importance, .5": train(RouterSetup(top_k, TOP2, losses=importance_loss)),
    "Switch's loss, .1": with_switch,
    "bias, speed .05": train(RouterSetup(bias_balanced, TOP2, after_step=after)),
}
KEYS = ("cv", "cv of importance", "max_mean", "switch", "log Z", "perplexity")
print(f"{'':18}    CV of   CV of im-   max / mean   Switch's   mean of")
print(f"{'':18} the load    portance         load      value     log Z   perplexity")
for name, (_, measured) in runs.items():
    values = (measured[key] for key in KEYS)
    print("{:18} {:8.2f} {:10.2f} {:12.1f} {:10.2f} {:9.2f} {:12.1f}".format(name, *values))
cvs = {name: measured["cv"] for name, (_, measured) in runs.items()}
log_z = {name: measured["log Z"] for name, (_, measured) in runs.items()}
assert max(cvs["Switch's loss, .1"], cvs["bias, speed .05"]) < 1
assert cvs["the task alone"] > cvs["z-loss, .01"] > 1
assert abs(log_z["z-loss, .01"]) < abs(log_z["the task alone"]) / 2

# %% [markdown]
# **Answer.** (One seed each, a toy: take no small difference seriously.) What carries over is the first column. In Table
# 6 of Shazeer et al. 2017 the CV of the load is 3.01 without a loss and at most .17 with any of five settings of theirs.
# Three remarks:
#
# - **The z-loss** does not depend on the loads, and still they are a little more even with it. Its gradient, $2 \log Z
#   \cdot p_{ni}$ at each logit, pushes down the experts that are probable, as long as $\log Z$ is above 0. Here the same
#   experts are probable for nearly all tokens, so the push slows the rich down. As soon as $\log Z$ is near 0 (fifth
#   column) it stops, and most of the collapse is still there. That is a side effect, and no balance.
# - **The value of Switch's loss** does not order the loads: compare the last two rows. (The scores of the bias-balanced
#   router are sigmoids, which do not sum to 1, so that not even "1 at balance" holds there.)
# - **The perplexity** follows the loads only roughly. Even loads are not yet good ones (lesson 11).
#
# ## Your turn
#
# Write Switch's loss and its gradient. $f$ comes from the $k$ largest logits of each token (`np.argsort` of
# `-logits` gives their indices), as a share of all choices.


# %%
def switch_loss(logits, k):
    """logits (N, E) -> (value, dlogits (N, E))."""
    # your code here
    return None


# %%
def reference(logits, k):
    loss = balance.switch(routed(logits, k))
    return loss.value, loss.dlogits


def cases(rng):
    for N, E, k in ((6, 4, 1), (5, 3, 2), (8, 5, 3)):
        yield rng.normal(size=(N, E)) + np.arange(E), k


self_check(switch_loss, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Section 1 with $\alpha$ = .001, .01, .1, 1 and 10. Print the CV of the load and the
#    perplexity. From where on does balance cost something?
# 2. **Derive.** What is Switch's gradient for a token that is sure, $p$ = (1, 0, …, 0), of the most crowded expert?
#    What follows for a gate that has already collapsed and is sure of it? Try logits (20, 0). Would the bias of
#    section 6 get the gate out of this state?
# 3. **Break it.** Take $f$ from the tokens that are *kept* when each expert takes at most $N/E$, as a share of $N$.
#    All $N$ tokens ask for expert 0: what are the right and the wrong value, and what does each gradient say?
#    (`within_capacity(expert, E, C)` in `moe_np/routing/contract.py` tells which are kept.)
#
# Solutions: `lessons/solutions/09_balance.py`.
#
# Next: 10, the layer itself: how to run only the experts that were chosen, and fast.
