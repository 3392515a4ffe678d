# %% [markdown]
# # 15 · Solutions

# %%
import numpy as np

from moe_np.base import gradcheck
from moe_np.base.numerics import logsumexp, softmax, softmax_backward
from moe_np.coursework import self_check
from moe_np.layers import balance
from moe_np.routing import bias_balanced, contract, top_k
from moe_np.routing.contract import Routing

rng = np.random.default_rng(15)
N, D, E = 64, 5, 4
x = rng.normal(size=(N, D))
w = rng.normal(size=(D, E))


def z(logits):
    return logsumexp(logits) ** 2


def z_loss(logits, valid):
    logits = logits * valid[:, None]
    return (logsumexp(logits) ** 2).mean()


# %% [markdown]
# ## Hints
#
# 1. Two questions, and both must be answered with yes: does the value stay when the padded rows have other numbers in
#    them? Does it stay when there are more padded rows?
# 2. Make logits with some rows that are valid; change the others by large numbers, then append some; compare the values
#    with `np.isclose`. One of the eight is wrong only when a padded row holds the largest number of all.

# %% [markdown]
# ## Your turn
#
# Two questions. Does the value change when the padded rows hold something else, also something extreme? And does it
# change when there are more of them?


# %%
def ignores_padding(loss):
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(6, 3))
    bare = loss(logits, np.ones(6, bool))
    for pads, size in ((1, 1.0), (1, 1e3), (5, 1.0), (5, 1e3)):
        longer = np.concatenate([logits, size * draw.normal(size=(pads, 3))])
        if not np.isclose(loss(longer, np.arange(6 + pads) < 6), bare, rtol=1e-9):
            return False
    return True


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
assert self_check(
    ignores_padding, lambda loss: loss in RIGHT, lambda rng: [(loss,) for loss in (*RIGHT, *WRONG)]
)

# %% [markdown]
# ## 1. The thirteenth bug: f after capacity
#
# With $C = N/E$ an expert cannot keep more than its even share, however many ask. So if half of the tokens want expert
# 0 and the rest are spread, the loss sees (.25, .17, .17, .17): nearly even, and nothing pulls tokens away from expert
# 0, which drops half of those who want it. f has to count what was *asked for*, and it is a constant of the gradient:
# $d\text{logits} = E\,p\,(f - \sum_j f_j p_j) / N$ (errata 6).

# %%
logits = 0.2 * rng.normal(size=(60, E))
logits[np.arange(60), np.repeat([0, 1, 2, 3], [30, 10, 10, 10])] += 3
choice = logits.argmax(axis=1)
kept = choice[contract.within_capacity(choice, E, 15)]


def after_capacity(logits):
    f, p = np.bincount(kept, minlength=E) / len(logits), softmax(logits)
    return E * f @ p.mean(axis=0), E * p * (f - (p @ f)[:, None]) / len(logits)


def before_capacity(logits):
    f, p = np.bincount(logits.argmax(axis=1), minlength=E) / len(logits), softmax(logits)
    return E * f @ p.mean(axis=0), E * p * (f - (p @ f)[:, None]) / len(logits)


asked = contract.demand_of(choice[:, None], E)
no_rows = (np.zeros(0, int), np.zeros(0, int), np.zeros(0))  # the loss looks at logits and demand
right = balance.switch(Routing(*no_rows, logits, softmax(logits), asked))
value, dlogits = before_capacity(logits)
assert np.isclose(value, right.value) and np.allclose(dlogits, right.dlogits)
push = [
    -loss(logits)[1][:30, 0].sum() for loss in (after_capacity, before_capacity)
]  # on the crowd's logit of expert 0
print(f"value: {after_capacity(logits)[0]:.2f} after capacity, {value:.2f} before (1 at balance)")
print(f"push on the crowd's logits of expert 0: {push[0]:.3f} and {push[1]:.3f}")
assert abs(push[0]) < abs(push[1]) / 3 and push[1] < 0

