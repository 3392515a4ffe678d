# %% [markdown]
# # 08 · Hard choices: a gradient where there is none
#
# Afterwards you can train a gate that runs a single expert with weight 1, by either of two substitutes for the
# derivative that it does not have; and you can say what each of them really descends.
#
# Lesson 07 kept one thing soft: the weight. Now that becomes hard as well. The gate draws **one** expert and uses its
# answer as it is. The choice is a step: its derivative is 0 wherever there is one. Bengio, Léonard and Courville
# (2013) compare what can stand in for it.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $s,\ p$ | `logits`, `probs` | (N, E) | the gate's totals, and their softmax |
# | $z$ | `onehot`, `routing.demand` | (N, E) | the choice: 1 for the expert that was drawn, 0 elsewhere |
# | $L_i$ | `L` | (E,) | the loss if expert $i$ is drawn |
# | $L$ | `loss` | (N,) | the loss of each token under its drawn expert |
# | $\beta$ | `baseline` | | a number that does not depend on the token's own draw |
#
# (The paper writes $a$ for the logits, $h$ for the choice and $b$ for the baseline; here $h$ and $b$ are taken.
# Section 6 of [lesson 00b](00b_primer.ipynb) has the trick behind REINFORCE.)

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
from moe_np.show.steps import Steps, state
from moe_np.show.view import view

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
best, _ = gradient_estimators.route(unit, logits, estimator="reinforce")  # no rng: no draw
drawn, _ = gradient_estimators.route(
    unit, logits, estimator="reinforce", rng=np.random.default_rng(0)
)
expected = softmax(logits) @ L

fig, ax = plt.subplots(figsize=(8, 4))
ax.plot(rise, L[drawn.expert], ".", color=plots.GREY)
ax.plot(rise, L[best.expert], color=plots.BLUE, linewidth=2.5)
ax.plot(rise, expected, color=plots.ORANGE, linewidth=2.5)
plots.label(ax, 2.3, L[3] - 1.0, "dots: a draw", plots.GREY)
plots.label(ax, -2.2, L[0] + 0.6, "the most probable", plots.BLUE)
plots.label(ax, -2.2, 7.0, "expected", plots.ORANGE)
ax.set(xlabel="logit of expert 1", ylabel="loss")
plt.show()
levels = np.unique(L[best.expert])
print("the staircase has the levels", levels, "and slope 0 on both")
assert len(levels) == 2 and (np.diff(expected) < 0).all()

# %% [markdown]
# Only the expected loss is smooth. Its gradient is known, if one runs every expert:
#
# $$\frac{\partial}{\partial s_i} \sum_j p_j L_j = p_i \,(L_i - \bar L), \qquad \bar L = \sum_j p_j L_j.$$
#
# The point of a hard choice is to run *one* expert per token. So what we want is an estimate of this gradient from
# one run. It is also eq. 2 of lesson 03, an expert drawn with probability $p_i$, seen from the gate.
#
# ## 2. REINFORCE
#
# A trick of Williams (1992): $\partial p_i / \partial s = p_i \,\partial \log p_i / \partial s$. So the gradient is
# itself an expectation, and one draw is an unbiased estimate of it:
#
# $$\frac{\partial}{\partial s} \sum_i p_i L_i = \sum_i p_i \, L_i \frac{\partial \log p_i}{\partial s}
# \;\approx\; L \cdot (z - p).$$
#
# It needs the loss of the expert that was drawn and nothing else: no derivative of the loss, no other expert.
#
# **Predict.** All losses are positive. A draw of expert 1, the best one: does descent along $-L\,(z - p)$ make
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
samples = gradient_estimators.reinforce(routing, loss)  # L (z − p), one row per draw

one = np.argmax(routing.expert == 1)
print("a draw of expert 1:    ", samples[one], "  its loss", loss[one])
print("mean of", DRAWS, "draws:", samples.mean(axis=0).round(3))
print("the truth:             ", truth)
print("SD of a single draw:   ", samples.std(axis=0).round(2))
error = samples.std(axis=0) / np.sqrt(DRAWS)
assert (np.abs(samples.mean(axis=0) - truth) < 4 * error).all() and samples[one, 1] > 0

# %% [markdown]
# **Answer.** Less: its own entry is positive, so descent makes the best expert *less* probable whenever it is drawn.
# The mean is right only because the others, with larger losses, are pushed down harder when they are drawn. So the
# estimate is right on average and very noisy: the standard deviation of a single draw is as large as the truth, or
# several times that.
#
# ## 3. A baseline
#
# Subtract a number from the loss: $(L - \beta)\,(z - p)$. The mean does not change, since the mean of $z$ is $p$. The
# noise does.
#
# **Predict.** Add 10 to every loss. What happens to the truth, and what to the noise without a baseline?


