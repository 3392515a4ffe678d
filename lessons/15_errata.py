# %% [markdown]
# # 15 · Errata: find the bug
#
# Afterwards you can look at code of a gate, or of a whole model, that runs, trains and is wrong, and know which question
# to put to it. Twelve functions follow. Each is short, looks right, and has a bug that was found in public code. Each
# is caught by a check of a few lines that needs no second implementation.
#
# Bugs 1 to 8 are those of gates. Lessons 07, 09 and 10 have told you about six of them, so the question there is not
# *what* is wrong but *which check shows it*. Bugs 9 to 12 come from whole models, and no lesson has told you about them.
# That makes two sittings.
#
# A check is a sentence that must be true of every right answer, and that one can run. These are all we need:
#
# | check | the sentence |
# |---|---|
# | **gradient** | along a random direction, the slope of the loss is $\sum g \cdot v$ |
# | **limit** | in a case that is so simple that the answer is known, the function gives this answer |
# | **conservation** | what goes in comes out: rows, probability, weight |
# | **invariance** | what must not matter does not matter: padding, order, a constant on all logits |
# | **purity** | called twice, the function returns the same, and its input is as it was |
# | **Monte Carlo** | an expectation is the mean over very many draws |
#
# How to use this lesson: read the function, **stop**, and write down which of the six you would try and what it would
# show. Then run the next cell.

# %%
from math import erf, sqrt

import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base import gradcheck
from moe_np.base.numerics import logsumexp, softmax
from moe_np.coursework import self_check
from moe_np.layers import balance
from moe_np.routing import contract, noisy_top_k, switch, top_k
from moe_np.routing.contract import Routing

plt.rcParams.update(plots.STYLE)
rng = np.random.default_rng(15)
N, D, E = 64, 5, 4
x = rng.normal(size=(N, D))
w = rng.normal(size=(D, E))

# %% [markdown]
# ## Bug 1
#
# Rows come back from the experts, $k$ per token, and are added up with their weights.


# %%
def combine(rows, token, weight, n_tokens):
    """out_n = Σ of weight · row over the rows whose token is n."""
    out = np.zeros((n_tokens, rows.shape[1]))
    out[token] += weight[:, None] * rows
    return out


# %% [markdown]
# **Predict.** No reference is at hand. For which experts do you know what the whole layer must put out?

# %%
routing, _ = top_k.route({"w": w}, x, k=2, renormalise=True)
identity = x[routing.token]  # experts that give back what they are given ...
out = combine(
    identity, routing.token, routing.weight, N
)  # ... and weights that add up to 1: out must be x
print("conservation: largest |out − x| =", np.abs(out - x).max().round(2))
assert not np.allclose(out, x)


def combine_right(rows, token, weight, n_tokens):
    out = np.zeros((n_tokens, rows.shape[1]))
    np.add.at(out, token, weight[:, None] * rows)
    return out


assert np.allclose(combine_right(identity, routing.token, routing.weight, N), x)

# %% [markdown]
# `out[token] += ...` writes each row of `out` once: of two rows of a token the last one stays (errata 12, lesson 10).
# *Identity experts* are the cheapest check of anything that moves tokens: no parameters, no reference.
#
# ## Bug 2
#
# A gate with $k$ choices, its weights renormalised, and a small number so that nothing is divided by zero.


# %%
def gate(w, x, k):
    """The k experts of each token and their weights, which sum to 1."""
    probs = softmax(x @ w)
    choice = contract.top_k(probs, k)
    kept = np.take_along_axis(probs, choice, axis=1)
    return choice, kept / (kept.sum(axis=1, keepdims=True) + 1e-6)


# %% [markdown]
# **Predict.** Its gradient passes the gradient check. It is a bug all the same, for one value of $k$. Which, and how
# would you see it?

# %%
value = rng.normal(size=(N, E))  # what each expert would be worth to each token


def slope_of_gate(k, directions=20):
    """How strongly a mean payoff answers to the router's matrix: root mean square over random directions."""
    draw = np.random.default_rng(0)

    def payoff(w):
        choice, weight = gate(w, x, k)
        return (weight * np.take_along_axis(value, choice, axis=1)).sum(axis=1).mean()

    slopes = [
        gradcheck.slope(payoff, w, v / np.linalg.norm(v), 1e-6)
        for v in draw.normal(size=(directions, D, E))
    ]
    return np.sqrt(np.mean(np.square(slopes)))


