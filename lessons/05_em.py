# %% [markdown]
# # 05 · EM: ask which expert made a case, then fit each expert to its share
#
# Afterwards you can train a mixture without a learning rate: write the E step and the M step, prove that neither can make
# the likelihood worse, and recognise three gate steps and one E step in public code that can.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $x,\ d$ | `x`, `d` | (N, D), (N, C) | inputs and wanted outputs, as before (the papers on EM, and `em.py`, call them `y`) |
# | $X$ | `X` | (N, D + 1) | the inputs and a column of ones: then a line is one product, $X w$ |
# | $g_i(x)$ | `log_gate` | (N, E) | the gate's softmax ($p_i$ in the lessons before), as a logarithm |
# | $P_i$ | `log_density` | (N, E) | density of $d$ under expert $i$, as a logarithm |
# | $h_i$ | `resp` | (N, E) | responsibility: $g_i P_i / \sum_j g_j P_j$, as before |
# | $\sigma^2$ | `var` | number | variance of the experts, one for all; it is learned as well |
# | $\ell$ | `log_likelihood` | number | $\sum_n \log \sum_i g_i P_i$: what is to be made large |
#
# The paper is Jordan and Jacobs (1994); EM itself is older and more general (Dempster, Laird and Rubin 1977). Sections
# with a star can wait for a second reading. The lesson is made for **two sittings**: sections 1 to 6, and 7 to 9.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base.numerics import log_softmax, logsumexp, sigmoid, softmax
from moe_np.coursework import self_check
from moe_np.data import inverse, vowel_task
from moe_np.mixtures import em, irls
from moe_np.mixtures.least_squares import weighted_least_squares
from moe_np.show import walk
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)
x, d = inverse.inverse_problem(300, np.random.default_rng(0))  # the textbook's picture of lesson 01
X = np.hstack([x, np.ones_like(x)])
N, E = len(x), 3
ends = np.array([[0.0], [1.0]])

# %% [markdown]
# ## 1. Two easy questions
#
# Three lines and a gate are to be fitted to the picture with three branches. It is a hard problem, but it is made of
# two easy ones.
#
# * **If we knew who made each case**, we would fit a line to the cases of each expert: three regressions. And the gate
#   would be an ordinary classifier, with the experts' numbers as labels.
# * **If we knew the lines and the gate**, we would know who made each case, as well as it can be known: Bayes.
#
# **Predict.** Suppose that we are told the branch of each case. How many steps does it take to find the three lines?

# %%
branch = np.digitize(d[:, 0], [0.339, 0.661])  # where d + 0.3 sin(2πd) turns back
told = np.stack(
    [np.linalg.lstsq(X[branch == i], d[branch == i], rcond=None)[0] for i in range(E)]
)  # (E, 2, 1)

residual = d - X @ told  # (E, N, 1) all lines on all cases
nearest = np.abs(residual[:, :, 0]).argmin(axis=0)

fig, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
for ax, owner, title in zip(
    axes, (branch, nearest), ("told who, find the lines", "given the lines, who?"), strict=True
):
    for i, colour in enumerate(plots.COLOURS[:E]):
        ax.plot(x[owner == i], d[owner == i], ".", color=colour)
        ax.plot(ends, ends * told[i, 0] + told[i, 1], color=colour, linewidth=2.5)
    ax.set(title=title, xlabel="$x$", ylim=(-0.1, 1.1))
axes[0].set_ylabel("$d$")
plt.show()
share = (nearest == branch).mean()
print(f"each case to the nearest line: the right branch in {share:.0%} of the cases")
assert share > 0.9

# %% [markdown]
# **Answer.** No step at all: it is a linear system of two equations per line, solved at once. And from the lines one
# gets nearly all branches back. Neither is known; but each would give the other. So take *any* guess of one, compute
# the other from it, then the first again, round and round. That is all of EM. What is not obvious is that it helps.
# We come to that.
#
# ## 2. E step: who did it?
#
# `walk.em` goes round, one step at a time. State 0 is the start: the cases are divided at random, and each expert gets a
# line through its part. Which expert ends on which branch, and so the colours, depends on this start. The stepper's title
# shows the log likelihood of all 300 cases; the text divides it by 300.

# %%
family = em.Gaussian("shared")  # experts with one variance for all
steps = walk.em(x, d, E, family=family, rng=np.random.default_rng(8))
next(steps)