# %%
def variance(losses, beta):
    """Total variance of one draw, exactly, by trying all experts."""
    draws = (losses - beta)[:, None] * (np.eye(4) - p)  # row i: the estimate if i is drawn
    return (p[:, None] * (draws - p @ draws) ** 2).sum()


betas = np.linspace(-5, 25, 121)
fig, ax = plt.subplots(figsize=(8, 4))
for extra, colour in ((0, plots.BLUE), (10, plots.ORANGE)):
    curve = np.array([variance(L + extra, beta) for beta in betas])
    beta = gradient_estimators.best_baseline(routing, loss + extra)
    without, with_best = variance(L + extra, 0), variance(L + extra, beta)
    ax.plot(betas, curve, color=colour, linewidth=2.5)
    ax.plot(0, without, "o", color=colour, markersize=9)
    ax.plot(beta, with_best, "v", color=colour, markersize=10)
    plots.label(ax, betas[curve.argmin()] + 8, curve.min() + 75, f"losses + {extra}", colour)
    print(f"losses + {extra:2d}: truth", p * (L + extra - p @ (L + extra)), end="   ")
    print(f"variance {without:.1f} with β = 0, {with_best:.1f} with β = {beta:.2f}")
    assert abs(betas[curve.argmin()] - beta) < 0.3
ax.set(xlabel="baseline β", ylabel="variance of one draw", ylim=(0, 250))
plt.show()
assert variance(L, 0) < variance(L + 10, 0) and np.isclose(variance(L, 5), variance(L + 10, 15))

# %% [markdown]
# (Dots: no baseline; triangles: `best_baseline`, their Corollary 1.) A constant in the loss does not change the
# truth, and can drown the estimate in noise. A good baseline is near the mean loss: then an expert that did better than
# usual is made more probable, and one that did worse less probable.
#
# A baseline must not see the token's own draw. Use the mean of earlier batches, or of the *other* tokens (exercise
# 3).
#
# ## 4. Straight-through
#
# The other idea is a pretence. Forward, use the hard $z$. Backward, act as if $z$ had been $p$: take the gradient
# that arrives at $z$ and pass it on through the softmax.
#
# $$dz_i = \frac{\partial L}{\partial z_i}, \qquad ds = \text{softmax backward of } dz \text{ at } p.$$
#
# Here the answer is $\sum_i z_i\, \text{answer}_i$, and $L$ its squared distance from `wanted`, so
# $dz_i = 2\,(\text{answer of the drawn one} - \text{wanted})\,\text{answer}_i$. (This needs the answers of *all*
# experts: `rows="all"` computes them with weight 0. Section 6 has the other way, `rows="chosen"`.)
#
# First one token, step by step. `dweight` is what arrives at $z$, one number per expert.


# %%
hit = answer[2]  # say that expert 2 was drawn
options = {"estimator": "straight_through", "rows": "all", "dweight": 2 * (hit - wanted) * answer}
steps = walk.route(
    gradient_estimators, unit, np.log([[0.25] * 4]), rng=np.random.default_rng(0), **options
)
assert steps[3]["demand"][0].tolist() == [False, False, True, False]
steps.until("backward, what arrives")

# %%
view(steps)  # forward, back, slider, play; where there are no widgets: next(steps), steps.back()

# %% [markdown]
# **Predict.** Average this over many draws: is its mean the truth of section 2? Is it more or less noisy than
# REINFORCE?


# %%
def straight_through(logits, rng, rows="all"):
    """One estimate per row of logits (N, 4)."""
    drawn, cache = gradient_estimators.route(
        unit, logits, estimator="straight_through", rows=rows, rng=rng
    )
    of_drawn = drawn.demand @ answer
    dweight = 2 * (of_drawn - wanted)[drawn.token] * answer[drawn.expert]
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
# It is biased: its mean is not the gradient of the expected loss. But its mean is something: $dz$ is linear in
# $z$ here, and the mean of $z$ is $p$: so on average the straight-through gradient is the gradient at $z = p$, of
#
# $$\bigl(\text{wanted} - \textstyle\sum_i p_i\, \text{answer}_i\bigr)^2,$$
#
# the error of the **blend**. That is eq. 1 of lesson 03. For a squared error,
#
# > **REINFORCE descends eq. 2, straight-through descends eq. 1.**
#
# The first asks for a gate that draws good experts, the second for a gate whose experts are right on average,
# although the layer never averages.
#
# ## 5. Who ends where
#
# **Predict.** Train the gate from $p$ = ¼ each by both. No expert says 0.5, but blends do. Which expert will each
# gate prefer in the end, and what will each loss be? (The cell takes about three seconds.)