for k in (1, 2):
    print(f"k = {k}: slope {slope_of_gate(k):.1e}")
assert slope_of_gate(1) < 1e-4 * slope_of_gate(2)

# %% [markdown]
# With $k = 1$ the weight is $p / (p + 10^{-6})$, which is 1, whatever the router says. The gradient is *right*: the
# router has no influence, and learns nothing from the task (errata 4). Without the $10^{-6}$ it would be exactly 0, which
# is easier to notice. A gradient check asks whether the gradient belongs to the function. It does not ask
# whether this is the function you wanted. Cure: do not renormalise at $k = 1$ (Switch); `top_k.route` refuses.
#
# ## Bug 3
#
# Noisy top-k (Shazeer and others 2017) ranks `noisy = clean + sigma · noise`, with Gaussian noise of its own for each
# expert. How many tokens *would* an expert get if its noise were drawn again? It stays in when it beats the threshold,
# the $k$-th largest noisy logit.


# %%
Phi = np.vectorize(lambda z: 0.5 * (1 + erf(z / sqrt(2))))  # the normal distribution function


def load(clean, noisy, sigma, k):
    """P (N, E): probability that expert i is among the top k when its own noise is drawn again."""
    threshold = np.sort(noisy, axis=1)[:, -k][:, None]
    return Phi((clean - threshold) / sigma)


# %% [markdown]
# **Predict.** Each token keeps exactly $k = 2$ experts. What must a row of P sum to, on average? And how would you
# *measure* the probability that this function computes?

# %%
params = {"w": w, "w_noise": 0.5 * rng.normal(size=(D, E))}
_, cache = noisy_top_k.route(params, x, k=2, rng=np.random.default_rng(1))
draws = np.random.default_rng(2)
truth = np.zeros((N, E))
for _ in range(2000):
    for i in range(E):  # draw the noise of expert i again, leave the others' as it is
        again = cache.noisy.copy()
        again[:, i] = cache.clean[:, i] + cache.sigma[:, i] * draws.normal(size=N)
        truth[:, i] += (contract.top_k(again, 2) == i).any(axis=1)
truth /= 2000

wrong, (_, right) = load(cache.clean, cache.noisy, cache.sigma, 2), noisy_top_k.load_forward(cache)
fig, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharex=True, sharey=True)
for ax, P, words in (
    (axes[0], wrong, "the k-th largest of all"),
    (axes[1], right, "the k-th largest of the others"),
):
    ax.plot([0, 1], [0, 1], color=plots.GREY)
    ax.plot(truth.ravel(), P.ravel(), ".", color=plots.BLUE)
    ax.set(title=f"{words}\nrows sum to {P.sum(axis=1).mean():.2f}", xlabel="how often it happens")
axes[0].set_ylabel("what P says")
plt.show()
print(
    f"largest error: {np.abs(wrong - truth).max():.2f}; with the right threshold {np.abs(right - truth).max():.3f}"
)
assert np.abs(wrong - truth).max() > 0.2 > 0.05 > np.abs(right - truth).max()

# %% [markdown]
# For an expert that is *in*, the $k$-th largest can be itself: it is asked to beat its own old noise. The threshold has
# to leave $i$ out: the $(k+1)$-th of all if $i$ is in, the $k$-th otherwise (errata 1).
#
# ## Bug 4
#
# The same P, the right one, and its gradient. $z = (\text{clean} - \text{threshold}) / \sigma$, so dclean
# $= \phi(z) / \sigma$ and d$\sigma = -\phi(z)\, z / \sigma$, with $\phi$ the normal density. In the cache, `choice`
# (N, k) has the experts that are in, the best first, and `runner_up` (N,) the best of those that are out.


