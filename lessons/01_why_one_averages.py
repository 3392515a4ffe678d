# %% [markdown]
# # 01 · Why one expert averages
#
# Afterwards you can say what *any* model trained with the squared error comes to answer, see from its residuals when
# that is the wrong thing to ask for, and say what to ask for instead.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $x$ | `x` | (N, 1) | input: one number per case |
# | $d$ | `d` | (N, 1) | wanted output: one number per case |
# | $y$ | `y` | (N, 1) | what a model answers |
# | $m(x)$ | – | (N, 1) | the mean of all wanted outputs that belong to this $x$ |
# | $o_i$ | `o` | (N, E) | what expert $i$ answers, from section 6 on |
# | $p_i$ | `p` | (N, E) | how much the gate believes in expert $i$ at this $x$: its weight in the mixture |
# | $\sigma$ | `sigma` | number | how far from its answer an expert expects $d$ to be |

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base import optim
from moe_np.base.numerics import logsumexp
from moe_np.coursework import self_check
from moe_np.data import inverse
from moe_np.mixtures import jacobs1991
from moe_np.show import lesson_plots
from moe_np.show.steps import Steps, state
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)

# %% [markdown]
# ## 1. Two right answers
#
# An arm with two links, each of length 1, lies on a table. Its shoulder is at (0, 0), and the hand is to reach
# (1.2, 0). There are two ways to do it: elbow to the left, or elbow to the right.
#
# **Predict.** Take the mean of the two postures, angle by angle. Where does the hand go?


# %%
def arm(shoulder, elbow):
    """Shoulder, elbow and hand as points (3, 2), from the shoulder's angle and the bend of the elbow."""
    ends = np.cumsum([[np.cos(a), np.sin(a)] for a in (shoulder, shoulder + elbow)], axis=0)
    return np.vstack([[0, 0], ends])


target = 1.2
bend = 2 * np.arccos(target / 2)  # 0 is a straight arm
left, right = (bend / 2, -bend), (-bend / 2, bend)
between = np.mean([left, right], axis=0)

fig, ax = plt.subplots(figsize=(7, 3.2))
lesson_plots.arm_postures(ax, [arm(*left), arm(*right), arm(*between)], target)
plt.show()
print("hands:", *(arm(*posture)[2].round(2) + 0.0 for posture in (left, right, between)))
assert np.allclose([arm(*left)[2], arm(*right)[2]], [target, 0])
assert np.allclose(arm(*between)[2], [2, 0])

# %% [markdown]
# Two right answers, and their mean is wrong. It misses by 0.8, and practice would not help: an arm
# that has reached the target a million times has the same mean.
#
# ## 2. A net learns to reach
#
# Let the arm move at random, and write down how far away the hand was ($x$) and how the elbow was bent ($d$). Then ask
# a net for $d$ at a given $x$.
#
# This net cannot get stuck in a bad solution: the weights of its hidden units are drawn at random and
# stay; the output layer is then a linear regression, and `lstsq` finds the best there is.
#
# **Predict.** The data are two curved bands, one above 0 and one below. Draw what the net will answer.


# %%
def arm_data(n, rng, noise=0.1):
    x = rng.uniform(0.5, 1.9, (n, 1))
    side = rng.choice([-1, 1], (n, 1))
    return x, 2 * side * np.arccos(x / 2) + noise * rng.normal(size=(n, 1))


def net(x, d, H, rng):
    """A net with H hidden units that has the smallest squared error on x, d. Returns a function of x."""
    slope, place = rng.normal(0, 6 / np.ptp(x), H), rng.uniform(x.min(), x.max(), H)

    def hidden(x):
        return np.hstack([np.tanh(slope * (x - place)), np.ones((len(x), 1))])

    V = np.linalg.lstsq(hidden(x), d, rcond=1e-8)[0]
    return lambda x: hidden(x) @ V


rng = np.random.default_rng(1)
x_arm, d_arm = arm_data(1000, rng)
arm_net = net(x_arm, d_arm, 6, rng)
reach = np.linspace(0.5, 1.9, 200)[:, None]
residual = d_arm - arm_net(x_arm)

