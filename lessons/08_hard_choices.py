# %% [markdown]
# # 08 · Hard choices: a gradient where there is none
#
# Afterwards you can train a gate that runs a single expert with weight 1, by either of two substitutes for the
# derivative that it does not have; and you can say what each of them really descends.
#
# Lesson 07 kept one thing soft: the weight. Now drop that as well. The gate draws **one** expert and uses its
# answer as it is. The choice is a step: its derivative is 0 wherever there is one. Bengio, Léonard and Courville
# (2013) compare what can stand in for it.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $a$ | `logits` | (N, E) | the gate's totals |
# | $\sigma(a)$ | `probs` | (N, E) | their softmax, written $p$ below |
# | $h$ | `onehot`, `routing.demand` | (N, E) | the choice: 1 for the expert that was drawn, 0 elsewhere |
# | $L_i$ | `L` | (E,) | the loss if expert $i$ is drawn |
# | $L$ | `loss` | (N,) | the loss of each token under its drawn expert |
# | $b$ | `baseline` | | a number that does not depend on the token's own draw |

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base.numerics import softmax, softmax_backward
from moe_np.coursework import self_check
from moe_np.layers import experts, sparse_layer
from moe_np.mixtures import jacobs1991
from moe_np.routing import gradient_estimators
from moe_np.show import walk

plt.rcParams.update(plots.STYLE)
answer = np.array([-1.0, 1.0, 3.0, 4.0])  # what each of four experts says
wanted = 0.5
L = (answer - wanted) ** 2  # what it costs to choose it
unit = {"w": np.eye(4)}  # a router whose x are the logits: then dx is the gradient at the logits
print("loss under each expert:", L)

# %% [markdown]
# ## 1. A staircase
#
# One token, four experts, each with its loss. Expert 1 is the best. Raise the logit of expert 1 from −3 to 3, the
# others stay at 0, and look at three curves: the loss of the most probable expert, the loss of a drawn one, and the
# **expected** loss over draws, $\sum_i p_i L_i$.
#
# **Predict.** Which of the three can one descend?

# %%
rise = np.linspace(-3, 3, 121)
logits = np.zeros((121, 4))
logits[:, 1] = rise
best, _ = gradient_estimators.route(
    unit, logits, estimator="reinforce"
)  # no generator: the most probable
drawn, _ = gradient_estimators.route(
    unit, logits, estimator="reinforce", rng=np.random.default_rng(0)
)
expected = softmax(logits) @ L

fig, ax = plt.subplots(figsize=(8, 4))
ax.plot(rise, L[drawn.expert], ".", color=plots.GREY)
ax.plot(rise, L[best.expert], color=plots.BLUE, linewidth=2.5)
ax.plot(rise, expected, color=plots.ORANGE, linewidth=2.5)
plots.label(ax, 2.3, L[2], "a draw", plots.GREY)
plots.label(ax, -2.2, L[0] + 0.6, "the most probable", plots.BLUE)
plots.label(ax, -2.2, 7.0, "expected", plots.ORANGE)
ax.set(xlabel="logit of expert 1", ylabel="loss")
plt.show()
levels = np.unique(L[best.expert])
print("the staircase has the levels", levels, "and slope 0 on both")
assert len(levels) == 2 and (np.diff(expected) < 0).all()

# %% [markdown]
# Only the expected loss is smooth. With few experts its gradient can be had by trying them all. It is what we want
# to estimate without trying them all:
#
# $$\frac{\partial}{\partial a_i} \sum_j p_j L_j = p_i \,(L_i - \bar L), \qquad \bar L = \sum_j p_j L_j.$$
#
# This is eq. 2 of lesson 03, an expert drawn with probability $p_i$, seen from the gate.
#
# ## 2. REINFORCE
#
# A trick of Williams (1992): $\partial p_i / \partial a = p_i \,\partial \log p_i / \partial a$. So the gradient is
# itself an expectation, and one draw is an unbiased estimate of it:
#
# $$\frac{\partial}{\partial a} \sum_i p_i L_i = \sum_i p_i \, L_i \frac{\partial \log p_i}{\partial a}
# \;\approx\; L \cdot (h - p).$$
#
# It needs the loss of the expert that was drawn and nothing else: no derivative of the loss, no other expert.
#
# **Predict.** All losses are positive. A draw of expert 1, the best one: does descent along $-L\,(h - p)$ make
# expert 1 *more* probable or *less*?

