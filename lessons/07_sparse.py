# %% [markdown]
# # 07 · From soft to sparse: top-k, noise, and why k is at least 2
#
# Afterwards you can turn a soft gate into a sparse one, say which of its parameters still get a gradient and which
# do not, and write the load estimator of Shazeer et al. (2017), which widely copied code has wrong.
#
# In the mixtures so far every expert works on every case. A **sparse** gate keeps $k$ of the $E$ experts for each
# token and never runs the others. (A token is a row of the data, the case of the earlier lessons; a gate in a sparse
# layer is called a *router*.)
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $x$ | `x` | (N, D) | N tokens |
# | $x W_g$ | `logits`, `clean` | (N, E) | the gate's totals, `s` in the earlier lessons |
# | $W_g,\ W_\text{noise}$ | `w`, `w_noise` | (D, E) | the gate's matrix, and that of its noise |
# | TopK | `choice` | (N, k) | the kept experts of each token, best first |
# | $G(x)$ | `weight` | (A,) | what each kept expert's answer is multiplied by; A = k·N **assignments** |
# | $\sigma$ | `sigma` | (N, E) | standard deviation of the gate's noise |
# | $H(x)$ | `noisy` | (N, E) | logits with noise |
# | $P(x, i)$ | `P` | (N, E) | chance that expert $i$ is kept if its own noise is drawn again |
#
# A router in this package returns a `Routing`: a list of assignments, one row each, with `token`, `expert` and
# `weight`. What is not chosen is not in the list.
#
# Five systems are named in this lesson: the sparse layer of Shazeer et al. (2017), **GShard** (Lepikhin and others
# 2020) and **Switch** (Fedus et al. 2021), the first transformers with it, and the open models **Mixtral** (Jiang and
# others 2024) and **DeepSeekMoE** (Dai and others 2024).

# %%
from math import erf

import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base import gradcheck, numerics
from moe_np.base.checks import InputError
from moe_np.coursework import self_check
from moe_np.layers import experts, sparse_layer
from moe_np.routing import dense, noisy_top_k, top_k
from moe_np.show import diagrams, lesson_plots, walk
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)
rng = np.random.default_rng(7)
N, D, E = 400, 8, 16
x = rng.normal(size=(N, D))
gate = {"w": 3 * rng.normal(size=(D, E)) / np.sqrt(D)}
layer = experts.LINEAR.init(rng, D, E)

# %% [markdown]
# ## 1. Why not all of them?
#
# A language model is better with more parameters, and each parameter that a token passes costs a multiplication and
# an addition. With all experts in use, a layer of 1000 experts costs 1000 times a layer with one, for every token, in
# training and afterwards. That is the whole reason for sparse layers. **The parameters grow with $E$, the work with
# $k$.** What grows too is the memory, and the trouble of bringing tokens and experts together (lesson 10).
#
# This is the place in a transformer where it happens: the feed-forward part of each block, which holds most of the
# parameters, becomes a router and experts.

# %%
fig, ax = plt.subplots(figsize=(11, 6.6))
diagrams.transformer_block(ax)
plt.show()

print("a feed-forward part of Mixtral's size (three matrices of 4096 x 14336) per token:")
one_expert = 3 * 4096 * 14336
for n, k_of in ((1, 1), (8, 8), (8, 2), (64, 64), (64, 2)):
    print(f"{n:3} experts, {k_of:2} used: {n * one_expert / 1e9:6.2f} billion parameters, ", end="")
    print(f"{k_of * one_expert / 1e9:6.2f} billion multiplications")

# %% [markdown]
# The answers are then those of two experts instead of all.
#
# **Predict.** 16 experts, and a gate that is fairly sure of itself. How much of its probability lies on the best
# two? How far is the answer of the best two from that of all sixteen?

# %%
everything, _ = dense.route(gate, x)
full, _ = sparse_layer.forward(layer, x, everything, experts.LINEAR)
print(" k   expert runs   probability kept   error relative to all 16")
for kept in (2, 4, 8, 16):
    routing, _ = top_k.route(gate, x, k=kept, renormalise=True)
    out, _ = sparse_layer.forward(layer, x, routing, experts.LINEAR)
    chosen = routing.expert.reshape(N, kept)
    probability = np.take_along_axis(everything.probs, chosen, axis=1).sum(axis=1).mean()
    error = np.linalg.norm(out - full) / np.linalg.norm(full)
    print(f"{kept:2d}   {len(routing.token):11d}   {probability:16.2f}   {error:10.2f}")
    assert len(routing.token) == kept * N