# %% [markdown]
# The E step is the formula that you know from lesson 02, with a variance:
#
# $$\log P_i = -\frac{(d - x W_i - b_i)^2}{2\sigma^2} - \tfrac12 \log 2\pi\sigma^2, \qquad
# h_i = \frac{g_i P_i}{\sum_j g_j P_j}.$$
#
# (The term with $\log \sigma^2$ could be left out while $\sigma$ was 1. Now $\sigma$ is learned, and this term is what
# keeps it from growing.)
#
# **Predict.** Let $\sigma = 0.16$, and all $g_i$ alike. Case A is 0.4 away from the nearest line and 0.6 from the two
# others. Case B is 0.02 away from one line, 0.08 from the next, and 0.5 from the third. Which has a clear owner?


# %%
def e_step(q):
    """Of the parameters q: log_gate (N, E), log_density (N, E), resp (N, E), log_likelihood."""
    log_gate = log_softmax(x @ q["U"] + q["c"])
    mean = np.einsum("nd,edc->nec", x, q["W"]) + q["b"]
    distance = ((d[:, None, :] - mean) ** 2).sum(axis=2)
    log_density = -0.5 * distance / q["var"] - 0.5 * np.log(2 * np.pi * q["var"])
    joint = log_gate + log_density
    total = logsumexp(joint, keepdims=True)
    return log_gate, log_density, np.exp(joint - total), float(total.sum())


case_a, case_b = (
    softmax(-0.5 * np.square(far) / 0.16**2) for far in ([0.4, 0.6, 0.6], [0.02, 0.08, 0.5])
)
print("case A", case_a.round(2), "  case B", case_b.round(2))
assert case_a.max() > 0.9 and case_b.max() < 0.6

old = steps[0]
log_gate, log_density, resp, log_likelihood = e_step(old)
found = steps[1]  # the package's E step
assert np.allclose(resp, found["resp"]) and np.isclose(log_likelihood, found["log_likelihood"])
steps.goto(1)

# %% [markdown]
# **Answer.** Case A, although no expert explains it well. Responsibility is a **comparison**: it asks who explains
# the case *best*. (So an outlier belongs to an expert too, and pulls at its line with all its weight.)
#
# ## 3. M step, the experts: one regression per expert
#
# Now $h$ is held fixed. Expert $i$ has to make $\sum_n h_{ni} \log P_{ni}$ large. As a function of its line $w_i$ that is
# $-\sum_n h_{ni} (d_n - X_n w_i)^2 / 2\sigma^2$ and a constant. Set the derivative to zero:
#
# $$\sum_n h_{ni}\, X_n^\top (d_n - X_n w_i) = 0 \quad\Rightarrow\quad
# w_i = (X^\top H_i X)^{-1} X^\top H_i\, d, \qquad H_i = \operatorname{diag}(h_{1i} \ldots h_{Ni}).$$
#
# A least squares fit in which a case counts $h_{ni}$ times. The variance that maximises the same sum is the mean of the
# squared residuals, with the same weights: $\sigma^2 = \frac1N \sum_n \sum_i h_{ni} (d_n - X_n w_i)^2$.
#
# **Predict.** The new lines know nothing of the gate, and each looks at its own cases only. Can the likelihood of the
# whole fall?


# %%
def weighted_lines(resp):
    """The M step of the experts: a line (2, 1) per expert, (E, 2, 1)."""
    return np.stack(
        [np.linalg.solve(X.T @ (h[:, None] * X), X.T @ (h[:, None] * d)) for h in resp.T]
    )


lines = weighted_lines(resp)
var = float((resp.T * (d - X @ lines)[:, :, 0] ** 2).sum() / N)

new = steps[2]  # the package's M step of the experts
assert np.allclose(new["W"], lines[:, :1]) and np.allclose(new["b"], lines[:, 1])
assert np.isclose(new["var"], var)
between = e_step(new)[3]
print(f"log likelihood per case: before {log_likelihood / N:.3f}, after {between / N:.3f}")
assert between > log_likelihood

RGB = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in plots.COLOURS[:E]])
fig, ax = plt.subplots(figsize=(6.5, 4.3))
ax.scatter(x, d, s=18, c=(resp @ RGB).clip(0, 1), linewidths=0)
for q, style in ((old, ":"), (new, "-")):
    for i, colour in enumerate(plots.COLOURS[:E]):
        ax.plot(ends, ends * q["W"][i] + q["b"][i], style, color=colour, linewidth=2.5)
ax.set(xlabel="$x$", ylabel="$d$", ylim=(-0.1, 1.1), title="dotted: before, full: after one M step")
plt.show()