# %%
p = np.full(4, 0.25)
DRAWS = 40_000
truth = p * (L - p @ L)
many = np.tile(np.log(p), (DRAWS, 1))
routing, _ = gradient_estimators.route(
    unit, many, estimator="reinforce", rng=np.random.default_rng(1)
)
loss = L[routing.expert]
samples = gradient_estimators.reinforce(routing, loss)  # (h − p) L, one row a draw

one = np.argmax(routing.expert == 1)
print("a draw of expert 1:    ", samples[one], "  its loss", loss[one])
print("mean of", DRAWS, "draws:", samples.mean(axis=0).round(3))
print("the truth:             ", truth)
print("SD of a single draw:   ", samples.std(axis=0).round(2))
error = samples.std(axis=0) / np.sqrt(DRAWS)
assert (np.abs(samples.mean(axis=0) - truth) < 4 * error).all() and samples[one, 1] > 0

# %% [markdown]
# Its own entry is positive, so descent makes the best expert *less* probable whenever it is drawn. It comes out
# right only because the others, with larger losses, are pushed down harder when it is their turn. Right on average,
# and a very noisy way to say it: the deviation of a single draw is as large as the truth, or several times that.
#
# ## 3. A baseline
#
# Subtract a number from the loss: $(L - b)\,(h - p)$. The mean does not change, since the mean of $h$ is $p$. The
# noise does.
#
# **Predict.** Add 10 to every loss. What happens to the truth, and what to the noise without a baseline?


# %%
def spread(losses, baseline):
    """Total variance of one draw, exactly, by trying all experts."""
    draws = (losses - baseline)[:, None] * (np.eye(4) - p)  # row i: the estimate if i is drawn
    return (p[:, None] * (draws - p @ draws) ** 2).sum()


offsets = np.linspace(-5, 25, 121)
fig, ax = plt.subplots(figsize=(8, 4))
for extra, colour in ((0, plots.BLUE), (10, plots.ORANGE)):
    own = np.array([spread(L + extra, b) for b in offsets])
    found = gradient_estimators.best_baseline(routing, loss + extra)
    ax.plot(offsets, own, color=colour, linewidth=2.5)
    ax.plot(0, spread(L + extra, 0), "o", color=colour, markersize=9)
    ax.plot(found, spread(L + extra, found), "v", color=colour, markersize=10)
    plots.label(ax, offsets[own.argmin()] + 8, own.min() + 75, f"losses + {extra}", colour)
    print(f"losses + {extra:2d}: truth", p * (L + extra - p @ (L + extra)), end="   ")
    print(
        f"variance {spread(L + extra, 0):.1f} with b = 0, {spread(L + extra, found):.1f} with b = {found:.2f}"
    )
    assert abs(offsets[own.argmin()] - found) < 0.3
ax.set(xlabel="baseline b", ylabel="variance of one draw", ylim=(0, 250))
plt.show()
assert spread(L, 0) < spread(L + 10, 0) and np.isclose(spread(L, 5), spread(L + 10, 15))

# %% [markdown]
# (Dots: no baseline; triangles: `best_baseline`, their Corollary 1.) A constant in the loss changes nothing that
# matters and can drown the estimate. A good baseline is near the mean loss: then an expert that did better than
# usual is made more probable, one that did worse less, which is what one would have said without algebra.
#
# A baseline must not see the token's own draw. Use the mean of earlier batches, or of the *other* tokens (exercise
# 3).
#
# ## 4. Straight-through
#
# The other idea is to pretend. Forward, use the hard $h$. Backward, act as if $h$ had been $p$: take the gradient
# that arrives at $h$ and pass it on through the softmax.
#
# $$d h_i = \frac{\partial L}{\partial h_i}, \qquad da = \text{softmax backward of } dh \text{ at } p.$$
#
# Here the answer is $\sum_i h_i\, \text{answer}_i$, and $L$ its squared distance from `wanted`, so
# $dh_i = 2\,(\text{answer of the drawn one} - \text{wanted})\,\text{answer}_i$. (This needs the answers of *all*
# experts: `rows="all"` computes them with weight 0. Section 6 has the other way, `rows="chosen"`.)
#
# First one token, slowly. Expert by expert, `dweight` is what arrives at $h$. (Run the cell again for the next
# state.)