fig, axes = plt.subplots(1, 2, figsize=(11, 4))
axes[0].plot(x_arm, d_arm, ".", color=plots.GREY)
axes[0].plot(reach, arm_net(reach), color=plots.ORANGE, linewidth=3)
axes[0].set(xlabel="$x$, distance of the hand", ylabel="$d$, bend of the elbow", title="the net")
axes[1].hist(residual, bins=41, color=plots.ORANGE)
axes[1].set(xlabel="residual, $d - y$", ylabel="cases", title="its residuals")
plt.show()
near = (np.abs(residual) < 0.3).mean()
print(f"mean size of a residual {np.abs(residual).mean():.2f}; {near:.1%} are smaller than 0.3")
assert np.abs(arm_net(reach)).max() < 0.5 and near < 0.03

# %% [markdown]
# The net runs through the empty middle: bend $\approx 0$, a straight arm, whatever the target. It is the one answer
# that **never** occurs in the data.
#
# Here you can see it at once. With a hundred inputs there is no such picture, but there is always the one on the right.
# If a model misses by noise, most residuals are near 0. *A hole at 0 means that it averages.* Remember this picture; it
# is the cheapest test in this lesson.
#
# ## 3. It is not the net's fault
#
# Take all cases of one $x$. Let $m$ be the mean of their $d$, and let the model answer $y$. Write
# $d - y = (d - m) + (m - y)$ and square; the mean of the product $(d - m)(m - y)$ is 0, since $m$ is the mean:
#
# $$\text{mean of } (d - y)^2 \;=\; \underbrace{\text{mean of } (d - m)^2}_{\text{variance: not in our hands}}
# \;+\; (m - y)^2 .$$
#
# So **the squared error asks for the mean of $d$ at each $x$**, and for nothing else. A better net is one that is
# closer to $m$. Nothing in these two lines depends on what the model is made of.
#
# **Predict.** From 400 to 20,000 cases, from 3 to 60 hidden units. What becomes of the error? And of the distance by
# which the hand misses?


# %%
def missed(x, y):
    """The mean distance between hand and target, if the elbow bends by y to reach the distance x."""
    return float(np.abs(2 * np.cos(y / 2) - x).mean())


x_new, d_new = arm_data(20_000, np.random.default_rng(2))
variance = float(((2 * np.arccos(x_new / 2)) ** 2).mean() + 0.1**2)  # of d at its x, on average
print(" cases   units   squared error   the hand misses by")
for n, H in ((400, 3), (400, 12), (4000, 30), (20_000, 60)):
    y = net(*arm_data(n, np.random.default_rng(3)), H, np.random.default_rng(4))(x_new)
    error = float(((d_new - y) ** 2).mean())
    print(f"{n:6}   {H:5}   {error:13.3f}   {missed(x_new, y):18.3f}")
straight = missed(x_new, 0 * x_new)
print(f"variance of d about its mean {variance:.3f};  a straight arm misses by {straight:.3f}")
assert abs(error / variance - 1) < 0.01 and abs(missed(x_new, y) - straight) < 0.01

# %% [markdown]
# The error goes to the variance, and the miss goes to that of a straight arm. (It wobbles on the way: a small net is
# wrong in ways of its own.) More data and a larger net take us to the wrong place with more confidence.
#
# ## 4. A model that is always right
#
# Suppose we are given a model that tosses a coin and then bends the elbow to the left or to the right, without any
# noise. Its hand is on the target every time.
#
# **Predict.** Which of the two has the smaller squared error, the coin or the straight arm? By what factor?

# %%
coin = np.random.default_rng(5).choice([-1, 1], x_new.shape)
always_right = coin * 2 * np.arccos(x_new / 2)
errors = {}
for name, y in {"straight arm": 0 * x_new, "coin": always_right}.items():
    errors[name] = float(((d_new - y) ** 2).mean())
    print(f"{name:13} squared error {errors[name]:.2f}   the hand misses by {missed(x_new, y):.2f}")
ratio = errors["coin"] / errors["straight arm"]
print("ratio", round(ratio, 3))
assert abs(ratio - 2) < 0.06 and missed(x_new, always_right) < 1e-12

