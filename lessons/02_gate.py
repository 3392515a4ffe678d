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
# | $s_i$ | `s` | (N, E) | total input of the gate's unit $i$, its *total* for short; in sparse layers it is called the logit |
# | $p_i$ | `p` | (N, E) | the gate's output: how much it believes expert $i$, before it has seen $d$ |
# | $h_i$ | `resp` | (N, E) | responsibility: how much expert $i$ is to be believed after $d$ has been seen |
# | $W_i, b_i$ | `W`, `b` | (E, D, C), (E, C) | parameters of the experts |
# | $U, c$ | `U`, `c` | (D, E), (E,) | parameters of the gate |
#
# The gradient of the total error with respect to any array is written with a `d` in front: `ds` has the shape of
# `s` and holds $\partial\,\text{total} / \partial s$, entry by entry. (The array `d` alone is the wanted output; the paper
# calls it so.) The lesson needs softmax with cross-entropy, Bayes' rule and the chain rule for matrices: sections 1, 3 and
# 4 of [lesson 00b](00b_primer.ipynb).

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base import gradcheck
from moe_np.base.numerics import log_softmax, logsumexp, softmax
from moe_np.coursework import self_check
from moe_np.mixtures import jacobs1991
from moe_np.show import lesson_plots, walk
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)
rng = np.random.default_rng(2)
N, D, E, C = 5, 4, 3, 2  # four different sizes: an axis in the wrong place cannot go unnoticed
x, d = rng.normal(size=(N, D)), rng.normal(size=(N, C))
W, b = 0.5 * rng.normal(size=(E, D, C)), 0.5 * rng.normal(size=(E, C))
U, c = rng.normal(size=(D, E)), rng.normal(size=E)
params = {"W": W, "b": b, "U": U, "c": c}
print({name: value.shape for name, value in params.items()})

# %% [markdown]
# ## 1. Forward, one operation per line
#
# The experts are linear. The gate is a softmax of linear totals. They are joined by the error of Jacobs, Jordan,
# Nowlan and Hinton (1991), equation 3; why this one and no other is lesson 03:
#
# $$\text{loss} = -\log \sum_i p_i \, e^{-\frac12 \lVert d - o_i \rVert^2}$$
#
# Read it as a story. The gate picks expert $i$ with probability $p_i$; the expert answers $o_i$ with Gaussian noise
# of variance 1; `loss` is minus the log density of the answer $d$, up to a constant.
#
# (The paper writes $E$ for this error. Here it is `loss`, since $E$ counts the experts.)
#
# Below it stands, one operation per line. (In `einsum("ni,eio->neo", x, W)` the letters are axes: case n, input i,
# expert e, output o. A letter that is missing on the right is summed over, so this is $x W_i$ for every case and
# every expert.)

# %%
o = np.einsum("ni,eio->neo", x, W) + b  # what each expert answers
residual = d[:, None, :] - o
distance = (residual**2).sum(axis=2)
gauss = np.exp(-distance / 2)

s = x @ U + c  # the gate
top = s.max(axis=1, keepdims=True)
e = np.exp(s - top)
Z = e.sum(axis=1, keepdims=True)
p = e / Z

joint = p * gauss  # both together
likelihood = joint.sum(axis=1)
loss = -np.log(likelihood)
total = loss.sum()
print("loss of each case", loss.round(3), "  total", total.round(3))
reference_loss, cache = jacobs1991.system_forward(params, x, d, kind="linear")
assert np.allclose(loss, reference_loss) and np.allclose(p, cache.p)  # the package says the same

# %% [markdown]
# The package can walk through these lines. `next(steps)` shows one state with its equation and the arrays that are new.
# (It joins some of our lines.) Run the cell after the next several times; `steps.back()` goes back.

# %%
steps = walk.vowels(params, x, d, lr=0.1, kind="linear")
next(steps)

# %%
next(steps)