assert error < 1e-12  # k = E is the dense mixture

# %% [markdown]
# The work falls in proportion to $k/E$. The answer changes, but it need not be that of the dense gate: experts and
# gate will be *trained* sparse. So the question of this lesson is not what the output loses. It is **what the
# gradient loses**.
#
# (A sparse mixture is not an *ensemble*, of which one keeps the best two models: an ensemble's members are all trained on
# everything, and differ by chance. Here an expert sees only the tokens that it is given, and becomes good for those.)
#
# ## 2. Two ways to weight what is kept
#
# * **Renormalised**: divide the kept probabilities by their sum. That is the same as a softmax over the $k$ kept
#   logits alone (Shazeer et al. 2017, GShard, Mixtral).
# * **As they are**: keep the probabilities of the full softmax (Switch, DeepSeekMoE). They do not sum to 1.
#
# One token, five experts, $k = 2$. The router's matrix is the unit matrix, so that `x` is the logits and `dx` their
# gradient. From the layer comes `dweight` = (1, −1): the best expert's weight should fall, the second's rise.
#
# **Predict.** Which of the five logits get a gradient, in each of the two ways?

# %%
token, unit = np.array([[2.0, 0.5, 1.0, -1.0, 0.0]]), {"w": np.eye(5)}
for renormalise in (True, False):
    routing, cache = top_k.route(unit, token, k=2, renormalise=renormalise)
    dlogits, _ = top_k.route_backward(np.array([1.0, -1.0]), None, cache)
    print(f"renormalise={renormalise}: experts {routing.expert}, weights {routing.weight.round(3)}")
    print("    gradient at the logits", dlogits[0].round(4))
    if renormalise:
        p = numerics.softmax(token)[0, [0, 2]]
        assert np.allclose(routing.weight, p / p.sum())
        assert np.allclose(routing.weight, numerics.softmax(token[0, [0, 2]]))
        assert (dlogits[0, [1, 3, 4]] == 0).all()  # exactly
    else:
        assert (dlogits != 0).all()

# %% [markdown]
# > **Seen in public code** (errata 3): which of the two is meant is left to a default, or decided by whether a line
# > `w / w.sum()` happens to be there. The two train differently: renormalised, the logit of an expert that is not chosen
# > gets *exactly no* gradient from the task. Here `renormalise` is an argument without a default.
#
# ## 3. Why k is at least 2
#
# Now keep one expert, renormalised.
#
# **Predict.** What is the weight, and what is the gradient of the router's matrix?


# %%
gain = np.array([1.0, -0.5, 0.3, 2.0, -1.0])  # how the loss rises with the weight of each expert
RULES = {
    "k = 1, renormalised": (1, lambda p: p / p.sum()),
    "k = 1, renormalised, 1e-6 in the denominator": (1, lambda p: p / (p.sum() + 1e-6)),
    "k = 1, probabilities as they are (Switch)": (1, lambda p: p),
    "k = 2, renormalised": (2, lambda p: p / p.sum()),
}


def loss_of(logits, count, weights):
    best = np.argsort(-logits, kind="stable")[:count]
    return weights(numerics.softmax(logits)[best]) @ gain[best]


sizes = {}
for name, (count, weights) in RULES.items():
    slopes = []
    for direction in np.eye(5):  # nudge one logit at a time
        up = loss_of(token[0] + 1e-6 * direction, count, weights)
        down = loss_of(token[0] - 1e-6 * direction, count, weights)
        slopes.append((up - down) / 2e-6)
    sizes[name] = np.abs(slopes).max()
    print(f"{name:46} largest slope of the five logits {sizes[name]:.1e}")
try:
    top_k.route(gate, x, k=1, renormalise=True)
except InputError as refusal:
    print("\nInputError:", refusal)
nothing, hidden, switch, two = sizes.values()
assert nothing < 1e-9 and hidden < 1e-5 and min(switch, two) > 0.1