# %% [markdown]
# **Answer.** The straight arm, by a factor of two. That is no accident of the arm: if $d$ and $y$ are two independent
# draws with the same mean $m$, the mean of $(d - y)^2$ is $\text{Var}\,d + \text{Var}\,y$. A model that answers
# *exactly as the world does* has twice the squared error of one that answers with the mean and is never right.
#
# So it does not help to search harder for models with a small squared error. **The judge is wrong.** A judge that can be
# trusted looks at the whole list of possible answers and asks: how probable did the model say that this one was?
#
# ## 5. The textbook's picture
#
# The arm had two answers everywhere. Usually their number changes with $x$. The picture in the books goes back to
# Bishop (1994): draw $d$ evenly from (0, 1), let $x = d + 0.3 \sin(2\pi d)$ plus noise within ±0.1, and then ask for
# $d$ at a given $x$. The curve turns back twice. At the ends there is one answer, in the middle there are three.
#
# **Predict.** Where is a net's answer one that could have been, where not? And what will it say at $x = 0.5$, where the
# three answers are about 0.2, 0.5 and 0.8?

# %%
x, d = inverse.inverse_problem(300, np.random.default_rng(0))
x_test, d_test = inverse.inverse_problem(4000, np.random.default_rng(1))
answer = net(x, d, 8, np.random.default_rng(0))
sigma_net = float(np.sqrt(((d - answer(x)) ** 2).mean()))


def impossible(x, y):
    """Percent of the answers y that cannot have led to x: d + 0.3 sin(2πd) is more than 0.1 away from it."""
    return 100 * float(1 - inverse.possible(x[:, 0], y[:, 0]).mean())


line = np.linspace(0, 1, 201)[:, None]
on = inverse.possible(line[:, 0], answer(line)[:, 0])
fig, ax = plt.subplots(figsize=(6.5, 4.5))
ax.plot(x, d, ".", color=plots.GREY)
ax.plot(line, answer(line), color=plots.ORANGE, linewidth=1.5)
ax.plot(line, np.where(on[:, None], answer(line), np.nan), color=plots.ORANGE, linewidth=5)
ax.set(xlabel="$x$", ylabel="$d$", title="thick: an answer that is possible", ylim=(-0.05, 1.05))
plt.show()
half = float(answer(np.array([[0.5]]))[0, 0])
print(
    f"{impossible(x_test, answer(x_test)):.0f} % of its answers are impossible; at x = 0.5 it says {half:.2f}"
)
assert 20 < impossible(x_test, answer(x_test)) < 60 and abs(half - 0.5) < 0.1

# %% [markdown]
# **Answer.** At $x = 0.5$ the answer is possible: the mean of 0.2, 0.5 and 0.8 happens to be one of them. That is
# luck. The net has not *chosen* the middle answer; it does not know that there are three, and left and right of it,
# it cuts across the gaps. What is missing is the list.
#
# ## 6. Several experts, and a gate
#
# Here is a model that can hold a list. Each expert says one number, $o_i = x w_i + b_i$, a straight line, and claims
# that $d$ is normally distributed about that line, with the standard deviation $\sigma$. The gate says how much each
# expert is to be believed at this $x$:
#
# $$p(d \mid x) = \sum_i p_i(x) \; \frac{1}{\sigma\sqrt{2\pi}}\, e^{-(d - o_i(x))^2 / 2\sigma^2},
# \qquad \sum_i p_i(x) = 1 .$$
#
# It is judged by how probable it made what came: the **log likelihood**, the mean of $\log p(d \mid x)$ over the cases.
# With a single expert this is the squared error again, in other units: $\log p = -(d - y)^2 / 2\sigma^2 + $ const. So
# *one expert averages*, and the question is what a second one changes.
#
# What fits it? Gradient descent on minus the log likelihood, all lines and the gate together; the next lesson derives
# the gradient. (`optim.adam` is gradient descent with a step length for each parameter that it adapts by itself; lesson 16
# writes it.) The model of 1991 has $\sigma = 1$, so the targets are measured in units of $\sigma$. The result
# depends on the random start: a run may end where every small change makes it worse, although a better solution
# exists elsewhere. That is a **local optimum**. So we take ten starts and keep the one with the largest likelihood.
# (The cell takes about 5 seconds; it prints a line per start.)
#
# **Predict.** Three straight lines, and a curve with three branches. Where will the gate believe in one expert alone?