# %% [markdown]
# ## 2. A judge
#
# A gradient is a promise: nudge one entry by a little, and the total changes by that entry's derivative times the
# nudge. `compare` tests this promise for every entry of an array. It is slow, it is right to six digits or
# more, and it cannot share a mistake with what we derive.
#
# To nudge an array in the middle, one needs the rest of the forward pass from there on. These are the last lines of
# section 1 again, each as a function of what goes into it: `after_joint(joint)` is the total, computed from `joint`.
#
# Three rules are enough for everything that follows:
#
# 1. **Chain.** If $b = f(a)$, then `da = db * f'(a)`.
# 2. **Copy ↔ sum.** Where the forward pass sums over an axis, the backward pass copies along it; where the forward
#    pass copies (broadcasts) along an axis, the backward pass sums over it.
# 3. **Add.** What is used twice gets the sum of two gradients.
#
# Start at the end: `total` is the sum of `loss`, so `dloss` is all ones; then through the logarithm, then through
# the sum over experts.
#
# **Predict.** `likelihood` is a sum over experts. What does a row of `djoint` look like before you print it?


# %%
def after_loss(loss):
    return loss.sum()


def after_likelihood(likelihood):
    return after_loss(-np.log(likelihood))


def after_joint(joint):
    return after_likelihood(joint.sum(axis=1))


# %%
def numeric(total_of, value, step=1e-5):
    """The derivative of total_of(value) with respect to each entry of value: nudge one at a time."""
    out = np.zeros_like(value)
    for at in np.ndindex(value.shape):
        up, down = value.copy(), value.copy()
        up[at] += step
        down[at] -= step
        out[at] = (total_of(up) - total_of(down)) / (2 * step)
    return out


def compare(name, gradient, total_of, value):
    """Hold a gradient against `numeric`, and stop at a mistake."""
    wanted = numeric(total_of, value)
    assert np.shape(gradient) == wanted.shape, f"{name}: wanted the shape {wanted.shape}"
    off = np.abs(gradient - wanted).max()
    assert off < 1e-6 * max(np.abs(wanted).max(), 1), f"{name}: off by {off:.2g}"
    print(f"{name:12} {np.shape(gradient)!s:10} right, largest difference {off:.0e}")


dloss = np.ones(N)  # total = Σ loss
dlikelihood = dloss * -1 / likelihood  # loss = −log(likelihood)
djoint = np.repeat(dlikelihood[:, None], E, axis=1)  # a sum forward is a copy backward
compare("dloss", dloss, after_loss, loss)
compare("dlikelihood", dlikelihood, after_likelihood, likelihood)
compare("djoint", djoint, after_joint, joint)
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
# **Predict.** For case 0 the gate believes experts 0 and 2 about equally. One of them is near the wanted output, the
# other far off. On which of the two does the error pull harder? (The squared error would say: on the one that is far
# off.)


# %%
def after_distance(distance):
    return after_joint(p * np.exp(-distance / 2))


def after_o(o):
    return after_distance(((d[:, None, :] - o) ** 2).sum(axis=2))


dp = djoint * gauss
dgauss = djoint * p
ddistance = dgauss * gauss * -0.5  # gauss = exp(−distance/2) is its own derivative, up to −½
dresidual = ddistance[:, :, None] * 2 * residual  # distance sums over outputs: copy along them
do = -dresidual  # residual = d − o
compare("dp", dp, lambda p: after_joint(p * gauss), p)
compare("dgauss", dgauss, lambda gauss: after_joint(p * gauss), gauss)
compare("ddistance", ddistance, after_distance, distance)
compare("dresidual", dresidual, lambda r: after_distance((r**2).sum(axis=2)), residual)
compare("do", do, after_o, o)

resp = joint / likelihood[:, None]
assert np.allclose(do, -resp[:, :, None] * residual)
print("\ncase 0      p        distance    resp     length of do")
for i in range(E):
    length = np.linalg.norm(do[0, i])
    print(
        f"expert {i}  {p[0, i]:.3f}    {distance[0, i]:7.2f}     {resp[0, i]:.3f}    {length:.3f}"
    )

# %% [markdown]
# Follow the factors that met on the way: $-\frac{1}{\text{likelihood}} \cdot p_i \cdot \text{gauss}_i \cdot
# (-\frac12) \cdot 2$. The first three are a fraction with a name,
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
# Four lines went forward: `top`, `e`, `Z`, `p`. Note two things. `Z` is one number per case and is used by all
# experts: its gradient is a *sum* over them. And `e` is used twice, in the numerator and in `Z`: its gradient has
# two parts.
#
# **Predict.** `top` was subtracted only so that `exp` cannot overflow. What must `dtop` be?