# %%
def train(estimate, updates=800, batch=32, lr=0.03):
    logits, path, rng = np.zeros(4), [], np.random.default_rng(3)
    for _ in range(updates):
        path.append(softmax(logits))
        logits = logits - lr * estimate(np.tile(logits, (batch, 1)), rng).mean(axis=0)
    return np.array(path)


def reinforced(logits, rng):
    """One estimate per row, with the mean loss of the other draws as baseline."""
    drawn, _ = gradient_estimators.route(unit, logits, estimator="reinforce", rng=rng)
    losses = L[drawn.expert]
    others = (losses.sum() - losses) / (len(losses) - 1)  # a draw's own loss is not in it
    return gradient_estimators.reinforce(drawn, losses, others)


paths = {"REINFORCE": train(reinforced), "straight-through": train(straight_through)}

# %%
fig, axes = plt.subplots(1, 2, figsize=(12, 4), sharey=True)
ends = {}
for ax, (name, path) in zip(axes, paths.items(), strict=True):
    ends[name] = path[-1]
    for i, at in enumerate((120, 300, 480, 660)):
        ax.plot(path[:, i], color=plots.COLOURS[i], linewidth=2.5)
        if path[at, i] > 0.05:
            plots.label(ax, at, path[at, i], f"says {answer[i]:g}", plots.COLOURS[i])
    ax.set(title=name, xlabel="update", ylim=(-0.05, 1.05))
axes[0].set_ylabel("p")
plt.show()
print(" " * 19 + "expected loss (eq. 2)   error of the blend (eq. 1)   loss of the most probable")
for name, q in ends.items():
    print(f"{name:18} {q @ L:12.2f} {(q @ answer - wanted) ** 2:25.2f} {L[q.argmax()]:28.2f}")
assert ends["REINFORCE"].argmax() == L.argmin() and ends["straight-through"].argmax() != L.argmin()
assert (ends["straight-through"] @ answer - wanted) ** 2 < 0.05  # eq. 1 is small,
assert ends["REINFORCE"] @ L < 0.35 < 3 < ends["straight-through"] @ L  # and eq. 2 is not

# %% [markdown]
# Straight-through has done what it descends: the blend is right. But no blend is ever computed; each draw costs
# more than the best expert would, and the most probable expert at the end is not the best one. REINFORCE has found
# the best one. So "biased" does not mean "a little wrong": it is the right gradient of another loss. Where that loss
# has the same minimum, straight-through is fine, and fast.
#
# The same two runs, update by update:


# %%
def states():
    """Every 40th update of both runs."""
    before = None
    for update in range(0, 800, 40):
        arrays = {name: path[update] for name, path in paths.items()}
        arrays |= {f"blend, {name}": path[update] @ answer for name, path in paths.items()}
        before = state(f"update {update}", "", arrays, before=before)
        yield before


def draw(ax, now, history):
    for place, name in enumerate(paths):
        at = np.arange(4) + 0.4 * place - 0.2
        ax.bar(at, now[name], 0.38, color=(plots.BLUE, plots.ORANGE)[place], label=name)
    ax.set_xticks(range(4), [f"says {a:g}" for a in answer])
    ax.set(ylabel="p", ylim=(0, 1.05), title=f"{now.phase}   (wanted: {wanted:g})")
    ax.legend(frameon=False)


view(Steps(states(), draw=draw))

# %% [markdown]
# ## 6. Bias against noise
#
# Then why does anyone use it? Average $n$ draws and measure how far the average is from the truth.
#
# **Predict.** On a double logarithmic scale, what do the curves look like as $n$ grows?