# %%
hit = answer[2]  # say that expert 2 was drawn
options = {"estimator": "straight_through", "rows": "all", "dweight": 2 * (hit - wanted) * answer}
steps = walk.route(
    gradient_estimators, unit, np.log([[0.25] * 4]), rng=np.random.default_rng(0), **options
)
assert steps[3]["demand"][0].tolist() == [False, False, True, False]
steps.until("backward, what arrives")

# %%
next(steps)

# %% [markdown]
# **Predict.** Average this over many draws: is its mean the truth of section 2? Is it more or less noisy than
# REINFORCE?


# %%
def straight_through(logits, rng, rows="all"):
    """One estimate a row of logits (N, 4)."""
    routing, cache = gradient_estimators.route(
        unit, logits, estimator="straight_through", rows=rows, rng=rng
    )
    said = routing.demand @ answer
    dweight = 2 * (said - wanted)[routing.token] * answer[routing.expert]
    return gradient_estimators.route_backward(dweight, None, cache)[0]


passed = straight_through(many, np.random.default_rng(2))
print("mean:        ", passed.mean(axis=0).round(3), "   SD", passed.std(axis=0).round(2))
print("the truth:   ", truth)

o, d = answer[None, :, None], np.array([[wanted]])
gates = {}
for name in ("competitive", "cooperative"):  # eq. 2, eq. 1
    forward, backward = jacobs1991.ERRORS[name]
    _, cache = forward(o, p[None], d)
    gates[name] = softmax_backward(backward(np.ones(1), cache)[1], p[None])[0]
print("\ngradient of eq. 2:", gates["competitive"])
print("gradient of eq. 1:", gates["cooperative"])
assert np.allclose(gates["competitive"], truth)
error = passed.std(axis=0) / np.sqrt(DRAWS)
assert (np.abs(passed.mean(axis=0) - gates["cooperative"]) < 4 * error).all()
assert (np.abs(passed.mean(axis=0) - truth) > 50 * error).any()

# %% [markdown]
# It is biased: its mean is not the gradient of the expected loss. But look what its mean *is*. $dh$ is linear in
# $h$ here, and the mean of $h$ is $p$: so on average the straight-through gradient is the gradient at $h = p$, of
#
# $$\bigl(\text{wanted} - \textstyle\sum_i p_i\, \text{answer}_i\bigr)^2,$$
#
# the error of the **blend**. That is eq. 1 of lesson 03. For a squared error,
#
# > **REINFORCE descends eq. 2, straight-through descends eq. 1.**
#
# One asks for a gate that draws good experts; the other for a gate whose experts are right on average, while the
# layer never averages.
#
# ## 5. Who ends where
#
# **Predict.** Train the gate from $p$ = ¼ each by both. No expert says 0.5, but blends do. Which expert will each
# gate prefer in the end, and what will each loss be?


# %%
def train(estimate, updates=800, batch=32, lr=0.03):
    logits, path, rng = np.zeros(4), [], np.random.default_rng(3)
    for _ in range(updates):
        path.append(softmax(logits))
        logits = logits - lr * estimate(np.tile(logits, (batch, 1)), rng).mean(axis=0)
    return np.array(path)


def reinforced(logits, rng):
    routing, _ = gradient_estimators.route(unit, logits, estimator="reinforce", rng=rng)
    loss = L[routing.expert]
    others = (loss.sum() - loss) / (
        len(loss) - 1
    )  # the mean loss of the other draws: one's own is not in it
    return gradient_estimators.reinforce(routing, loss, others)