# %%
def load_backward(dload, cache):
    """dload (E,) -> {"w", "w_noise"}: the gradient of Σ_i dload_i · load_i."""
    kept = contract.demand_of(cache.choice, E)
    rival = np.where(kept, cache.runner_up[:, None], cache.choice[:, 1:2])
    threshold = np.take_along_axis(cache.noisy, rival, axis=1)
    z = (cache.clean - threshold) / cache.sigma
    dz = dload * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    dclean, dsigma = dz / cache.sigma, -dz * z / cache.sigma
    draw = dsigma / (1 + np.exp(-cache.raw))  # sigma = softplus(raw)
    return {"w": x.T @ dclean, "w_noise": x.T @ draw}


# %% [markdown]
# **Predict.** Every line is right calculus. What has been forgotten, and which of the two gradients suffers more?

# %%
dload = rng.normal(size=E)


def frozen(p):
    """The load with the noise of `cache`, as a function of the parameters."""
    _, own = noisy_top_k.route(
        p, x, k=2, rng=np.random.default_rng(1)
    )  # the same seed: the same noise
    return (noisy_top_k.load_forward(own)[0] * dload).sum()


_, complete = noisy_top_k.load_backward(dload, cache)
forgetful = load_backward(dload, cache)
for name, grads in (("forgetful", forgetful), ("complete", complete)):
    for direction in (2, 3):
        errors = gradcheck.gradient_error(
            frozen, params, grads, np.random.default_rng(direction), step=1e-4
        )
        print(
            f"{name:10s} direction {direction}",
            {key: f"{error:.0e}" for key, error in errors.items()},
        )
        assert (
            (min(errors.values()) < 1e-7) == (max(errors.values()) < 1e-7) == (name == "complete")
        )
for key, grad in complete.items():
    print(
        f"d{key} is off by {np.linalg.norm(forgetful[key] - grad) / np.linalg.norm(grad):.0%} of its length"
    )

# %% [markdown]
# The threshold is *another expert's noisy logit*: it moves with that expert's clean logit and with its $\sigma$. Held
# constant, more than half of the gradient is wrong (errata 2). The noise has to be frozen for the check, and nothing
# else. And see the second direction: there one of the two errors is small, by luck. Small is not right. A right
# gradient shows nine zeros or more; what shows three is a bug that happens to be nearly orthogonal to your direction.
#
# ## Bug 5
#
# The squared coefficient of variation of the loads, as a balance loss, with its gradient.


# %%
def cv_squared(load):
    """(std / mean)², and the gradient with respect to the load."""
    mean, std = load.mean(), load.std(ddof=1)
    cv = std / mean
    dstd = (load - mean) / ((len(load) - 1) * std)
    return cv**2, 2 * cv * (dstd / mean - std / mean**2 / len(load))


# %% [markdown]
# **Predict.** Two limits have known answers: all tokens on one of two experts, where the paper's $CV^2$ is $E - 1 = 1$;
# and perfect balance, where value and gradient are 0. Which of them fails? And the gradient check?

# %%
uneven = np.array([9.0, 2.0, 4.0, 1.0])
gradient = cv_squared(uneven)[1]
off = gradcheck.gradient_error(
    lambda p: cv_squared(p["load"])[0], {"load": uneven}, {"load": gradient}, rng
)["load"]
print(f"gradient check at uneven loads: {off:.0e}")
for words, case in (
    ("all on one of two", np.array([10.0, 0.0])),
    ("perfect balance", np.full(4, 3.0)),
):
    with np.errstate(invalid="ignore"):  # NumPy would warn of 0 / 0
        print(
            f"{words:18s} value, gradient:",
            *cv_squared(case),
            "  right:",
            *balance.cv_squared(case),
        )
        if words == "perfect balance":
            assert np.isnan(cv_squared(case)[1]).all() and not balance.cv_squared(case)[1].any()
assert off < 1e-7 and balance.cv_squared(np.array([10.0, 0.0]))[0] == 1

# %% [markdown]
# Both limits, while the gradient check passes. `ddof=1` is for estimating from a sample; the experts are all there are
# (errata 5). And the derivative of a square root is $0/0$ at 0: the loss turns all parameters into nan as soon
# as it has reached its goal. Differentiate the variance instead.
#
# ## Bug 6
#
# The z-loss, the mean of $(\log \sum_j e^{\text{logit}_j})^2$ over tokens (Zoph and others 2022). The batch is padded
# to full length; padding is masked.