# %%
sigma = 0.07


def fit(seed, steps=600):
    """(log likelihood per case, parameters) after gradient descent from a random start."""
    params = jacobs1991.init_mixture(np.random.default_rng(seed), E=3, D=1, init_range=3.0)
    memory = None
    for _ in range(steps):
        loss, cache = jacobs1991.system_forward(params, x, d / sigma, kind="linear")
        _, grads = jacobs1991.system_backward(np.full(len(x), 1 / len(x)), cache)
        params, memory = optim.adam(params, grads, memory, lr=0.3)
    return -loss.mean() - np.log(sigma * np.sqrt(2 * np.pi)), params


fits = []
for seed in range(10):
    fits.append(fit(seed))
    print(f"start {seed}: log likelihood {fits[-1][0]:.2f}")
likelihoods = np.array([likelihood for likelihood, _ in fits])
params = fits[likelihoods.argmax()][1]


def experts_and_gate(x):
    """o (N, 3) and p (N, 3), from the parameters of the best start."""
    o, _ = jacobs1991.experts_forward(params, x, "linear")
    p, _ = jacobs1991.gate_forward(params, x)
    return sigma * o[:, :, 0], p  # back from units of sigma


# %%
o, p = experts_and_gate(line)
fig, ax = plt.subplots(figsize=(6.5, 4.5))
ax.plot(x, d, ".", color=plots.GREY)
lesson_plots.lines_of_experts(ax, line[:, 0], o, p)
ax.set(xlabel="$x$", ylabel="$d$", title="the wider a line, the larger p", ylim=(-0.05, 1.05))
plt.show()
first, middle, last = p[[0, 100, 200]]
print("p at x = 0, ½, 1:", first.round(2), middle.round(2), last.round(2))
assert min(first.max(), last.max()) > 0.9 and middle.max() < 0.6
assert len({first.argmax(), middle.argmax(), last.argmax()}) == 3

# %% [markdown]
# Each expert has a branch. None of them fits all cases, and none has to: the gate says where it is to be believed.
# Where there is only one branch, the gate is sure. Where there are three, it *cannot* be, and says so.
#
# Not every start ends here: one of the ten is in a local optimum, with a visibly lower likelihood. Keeping the best
# of ten is fair, since the likelihood of the training set is what we optimise. But it is part of the method, and has
# to be reported.
#
# Now walk across the picture, from left to right, and look at all answers of one $x$ at once: what is true (grey), what
# the net makes of it (one bell, of the width of its residuals), what the mixture says (black, the sum of the coloured
# bells).

# %%
grid = np.linspace(-0.2, 1.2, 281)  # of d


def across():
    """A state for each of 13 values of x."""
    before = None
    for value in np.linspace(0.05, 0.95, 13):
        at = np.array([[value]])
        (o,), (p,) = experts_and_gate(at)
        arrays = {"x": value, "y": answer(at)[0, 0], "o": o, "p": p}
        equation = r"p(d \mid x) = \sum_i p_i \, N(d;\, o_i, \sigma^2)"
        note = "y: the answer of the net."
        before = state(f"x = {value:.3g}", equation, arrays, note=note, before=before)
        yield before


def draw(ax, now, history):
    possible = inverse.possible(np.full(len(grid), now["x"]), grid)
    net_and_sigma = now["y"], sigma_net
    lesson_plots.densities(ax, grid, possible, net_and_sigma, now["o"], now["p"], sigma)
    ax.set_title(f"{now.phase}   (grey: the truth)")


steps = Steps(across(), draw=draw)
next(steps)

# %%
view(steps)  # forward, back, slider, play; where there are no widgets: next(steps), steps.back()

# %% [markdown]
# ## 7. What to ask of it
#
# The mixture hands you a list with probabilities. You can take its mean (the blend, $y = \sum_i p_i o_i$), its best
# entry (the answer of the expert with the largest $p_i$), or throw dice (an expert drawn with the probabilities $p_i$).
#
# **Predict.** Rank the three, and the net, by squared error; then by the share of answers that are impossible. Is the
# blend of a *good* mixture a good answer?

