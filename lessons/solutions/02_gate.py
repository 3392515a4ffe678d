# %% [markdown]
# # 02 · Solutions

# %%
import numpy as np

from moe_np.base import gradcheck
from moe_np.base.numerics import log_softmax, logsumexp, sigmoid, sigmoid_backward, softmax
from moe_np.coursework import self_check
from moe_np.mixtures import jacobs1991

rng = np.random.default_rng(2)
N, D, E, C = 5, 4, 3, 2
x, d = rng.normal(size=(N, D)), rng.normal(size=(N, C))
params = {
    "W": 0.5 * rng.normal(size=(E, D, C)),
    "b": 0.5 * rng.normal(size=(E, C)),
    "U": rng.normal(size=(D, E)),
    "c": rng.normal(size=E),
}

# %% [markdown]
# ## Hints
#
# 1. You need `p` and `resp`, and the second one in logarithms, as in section 7.
# 2. `log_softmax(s)` minus half of the squared distances is the logarithm of the joint (N, E). Subtract
#    `logsumexp(..., keepdims=True)` of it before you take `np.exp`.

# %% [markdown]
# ## Your turn
#
# The product $p_i \cdot \text{gauss}_i$ stays a sum of logarithms until the experts of a case have been compared.
# (`log_softmax(s)` may be replaced by `s`: what is subtracted is the same for all experts of a case and falls out
# of `resp`.)


# %%
def gate_gradient(s, o, d):
    distance = ((d[:, None, :] - o) ** 2).sum(axis=2)
    log_joint = log_softmax(s) - distance / 2
    resp = np.exp(log_joint - logsumexp(log_joint, keepdims=True))
    return softmax(s) - resp


def reference(s, o, d):
    _, scores = jacobs1991.mixture_forward(o, softmax(s), d)
    return softmax(s) - scores.resp


def cases(rng):
    for scale in (1, 1, 100):
        yield rng.normal(size=(6, 3)), rng.normal(size=(6, 3, 2)), scale * rng.normal(size=(6, 2))


assert self_check(gate_gradient, reference, cases)


# %% [markdown]
# ## 1. Logistic experts
#
# One line more forward, one line more backward: `dtotals = do * o * (1 - o)`. Everything above `o`, `do` included,
# and all of the gate stays letter by letter. Only `dW`, `db` and the experts' part of `dx` read `dtotals` where
# they read `do`.


# %%
def logistic(params):
    totals = np.einsum("nd,edc->nec", x, params["W"]) + params["b"]
    o = sigmoid(totals)
    s = x @ params["U"] + params["c"]
    log_joint = log_softmax(s) - ((d[:, None, :] - o) ** 2).sum(axis=2) / 2
    return o, s, log_joint


o, s, log_joint = logistic(params)
resp = np.exp(log_joint - logsumexp(log_joint, keepdims=True))
do = -resp[:, :, None] * (d[:, None, :] - o)
dtotals = sigmoid_backward(do, o)
ds = softmax(s) - resp
grads = {
    "W": np.einsum("nd,nec->edc", x, dtotals),
    "b": dtotals.sum(axis=0),
    "U": x.T @ ds,
    "c": ds.sum(axis=0),
}
errors = gradcheck.gradient_error(
    lambda q: -logsumexp(logistic(q)[2]).sum(), params, grads, np.random.default_rng(0)
)
print({name: f"{e:.0e}" for name, e in errors.items()})
assert max(errors.values()) < 1e-7

# %% [markdown]
# ## 2. The squared error of the blend
#
# With $y = \sum_j p_j o_j$: $\partial\,\text{loss}/\partial p_i = -(d - y) \cdot o_i$. Through the softmax,
#
# $$\frac{\partial\,\text{loss}}{\partial s_i} = p_i \Bigl( -(d - y) \cdot o_i + \sum_j p_j\, (d - y) \cdot o_j \Bigr)
# = -p_i\, (d - y) \cdot (o_i - y).$$
#
# The gate raises an expert whose answer lies, seen from the blend $y$, in the direction of what is missing. It
# learns nothing when the blend is right, however wrong every single expert is; and nothing when all experts say the
# same.


# %%
def blend(s, o, d):
    y = np.einsum("ne,nec->nc", softmax(s), o)
    return 0.5 * ((d - y) ** 2).sum(), y


o = rng.normal(size=(N, E, C))
_, y = blend(s, o, d)
ds = -softmax(s) * np.einsum("nc,nec->ne", d - y, o - y[:, None, :])
errors = gradcheck.gradient_error(
    lambda q: blend(q["s"], o, d)[0], {"s": s}, {"s": ds}, np.random.default_rng(0)
)
assert errors["s"] < 1e-7
_, right = blend(s, o, y)  # the wanted output is the blend
assert np.abs(-softmax(s) * np.einsum("nc,nec->ne", y - right, o - right[:, None, :])).max() < 1e-15

# %% [markdown]
# ## 3. A wrong gradient that trains
#
# Without the prior the loss falls, at first even faster, and then stops too high: where $p$ equals the wrong
# `resp`. "It trains" says only that the direction is less than a right angle off. The check sees it at once.

# %%
answers, _ = jacobs1991.experts_forward(params, x, "linear")


def train_gate(right, steps=3000, lr=0.1):
    own, losses = {"U": params["U"], "c": params["c"]}, []
    for _ in range(steps):
        s = x @ own["U"] + own["c"]
        loss, scores = jacobs1991.mixture_forward(answers, softmax(s), d)
        losses.append(loss.mean())
        ds = softmax(s) - (scores.resp if right else softmax(scores.log_gauss))
        own = {"U": own["U"] - lr * x.T @ ds, "c": own["c"] - lr * ds.sum(axis=0)}
    return losses


good, bad = train_gate(True), train_gate(False)
for n in (0, 1, 10, 100, 2999):
    print(f"step {n:4d}   right {good[n]:.4f}   wrong {bad[n]:.4f}")
assert bad[1] < good[1] < good[0] and bad[-1] > good[-1] + 0.05

s = x @ params["U"] + params["c"]
_, scores = jacobs1991.mixture_forward(answers, softmax(s), d)
for name, resp in (("right", scores.resp), ("wrong", softmax(scores.log_gauss))):
    own = {"c": (softmax(s) - resp).sum(axis=0)}
    error = gradcheck.gradient_error(
        lambda q: jacobs1991.mixture_forward(answers, softmax(x @ params["U"] + q["c"]), d)[
            0
        ].sum(),
        {"c": params["c"]},
        own,
        np.random.default_rng(0),
    )["c"]
    print(f"{name}: gradient error {error:.0e}")
    assert (error < 1e-7) == (name == "right")