fig, axes = plt.subplots(1, 2, figsize=(12, 4), sharey=True)
ends = {}
for ax, name, estimate in zip(
    axes, ("REINFORCE", "straight-through"), (reinforced, straight_through), strict=True
):
    path = train(estimate)
    ends[name] = path[-1]
    for i, at in enumerate((120, 300, 480, 660)):
        ax.plot(path[:, i], color=plots.COLOURS[i], linewidth=2.5)
        if path[at, i] > 0.05:
            plots.label(ax, at, path[at, i], f"says {answer[i]:g}", plots.COLOURS[i])
    ax.set(title=name, xlabel="update", ylim=(-0.05, 1.05))
axes[0].set_ylabel("p")
plt.show()
print(
    "                   expected loss (eq. 2)   error of the blend (eq. 1)   loss of the most probable"
)
for name, q in ends.items():
    print(f"{name:18} {q @ L:12.2f} {(q @ answer - wanted) ** 2:25.2f} {L[q.argmax()]:28.2f}")
assert ends["REINFORCE"].argmax() == L.argmin() and ends["straight-through"].argmax() != L.argmin()
assert (ends["straight-through"] @ answer - wanted) ** 2 < 0.05  # eq. 1 is small,
assert ends["REINFORCE"] @ L < 0.35 < 3 < ends["straight-through"] @ L  # and eq. 2 is not

# %% [markdown]
# Straight-through has done what it was asked: the blend is right. But no blend is ever computed; each draw costs
# more than the best expert would, and the most probable expert at the end is not the best one. REINFORCE has found
# the best one. So "biased" does not mean "a little off": it is the right gradient of another loss. Where that loss
# has the same minimum, straight-through is fine, and fast.
#
# ## 6. Bias against noise
#
# Then why does anyone use it? Average $n$ draws and measure how far the average is from the truth.
#
# **Predict.** On a double logarithmic scale, what do the curves look like as $n$ grows?

