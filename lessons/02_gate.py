# %% [markdown]
# # 02 · The gate and its gradient, by hand
#
# Afterwards you can take a mixture of experts apart into lines of one operation each, write the gradient of every
# line, prove each of them right, and say in three words what the gate learns from: **p minus resp**.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $x,\ d$ | `x`, `d` | (N, D), (N, C) | inputs and wanted outputs of N cases |
# | $o_i$ | `o` | (N, E, C) | what expert $i$ answers |
# | $s_i$ | `s` | (N, E) | total input of the gate's unit $i$ |
# | $p_i$ | `p` | (N, E) | the gate's output: how much it believes expert $i$, before it has seen $d$ |
# | $h_i$ | `resp` | (N, E) | responsibility: how much expert $i$ is to be believed after $d$ has been seen |
# | $W_i, b_i$ | `W`, `b` | (E, D, C), (E, C) | parameters of the experts |
# | $U, c$ | `U`, `c` | (D, E), (E,) | parameters of the gate |
#
# The gradient of the total error with respect to any array is written with a `d` in front: `ds` has the shape of
# `s` and holds $\partial\,\text{total} / \partial s$, entry by entry.

# %%
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base import gradcheck
from moe_np.base.numerics import log_softmax, logsumexp, softmax
from moe_np.coursework import self_check
from moe_np.mixtures import jacobs1991
from moe_np.show.steps import Steps, Trail

plt.rcParams.update(plots.STYLE)
rng = np.random.default_rng(2)
N, D, E, C = 5, 4, 3, 2  # four different sizes: an axis in the wrong place cannot go unnoticed
x, d = rng.normal(size=(N, D)), rng.normal(size=(N, C))
params = {
    "W": 0.5 * rng.normal(size=(E, D, C)),
    "b": 0.5 * rng.normal(size=(E, C)),
    "U": rng.normal(size=(D, E)),
    "c": rng.normal(size=E),
}
print({name: value.shape for name, value in params.items()})

# %% [markdown]
# ## 1. Forward, one operation a line
#
# The experts are linear. The gate is a softmax of linear totals. They are joined by the error of Jacobs, Jordan,
# Nowlan and Hinton (1991), equation 3; why this one and no other is lesson 03:
#
# $$\text{loss} = -\log \sum_i p_i \, e^{-\frac12 \lVert d - o_i \rVert^2}$$
#
# Read it as a story. The gate picks expert $i$ with probability $p_i$; the expert answers $o_i$ with Gaussian noise
# of variance 1; `loss` is minus the log probability that the answer is $d$, but for a constant.
#
# (The paper writes $E$ for this error. Here it is `loss`, since $E$ counts the experts.)
#
# Below, each line is a name, its axes, its equation and its rule. `forward` runs the rules from top to bottom. If
# it is handed a name, it takes that value as given and does not compute it. That is all we need to check gradients
# later: nudge one intermediate, and let everything *after* it follow. (`einsum("nd,edc->nec", x, W)` is
# $o_{nec} = \sum_d x_{nd} W_{edc}$: letters that are missing on the right are summed over.)

# %%
LINES = [
    ("o", "N E C", r"o_i = x W_i + b_i", lambda v: np.einsum("nd,edc->nec", v.x, v.W) + v.b),
    ("residual", "N E C", r"d - o_i", lambda v: v.d[:, None, :] - v.o),
    ("distance", "N E", r"\lVert d - o_i \rVert^2", lambda v: (v.residual**2).sum(axis=2)),
    ("gauss", "N E", r"e^{-\frac12 \lVert d - o_i \rVert^2}", lambda v: np.exp(-v.distance / 2)),
    ("s", "N E", r"s = x U + c", lambda v: v.x @ v.U + v.c),
    ("top", "N 1", r"\max_i s_i", lambda v: v.s.max(axis=1, keepdims=True)),
    ("e", "N E", r"e_i = \exp(s_i - \max_j s_j)", lambda v: np.exp(v.s - v.top)),
    ("Z", "N 1", r"Z = \sum_i e_i", lambda v: v.e.sum(axis=1, keepdims=True)),
    ("p", "N E", r"p_i = e_i / Z", lambda v: v.e / v.Z),
    ("joint", "N E", r"p_i\, e^{-\frac12 \lVert d - o_i \rVert^2}", lambda v: v.p * v.gauss),
    (
        "likelihood",
        "N",
        r"\sum_i p_i\, e^{-\frac12 \lVert d - o_i \rVert^2}",
        lambda v: v.joint.sum(axis=1),
    ),
    ("loss", "N", r"\text{loss} = -\log(\text{likelihood})", lambda v: -np.log(v.likelihood)),
    ("total", "", r"\text{total} = \sum_n \text{loss}_n", lambda v: v.loss.sum()),
]