# %% [markdown]
# **Answer.** Here it rose, and section 6 proves that it cannot fall. Each line jumps to where the cases of its colour want
# it, as far as needed and no further. Nobody chose a learning rate.
#
# ## 4. M step, the gate: a classifier with soft labels
#
# The gate's part is $Q = \sum_n \sum_i h_{ni} \log g_i(x_n)$: cross-entropy, with $h$ in place of labels. It has no
# closed solution, but it is concave, and Newton's method finds the one maximum. Take two experts: then the gate is a
# single logistic unit, $g = 1 / (1 + e^{-Xw})$, with the targets $h$ (N,), and
#
# $$\nabla Q = X^\top (h - g), \qquad -\nabla^2 Q = X^\top R X, \quad R = \operatorname{diag}(g(1 - g)), \qquad
# w \leftarrow w + (X^\top R X)^{-1} X^\top (h - g).$$
#
# Hold the last formula beside the M step of the experts: it is a least squares fit with weights $g(1 - g)$, over and
# over. Hence **IRLS**, iteratively reweighted least squares.
#
# **Predict.** How many steps until eight digits are right? How does the number of right digits grow?

# %%
draws = np.random.default_rng(14)
z = draws.normal(size=200)
Z = np.column_stack([z, np.ones(200)])
h = sigmoid(2 * z + 3 * draws.normal(size=200))  # soft labels, as an E step makes them


def Q(w):
    """The gate's part of the M step per case: mean of h log g + (1 − h) log (1 − g)."""
    return float((h * (Z @ w) - np.logaddexp(0, Z @ w)).mean())


def newton(w, inverse_weights=False):
    """The step of Newton's method from w."""
    g = sigmoid(Z @ w)
    R = 1 / (g * (1 - g)) if inverse_weights else g * (1 - g)
    return np.linalg.solve(Z.T @ (R[:, None] * Z), Z.T @ (h - g))


def halved(w):
    """w after a step of Newton's, halved until Q rises."""
    step = newton(w)
    while Q(w + step) < Q(w) and np.abs(step).max() > 1e-12:
        step = step / 2
    return w + step


best = irls.multinomial_irls(z[:, None], np.column_stack([h, 1 - h]))[0][:, 0]  # the package's
best = best + newton(best)  # to the last digit
w = np.zeros(2)
print("step   slope            distance to the best w")
for number in range(1, 6):
    w = halved(w)
    print(f"{number:4}   {w[0]:.12f}   {np.abs(w - best).max():.0e}")
assert np.abs(w - best).max() < 1e-8

# %% [markdown]
# Each step *doubles* the number of right digits. EM does not even need that: one step per round is enough, since the
# next E step changes the labels anyway (exercise 1).
#
# ## 5. Round and round
#
# **Predict.** Go on with the steps of section 3, slowly. Which expert will end on which branch? In which round does the
# likelihood rise most, and how many rounds will it take?

# %%
view(steps)  # forward, back, slider, play; where there are no widgets: next(steps), steps.back()

# %%
rounds = list(walk.em(x, d, E, family=family, rng=np.random.default_rng(8)))  # all states
climb = np.array([s["log_likelihood"] for s in rounds if s.phase == "E step"]) / N
print(f"{len(climb) - 1} rounds, log likelihood per case:", climb.round(3))
assert (np.diff(climb) > -1e-12).all() and climb[-1] > 0.9

# %% [markdown]
# It never falls. And there is no learning rate, no momentum, no schedule.
#
# **What you have to know.** This start (8) was chosen because it is quick. Of the starts 0 to 11, ten end at the same
# 0.925, after 13 to 67 rounds, and two end at 0.573, in a local optimum. EM never goes down, so it cannot leave one.
#
# ## 6. Why it cannot fall
#
# Take any $h$ with positive rows that sum to 1. A logarithm of a mean is at least the mean of the logarithms (Jensen),
# so
#
# $$\ell(\theta) = \sum_n \log \sum_i h_{ni} \frac{g_i P_i}{h_{ni}} \;\ge\;
# \sum_n \sum_i h_{ni} \log \frac{g_i P_i}{h_{ni}} = B(\theta, h),$$
#
# with equality when all the fractions of a case are alike, that is when $h_{ni} \propto g_i P_i$. So
#
# * the **E step** lifts the bound $B$ until it touches $\ell$ at the parameters we have;
# * the **M step** goes to where $B$ is larger. There, $\ell$ is *above* $B$, so it is larger still.
#
# And $B$ is easy where $\ell$ is hard: the logarithm stands inside the sum, so it falls apart into the regressions of
# section 3 and the classifier of section 4.
#
# **Predict.** Walk from the old parameters, $t = 0$, straight to those after the M step, $t = 1$, and on to $t = 2.5$.
# Draw $\ell$ and $B$: where do they touch, and with which slopes? Where is $B$ largest? And $\ell$?