# %% [markdown]
# ## 2. A bias that changes no choice must change nothing
#
# Add the same number to the bias of *all* experts: the order of the scores stays, so the choices stay, and so must
# weights and outputs. With the bias in the weight they do not.

# %%
params = {"w": w, "bias": 0.1 * rng.normal(size=E)}
shifted = {**params, "bias": params["bias"] + 5}
one, two = (bias_balanced.route(p, x, k=2, renormalise=True)[0] for p in (params, shifted))
assert (one.expert == two.expert).all() and np.allclose(one.weight, two.weight)


def biased_weights(params):
    scores = 1 / (1 + np.exp(-x @ params["w"])) + params["bias"]
    chosen = np.take_along_axis(scores, contract.top_k(scores, 2), axis=1)  # wrong
    return chosen / chosen.sum(axis=1, keepdims=True)


gap = np.abs(biased_weights(params) - biased_weights(shifted)).max()
print(
    f"largest change of a weight: right {np.abs(one.weight - two.weight).max():.0e}, with the bias in it {gap:.2f}"
)
assert gap > 0.05

# %% [markdown]
# ## 3. Which sentence catches which bug
#
# `tests/routing/test_routers.py` has the gradient check, conservation, a read-only `x`, two calls that agree, padding
# and causality; `tests/routing/test_invariances.py` order and a constant on all logits;
# `tests/layers/test_sparse_layer.py` the rows of one token; `tests/test_errata.py` says which item is tested where. Bug 2 passes all that is asked of a router: it
# is consistent in every way, and so it is refused at the door instead (`contract.check_renormalise`).
#
# ## The third column, run
#
# Three of the wrong functions with their own backward passes: the gradient check is content with all of them.


# %%
def gate(w, x, k):
    probs = softmax(x @ w)
    choice = contract.top_k(probs, k)
    kept = np.take_along_axis(probs, choice, axis=1)
    return choice, kept / (kept.sum(axis=1, keepdims=True) + 1e-6), kept, probs


def gate_backward(dweight, w, x, k):
    choice, _, kept, probs = gate(w, x, k)
    total = kept.sum(axis=1, keepdims=True) + 1e-6
    dkept = dweight / total - (dweight * kept).sum(axis=1, keepdims=True) / total**2
    dprobs = np.zeros_like(probs)
    np.put_along_axis(dprobs, choice, dkept, axis=1)
    return x.T @ softmax_backward(dprobs, probs)


dweight = rng.normal(size=(N, 2))
bug_2 = gradcheck.gradient_error(
    lambda p: (gate(p["w"], x, 2)[1] * dweight).sum(),
    {"w": w},
    {"w": gate_backward(dweight, w, x, 2)},
    rng,
    step=1e-5,
)

routing, _ = top_k.route({"w": w}, x, k=2, renormalise=True)
rows, dout = rng.normal(size=(2 * N, D)), rng.normal(size=(N, D))


def combine(rows):
    out = np.zeros((N, D))
    out[routing.token] += routing.weight[:, None] * rows
    return out


last = np.zeros(2 * N, bool)
last[1::2] = True  # the second row of each token is the one that stays
drows = last[:, None] * routing.weight[:, None] * dout[routing.token]
bug_1 = gradcheck.gradient_error(
    lambda p: (combine(p["rows"]) * dout).sum(), {"rows": rows}, {"rows": drows}, rng
)

valid = np.arange(N) < 50
masked = (x @ w) * valid[:, None]
dlogits = 2 * logsumexp(masked, keepdims=True) * softmax(masked) / N * valid[:, None]
bug_6 = gradcheck.gradient_error(
    lambda p: z_loss(p["logits"], valid), {"logits": x @ w}, {"logits": dlogits}, rng
)
print("gradient check:", {"bug 1": bug_1["rows"], "bug 2": bug_2["w"], "bug 6": bug_6["logits"]})
assert max(bug_1["rows"], bug_2["w"], bug_6["logits"]) < 1e-6