def forward(**given):
    """All lines, top to bottom; what is `given` is not computed."""
    v = SimpleNamespace(**{"x": x, "d": d, **params, **given})
    for name, _, _, rule in LINES:
        if name not in given:
            setattr(v, name, rule(v))
    return v


def walk_forward():
    trail = Trail({name: axes for name, axes, _, _ in LINES})
    for name, _, equation, _ in LINES:
        yield trail.see(f"forward: {name}", equation, {name: getattr(v, name)})


v = forward()
reference, cache = jacobs1991.system_forward(params, x, d, kind="linear")
assert np.allclose(v.loss, reference) and np.allclose(v.p, cache.p)  # the package computes the same
steps = Steps(walk_forward())
next(steps)

# %% [markdown]
# There are thirteen lines, so run the next cell up to twelve times; `steps.back()` goes back. Every intermediate is
# there with its shape. What is new is printed in full.

# %%
next(steps)

# %% [markdown]
# ## 2. A judge
#
# A gradient is a promise: nudge one entry by a little, and the total changes by that entry's derivative times the
# nudge. `numeric` takes the promise at its word, for every entry of an array. It is slow, it is right to six digits
# or more, and it cannot share a mistake with what we derive. `compare` holds our gradient against it and stops at
# the first mistake.
#
# Three rules are enough for everything that follows:
#
# 1. **Chain.** If $b = f(a)$, then `da = db * f'(a)`.
# 2. **Copy ↔ sum.** Where the forward pass sums over an axis, the backward pass copies along it; where the forward
#    pass copies (broadcasts) along an axis, the backward pass sums over it.
# 3. **Add.** What is used twice gets the sum of two gradients.
#
# Start at the end: `total` is the sum of `loss`, so `dloss` is all ones; then through the logarithm, then through
# the sum.
#
# **Predict.** `likelihood` is a sum over experts. What does a row of `djoint` look like before you print it?


# %%
def numeric(name, step=1e-5):
    """The derivative of the total by each entry of `name`: nudge one at a time, let all that follows follow."""
    value = getattr(v, name)
    out = np.zeros_like(value)
    for at in np.ndindex(value.shape):
        up, down = value.copy(), value.copy()
        up[at] += step
        down[at] -= step
        out[at] = (forward(**{name: up}).total - forward(**{name: down}).total) / (2 * step)
    return out


def compare(**gradients):
    """Hold each gradient against `numeric`."""
    for name, g in gradients.items():
        wanted = numeric(name)
        assert np.shape(g) == wanted.shape, (
            f"d{name}: wanted the shape {wanted.shape}, got {np.shape(g)}"
        )
        off = np.abs(g - wanted).max()
        scale = max(np.abs(wanted).max(), 1)
        assert off < 1e-6 * scale, f"d{name}: wrong, the largest difference is {off:.2g}"
        print(f"d{name:<11} {np.shape(g)!s:<10} right, largest difference {off:.0e}")


dloss = np.ones(N)  # total = Σ loss
dlikelihood = dloss * -1 / v.likelihood  # loss = −log(likelihood)
djoint = np.repeat(
    dlikelihood[:, None], E, axis=1
)  # likelihood = Σ_i joint: a sum forward is a copy backward
compare(loss=dloss, likelihood=dlikelihood, joint=djoint)
print("\ndjoint, first two cases\n", djoint[:2].round(3))