# %% [markdown]
# The weight is $p / p = 1$, whatever the logits are, and the derivative of a constant is 0. The router would stay
# where it started. It takes a second expert to **compare** with: that is all that the sentence "the router needs at least
# two experts to learn" means. Switch trains with $k = 1$ because its weight is $p$ itself.
#
# > **Seen in public code** (errata 4): a small number in the denominator, "for stability". It hides the zero: what
# > is left of the gradient is a hundred thousand times too small, and the loss on the training curve still falls,
# > because the experts learn. This package refuses the combination.
#
# ## 4. What is never tried is never learned
#
# *Which* experts are kept is a comparison, a step, and a step has no slope. So an expert that is not kept by a
# token learns nothing from it, and nothing tells the gate whether it would have been better. The sparse gate needs a
# reason to try others. Shazeer et al. (2017) add noise (eqs. 3 and 4):
#
# $$H(x)_i = (x W_g)_i + \text{noise}_i \cdot \sigma_i, \qquad \sigma = \log(1 + e^{x W_\text{noise}}), \qquad
# G(x) = \text{softmax}(\text{keep the top } k \text{ of } H(x)).$$
#
# (The function $\log(1 + e^z)$ is called *softplus*: a smooth way to make any number positive.) Both matrices start
# at zero.
#
# **Predict.** A gate at zero, 400 tokens, 16 experts, $k = 2$. How many tokens does each expert get without noise?
# And with it?

# %%
zero = noisy_top_k.init(rng, D, E)
assert all((p == 0).all() for p in zero.values())
x.flags.writeable = False  # noise belongs to the router's logits: writing to x would raise an error
silent, _ = noisy_top_k.route(zero, x, k=2)
noisy, _ = noisy_top_k.route(zero, x, k=2, rng=np.random.default_rng(0))
again, _ = noisy_top_k.route(zero, x, k=2, rng=np.random.default_rng(0))
print("without noise:", np.bincount(silent.expert, minlength=E))
print("with noise:   ", np.bincount(noisy.expert, minlength=E))
assert np.bincount(silent.expert, minlength=E).tolist() == [N, N] + [0] * (E - 2)
assert np.array_equal(noisy.expert, again.expert)

# %% [markdown]
# Without noise all logits tie, and all tokens go to experts 0 and 1.
#
# > **Seen in public code** (errata 10, 11). *Ties*: a gate at zero ties everywhere, and libraries break ties
# > differently. The rule here: the lowest index wins. *Noise*: it is left on at evaluation; it is added to `x`, so
# > that the experts see it too; or its scale is computed with the gate's own matrix (exercise 3). Here no generator
# > means evaluation: no noise, the same result each time.
#
# ## 5. Six tokens, slowly
#
# Five experts, $k = 2$, some weights in both matrices. Step through the router, forward and back. The state
# "expected load" is what section 6 is about.

# %%
k, n_experts = 2, 5
params = noisy_top_k.init(np.random.default_rng(3), 4, n_experts, scale=1.0)
few = np.random.default_rng(1).normal(size=(6, 4))
steps = walk.route(noisy_top_k, params, few, k=k, rng=np.random.default_rng(2))
next(steps)

# %%
view(steps)  # forward, back, slider, play; where there are no widgets: next(steps), steps.back()

# %% [markdown]
# ## 6. How many tokens will an expert get?
#
# To keep experts evenly used (lesson 09) one wants the gradient of an expert's **load**, the number of tokens that
# chose it. A count has none. But with noise there is a smooth quantity behind it: the *probability* of being
# chosen. Draw the noise of expert $i$ again and leave all other noise as it is. Expert $i$ is kept if it beats the
# $k$-th best **of the others**. Its noisy logit is Gaussian with mean `clean` and deviation `sigma`, so
#
# $$P(x, i) = \Phi\!\left( \frac{(x W_g)_i - \text{the } k\text{-th highest of the others}}{\sigma_i} \right), \qquad
# \text{Load}_i = \sum_x P(x, i)$$
#
# with $\Phi$ the normal distribution function (eqs. 9 and 10). Note the words *of the others*: the expert itself is
# left out when the $k$-th is looked for.
#
# **Predict.** Two experts are kept, three are not. Are the two $P$ of the kept ones above ½ and the others below?
# Do the five sum to 2?