# %%
def z_loss(logits, valid):
    """Mean over the valid tokens of logsumexp², valid (N,) bool."""
    logits = logits * valid[:, None]  # padding does not count
    return (logsumexp(logits) ** 2).mean()


# %% [markdown]
# **Predict.** What is the z-loss of a token whose logits are all 0, with four experts? What follows for a batch that is
# half padding?

# %%
logits = x @ w
no_rows = (
    np.zeros(0, int),
    np.zeros(0, int),
    np.zeros(0),
)  # token, expert, weight: z looks at logits alone
for pads in (0, 8, 64):
    longer = np.concatenate([logits, rng.normal(size=(pads, E))])
    valid = np.arange(len(longer)) < N
    routing = Routing(*no_rows, longer, softmax(longer), np.zeros(longer.shape, bool))
    right_value = balance.z_loss(routing, valid=valid).value
    print(f"{pads:3d} tokens of padding: {z_loss(longer, valid):.3f}   right: {right_value:.3f}")
assert abs(z_loss(longer, valid) - right_value) > 0.1
assert abs(z_loss(np.zeros((1, E)), np.array([True])) - np.log(E) ** 2) < 1e-12
print(f"and a row of zeros costs (ln 4)² = {np.log(4) ** 2:.3f}")

# %% [markdown]
# Zero is not nothing: $\log \sum e^0 = \ln E$. Padding has to be left out, of the sum *and* of the count (errata 7).
# The check is an invariance: append padding, and the number must stay.
#
# ## Bug 7
#
# Each token asks for its favourite. An expert that is asked too often keeps the $C$ tokens with the largest logits. In
# the array of logits, those who did not ask are set to zero.


# %%
def keep_best(logits, C):
    """(N, E) bool: the C best askers of each expert."""
    asked = contract.demand_of(logits.argmax(axis=1)[:, None], E)
    ranked = logits * asked
    best = np.argsort(-ranked, axis=0, kind="stable")[:C]
    kept = np.zeros(asked.shape, bool)
    np.put_along_axis(kept, best, True, axis=0)
    return kept & asked


# %% [markdown]
# **Predict.** Softmax does not mind a constant added to all logits of a token. Does this function? Try −10 in your
# head.


# %%
def keep_best_right(logits, C):
    asked = contract.demand_of(logits.argmax(axis=1)[:, None], E)
    best = np.argsort(
        -np.where(asked, logits - logsumexp(logits, keepdims=True), -np.inf), axis=0, kind="stable"
    )[:C]
    kept = np.zeros(asked.shape, bool)
    np.put_along_axis(kept, best, True, axis=0)
    return kept & asked


for shift in (0, 2, -10):
    kept, best = (keep(logits + shift, 12).sum() for keep in (keep_best, keep_best_right))
    print(f"all logits {shift:+3d}: {kept} tokens kept, right: {best}")
assert keep_best(logits - 10, 12).sum() < keep_best(logits, 12).sum()
assert (keep_best_right(logits - 10, 12) == keep_best_right(logits, 12)).all()

# %% [markdown]
# A token that asked with a logit of −3 ranks behind one that did *not* ask, with 0. The places stay empty, and the
# better tokens are dropped (errata 9). Mask with $-\infty$, rank by what softmax sees. The bug hides as long as the
# winning logits are positive, as most of them are.
#
# ## Bug 8
#
# Switch multiplies the router's input by a little noise in training, so that choices near the border are tried out.


# %%
def route_with_jitter(w, x, jitter=0.1, rng=None):
    """Expert and weight of each token."""
    rng = np.random.default_rng() if rng is None else rng
    x *= rng.uniform(1 - jitter, 1 + jitter, size=x.shape)
    probs = softmax(x @ w)
    return probs.argmax(axis=1), probs.max(axis=1)


# %% [markdown]
# **Predict.** There are two bugs here. One shows when you call it twice; for the other one look at what the *experts*
# get. One line of check each.

# %%
given = x.copy()
first, second = route_with_jitter(w, given)[1], route_with_jitter(w, given)[1]
print(
    "twice the same call, same answer:",
    np.array_equal(first, second),
    "  input as it was:",
    np.array_equal(given, x),
)
assert not np.array_equal(first, second) and not np.array_equal(given, x)