# %% [markdown]
# All experts of a case get the same number: the sum cannot tell where its value came from. It is the *next* line,
# the product $p_i \cdot \text{gauss}_i$, that tells the experts apart.
#
# ## 3. Down to the experts
#
# `joint = p * gauss`: each factor's gradient is the other factor. Then back through the exponential, the square and
# the subtraction.
#
# **Predict.** Two experts have the same $p$; one is near the wanted output, the other far off. On which of the two
# does the error pull harder? (Squared error would say: on the one that is far off.)

# %%
dp = djoint * v.gauss
dgauss = djoint * v.p
ddistance = dgauss * v.gauss * -0.5  # gauss = exp(−distance/2) is its own derivative, up to −½
dresidual = ddistance[:, :, None] * 2 * v.residual  # distance sums over C: copy along C
do = -dresidual  # residual = d − o
compare(p=dp, gauss=dgauss, distance=ddistance, residual=dresidual, o=do)

resp = v.joint / v.likelihood[:, None]
assert np.allclose(do, -resp[:, :, None] * v.residual)
case = 0
print(f"\ncase {case}     p        distance    resp     length of do")
for i in range(E):
    length = np.linalg.norm(do[case, i])
    print(
        f"expert {i}  {v.p[case, i]:.3f}    {v.distance[case, i]:7.2f}     {resp[case, i]:.3f}    {length:.3f}"
    )

# %% [markdown]
# Follow the factors that met on the way:
# $-\frac{1}{\text{likelihood}} \cdot p_i \cdot \text{gauss}_i \cdot (-\frac12) \cdot 2$. The first three are a
# fraction with a name,
#
# $$h_i = \frac{p_i\, e^{-\frac12 \lVert d - o_i \rVert^2}}{\sum_j p_j\, e^{-\frac12 \lVert d - o_j \rVert^2}},
# \qquad\text{so}\qquad \frac{\partial\,\text{loss}}{\partial o_i} = -h_i\,(d - o_i).$$
#
# This is Bayes' rule: $p_i$ is the belief before, $h_i$ (`resp`) the belief after the answer is known. An expert
# learns from a case in proportion to its responsibility for it. That is the first half of the chain, collapsed; the
# assert above holds both against each other.
#
# ## 4. Back through the softmax
#
# Four lines went forward: `top`, `e`, `Z`, `p`. Note two things. `Z` is one number a case and is used by all
# experts: its gradient is a *sum* over them. And `e` is used twice, in the numerator and in `Z`: its gradient has
# two parts.
#
# **Predict.** `top` was subtracted only so that `exp` cannot overflow. What must `dtop` be?

# %%
dZ = (dp * -v.e / v.Z**2).sum(axis=1, keepdims=True)  # Z was copied to all experts: sum
de = dp / v.Z  # e in the numerator ...
de = de + dZ  # ... and e in Z, a sum forward: a copy backward
dshifted = de * v.e  # e = exp(s − top)
dtop = -dshifted.sum(axis=1, keepdims=True)
ds = dshifted.copy()
ds[np.arange(N), v.s.argmax(axis=1)] += dtop[:, 0]  # top = max(s): to the largest of them alone
compare(Z=dZ, e=de, top=dtop, s=ds)
print("\nlargest |dtop|:", np.abs(dtop).max(), "\nrows of ds sum to", ds.sum(axis=1).round(15))
assert np.abs(dtop).max() < 1e-14 and np.abs(ds.sum(axis=1)).max() < 1e-14

# %% [markdown]
# `dtop` is rounding and nothing else, and the rows of `ds` sum to 0. It is one fact said twice: adding the same
# number to all totals of a case changes no $p$. A gate only ever *moves* belief from one expert to another.
#
# ## 5. To the parameters
#
# What is left is linear. One rule covers matrices as well: `dU` must have the shape of `U`, (D, E), and there is
# only one way to make that from `x` (N, D) and `ds` (N, E).
#
# **Predict.** `x` was used by the experts and by the gate. How many parts does `dx` have?

