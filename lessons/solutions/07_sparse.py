# %% [markdown]
# # 07 · Solutions

# %%
from math import erf

import numpy as np

from moe_np.base import numerics
from moe_np.coursework import self_check
from moe_np.routing import noisy_top_k


def Phi(z):
    return np.vectorize(lambda value: 0.5 * (1 + erf(value / 2**0.5)))(z)


# %% [markdown]
# ## Hints
#
# 1. An expert that is in occupies one of the $k$ best places itself. So its $k$-th other stands one place lower
#    among all.
# 2. Sort each row once, the largest first. `np.where(kept, order[:, k : k + 1], order[:, k - 1 : k])` is the
#    threshold, with `kept = noisy >= order[:, k - 1 : k]`.

# %% [markdown]
# ## Your turn
#
# Sort once. Who is in has to beat the $(k+1)$-th of all, who is out the $k$-th.


# %%
def keep_probability(clean, sigma, noisy, k):
    order = np.sort(noisy, axis=1)[:, ::-1]
    kept = noisy >= order[:, k - 1 : k]
    threshold = np.where(kept, order[:, k : k + 1], order[:, k - 1 : k])
    return Phi((clean - threshold) / sigma)


def reference(clean, sigma, noisy, k):
    E = clean.shape[1]
    others = [np.sort(np.delete(noisy, i, axis=1), axis=1)[:, -k] for i in range(E)]
    return Phi((clean - np.stack(others, axis=1)) / sigma)


def cases(rng):
    for N, E, k in ((5, 4, 2), (3, 6, 3), (4, 3, 1)):
        clean, sigma = rng.normal(size=(N, E)), rng.uniform(0.3, 2, size=(N, E))
        yield clean, sigma, clean + sigma * rng.normal(size=(N, E)), k


assert self_check(keep_probability, reference, cases)

# %% [markdown]
# ## 1. All k
#
# The mean sum of a row is $k$, for each $k$. At $k = E$ every expert is always kept, there is nobody to beat, and
# $P$ is 1 for all: `load_forward` says so. Code that takes the $k + 1$ best without looking fails there.

# %%
D, E, draws = 4, 5, 400
params = noisy_top_k.init(np.random.default_rng(3), D, E, scale=1.0)
tokens = np.repeat(np.random.default_rng(1).normal(size=(64, D)), draws, axis=0)
for k in range(2, E + 1):
    _, cache = noisy_top_k.route(params, tokens, k=k, rng=np.random.default_rng(2))
    _, P = noisy_top_k.load_forward(cache)
    print(
        f"k = {k}: a row of P sums to {P.sum(axis=1).mean():.3f} on average, from {P.sum(axis=1).min():.2f}",
        end="",
    )
    print(f" to {P.sum(axis=1).max():.2f}")
    assert abs(P.sum(axis=1).mean() - k) < 0.01
assert (P == 1).all()

# %% [markdown]
# ## 2. Why it is right on average
#
# $P(x, i)$ depends on the noise of the *others* only: its own has been integrated out. Given the others, the chance
# of being kept is $P(x, i)$ by its definition. So its mean over the others' noise is the whole chance of being
# kept. Exactly $k$ experts are kept in every draw; chances of events of which exactly $k$ happen sum to $k$. A
# single row need not: its entries are conditioned on different things, each on the noise of all but itself.
#
# ## 3. Noise from the gate's own matrix
#
# With a scale of its own, a gate can become sure: larger logits, the same noise. With
# $\sigma = \log(1 + e^{x W_g})$ a large logit brings noise just as large. However large the gate grows, its best
# expert stays as uncertain as it was: what was meant as exploration can never be switched off by learning. (Errata
# 10.)

# %%
x = np.random.default_rng(1).normal(size=(2000, D))
w = params["w"]
rng = np.random.default_rng(0)
shares = {}
for scale in (1, 3, 10, 30):
    clean = scale * x @ w
    noise = rng.normal(size=clean.shape)
    best = clean.argmax(axis=1)
    for name, sigma in (("own scale", np.log(2)), ("shared", numerics.softplus(clean))):
        kept = np.argsort(-(clean + noise * sigma), axis=1)[:, :2]
        shares[name, scale] = (kept == best[:, None]).any(axis=1).mean()
    print(
        f"W × {scale:2d}: the best expert is kept in {shares['own scale', scale]:.0%} with σ = log 2,",
        end="",
    )
    print(f" in {shares['shared', scale]:.0%} with the gate's own matrix")
assert shares["own scale", 30] > 0.99 and shares["shared", 30] < 0.9