x.flags.writeable = False  # the cheapest check of all: then it cannot happen unseen
try:
    route_with_jitter(w, x)
except ValueError as error:
    print("read-only input:", error)
(one, _), (two, _) = (switch.route({"w": w}, x, jitter=0.1) for _ in range(2))
assert np.array_equal(one.weight, two.weight)  # no rng: evaluation, no noise

# %% [markdown]
# No generator must mean *no noise*, not "any noise"; otherwise a model is another one each time it is used. And `x *=`
# changes the caller's array: the experts see the jitter, and so does the residual around the layer (errata 10).
# Every router of this package is tested with a read-only `x`.

# %% [markdown]
# *Here is a good place for a break.* The next four come from whole models, and have not been told before. Cover what
# stands below each cell.
#
# ## Bug 9
#
# A model has several sparse layers, and each has its own router. The load-balancing loss of Switch is to keep all of
# them even: $E \sum_i f_i P_i$, which is 1 at balance and up to $E$ when everything goes to one expert (lesson 09).


# %%
def balance_of_model(probs, expert):
    """Switch's loss of a model: per layer the probabilities (N, E) and the chosen expert (N,)."""
    all_probs = np.concatenate(probs)
    all_choices = np.concatenate(expert)
    f = np.bincount(all_choices, minlength=E) / len(all_choices)
    return E * (f * all_probs.mean(axis=0)).sum()


# %% [markdown]
# **Predict.** With one layer it is right, and its gradient passes the gradient check with any number of layers. For
# which routing of *four* layers do you know the value, and what does this function say?

# %%
collapsed = [
    np.full(N, layer) for layer in range(4)
]  # layer 0 uses expert 0 only, layer 1 expert 1
sure = [np.tile(np.eye(E)[layer], (N, 1)) for layer in range(4)]
pooled = balance_of_model(sure, collapsed)
per_layer = np.mean([balance_of_model([p], [c]) for p, c in zip(sure, collapsed, strict=True)])
print(
    f"four layers, each collapsed onto an expert of its own: {pooled:.2f}; layer by layer: {per_layer:.2f}"
)
assert np.isclose(pooled, 1) and np.isclose(per_layer, E)

# %% [markdown]
# **Answer.** It says 1, "perfectly balanced", while every layer has collapsed. All layers are pooled into one product,
# so an expert that is overused in one layer makes up for one that is unused in another. Expert 0 of layer 0 and expert 0
# of layer 1 share a number and nothing else. The right loss is one term *per layer* (errata 27). A widely used library
# computes the pooled form. The check is a limit, and it needs two layers: with one there is nothing to see.
#
# ## Bug 10
#
# Grouped queries: a model has more heads of queries than of keys and values, and each key head serves a group of query
# heads that stand next to each other. Here are six query heads and three key heads.


# %%
def attention(q, k, v):
    """q (T, 6, d), k and v (T, 3, d) -> (T, 6, d), causal."""
    group = q.shape[1] // k.shape[1]
    k = np.tile(k, (1, group, 1))
    v = np.tile(v, (1, group, 1))
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(q.shape[2])
    scores = np.where(np.tri(len(q), dtype=bool), scores, -np.inf)
    return np.einsum("hts,shd->thd", softmax(scores), v)


# %% [markdown]
# **Predict.** Shapes are right, no token sees its future, the gradient is right, and a model that is trained with this
# function learns well. The output is nonsense only for a model that somebody else has trained. What must *not* matter
# to query heads 0 and 1?

# %%
T = 5
q, k, v = (rng.normal(size=(T, heads, 8)) for heads in (6, 3, 3))
before = attention(q, k, v)
other_k = k.copy()
other_k[:, 0] *= 2  # key head 0 alone
changed = np.abs(attention(q, other_k, v) - before).max(axis=(0, 2)) > 1e-12
print("query heads that read key head 0:", np.flatnonzero(changed), "  wanted: [0 1]")
assert np.flatnonzero(changed).tolist() == [0, 3]


def attention_right(q, k, v):
    group = q.shape[1] // k.shape[1]
    return attention(q, np.repeat(k, group, axis=1), np.repeat(v, group, axis=1))