# %%
dU = v.x.T @ ds
dc = ds.sum(axis=0)  # c was copied to all cases: sum
dW = np.einsum("nd,nec->edc", v.x, do)
db = do.sum(axis=0)
dx = ds @ v.U.T + np.einsum("nec,edc->nd", do, v.W)
compare(U=dU, c=dc, W=dW, b=db, x=dx)

dx_package, grads = jacobs1991.system_backward(dloss, cache)
for name, g in {"U": dU, "c": dc, "W": dW, "b": db}.items():
    assert np.allclose(g, grads[name])
assert np.allclose(dx, dx_package)

# %% [markdown]
# That was all of back-propagation through a mixture of experts: seventeen gradients, each held against the judge.
#
# ## 6. Collapse
#
# Now with pencil and paper. Put the softmax lines together: `ds` is `e * (dp / Z + dZ)`, `dZ` is
# $-\sum_j dp_j\, e_j / Z^2$, and $e / Z$ is $p$. So
#
# $$\frac{\partial\,\text{loss}}{\partial s_i} = p_i \Bigl( \frac{\partial\,\text{loss}}{\partial p_i}
# - \sum_j p_j \frac{\partial\,\text{loss}}{\partial p_j} \Bigr).$$
#
# From section 3, $\partial\,\text{loss} / \partial p_i = -\text{gauss}_i / \text{likelihood}$. Multiplied by $p_i$
# it is $-h_i$, and the responsibilities of a case sum to 1. So the bracket's first part gives $-h_i$, its second
# gives $+p_i$:
#
# $$\frac{\partial\,\text{loss}}{\partial s_i} = p_i - h_i .$$
#
# Ten lines of code, from `dlikelihood` to `ds`, have become one subtraction. You know its shape: in classification
# with cross-entropy the gradient at the logits is *probabilities minus labels*. So **the gate is a classifier**.
# Nobody labelled the cases with an expert's number; the responsibilities stand in for the labels, and they come
# from how well the experts did.
#
# **Predict.** In the picture, outlined bars are `p` and full bars are `resp`. Descent moves `s` by
# $-\eta\,(p - h)$. Which bars will grow?

# %%
collapsed = v.p - resp
assert np.allclose(ds, collapsed, atol=1e-14)

