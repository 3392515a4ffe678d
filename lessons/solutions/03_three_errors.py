# %% [markdown]
# # 03 · Solutions

# %%
import itertools

import numpy as np

from moe_np.base.numerics import logsumexp
from moe_np.coursework import self_check
from moe_np.mixtures import jacobs1991

NAMES = {"cooperative": "eq. 1", "competitive": "eq. 2", "mixture": "eq. 3"}
RATE = {"cooperative": 0.15, "competitive": 0.15, "mixture": 0.3}


def train(error, x, d, start):
    return jacobs1991.train(start, x, d, lr=RATE[error] / len(x), error=error, kind="linear")


# %% [markdown]
# ## Hints
#
# 1. $-h_i\,(d - o_i)$: the responsibilities in logarithms. What is the logarithm of a $p$ that is 0?
# 2. Inside `with np.errstate(divide="ignore")`, `np.log(p)` is −inf there, and `np.exp(-inf)` is 0, which is
#    right. `h[:, :, None] * (d[:, None, :] - o)` has the shape (N, E, C).

# %% [markdown]
# ## Your turn
#
# In log space, so that a far-off case is compared before it underflows. An expert with $p_i = 0$ has log share
# $-\infty$ and responsibility 0; `log 0` is meant, so its warning is silenced.


# %%
def mixture_gradient(o, p, d):
    residual = d[:, None, :] - o
    with np.errstate(divide="ignore"):
        log_share = np.log(p) - 0.5 * (residual**2).sum(axis=2)
    resp = np.exp(log_share - logsumexp(log_share, keepdims=True))
    return -resp[:, :, None] * residual


def reference(o, p, d):
    loss, cache = jacobs1991.mixture_forward(o, p, d)
    with np.errstate(divide="ignore"):
        return jacobs1991.mixture_backward(np.ones_like(loss), cache)[0]


def cases(rng):
    for scale in (1, 1, 60):
        p = rng.dirichlet(np.ones(4), size=5)
        p[0] = [0, 0.5, 0, 0.5]
        yield rng.normal(size=(5, 4, 2)), p, scale * rng.normal(size=(5, 2))


assert self_check(mixture_gradient, reference, cases)

# %% [markdown]
# ## 1. A task on which all three arrive
#
# Eq. 3 is first, eq. 1 a little later, eq. 2 last: it waits for the gate to make up its mind, since until then all
# experts learn the same. In the end all three blends are about equally good, and the experts of eq. 1 are the worst
# alone, because nobody asked them.

# %%
rng = np.random.default_rng(0)
x = np.sort(rng.uniform(-1, 1, (200, 1)), axis=0)
d = 4 * np.abs(x) - 2 + 0.2 * rng.normal(size=x.shape)
start = jacobs1991.init_mixture(np.random.default_rng(1), E=2, D=1)
first, last, at_100 = {}, {}, {}
for error in NAMES:
    for step in itertools.islice(train(error, x, d, start), 1501):
        alone = (
            ((d[:, None, :] - step.cache.o) ** 2)
            .sum(axis=2)[np.arange(len(x)), step.cache.p.argmax(axis=1)]
            .mean()
        )
        if alone < 0.3:
            first.setdefault(error, step.number)
        if step.number == 100:
            at_100[error] = step.squared_error
    last[error] = step.squared_error, alone
    print(
        f"{NAMES[error]}: epoch {first[error]}; blend at 100: {at_100[error]:.2f}; at 1500: {last[error][0]:.3f},",
        end="",
    )
    print(f" the best expert alone {last[error][1]:.3f}")
assert first["mixture"] < first["cooperative"] < first["competitive"]
assert last["cooperative"][1] > 1.3 * max(last["competitive"][1], last["mixture"][1])

# %% [markdown]
# ## 2. A variance
#
# $$\text{loss}_3 = \frac{r^2 + \varepsilon^2}{2\sigma^2} - \log\cosh\frac{\varepsilon r}{\sigma^2}
# \approx \text{const} + \frac{\varepsilon^2}{2\sigma^2}\Bigl(1 - \frac{\operatorname{Var} d}{\sigma^2}\Bigr):$$
#
# they split if and only if $\operatorname{Var} d > \sigma^2$. Targets of ±½ have variance ¼ and split below
# $\sigma = ½$. Dividing `o` and `d` by $\sigma$ is the same thing, so no new code is needed.


# %%
def bottom(a, sigma):
    """|ε| at the lowest point of the landscape of section 4, in the units of the targets."""
    eps = np.linspace(0, 2 * a, 401)
    o = np.stack([eps, -eps], axis=1)[:, :, None] / sigma
    half = np.full((len(eps), 2), 0.5)
    height = sum(
        jacobs1991.mixture_forward(o, half, np.full((len(eps), 1), t / sigma))[0] for t in (-a, a)
    )
    return eps[height.argmin()]


for sigma in (0.6, 0.51, 0.49, 0.4, 0.25):
    print(f"σ = {sigma:g}: targets ±0.5, experts ±{bottom(0.5, sigma):.2f}")
assert bottom(0.5, 0.51) == 0 < bottom(0.5, 0.49)

# %% [markdown]
# ## 3. Equal from the start
#
# Same parameters, same answers; then the responsibilities equal `p`, and with `p` = ½ the two gradients are the
# same number. So they are equal after the step, too, and always: the saddle between the two bottoms is a place where
# the slope is 0. Any difference is enough, since it grows by a factor each epoch; a smaller one waits longer, in
# proportion to its logarithm.

# %%
d = x + np.where(x > 0, 3.0, -3.0)  # the task of section 5, its halves farther apart
parted = {}
for difference in (0.0, 1e-9, 1e-7, 1e-5, 1e-3):
    equal = {k: v.copy() for k, v in start.items()}
    equal["W"][1], equal["b"][1] = equal["W"][0], equal["b"][0] + difference
    for step in itertools.islice(train("mixture", x, d, equal), 4001):
        gap = np.abs(step.cache.o[:, 0] - step.cache.o[:, 1]).mean()
        if gap > 1:
            parted[difference] = step.number
            break
    print(
        f"difference {difference:g}: ",
        f"apart at epoch {parted[difference]}" if gap > 1 else f"never; gap {gap:g}",
    )
assert 0.0 not in parted and parted[1e-9] > parted[1e-7] > parted[1e-5] > parted[1e-3]