other = attention_right(q, other_k, v) - attention_right(q, k, v)
assert np.flatnonzero(np.abs(other).max(axis=(0, 2)) > 1e-12).tolist() == [0, 1]

# %% [markdown]
# **Answer.** Key heads of other groups must not matter, and here query head 3 reads key head 0. `np.tile` writes the
# heads 0 1 2 0 1 2; a group that stands together needs 0 0 1 1 2 2, which is `np.repeat` (errata 22). With one key head,
# or with as many as queries, both are the same, so a test with such sizes passes. The check is an invariance: change one
# input, and see *which* outputs move. It also finds what sees its future, and a window of attention that is one too wide.
#
# ## Bug 11
#
# A batch is too large for the memory, so it is cut into micro-batches. The loss of the batch is the mean over them.


# %%
def cross_entropy(logits, target):
    """Mean of −log p[target] over the tokens whose target is not −1."""
    rows = np.flatnonzero(target >= 0)
    return -np.log(softmax(logits)[rows, target[rows]]).mean()


def loss_of_batch(micro_batches):
    """The loss of all micro-batches, a list of (logits, target)."""
    return np.mean([cross_entropy(logits, target) for logits, target in micro_batches])


# %% [markdown]
# **Predict.** Each micro-batch has as many rows as every other, and still there is a bug. Into what must the way in
# which a batch is cut not enter? What has to be in a row for the bug to show?

# %%
rows = rng.normal(size=(64, 10))
target = rng.integers(10, size=64)
target[2:32] = -1  # the first text has two tokens, and thirty rows of padding
rows[np.arange(2), target[:2]] += 8  # which are easy
whole = loss_of_batch([(rows, target)])
for size in (32, 16):
    cut = [(rows[i : i + size], target[i : i + size]) for i in range(0, 64, size)]
    cut = [(part, wanted) for part, wanted in cut if (wanted >= 0).any()]
    print(f"in one piece {whole:.3f}; in pieces of {size} rows {loss_of_batch(cut):.3f}")
    assert abs(loss_of_batch(cut) - whole) > 0.3

# %% [markdown]
# **Answer.** A mean of means is the mean only if all pieces have the same number of *valid* targets. Here two easy tokens
# weigh as much as thirty-two others. The right loss is the sum over all pieces divided by the number of valid targets
# of all pieces; with none it is 0, and not 0/0 (errata 26). The same holds for a perplexity over several texts, and for
# several processes that average their gradients. (A load-balancing loss does not even add up in this way: it is a product
# of two means.) The check is an invariance: cut the batch in two ways.
#
# ## Bug 12
#
# Sampling: keep the most probable tokens until their probabilities add up to $p$, and draw from them.


# %%
def nucleus(logits, p):
    """The probabilities (V,) from which the next token is drawn; 0 for what is cut off."""
    probs = softmax(logits)
    order = np.argsort(-probs, kind="stable")
    inside = np.cumsum(probs[order]) <= p
    kept = np.zeros_like(probs)
    kept[order[inside]] = probs[order[inside]]
    return kept / kept.sum()


# %% [markdown]
# **Predict.** With which $p$ do you know what must come out? How much probability must be kept at least?

# %%
text_logits = np.log(np.array([0.6, 0.25, 0.1, 0.05]))
with np.errstate(invalid="ignore"):  # NumPy would warn of 0 / 0
    for p in (0.9, 0.7, 0.5):
        drawn_from = nucleus(text_logits, p)
        mass = np.exp(text_logits)[drawn_from > 0].sum()
        print(f"p = {p}: {drawn_from.round(2)}, kept {mass:.2f}, wanted at least {p}")
        assert mass < p
    assert np.isnan(nucleus(text_logits, 0.5)).all()


def nucleus_right(logits, p):
    probs = softmax(logits)
    order = np.argsort(-probs, kind="stable")
    inside = np.cumsum(probs[order]) - probs[order] < p  # what came before does not reach p
    kept = np.zeros_like(probs)
    kept[order[inside]] = probs[order[inside]]
    return kept / kept.sum()


assert np.allclose(nucleus_right(text_logits, 0.7), np.array([0.6, 0.25, 0, 0]) / 0.85)
assert np.allclose(nucleus_right(text_logits, 1e-9), [1, 0, 0, 0])  # greedy