# %%
def Phi(z):
    """The distribution function of the standard normal."""
    return np.vectorize(lambda value: 0.5 * (1 + erf(value / 2**0.5)))(z)


def kth_of_the_others(noisy, k):
    """(N, E): leave expert i out, and take the k-th highest of the rest."""
    columns = []
    for i in range(noisy.shape[1]):
        others = np.delete(noisy, i, axis=1)
        columns.append(np.sort(others, axis=1)[:, -k])
    return np.stack(columns, axis=1)


# %%
_, cache = noisy_top_k.route(params, few, k=k, rng=np.random.default_rng(2))
threshold = kth_of_the_others(cache.noisy, k)
P = Phi((cache.clean - threshold) / cache.sigma)
chosen_of_six = cache.noisy > threshold  # kept: it beats the k-th of the others
assert np.allclose(P, noisy_top_k.load_forward(cache)[1])

fig, axes = plt.subplots(1, 2, figsize=(12, 4), sharey=True)
for ax, n in zip(axes, (1, 5), strict=True):
    row = cache.clean[n], cache.sigma[n], cache.noisy[n], threshold[n], P[n]
    lesson_plots.chances_to_be_kept(ax, *row)
    ax.set_title(f"token {n}: the row of P sums to {P[n].sum():.2f}")
axes[0].set_ylabel("expert")
plt.show()
print("sums of the rows of P:", P.sum(axis=1).round(2))
assert P[chosen_of_six].min() < 0.5 and np.ptp(P.sum(axis=1)) > 0.5

# %% [markdown]
# Blue experts are kept. The dot is the noisy logit that was drawn, the curve where it might have been, the black
# mark what it has to beat, the shaded part $P$. An expert may be in by luck and have a small $P$; another may be
# out by bad luck and have a large one. So a row sums to 2 only **on average** over the noise.
#
# ## 7. Is it right? Count many draws
#
# The promise: averaged over noise, $P$ is the frequency with which the expert is really chosen. Here are 64 tokens,
# each drawn 400 times, and three versions of the threshold.
#
# > **Seen in public code** (errata 1). *(a)* The threshold is the $k$-th highest of **all**, so that a kept expert
# > has to beat itself or a rival it has already beaten. *(b)* Thresholds are taken *after* the softmax and compared
# > with logits *before* it: two different scales.
#
# **Predict.** Does (a) come out too low or too high? And (b)?

# %%
tokens, draws = np.random.default_rng(1).normal(size=(64, 4)), 400
many, many_cache = noisy_top_k.route(
    params, np.repeat(tokens, draws, axis=0), k=k, rng=np.random.default_rng(2)
)
clean, sigma, noisy_logits = many_cache.clean, many_cache.sigma, many_cache.noisy
kth_of_all = np.sort(noisy_logits, axis=1)[:, -k][:, None]
after_softmax = kth_of_the_others(numerics.softmax(noisy_logits), k)
loads = {
    "counted": np.bincount(many.expert, minlength=n_experts) / draws,
    "the others' k-th (right)": noisy_top_k.load_forward(many_cache)[0] / draws,
    "(a) k-th of all": Phi((clean - kth_of_all) / sigma).sum(axis=0) / draws,
    "(b) after the softmax": Phi((clean - after_softmax) / sigma).sum(axis=0) / draws,
}

fig, ax = plt.subplots(figsize=(10, 4))
colours = (plots.BLACK, plots.GREEN, plots.ORANGE, plots.PINK)
for j, ((name, load), colour) in enumerate(zip(loads.items(), colours, strict=True)):
    ax.bar(np.arange(n_experts) + 0.2 * j - 0.3, load, 0.18, color=colour, label=name)
    print(f"{name:26} {load.round(1)}   total {load.sum():6.1f}")
ax.set(xlabel="expert", ylabel="tokens of 64", ylim=(0, 52))
ax.legend(ncols=2, frameon=False, loc="upper center")
plt.show()
counted, right, a, b = loads.values()
assert np.abs(right - counted).max() < 0.01 * 64 and abs(right.sum() - k * 64) < 0.5
assert a.sum() < 0.85 * k * 64 and b.sum() > 1.1 * k * 64