# %%
estimates = {
    "REINFORCE, b = 0": samples,
    "REINFORCE, best b": gradient_estimators.reinforce(
        routing, loss, gradient_estimators.best_baseline(routing, loss)
    ),
    "straight-through": passed,
    "the same, chosen rows": straight_through(many, np.random.default_rng(2), rows="chosen"),
}
sizes = 2 ** np.arange(0, 11)
fig, ax = plt.subplots(figsize=(8.5, 4.2))
curves = {}
for (name, own), colour in zip(estimates.items(), plots.COLOURS, strict=False):
    blocks = [own[: DRAWS // n * n].reshape(-1, n, 4).mean(axis=1) for n in sizes]
    curves[name] = np.array([np.sqrt(((b - truth) ** 2).sum(axis=1).mean()) for b in blocks])
    ax.loglog(sizes, curves[name], color=colour, linewidth=2.5)
    ax.annotate(
        name,
        (sizes[-1], curves[name][-1]),
        (6, 0),
        textcoords="offset points",
        color=colour,
        va="center",
    )
bias = np.linalg.norm(gates["cooperative"] - truth)
ax.set(xlabel="draws averaged, n", ylabel="distance from the truth")
plt.show()
plain, better, through, chosen = curves.values()
print("                        one draw   1024 draws")
for name, curve in curves.items():
    print(f"{name:23} {curve[0]:8.2f} {curve[-1]:12.2f}")
print(f"bias of straight-through: {bias:.2f}; length of the truth: {np.linalg.norm(truth):.2f}")
assert np.allclose(
    plain[:-3] / plain[2:-1], 2, rtol=0.25
)  # four times the draws, half the distance
assert abs(through[-1] - bias) < 0.1 * bias and better[0] < plain[0] and better[-1] < bias

# %% [markdown]
# REINFORCE falls like $1/\sqrt{n}$, without end; a baseline lowers the line and not its slope. Straight-through
# runs into its bias and stays there. With chosen rows only the drawn expert is run, as one wanted; the others' part
# of $dh$ then counts as 0, which is another bias (a smaller one here, by luck; it is there even if the loss is
# linear in $h$).
#
# Here straight-through is nearer to the truth than REINFORCE without a baseline for a handful of draws, and never
# nearer than REINFORCE with a good one. How large its bias is depends on the loss: linear in $h$, and with all
# rows, it has neither bias nor noise (exercise 2). And it has a practical side: it needs only the gradient that
# arrives at the layer, not a loss for each token.
#
# ## 7. In a layer
#
# The same in a real sparse layer: six tokens, three linear experts, squared error. Watch which gradient goes where.
# Straight-through uses `dweight`, what arrives at the weights; REINFORCE ignores it and enters as `dlogits`, as a
# balance loss would.
#
# **Predict.** The gate's gradient, averaged over 4,000 runs: which equation does each agree with?

# %%
rng = np.random.default_rng(5)
x, target = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
gate, layer, RUNS = {"w": rng.normal(size=(3, 3))}, experts.LINEAR.init(rng, 3, 3, 2), 4000
tokens, targets = np.tile(x, (RUNS, 1)), np.tile(target, (RUNS, 1))


def gate_gradient(estimator, rng):
    rows = "all" if estimator == "straight_through" else "chosen"
    routing, cache = gradient_estimators.route(
        gate, tokens, estimator=estimator, rows=rows, rng=rng
    )
    out, layer_cache = sparse_layer.forward(layer, tokens, routing, experts.LINEAR)
    loss = ((out - targets) ** 2).sum(axis=1)
    _, _, dweight = sparse_layer.backward(2 * (out - targets), layer_cache)
    dlogits = (
        gradient_estimators.reinforce(routing, loss, loss.mean())
        if estimator == "reinforce"
        else None
    )
    return gradient_estimators.route_backward(dweight, dlogits, cache)[1]["w"] / RUNS


o = np.einsum("nd,edc->nec", x, layer["w"]) + layer["b"]
probs = softmax(x @ gate["w"])
exact = {}
for name in ("cooperative", "competitive"):
    forward, backward = jacobs1991.ERRORS[name]
    exact[name] = x.T @ softmax_backward(
        backward(np.ones(6), forward(o, probs, target)[1])[1], probs
    )
print("relative distance from         eq. 1    eq. 2")
for estimator in gradient_estimators.ESTIMATORS:
    found = gate_gradient(estimator, np.random.default_rng(6))
    away = [np.linalg.norm(found - g) / np.linalg.norm(g) for g in exact.values()]
    print(f"{estimator:26} {away[0]:9.2f} {away[1]:8.2f}")
    assert (
        (away[0] < 0.1 < away[1]) if estimator == "straight_through" else (away[1] < 0.1 < away[0])
    )

# %% [markdown]
# (With thousands of tokens the batch's own mean is a harmless baseline; with two it is not.)
#
# ## Your turn
#
# Write REINFORCE's gradient at the logits for the *total* loss.


# %%
def reinforce(logits, expert, loss, baseline):
    """dlogits (N, E): logits (N, E), the drawn expert (N,) of each token, its loss (N,), baseline a number or (N,)."""
    # your code here
    return None


# %%
def reference(logits, expert, loss, baseline):
    onehot = np.eye(logits.shape[1])[expert]
    return (onehot - softmax(logits)) * np.reshape(loss - baseline, (-1, 1))


def cases(rng):
    for N, E in ((5, 4), (7, 2), (4, 3)):
        baseline = rng.normal() if N == 5 else rng.normal(size=N)
        yield rng.normal(size=(N, E)), rng.integers(E, size=N), rng.normal(size=N) ** 2, baseline


self_check(reinforce, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Two experts that say −1 and 3, wanted 1: both cost 4. Train both estimators from $p$ = ½.
#    Where does each end, for three seeds? Where does REINFORCE get its preference from, although the truth is 0?
# 2. **Derive.** Show that straight-through with all rows is exact, and has no noise at all, if
#    $L = \sum_i h_i L_i$. Which of section 2's and section 4's losses has that form? (Both are "the loss of the
#    drawn expert"!)
# 3. **Break it.** Use the mean loss of the whole batch, the token's own included, as baseline, with a batch of
#    $N = 2$. Show by measurement that the mean gradient is $1 - 1/N$ times the truth. What does a batch of one
#    learn?
#
# Solutions: `lessons/solutions/08_hard_choices.py`.
#
# Next: 09, what a gate does when nobody keeps it from sending everything to one expert.