# %% [markdown]
# **Answer.** The token that *crosses* $p$ belongs to the set, and is cut off here. So a model that is sure, with a first
# token above $p$, has nothing to draw from; a generator that turns nan into token 0 writes on, and the text is bad
# exactly where the model was sure (errata 34). The router top-p of lesson 11 keeps the expert that crosses for the same
# reason. Two checks find it: the limit of a small $p$, which is greedy, and conservation: at least $p$ is kept.
#
# ## What found what
#
# | bug | errata | gradient check | what found it |
# |---|---|---|---|
# | 1 rows lost in the sum | 12 | passes | conservation, with identity experts |
# | 2 $k = 1$ renormalised | 4 | passes | size of the slope |
# | 3 threshold includes the expert | 1 | passes | conservation, Monte Carlo |
# | 4 threshold held constant | 2 | **fails** | gradient check |
# | 5 sample CV², root | 5 | passes, but at balance | limits |
# | 6 padding set to zero | 7 | passes | invariance to padding |
# | 7 zeros in a ranking | 9 | nothing to check | invariance to a constant |
# | 8 jitter | 10 | nothing to check | purity |
# | 9 layers pooled | 27 | passes | a limit with two layers |
# | 10 key heads tiled | 22 | passes | invariance to other groups |
# | 11 mean of means | 26 | passes | invariance to the cut |
# | 12 the token that crosses | 34 | nothing to check | a limit, conservation |
#
# Read the third column again ("passes" means: with the backward pass that belongs to the wrong function; the solutions
# run it for three of them). Only one bug of twelve is of the kind that a gradient check finds. The others are
# *consistent*: a function that is not the one that was meant, with its own right gradient. That is why models with them
# trained, and why the bugs stayed for so long.
#
# ## Your turn
#
# Write a check yourself. `ignores_padding` is given a loss, `loss(logits, valid) -> a number`, and returns whether padded
# rows have no influence on it: neither by what is in them, nor by how many there are. It is tried on eight losses, some
# of them right and some wrong in different ways. Where your check is wrong, `self_check` shows the loss.


# %%
def ignores_padding(loss):
    """True if loss(logits (N, E), valid (N,) bool) does not depend on the rows where valid is False."""
    # your code here
    return None


def z(logits):
    return logsumexp(logits) ** 2


RIGHT = (
    lambda logits, valid: z(logits[valid]).mean(),
    lambda logits, valid: z(logits[valid]).sum(),
    lambda logits, valid: (softmax(logits[valid]).mean(axis=0) ** 2).sum(),
)
WRONG = (
    z_loss,
    lambda logits, valid: z(logits).mean(),
    lambda logits, valid: z(logits[valid]).sum() / len(logits),
    lambda logits, valid: z(np.where(valid[:, None], logits, -100.0)).sum() / valid.sum(),
    lambda logits, valid: z(logits[valid]).mean() * (1 + 1e-3 * np.abs(logits).max()),
)


def cases(rng):
    return [(loss,) for loss in (*RIGHT, *WRONG)]


self_check(ignores_padding, lambda loss: loss in RIGHT, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** A thirteenth bug, without a hint: Switch's balance loss $E \sum_i f_i P_i$ in a layer with a
#    capacity, where `f = np.bincount(kept_expert, minlength=E) / N` and `kept_expert` are the experts of the tokens
#    that found a place. Find a batch in which half of the tokens want expert 0 and this loss is content. Write the
#    right one.
# 2. **Derive.** DeepSeek-V3 adds a bias to the scores to balance the load (errata 19). Somebody writes
#    `weight = scores_with_bias[choice]`. State an invariance that the right code has and this one has not, and run it
#    on `bias_balanced.route`.
# 3. **Break it.** Put one of bugs 1 to 8 into the router of `tests/support/cosine.py` and run
#    `tests/routing/test_new_router.py`: it holds a new router against all that `tests/routing/test_routers.py` asks.
#    Which test fails? For which bug does none, and why?
#
# Solutions: `lessons/solutions/15_errata.py`.
#
# Next: [16, from nothing](16_from_nothing.ipynb): the whole layer in one file.