# %% [markdown]
# **Answer.** (a) is too low: a kept expert has to beat itself. (b) is too high: probabilities lie between 0 and 1,
# and most clean logits of good experts are above that.
#
# ## 8. The threshold is another expert's logit
#
# One thing is left to get wrong. $P(x, i)$ depends on expert $i$'s own logit and scale; and on its **rival's**,
# because the threshold *is* the rival's noisy logit: its clean part plus its noise times its scale. If the rival's logit
# rises, $P(x, i)$ falls.
#
# > **Seen in public code** (errata 2): the threshold is treated as a constant in the gradient (by `detach`, which
# > PyTorch has for this purpose, or by a comparison through which the framework does not differentiate).
#
# **Predict.** For a loss that is linear in the load, how large is the relative error of the gradient if the
# threshold is held?

# %%
dload = np.arange(n_experts) - 2.0  # a loss: Σ_i dload_i · Load_i
_, cache64 = noisy_top_k.route(params, tokens, k=k, rng=np.random.default_rng(4))
_, grads = noisy_top_k.load_backward(dload, cache64)

z = (cache64.clean - kth_of_the_others(cache64.noisy, k)) / cache64.sigma
slope = dload * np.exp(-z * z / 2) / np.sqrt(2 * np.pi) / cache64.sigma
held = {  # the gradient with the threshold as a constant
    "w": tokens.T @ slope,
    "w_noise": tokens.T @ numerics.softplus_backward(-slope * z, cache64.raw),
}


def loss(p):
    """With the same noise each time."""
    _, again = noisy_top_k.route(p, tokens, k=k, rng=np.random.default_rng(4))
    return (noisy_top_k.load_forward(again)[0] * dload).sum()


for name, gradient in (("through the threshold", grads), ("threshold held", held)):
    check = gradcheck.gradient_error(loss, params, gradient, np.random.default_rng(0), step=1e-5)
    off = {
        key: np.linalg.norm(gradient[key] - grads[key]) / np.linalg.norm(grads[key])
        for key in grads
    }
    print(
        f"{name:22} gradient check:",
        ", ".join(f"{key} {e:.0e}" for key, e in check.items()),
        end="",
    )
    print("   off by", ", ".join(f"{key} {e:.0%}" for key, e in off.items()))
    assert (max(check.values()) < 1e-6) == (gradient is grads)
assert min(off.values()) > 0.2

# %% [markdown]
# ## Your turn
#
# `kth_of_the_others` sorts once per expert. Write $P$ with **one** sort of all noisy logits. Think of an expert that
# is in and of one that is out: which place of *all* is the $k$-th of *its* others? `Phi` is there. There are no ties,
# and $k < E$.


# %%
def keep_probability(clean, sigma, noisy, k):
    """P (N, E): the chance that each expert is among the k best if its own noise is drawn again. All (N, E)."""
    # your code here
    return None


# %%
def reference(clean, sigma, noisy, k):
    return Phi((clean - kth_of_the_others(noisy, k)) / sigma)


def cases(rng):
    for N, E, k in ((5, 4, 2), (3, 6, 3), (4, 3, 1)):
        clean, sigma = rng.normal(size=(N, E)), rng.uniform(0.3, 2, size=(N, E))
        yield clean, sigma, clean + sigma * rng.normal(size=(N, E)), k


self_check(keep_probability, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** In section 7 let $k$ run from 2 to $E$. What is the mean sum of a row of $P$? At $k = E$
#    there is no $(k+1)$-th: what should $P$ be then, and what does `noisy_top_k.load_forward` give?
# 2. **Derive.** Show that the mean of $P(x, i)$ over all noise is the probability that $i$ is kept, and that
#    therefore the mean sum of a row is $k$. (One line: which noise does $P$ depend on, and which has it integrated
#    out?)
# 3. **Break it.** Let the noise scale use the gate's own matrix, $\sigma = \log(1 + e^{x W_g})$. Multiply $W_g$ by
#    1, 3, 10 and 30. How often is the best expert kept, with this $\sigma$ and with $\sigma = \log 2$? What can a
#    gate no longer do?
#
# Solutions: `lessons/solutions/07_sparse.py`.
#
# Next: [08, hard choices](08_hard_choices.ipynb): weight 1 for a single expert after all, and what to do without a
# derivative. (If you want to build a layer now, [16](16_from_nothing.ipynb) needs no more than this lesson.)