fig, axes = plt.subplots(1, N, figsize=(12, 2.8), sharey=True)
moved = softmax(v.s - 2 * collapsed)  # one step on the totals themselves
for n, ax in enumerate(axes):
    ax.bar(range(E), resp[n], 0.72, color=plots.COLOURS[:E], alpha=0.35)
    ax.bar(range(E), v.p[n], 0.72, facecolor="none", edgecolor=plots.COLOURS[:E], linewidth=2)
    for i in range(E):
        arrow = {
            "arrowstyle": "-|>",
            "color": plots.BLACK,
            "linewidth": 1.6,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        if abs(moved[n, i] - v.p[n, i]) > 0.02:
            ax.annotate("", (i, moved[n, i]), (i, v.p[n, i]), arrowprops=arrow)
    ax.set(title=f"case {n}", xticks=range(E), xlabel="expert", ylim=(0, 1.05))
axes[0].set_ylabel("p (outline), resp (full)")
plt.show()

# the picture's claim: a step brings every case's p nearer to its resp
before, after = (-(resp * np.log(q)).sum(axis=1) for q in (v.p, moved))
assert (after < before).all()

# %% [markdown]
# The arrows show where `p` is after one step of 2 on the totals. Where outline and full bar agree there is nothing
# to learn, however large the error of the case may be: the gate is not asked to make the error small, only to give
# credit where it is due. In case 2 the gate is wrong and sure of itself; its totals are pushed hard, yet `p` hardly
# moves, since softmax is flat near 0 and 1.
#
# ## 7. Why the short form is also the better one
#
# **Predict.** One wanted output was mistyped: `d[0, 0] = 100`. All Gaussians of case 0 are then about $e^{-5000}$.
# Which line of the long chain breaks first, and what does the short form say?

# %%
far = d.copy()
far[0, 0] = 100.0
with np.errstate(divide="ignore", invalid="ignore"):  # NumPy would warn, and it would be right
    broken = forward(d=far)
    print(
        "gauss, likelihood, loss of case 0:", broken.gauss[0], broken.likelihood[0], broken.loss[0]
    )
    print("resp of case 0 by the long form:  ", broken.joint[0] / broken.likelihood[0])

log_joint = log_softmax(v.s) - broken.distance / 2  # log (p · gauss), and no exp on the way
log_likelihood = logsumexp(log_joint, keepdims=True)
print("\nloss of case 0 in log space:", -log_likelihood[0, 0].round(1))
print("resp of case 0 in log space:", np.exp(log_joint - log_likelihood)[0])
assert np.isfinite(log_likelihood).all() and np.isinf(broken.loss[0])

# %% [markdown]
# `exp` underflows to 0, and 0/0 is not a number. One bad row would turn every parameter into nan. In log space the
# comparison between experts is made *before* anything is exponentiated, and it is the only thing that matters.
# `jacobs1991.mixture_forward` does it this way; every softmax and likelihood in this package does.
#
# ## 8. One direction is enough
#
# Nudging every entry of a model with a million parameters takes two million forward passes. `gradcheck` of lesson 00
# compares one number along one random direction instead. A mistake anywhere in the gradient shows, unless the direction
# happens to be orthogonal to it, which has probability 0.
#
# > **Seen in public code** (errata 16, as in lesson 00): the loss is a mean over the N cases, its gradient a sum. The
# > step is N times what you think it is, and changes when the batch does. The nearest NumPy reproduction of the 1991
# > paper has it.
#
# **Predict.** N is 5 here. Which number will the check print for the mistake?

# %%
right = gradcheck.gradient_error(
    lambda q: forward(**q).total, params, grads, np.random.default_rng(0)
)
print("sum and sum: ", {name: f"{e:.0e}" for name, e in right.items()})
wrong = gradcheck.gradient_error(
    lambda q: forward(**q).total / N, params, grads, np.random.default_rng(0)
)
print("mean and sum:", {name: round(e, 6) for name, e in wrong.items()})
assert max(right.values()) < 1e-7 and all(np.isclose(e, 1 - 1 / N) for e in wrong.values())

# %% [markdown]
# ## Your turn
#
# Write the gate's gradient in its short form, so that it survives the mistyped row of section 7. You are given `s`,
# `o` and `d` and return `ds`. The check tries it on ordinary cases and on far-off ones.


# %%
def gate_gradient(s, o, d):
    """ds (N, E) of Σ_n −log Σ_i p_i exp(−½ ‖d − o_i‖²), p = softmax(s): s (N, E), o (N, E, C), d (N, C)."""
    # your code here
    return None


# %%
def reference(s, o, d):
    _, scores = jacobs1991.mixture_forward(o, softmax(s), d)
    return softmax(s) - scores.resp


def cases(rng):
    for scale in (1, 1, 100):
        yield rng.normal(size=(6, 3)), rng.normal(size=(6, 3, 2)), scale * rng.normal(size=(6, 2))


self_check(gate_gradient, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Make the experts logistic: insert a line `totals` before `o` and let `o` be
#    $1 / (1 + e^{-\text{totals}})$. Which gradients change, and which of the seventeen stay as they are, letter by
#    letter?
# 2. **Derive.** Take the error $\frac12 \lVert d - \sum_i p_i o_i \rVert^2$ instead. Show that
#    $\partial\,\text{loss} / \partial s_i = -p_i\,(d - y)\cdot(o_i - y)$ with $y = \sum_j p_j o_j$, and check it.
#    When does the gate learn nothing?
# 3. **Break it.** A plausible slip: leave the prior out of `resp`, $h_i = \text{gauss}_i / \sum_j \text{gauss}_j$.
#    Train `U` and `c` alone with $p - h$ by the right and by the wrong `resp`, 3000 steps of .1. Does the loss go
#    down with the wrong one? What does that say about "it trains, so the gradient is right"?
#
# Solutions: `lessons/solutions/02_gate.py`.
#
# Next: 03, the two errors that came before this one, and what they do to the experts.