# %%
def after_e(e):
    return after_joint(e / e.sum(axis=1, keepdims=True) * gauss)


def after_s(s):
    return after_e(np.exp(s - s.max(axis=1, keepdims=True)))


dZ = (dp * -e / Z**2).sum(axis=1, keepdims=True)  # Z was copied to all experts: sum
de = dp / Z + dZ  # e in the numerator, and e in Z: a sum forward, a copy backward
dshifted = de * e  # e = exp(s − top)
dtop = -dshifted.sum(axis=1, keepdims=True)
ds = dshifted.copy()
ds[np.arange(N), s.argmax(axis=1)] += dtop[:, 0]  # top = max(s): to the largest of them alone
compare("dZ", dZ, lambda Z: after_joint(e / Z * gauss), Z)
compare("de", de, after_e, e)
compare("dtop", dtop, lambda top: after_e(np.exp(s - top)), top)
compare("ds", ds, after_s, s)
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
def total_of(x, W, b, U, c):
    """The whole forward pass, by the package."""
    loss, _ = jacobs1991.system_forward({"W": W, "b": b, "U": U, "c": c}, x, d, kind="linear")
    return loss.sum()


dU = x.T @ ds
dc = ds.sum(axis=0)  # c was copied to all cases: sum
dW = np.einsum("ni,neo->eio", x, do)
db = do.sum(axis=0)
dx = ds @ U.T + np.einsum("neo,eio->ni", do, W)
compare("dU", dU, lambda U: total_of(x, W, b, U, c), U)
compare("dc", dc, lambda c: total_of(x, W, b, U, c), c)
compare("dW", dW, lambda W: total_of(x, W, b, U, c), W)
compare("db", db, lambda b: total_of(x, W, b, U, c), b)
compare("dx", dx, lambda x: total_of(x, W, b, U, c), x)

dx_package, grads = jacobs1991.system_backward(dloss, cache)
for name, gradient in {"U": dU, "c": dc, "W": dW, "b": db}.items():
    assert np.allclose(gradient, grads[name])
assert np.allclose(dx, dx_package)

# %% [markdown]
# That was all of backpropagation through a mixture of experts: seventeen gradients, each held against the judge.
#
# The same walk with a picture, forward and back. The states that begin with *backward* are sections 3 to 5.

# %%
view(walk.vowels(params, x, d, lr=0.1, kind="linear"), last=10)

# %% [markdown]
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
# Ten lines of code, from `dlikelihood` to `ds`, have become one subtraction. In classification with cross-entropy the
# gradient at the logits is *probabilities minus labels* (lesson 00b). This is the same. So **the gate is a
# classifier**. Nobody labelled the cases with an expert's number; the responsibilities stand in for the labels, and
# they come from how well the experts did.
#
# **Predict.** In the picture, outlined bars are `p` and full bars are `resp`. Descent moves `s` by
# $-\eta\,(p - h)$. Which bars will grow?

# %%
assert np.allclose(ds, p - resp, atol=1e-14)
moved = softmax(s - 2 * (p - resp))  # one step on the totals themselves, with learning rate 2

fig, axes = plt.subplots(1, N, figsize=(12, 2.8), sharey=True)
lesson_plots.belief_and_responsibility(axes, p, resp, moved)
plt.show()

# the picture's claim: a step brings every case's p nearer to its resp
before, after = (-(resp * np.log(q)).sum(axis=1) for q in (p, moved))
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
far_distance = ((far[:, None, :] - o) ** 2).sum(axis=2)
with np.errstate(divide="ignore", invalid="ignore"):  # NumPy would warn, and it would be right
    far_joint = p * np.exp(-far_distance / 2)
    far_loss = -np.log(far_joint.sum(axis=1))
    print("joint and loss of case 0:       ", far_joint[0], far_loss[0])
    print("resp of case 0 by the long form:", far_joint[0] / far_joint[0].sum())

log_joint = log_softmax(s) - far_distance / 2  # log (p · gauss), and no exp on the way
log_likelihood = logsumexp(log_joint, keepdims=True)
print("\nloss of case 0 in log space:    ", -log_likelihood[0, 0].round(1))
print("resp of case 0 in log space:    ", np.exp(log_joint - log_likelihood)[0])
assert np.isfinite(log_likelihood).all() and np.isinf(far_loss[0])