# %%
estimates = {
    "REINFORCE, β = 0": samples,
    "REINFORCE, best β": gradient_estimators.reinforce(
        routing, loss, gradient_estimators.best_baseline(routing, loss)
    ),
    "straight-through": passed,
    "the same, chosen rows": straight_through(many, np.random.default_rng(2), rows="chosen"),
}
sizes = 2 ** np.arange(0, 11)
fig, ax = plt.subplots(figsize=(8.5, 4.2))
curves = {}
for (name, rows), colour in zip(estimates.items(), plots.COLOURS, strict=False):
    blocks = [rows[: DRAWS // n * n].reshape(-1, n, 4).mean(axis=1) for n in sizes]
    curves[name] = np.array([np.sqrt(((m - truth) ** 2).sum(axis=1).mean()) for m in blocks])
    ax.loglog(sizes, curves[name], color=colour, linewidth=2.5)
    beside = {"textcoords": "offset points", "color": colour, "va": "center"}
    ax.annotate(name, (sizes[-1], curves[name][-1]), (6, 0), **beside)
bias = np.linalg.norm(gates["cooperative"] - truth)
ax.set(xlabel="draws averaged, n", ylabel="distance from the truth")
plt.show()
without_beta, with_beta, through, _ = curves.values()
print("                        one draw   1024 draws")
for name, curve in curves.items():
    print(f"{name:23} {curve[0]:8.2f} {curve[-1]:12.2f}")
print(f"bias of straight-through: {bias:.2f}; length of the truth: {np.linalg.norm(truth):.2f}")
assert np.allclose(without_beta[:-3] / without_beta[2:-1], 2, rtol=0.25)  # 4 times the draws: half
assert abs(through[-1] - bias) < 0.1 * bias
assert with_beta[0] < without_beta[0] and with_beta[-1] < bias

# %% [markdown]
# REINFORCE falls like $1/\sqrt{n}$, without end; a baseline lowers the line and not its slope. Straight-through runs
# into its bias and stays there. With chosen rows only the drawn expert is run, which was the purpose; the others'
# part of $dz$ then counts as 0, which is another bias (a smaller one here, by chance; it is there even if the loss is
# linear in $z$).
#
# Here straight-through is nearer to the truth than REINFORCE without a baseline for a handful of draws, and never
# nearer than REINFORCE with a good one. How large its bias is depends on the loss: linear in $z$, and with all
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
    """The gate's gradient, by an estimator, averaged over the runs."""
    rows = "all" if estimator == "straight_through" else "chosen"
    drawn, cache = gradient_estimators.route(gate, tokens, estimator=estimator, rows=rows, rng=rng)
    out, layer_cache = sparse_layer.forward(layer, tokens, drawn, experts.LINEAR)
    losses = ((out - targets) ** 2).sum(axis=1)
    _, _, dweight = sparse_layer.backward(2 * (out - targets), layer_cache)
    dlogits = None
    if estimator == "reinforce":
        dlogits = gradient_estimators.reinforce(drawn, losses, losses.mean())
    return gradient_estimators.route_backward(dweight, dlogits, cache)[1]["w"] / RUNS


outputs = np.einsum("nd,edc->nec", x, layer["w"]) + layer["b"]
probs = softmax(x @ gate["w"])
exact = {}
for name in ("cooperative", "competitive"):
    forward, backward = jacobs1991.ERRORS[name]
    _, error_cache = forward(outputs, probs, target)
    _, dprobs = backward(np.ones(6), error_cache)
    exact[name] = x.T @ softmax_backward(dprobs, probs)
print("relative distance from         eq. 1    eq. 2")
for estimator in gradient_estimators.ESTIMATORS:
    estimate = gate_gradient(estimator, np.random.default_rng(6))
    away = [np.linalg.norm(estimate - g) / np.linalg.norm(g) for g in exact.values()]
    print(f"{estimator:26} {away[0]:9.2f} {away[1]:8.2f}")
    near, far = away if estimator == "straight_through" else away[::-1]
    assert near < 0.1 < far

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
# 1. **Change the code.** Two experts that say −1 and 3, wanted 1: both cost 4. Train straight-through, REINFORCE with the
#    baseline of section 5 and REINFORCE without one from $p$ = ½, with three seeds each (with `batch=4, lr=0.15`, so
#    that the noise is large). Where does each end? Where does REINFORCE without a baseline get its preference from,
#    although the truth is 0?
# 2. **Derive.** Show that straight-through with all rows is exact, and has no noise at all, if
#    $L = \sum_i z_i L_i$. Which of section 2's and section 4's losses has that form? (Both are "the loss of the
#    drawn expert"!)
# 3. **Break it.** Use the mean loss of the whole batch, the token's own included, as baseline, with a batch of
#    $N = 2$. Show by measurement that the mean gradient is $1 - 1/N$ times the truth. What does a batch of one
#    learn?
#
# Solutions: `lessons/solutions/08_hard_choices.py`.
#
# Next: [09, balance](09_balance.ipynb): what a gate does when nothing keeps it from sending everything to one expert.