# %%
start = next(s for s in rounds[6:] if s.phase == "E step")  # after two rounds
_, _, touching_resp, touching = e_step(start)
lines_after = weighted_lines(touching_resp)
gate, _ = irls.multinomial_irls(x, touching_resp)  # to the end
goal = {"W": lines_after[:, :1], "b": lines_after[:, 1], "U": gate[:-1], "c": gate[-1]}

t = np.linspace(-0.5, 2.5, 121)
likelihood, bound = np.empty_like(t), np.empty_like(t)
for k, along in enumerate(t):
    q = {name: start[name] + along * (goal[name] - start[name]) for name in goal}
    log_g, log_P, _, likelihood[k] = e_step({**q, "var": start["var"]})
    bound[k] = (touching_resp * (log_g + log_P - np.log(touching_resp))).sum()

fig, ax = plt.subplots(figsize=(7, 4.3))
ax.plot(t, likelihood / N, color=plots.BLACK, linewidth=2.5)
ax.plot(t, bound / N, color=plots.ORANGE, linewidth=2.5)
ax.plot([0, 1], [touching / N, bound[60] / N], "o", color=plots.ORANGE, markersize=9)
plots.label(ax, 2.1, likelihood[104] / N + 0.004, "$\\ell$", size=18)
plots.label(ax, 1.45, bound[104] / N, "the bound $B$", plots.ORANGE, size=15)
ax.set(xlabel="$t$: 0 before the M step, 1 after", ylabel="nats per case", xlim=(-0.5, 2.5))
plt.show()
print(f"B is largest at t = {t[bound.argmax()]:.2f}, ", end="")
print(f"the likelihood at t = {t[likelihood.argmax()]:.2f}")
assert (likelihood >= bound - 1e-9).all()
assert np.isclose(bound[20], touching) and np.isclose(likelihood[20], touching)
assert abs(t[bound.argmax()] - 1) < 0.03 and t[likelihood.argmax()] > 1
slopes = np.gradient(likelihood, t)[20], np.gradient(bound, t)[20]
assert abs(slopes[0] / slopes[1] - 1) < 0.05  # they touch: the same slope

# %% [markdown]
# They touch with the same slope. (So the E step gives the gradient of $\ell$ without further work; that is lesson
# 02's $p - h$.) The M step goes to the top of the orange curve, and the black one is above it everywhere. The picture
# also shows what EM does not take: the likelihood would be larger still a little further on. EM is safe rather than
# greedy. (The unit is the **nat**, that of the natural logarithm: one nat more means a likelihood larger by the
# factor e.)
#
# ## Your turn, in the middle
#
# Write the M step of Gaussian experts: a line and a variance for **each** expert. There may be several outputs; the
# variance is the mean over cases *and* outputs, with the weights. Some entries of `resp` are 0.


# %%
def m_step(x, d, resp):
    """(W (E, D, C), b (E, C), var (E,)) from x (N, D), d (N, C), resp (N, E)."""
    # your code here
    return None


# %%
def reference(x, d, resp):
    coef = weighted_least_squares(x, d, resp)
    W, b = coef[:, :-1], coef[:, -1]
    square = (d[:, None] - np.einsum("nd,edc->nec", x, W) - b) ** 2
    return W, b, np.average(square.mean(axis=2), axis=0, weights=resp)


def cases(rng):
    for D, C, experts in ((1, 1, 3), (2, 3, 2), (3, 1, 4)):
        weights = rng.dirichlet(np.ones(experts), size=40)
        weights[:5] = np.eye(experts)[0]
        yield rng.normal(size=(40, D)), rng.normal(size=(40, C)), weights


self_check(m_step, reference, cases)