# %% [markdown]
# `exp` underflows to 0, and 0/0 is not a number. One bad row would turn every parameter into nan. In log space the
# comparison between experts is made *before* anything is exponentiated, and it is the only thing that matters.
# `jacobs1991.mixture_forward` does it this way; every softmax and likelihood in this package does.
#
# ## 8. One direction is enough
#
# Nudging every entry of a model with a million parameters takes two million forward passes. `gradcheck` of lesson 00b
# compares one number along one random direction instead. A mistake anywhere in the gradient shows, unless the direction
# happens to be orthogonal to it, which has probability 0.
#
# > **Seen in public code** (errata 16, as in lesson 00b): the loss is a mean over the N cases, its gradient a sum. The
# > step is N times what you think it is, and changes when the batch does. The nearest NumPy reproduction of the 1991
# > paper has it.
#
# **Predict.** N is 5 here. Which number will the check print for the mistake?


# %%
def package_total(q):
    return total_of(x, **q)


right = gradcheck.gradient_error(package_total, params, grads, np.random.default_rng(0))
wrong = gradcheck.gradient_error(
    lambda q: package_total(q) / N, params, grads, np.random.default_rng(0)
)
print("sum and sum: ", {name: f"{error:.0e}" for name, error in right.items()})
print("mean and sum:", {name: round(error, 6) for name, error in wrong.items()})
assert max(right.values()) < 1e-7 and all(np.isclose(e, 1 - 1 / N) for e in wrong.values())

# %% [markdown]
# ## 9. A gradient is there to be used
#
# All of the above in one loop: forward, `p - resp` for the gate, `-resp (d - o)` for the experts, and a small step
# against the gradient, 200 times. Five cases are few; the point is that there is nothing else in the training of a
# mixture.
#
# **Predict.** Three experts and five cases. What will the responsibilities look like at the end?

# %%
now, rate = params, 0.1
for epoch in range(201):
    answers = np.einsum("ni,eio->neo", x, now["W"]) + now["b"]
    log_p = log_softmax(x @ now["U"] + now["c"])
    log_terms = log_p - ((d[:, None, :] - answers) ** 2).sum(axis=2) / 2
    total_now = -logsumexp(log_terms).sum()
    who = np.exp(log_terms - logsumexp(log_terms, keepdims=True))  # the responsibilities
    if epoch in (0, 20, 200):
        print(f"epoch {epoch:3}: total {total_now:.3f}, largest of each row of resp", end=" ")
        print(who.max(axis=1).round(2))
    d_answers = -who[:, :, None] * (d[:, None, :] - answers)
    d_totals = np.exp(log_p) - who  # p − resp
    now = {
        "W": now["W"] - rate * np.einsum("ni,neo->eio", x, d_answers),
        "b": now["b"] - rate * d_answers.sum(axis=0),
        "U": now["U"] - rate * x.T @ d_totals,
        "c": now["c"] - rate * d_totals.sum(axis=0),
    }
assert total_now < 0.2 * total

# %% [markdown]
# Each case ends with one expert that is responsible for it, and the error goes to nearly nothing: five cases are easily
# divided. Lesson 04 trains the same loop on spoken vowels.
#
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
# 1. **Change the code.** Make the experts logistic: in section 1, insert a line `totals = ...` before `o` and let `o` be
#    $1 / (1 + e^{-\text{totals}})$. Which gradients change, and which of the seventeen stay as they are, letter by
#    letter?
# 2. **Derive.** Take the error $\frac12 \lVert d - \sum_i p_i o_i \rVert^2$ instead. Show that
#    $\partial\,\text{loss} / \partial s_i = -p_i\,(d - y)\cdot(o_i - y)$ with $y = \sum_j p_j o_j$, and check it.
#    When does the gate learn nothing?
# 3. **Break it.** A plausible slip: leave the gate's $p_i$ (the *prior* of Bayes' rule) out of `resp`, $h_i = \text{gauss}_i / \sum_j \text{gauss}_j$.
#    Train `U` and `c` alone with $p - h$ by the right and by the wrong `resp`, 3000 steps of 0.1. Does the loss go
#    down with the wrong one? What does that say about "it trains, so the gradient is right"?
#
# Solutions: `lessons/solutions/02_gate.py`.
#
# Next: [03, the two errors that came before this one](03_three_errors.ipynb), and what they do to the experts.