# %%
o, p = experts_and_gate(x_test)
rows = np.arange(len(x_test))
drawn = (p.cumsum(axis=1) < np.random.default_rng(6).random((len(p), 1))).sum(axis=1)
answers = {
    "the net": answer(x_test),
    "mixture, its blend": (p * o).sum(axis=1, keepdims=True),
    "mixture, its likeliest expert": o[rows, p.argmax(axis=1)][:, None],
    "mixture, an expert drawn": o[rows, drawn][:, None],
}
table = {}
print(f"{'':30} squared error   impossible, %")
for name, y in answers.items():
    table[name] = float(((d_test - y) ** 2).mean()), impossible(x_test, y)
    print(f"{name:30} {table[name][0]:13.3f}   {table[name][1]:13.0f}")

root = np.sqrt(2 * np.pi)
by_net = -0.5 * ((d_test - answer(x_test)) / sigma_net) ** 2 - np.log(sigma_net * root)
by_mixture = logsumexp(np.log(p) - 0.5 * ((d_test - o) / sigma) ** 2) - np.log(sigma * root)
exact = inverse.log_density(x_test[:, 0]).mean()
print("\nlog likelihood per case: ", end="")
print(f"net {by_net.mean():.2f}, mixture {by_mixture.mean():.2f}, the truth {exact:.2f}")
net_row, blend, likeliest, dice = table.values()
assert net_row[0] < blend[0] < likeliest[0] < dice[0]  # the order of the squared errors ...
assert likeliest[1] < dice[1] < net_row[1] < blend[1]  # ... and of what can be
assert by_net.mean() + 0.3 < by_mixture.mean() < exact

# %% [markdown]
# The two answers that are means have the smallest squared errors and the most impossible answers. The net wins by
# squared error, and a third of what it says is impossible. The blend of the mixture is a mean too, and two thirds of
# it are impossible. **A mixture does not make the mean right. It makes the distribution right**, and then you may ask
# for something else than the mean.
#
# What is left between the mixture and the truth has a reason: the branches are curved and the experts are straight, and a
# normal density has tails where the truth has edges.
#
# ## Your turn
#
# A question has K answers, `values`, with the probabilities `probs`. Return three numbers: the answer with the smallest
# mean squared error; that error; and the mean squared error of a model that draws its answer from the same list with
# the same probabilities.


# %%
def best_and_drawn(values, probs):
    """(best answer, its mean squared error, that of drawing). values (K,), probs (K,) with sum 1."""
    # your code here
    return None


# %%
def reference(values, probs):
    tried = np.stack([(values - y) ** 2 @ probs for y in values])  # each answer, against the world
    mean = values @ probs
    return mean, ((values - mean) ** 2) @ probs, tried @ probs


def cases(rng):
    for K in (2, 3, 6):
        yield rng.normal(size=K), rng.dirichlet(np.ones(K))


self_check(best_and_drawn, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Judge by $|d - y|$ instead. A question has the answers 0.2, 0.5 and 0.8, equally probable: try
#    all $y$ on a grid. Then the answers −2 and 2, as for the arm. What does the absolute error ask for, and does it get
#    the hand to the target?
# 2. **Derive.** Show that the mixture of section 6 has the variance
#    $\sum_i p_i\, (\sigma^2 + (o_i - y)^2)$ at each $x$, with $y$ its blend: *within* experts and *between* them. Check
#    it with random draws at $x = 0.5$. Which of the two parts could a single wide bell express as well?
# 3. **Break it.** Fit two experts to the three branches, and then six. First with `fit` of section 6, which needs an
#    argument for `E`: which branch is given up? Then with $\sigma$ fitted as well, by `fit_mixture(rng, x, d, experts=2,
#    init_range=0.5, sigma=0.1, rounds=6, max_iter=200)` of `moe_np.experiments.one_to_many.runs`: it returns the
#    parameters, $\sigma$ and the log likelihood per case, and `mixture_likelihood(params, sigma, x_test, d_test)` beside
#    it judges other cases. What happens to the two likelihoods, and to $\sigma$?
#
# Solutions: `lessons/solutions/01_why_one_averages.py`.
#
# Next: [02, the gate](02_gate.ipynb), and how it learns which expert to believe.