# %% [markdown]
# **This is a good place for a pause.** You have EM: both steps, and the reason why they cannot fail. The second
# sitting has three ways to get the gate step wrong, a race against gradient descent, and experts that classify.
#
# ## 7. Three gate steps that fail *
#
# > **Seen in public code** (errata 14). *(a)* Newton's step as it comes, without looking whether $Q$ rises. *(b)* IRLS
# > with the **inverse** of $g(1 - g)$ as weights, stopped when $w$ moves by less than 0.002. *(c)* No IRLS: a single
# > least squares fit of $\log h_1 - \log h_2$, "since that is what the gate's total should be".
#
# All three give plausible numbers on a good day.
#
# **Predict.** The best slope is about 1.24. We start from slope 0, and then from slope 6, a gate that is too sure of
# itself. What becomes of each of the three? (For (a): how large is $g(1 - g)$ where the gate is sure, and what is
# divided by it?)

# %%
fit = np.linalg.lstsq(Z, np.log(h / (1 - h)), rcond=None)[0]  # (c)
ended = {}
print("start   right, 6 steps   (a) 3 steps unhalved   (b) inverse weights      (c) log ratio")
for slope in (0.0, 6.0):
    right, raw, crawl, count = np.array([slope, 0]), np.array([slope, 0]), np.array([slope, 0]), 0
    for _ in range(6):
        right = halved(right)
    for _ in range(3):
        raw = raw + newton(raw)
    moved = np.inf
    while moved > 0.002:
        step = newton(crawl, inverse_weights=True)
        crawl, moved, count = crawl + step, np.abs(step).sum(), count + 1
    ended[slope] = right, raw, crawl, count
    print(f"{slope:5}   {right[0]:14.3f}   {raw[0]:20.4g}   ", end="")
    print(f"{crawl[0]:5.3f} after {count} steps   {fit[0]:12.3f}")
print(f"\nQ: best {Q(best):.4f}, (b) from 6 {Q(crawl):.4f}, (c) {Q(fit):.4f}; ", end="")
print(f"slope 0 has {Q(np.zeros(2)):.4f}")

assert all(np.abs(right - best).max() < 1e-4 for right, *_ in ended.values())
assert abs(ended[0.0][1][0] - best[0]) < 1e-3  # (a) works on a good day,
assert abs(ended[6.0][1][0]) > 1e6  # and not on another
assert all(abs(crawl[0] - best[0]) > 0.05 for _, _, crawl, _ in ended.values())
assert ended[0.0][3] > 50 and ended[6.0][3] == 1  # (b) crawls, or does not set out
assert Q(ended[6.0][2]) < Q(np.zeros(2)) and Q(fit) < Q(best) - 0.02

# %% [markdown]
# *(a)* is Newton's method, and perfect near the maximum. Where the gate is sure, $g(1 - g)$ is nearly 0, the step is
# the quotient of two small numbers, and it is far too long. Halving costs one evaluation of $Q$ and cures it. *(b)* goes
# uphill, so it passes for training: a hundred steps in place of five, and it stops short, since a small step is no
# sign of a maximum. From the sure gate it does not even set out: its first step is below 0.002, and it reports that
# it has converged, where $Q$ is worse than with no gate at all. *(c)* solves another problem. A case with $h =
# 0.999$ and one with $h = 0.999999$ hardly differ for cross-entropy; their log ratios differ by 7. Jordan and Jacobs
# (1994) have (c) as "Algorithm 2", a short cut; lesson 06 shows its price.
#
# ## 8. A race *
#
# The same start, $\sigma = 0.1$ held for all. EM against plain gradient ascent, with four learning rates, 1500 steps
# each. The cell takes about ten seconds; it prints a line as soon as a run is done.
#
# **Predict.** How many steps does the best gradient need for what EM does in 20 rounds?

# %%
held = em.Gaussian("fixed", variance=0.01)
states = [*walk.em(x, d, E, family=held, rng=np.random.default_rng(8))]
by_em = np.array([s["log_likelihood"] for s in states if s.phase == "E step"]) / N
print(f"EM: {by_em[-1]:.3f} after {len(by_em) - 1} rounds")

by_gradient = {}
for lr in (0.003, 0.01, 0.03, 0.1):
    q, path = {name: states[0][name] for name in ("W", "b", "U", "c", "var")}, []
    for _ in range(1500):
        value, grads = em.gradient(q, x, d, family=held)  # of the log likelihood
        path.append(value / N)
        if path[-1] < -5:
            break  # it has become worse than any start
        q = {name: q[name] + (lr / N * grads[name] if name != "var" else 0) for name in q}
    by_gradient[lr] = path
    print(f"gradient, learning rate {lr:g}: {path[-1]:.3f} after {len(path) - 1} steps")

