# %% [markdown]
# # 15 · Errata: find the bug
#
# Afterwards you can look at gating code that runs, trains and is wrong, and know which question to put to it. Eight
# functions follow. Each is short, looks right, and has a bug that was found in public code. Each is caught by a check
# of a few lines that needs no second implementation.
#
# A check is a sentence that must be true of every right answer, and that one can run. These are all we need:
#
# | check | the sentence |
# |---|---|
# | **gradient** | along a random direction, the slope of the loss is $\sum g \cdot v$ |
# | **limit** | in a case so simple that the answer is known, it is that |
# | **conservation** | what goes in comes out: rows, probability, weight |
# | **invariance** | what must not matter does not: padding, order, a constant on all logits |
# | **purity** | called twice, it says the same, and leaves its input alone |
# | **Monte Carlo** | an expectation is what one gets by drawing very often |
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
# Rows come back from the experts, $k$ a token, and are added up with their weights.


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
# *Identity experts* are the cheapest check there is for anything that moves tokens about: no weights, no reference.
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
# router has no influence, and learns nothing from the task (errata 4). Without the $10^{-6}$ it would be exactly 0, and
# somebody might have noticed. A gradient check asks whether the gradient belongs to the function. It does not ask
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
# $= \phi(z) / \sigma$ and d$\sigma = -\phi(z)\, z / \sigma$, with $\phi$ the normal density.


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
    """(std / mean)², and the gradient by the load."""
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
# (errata 5). And the derivative of a square root is $0/0$ at 0: the loss turns all parameters into nan in the moment in
# which it has reached its goal. Differentiate the variance.
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
    z = balance.z_loss(routing, valid=valid).value
    print(f"{pads:3d} tokens of padding: {z_loss(longer, valid):.3f}   right: {z:.3f}")
assert abs(z_loss(longer, valid) - z) > 0.1
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
# A token that asked with a logit of −3 ranks behind one that did *not* ask, with 0. The places go to nobody, and the
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
# No generator must mean *no noise*, not "any noise"; else a model is another one each time it is used. And `x *=`
# reaches into the caller's array: the experts see the jitter, and so does the residual around the layer (errata 10).
# Every router of this package is tested with a read-only `x`.
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
#
# Read the third column again ("passes" means: with the backward pass that belongs to the wrong function; the solutions
# run it for three of them). Only one bug of eight is of the kind that a gradient check finds. The others are
# *consistent*: a function that is not the one that was meant, with its own right gradient. That is why they trained,
# and why nobody saw them.
#
# ## Your turn
#
# Write a check yourself. `ignores_padding` is given a loss, `loss(logits, valid) -> a number`, and says whether padded
# rows have no influence on it: neither by what is in them, nor by how many there are. It is tried on eight losses, some
# of them right and some wrong in different ways.


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
# 1. **Change the code.** A ninth one, without a hint: Switch's balance loss $E \sum_i f_i P_i$ in a layer with a
#    capacity, where `f = np.bincount(kept_expert, minlength=E) / N` and `kept_expert` are the experts of the tokens
#    that found a place. Find a batch in which half of the tokens want expert 0 and this loss is content. Write the
#    right one.
# 2. **Derive.** DeepSeek-V3 adds a bias to the scores to balance the load (errata 19). Somebody writes
#    `weight = scores_with_bias[choice]`. State an invariance that the right code has and this one has not, and run it
#    on `bias_balanced.route`.
# 3. **Break it.** Put one of the eight bugs into the router of `tests/support/cosine.py` and run
#    `tests/routing/test_new_router.py`: it holds a new router against all that `tests/routing/test_routers.py` asks.
#    Which test fails? For which bug does none, and why?
#
# Solutions: `lessons/solutions/15_errata.py`.
#
# What comes next is yours: a router in a file of its own, and these six questions to put to it.
#
# Next: [16, from nothing](16_from_nothing.ipynb): the whole layer in one file.
