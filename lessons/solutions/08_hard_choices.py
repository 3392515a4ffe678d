# %% [markdown]
# # 08 · Solutions

# %%
import numpy as np

from moe_np.base.numerics import softmax
from moe_np.coursework import self_check
from moe_np.routing import gradient_estimators

# %% [markdown]
# ## Hints
#
# 1. $(L - \beta)(z - p)$, one row per token. Start with $-p$.
# 2. Add 1 at `[np.arange(N), expert]`. `loss - baseline` is (N,), also when the baseline is a number; give it a
#    second axis before you multiply.

# %% [markdown]
# ## Your turn


# %%
def reinforce(logits, expert, loss, baseline):
    dlogits = -softmax(logits)  # z − p ...
    dlogits[np.arange(len(expert)), expert] += 1
    return dlogits * (loss - baseline)[:, None]  # ... times how much worse than expected


def reference(logits, expert, loss, baseline):
    onehot = np.eye(logits.shape[1])[expert]
    return (onehot - softmax(logits)) * np.reshape(loss - baseline, (-1, 1))


def cases(rng):
    for N, E in ((5, 4), (7, 2), (4, 3)):
        baseline = rng.normal() if N == 5 else rng.normal(size=N)
        yield rng.normal(size=(N, E)), rng.integers(E, size=N), rng.normal(size=N) ** 2, baseline


assert self_check(reinforce, reference, cases)

# %% [markdown]
# ## 1. Two experts that cost the same
#
# Straight-through goes to ½ and ½ and stays near: the blend is then 1, without error. For REINFORCE the truth is 0
# everywhere. With a good baseline the estimate is exactly 0 as well and nothing moves; without one, it is noise,
# and $p$ walks at random. Near 0 or 1 the noise is small, so that it stays there for long: a preference that nothing
# in the data asks for. Where one seed ends says little, so look at the five.

# %%
answer, wanted, unit = np.array([-1.0, 3.0]), 1.0, {"w": np.eye(2)}
L = (answer - wanted) ** 2


def without_baseline(logits, rng):
    routing, _ = gradient_estimators.route(unit, logits, estimator="reinforce", rng=rng)
    return gradient_estimators.reinforce(routing, L[routing.expert])


def with_baseline(logits, rng):
    routing, _ = gradient_estimators.route(unit, logits, estimator="reinforce", rng=rng)
    loss = L[routing.expert]
    return gradient_estimators.reinforce(routing, loss, (loss.sum() - loss) / (len(loss) - 1))


def straight_through(logits, rng):
    routing, cache = gradient_estimators.route(
        unit, logits, estimator="straight_through", rows="all", rng=rng
    )
    dweight = 2 * (routing.demand @ answer - wanted)[routing.token] * answer[routing.expert]
    return gradient_estimators.route_backward(dweight, None, cache)[0]


def train(estimate, seed, updates=800, batch=4, lr=0.15):
    logits, rng = np.zeros(2), np.random.default_rng(seed)
    for _ in range(updates):
        logits = logits - lr * estimate(np.tile(logits, (batch, 1)), rng).mean(axis=0)
    return softmax(logits)


ends = {}
for estimate in (without_baseline, with_baseline, straight_through):
    ends[estimate] = np.array([train(estimate, seed)[0] for seed in range(5)])
    print(f"{estimate.__name__:18} p of the first expert, five seeds:", np.round(ends[estimate], 2))
assert np.median(np.abs(ends[straight_through] - 0.5)) < 0.25
assert np.abs(ends[with_baseline] - 0.5).max() < 1e-12
assert np.median(np.abs(ends[without_baseline] - 0.5)) > 0.3

# %% [markdown]
# ## 2. When straight-through is exact
#
# If $L = \sum_i z_i L_i$, then $dz_i = L_i$, whatever was drawn: no noise. Through the softmax it becomes
# $p_i (L_i - \sum_j p_j L_j)$, the truth: no bias.
#
# Both losses of the lesson have the same values, at every choice that can be drawn. Written as $\sum_i z_i L_i$ the
# loss is linear in $z$; written as $(\sum_i z_i\, \text{answer}_i - \text{wanted})^2$ it is curved, and has another
# slope at the same points. Straight-through looks at the slope, so it depends on *how the loss is written down*,
# between points that never occur. REINFORCE looks at values only.

# %%
answer, wanted, unit = np.array([-1.0, 1.0, 3.0, 4.0]), 0.5, {"w": np.eye(4)}
L, p = (answer - wanted) ** 2, np.full(4, 0.25)
routing, cache = gradient_estimators.route(
    unit,
    np.tile(np.log(p), (100, 1)),
    estimator="straight_through",
    rows="all",
    rng=np.random.default_rng(0),
)
linear = gradient_estimators.route_backward(L[routing.expert], None, cache)[0]
assert np.allclose(linear, p * (L - p @ L)) and np.ptp(linear, axis=0).max() < 1e-12

# %% [markdown]
# ## 3. A baseline that has seen the draw
#
# Of the mean $\frac1N \sum_m L_m$, the part $L_n / N$ is the token's own: $(L_n - \frac{L_n}{N} - \dots)(z_n - p)$.
# The dots are independent of $z_n$ and drop out of the mean. What is left is $(1 - \frac1N)$ times the truth. A
# batch of one has $L - L = 0$ and learns nothing.

# %%
truth, PAIRS = p * (L - p @ L), 30_000
for N in (1, 2, 4):
    logits = np.tile(np.log(p), (N * PAIRS, 1))
    routing, _ = gradient_estimators.route(
        unit, logits, estimator="reinforce", rng=np.random.default_rng(1)
    )
    loss = L[routing.expert].reshape(PAIRS, N)
    own = np.repeat(loss.mean(axis=1), N)
    mean = gradient_estimators.reinforce(routing, loss.ravel(), own).mean(axis=0)
    ratio = mean @ truth / (truth @ truth)
    print(f"batch of {N}: {ratio:.3f} of the truth; 1 − 1/N = {1 - 1 / N:.3f}")
    assert abs(ratio - (1 - 1 / N)) < 0.03