fig, ax = plt.subplots(figsize=(7, 4.3))
ax.plot(by_em, "o-", color=plots.BLACK, linewidth=2, markersize=5, label="EM")
for (lr, path), colour in zip(by_gradient.items(), plots.COLOURS, strict=False):
    ax.plot(path, color=colour, linewidth=2, label=f"gradient, rate {lr:g}")
ax.set(xscale="symlog", xlim=(0, 1500), ylim=(0.1, 0.65))
ax.set(xlabel="rounds, or steps", ylabel="log likelihood per case")
ax.legend(frameon=False, fontsize=10, loc="lower right")
plt.show()
assert max(path[-1] for path in by_gradient.values()) < by_em[-1] - 0.02
assert by_gradient[0.1][-1] < -5

# %% [markdown]
# **Answer.** More than 1500: none of the four arrives. (The best one, 0.03, is at 0.599 after 20,000 steps and still
# rising.) A rate three times as large is about three times as fast; the next one fails completely, and one finds out by
# trying.
# EM needs none. Do not conclude that gradients are slow: a better optimiser than this one, with
# momentum and its own scale for each parameter, closes much of the gap, and a round of EM costs more than a step
# (lesson 13 counts both). And EM has a price: it needs an M step that one can solve. For experts that are deep
# nets there is none.
#
# ## 9. When $d$ is a label
#
# Nothing changes but $P_i$. Let expert $i$ be a classifier: $P_i$ is *the probability that it gives to the class that
# $d$ names*, and its M step is a weighted IRLS like the gate's.
#
# > **Seen in public code** (errata 15): $P_i = 1$ if the label **equals the number of the expert**, else 0. With as
# > many experts as classes it runs without complaint.
#
# The task is lesson 04's: two formants, label 1 for [i] and [ʌ], 0 for [ɪ] and [ɑ]. Two experts, two classes.
#
# **Predict.** In lesson 04 gradient descent spent hundreds of epochs on a plateau. How many rounds will EM need? What
# will the wrong one learn, and how many percent can it get?

# %%
vowels = vowel_task()
formants, label = vowels.x_train, vowels.d_train[:, 0].astype(int)
accuracies = []
for seed in range(4):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        options = {"rng": np.random.default_rng(seed), "restarts": 1, "max_iter": 100}
        run = em.fit(formants, label, 2, family=em.Categorical(2), **options)
    accuracies.append(100 * (run.predict(formants) == label).mean())
    print(f"start {seed}: {len(run.history) - 1:3} rounds, {accuracies[-1]:.1f} % right")

# the wrong responsibilities: g_i [label = i], divided by its sum, from which g drops out
wrong_resp = (label[:, None] == np.arange(2)).astype(float)
wrong_gate, _ = irls.multinomial_irls(formants, wrong_resp)
wrong = 100 * ((formants @ wrong_gate[:-1] + wrong_gate[-1]).argmax(axis=1) == label).mean()
print(f"label = number of the expert: {wrong:.1f} % right")
assert min(accuracies) > 90 and wrong < 65

# %% [markdown]
# **Answer.** No plateau: every start arrives within a few dozen rounds, since an M step goes all the way at once. In the wrong one
# the responsibilities *are* the labels, from the first E step to the last. Expert 0 says 0 to everything, expert 1 says
# 1; all that is left to learn is the gate, one straight line, and that is lesson 04's hopeless single expert. It would
# still print a likelihood that rises.

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** `walk.em(..., irls_steps=1)` is what you have seen: one step of Newton's method for the gate in
#    each M step. Compare the number of rounds with `irls_steps=25`, from eight starts. What does section 6 say about an M
#    step that only goes *some* way up?
# 2. **Derive.** Show that the M step moves an expert's line by $w_\text{new} - w_\text{old} = \sigma^2 (X^\top H_i
#    X)^{-1}\, \partial \ell / \partial w_i$. So EM *is* gradient ascent, with a step that is a matrix. Check it with
#    `em.gradient`. What plays the part of the learning rate, and who chose it?
# 3. **Break it.** The likelihood of a mixture has no maximum if each expert has a variance of its own. Fit ten experts
#    to 30 of the cases with `em.Gaussian("expert", floor=1e-12)`. What do the smallest variances do, and on how many
#    cases do these experts sit? What does the default floor do about it?
#
# Solutions: `lessons/solutions/05_em.py`.
#
# Next: [06, hierarchies](06_hierarchies.ipynb): a gate whose experts are mixtures, and the same two steps on every level.
