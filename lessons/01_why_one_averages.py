# %% [markdown]
# # 01 · Why one expert averages
#
# Afterwards you can say what *any* model trained with the squared error comes to answer, see from its residuals when
# that is the wrong thing to ask for, and say what to ask for instead.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $x$ | `x` | (N, 1) | input: one number a case |
# | $d$ | `d` | (N, 1) | wanted output: one number a case |
# | $y$ | `y` | (N, 1) | what a model answers |
# | $m(x)$ | – | (N, 1) | the mean of all wanted outputs that belong to this $x$ |
# | $o_i$ | `o` | (N, E) | what expert $i$ answers, from section 6 on |
# | $p_i$ | `p` | (N, E) | how much the gate believes in expert $i$ at this $x$ |
# | $\sigma$ | `sigma` | number | how far from its answer an expert expects $d$ to be |

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base.numerics import logsumexp
from moe_np.coursework import self_check
from moe_np.data import inverse
from moe_np.experiments.one_to_many.runs import fit_mixture
from moe_np.mixtures import jacobs1991
from moe_np.show.steps import Steps, Trail
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)

# %% [markdown]
# ## 1. Two right answers
#
# An arm with two links, each of length 1, lies on a table. Its shoulder is at (0, 0), and the hand shall go to
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
for posture, colour in ((left, plots.BLUE), (right, plots.GREEN), (between, plots.ORANGE)):
    ax.plot(*arm(*posture).T, "o-", color=colour, linewidth=5, markersize=10, alpha=0.8)
ax.plot(target, 0, "X", color=plots.BLACK, markersize=14, zorder=5)
plots.label(ax, target, 0.18, "target", size=14)
plots.label(ax, 1.78, -0.17, "the mean of both", plots.ORANGE, size=14)
ax.set(xlim=(-0.15, 2.15), ylim=(-0.95, 0.95), aspect="equal")
ax.axis("off")
plt.show()
print("hands:", *(arm(*posture)[2].round(2) + 0.0 for posture in (left, right, between)))
assert np.allclose([arm(*left)[2], arm(*right)[2]], [target, 0]) and np.allclose(
    arm(*between)[2], [2, 0]
)

# %% [markdown]
# Two right answers, and their mean is wrong. It misses by .8, and it would do so just as much for an arm that had
# reached the target a million times.
#
# ## 2. A net learns to reach
#
# Let the arm move at random, and write down how far away the hand was ($x$) and how the elbow was bent ($d$). Then ask
# a net for $d$ at a given $x$.
#
# To leave no room for excuses, this net cannot get stuck: the weights of its hidden units are drawn at random and
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
x, d = arm_data(1000, rng)
answer = net(x, d, 6, rng)
line = np.linspace(0.5, 1.9, 200)[:, None]
residual = d - answer(x)

fig, axes = plt.subplots(1, 2, figsize=(11, 4))
axes[0].plot(x, d, ".", color=plots.GREY)
axes[0].plot(line, answer(line), color=plots.ORANGE, linewidth=3)
axes[0].set(xlabel="$x$, distance of the hand", ylabel="$d$, bend of the elbow", title="the net")
axes[1].hist(residual, bins=41, color=plots.ORANGE)
axes[1].set(xlabel="residual, $d - y$", ylabel="cases", title="its residuals")
plt.show()
near = (np.abs(residual) < 0.3).mean()
print(
    f"{len(x)} residuals, {np.abs(residual).mean():.2f} in size on average; {near:.1%} of them are smaller than 0.3"
)
assert np.abs(answer(line)).max() < 0.5 and near < 0.03

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
    """By how much a hand misses that bends its elbow by y to reach the distance x."""
    return float(np.abs(2 * np.cos(y / 2) - x).mean())


x_test, d_test = arm_data(20_000, np.random.default_rng(2))
variance = float(((2 * np.arccos(x_test / 2)) ** 2).mean() + 0.1**2)  # of d at its x, on average
print(" cases   units   squared error   the hand misses by")
for n, H in ((400, 3), (400, 12), (4000, 30), (20_000, 60)):
    y = net(*arm_data(n, np.random.default_rng(3)), H, np.random.default_rng(4))(x_test)
    error = float(((d_test - y) ** 2).mean())
    print(f"{n:6}   {H:5}   {error:13.3f}   {missed(x_test, y):18.3f}")
print(
    f"variance of d about its mean {variance:.3f};  a straight arm misses by {missed(x_test, 0 * x_test):.3f}"
)
assert (
    abs(error / variance - 1) < 0.01 and abs(missed(x_test, y) - missed(x_test, 0 * x_test)) < 0.01
)

# %% [markdown]
# The error goes to the variance, and the arm gets *straighter*. More data and a larger net take us to the wrong place
# with more confidence.
#
# ## 4. A model that is always right
#
# Suppose somebody gives us a model that tosses a coin and then bends the elbow to the left or to the right, without any
# noise. Its hand is on the target every single time.
#
# **Predict.** Which of the two has the smaller squared error, the coin or the straight arm? By what factor?

# %%
coin = np.random.default_rng(5).choice([-1, 1], x_test.shape)
always_right = coin * 2 * np.arccos(x_test / 2)
errors = {}
for name, y in {"straight arm": 0 * x_test, "coin": always_right}.items():
    errors[name] = float(((d_test - y) ** 2).mean())
    print(
        f"{name:13} squared error {errors[name]:.2f}   the hand misses by {missed(x_test, y):.2f}"
    )
print("ratio", round(errors["coin"] / errors["straight arm"], 3))
assert (
    abs(errors["coin"] / errors["straight arm"] - 2) < 0.06 and missed(x_test, always_right) < 1e-12
)

# %% [markdown]
# Twice. That is no accident of the arm: if $d$ and $y$ are two independent draws with the same mean $m$, the mean of
# $(d - y)^2$ is $\text{Var}\,d + \text{Var}\,y$. A model that answers *exactly as the world does* has twice the squared
# error of one that answers with the mean and is never right.
#
# So it will not do to search harder for models with a small squared error. **The judge is wrong.** A judge that could
# be trusted would look at the whole list of possible answers and ask: how probable did you say that this one was?
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
# At $x = 0.5$ the answer is possible: the mean of 0.2, 0.5 and 0.8 happens to be one of them. Do not be taken in. The
# net has not *chosen* the middle answer; it does not know that there are three, and left and right of it, it cuts
# across the gaps. A mean may be right by luck. What is missing is the list.
#
# ## 6. Several experts, and a gate
#
# Here is a model that can hold a list. Each expert says one number, $o_i = x w_i + b_i$, a straight line, and means by
# it a bell of width $\sigma$ about that line. The gate says how much each is to be believed at this $x$:
#
# $$p(d \mid x) = \sum_i p_i(x) \; \frac{1}{\sigma\sqrt{2\pi}}\, e^{-(d - o_i(x))^2 / 2\sigma^2},
# \qquad \sum_i p_i(x) = 1 .$$
#
# It is judged by how probable it made what came: the **log likelihood**, the mean of $\log p(d \mid x)$ over the cases.
# With a single expert this is the squared error again, in other units: $\log p = -(d - y)^2 / 2\sigma^2 + $ const. So
# *one expert averages*, and the question is what the second one changes.
#
# How lines and gate are found is the matter of the next four lessons. Here, the package finds them: ten random starts,
# of which we keep the likeliest.
#
# **Predict.** Three straight lines, and a curve with three branches. Where will the gate believe in one expert alone?

# %%
settings = {"experts": 3, "init_range": 0.5, "sigma": 0.1, "rounds": 6, "max_iter": 200}
starts = [fit_mixture(np.random.default_rng(seed), x, d, **settings) for seed in range(10)]
likelihoods = np.array([found[2] for found in starts])
params, sigma, _ = starts[likelihoods.argmax()]


def experts_and_gate(x):
    """o (N, 3) and p (N, 3)."""
    return jacobs1991.experts_forward(params, x, "linear")[0][:, :, 0], jacobs1991.gate_forward(
        params, x
    )[0]


o, p = experts_and_gate(line)
fig, ax = plt.subplots(figsize=(6.5, 4.5))
ax.plot(x, d, ".", color=plots.GREY)
for i, colour in enumerate(plots.COLOURS[:3]):
    ax.scatter(line, o[:, i], s=50 * p[:, i], color=colour, linewidths=0)
    at = int(np.average(np.arange(len(line)), weights=p[:, i]))
    side = 0.15 if params["W"][i, 0, 0] < 0 else -0.15
    plots.label(ax, line[at, 0] + side, o[at, i] + 0.1, f"expert {i}", colour, weight="bold")
ax.set(xlabel="$x$", ylabel="$d$", title="as thick as the gate believes", ylim=(-0.05, 1.05))
plt.show()
first, middle, last = p[[0, 100, 200]]
print("p at x = 0, ½, 1:", first.round(2), middle.round(2), last.round(2), f"  sigma {sigma:.3f}")
print("log likelihoods of the ten starts:", np.sort(likelihoods).round(2))
assert min(first.max(), last.max()) > 0.9 and middle.max() < 0.6
assert len({first.argmax(), middle.argmax(), last.argmax()}) == 3

# %% [markdown]
# Each expert has a branch. None of them fits all cases, and none has to: the gate says where it is on duty. Where one
# branch is all there is, the gate is sure; where there are three, it *cannot* be, and says so.
#
# Not every start ends here. (Some fell into a local optimum, and have a visibly lower likelihood. Keeping the best of
# ten is not cheating, since likelihood on the training set is what we optimise; but it is part of the method.)
#
# Now walk across the picture, from left to right, and look at all answers of one $x$ at once: what is true (grey), what
# the net makes of it (one bell, of the width of its residuals), what the mixture says (black, the sum of the coloured
# bells).

# %%
grid = np.linspace(-0.2, 1.2, 281)  # of d


def bells(centre, width):
    """Gaussian densities over the grid, one a row."""
    z = (grid - np.reshape(centre, (-1, 1))) / width
    return np.exp(-z * z / 2) / (width * np.sqrt(2 * np.pi))


def across():
    trail = Trail({"o": "E", "p": "E"})
    for value in np.linspace(0.05, 0.95, 13):
        at = np.array([[value]])
        (o,), (p,) = experts_and_gate(at)
        branches = inverse.branches(at[:, 0])[0]
        arrays = {"x": value, "branches": branches, "y": answer(at)[0, 0], "o": o, "p": p}
        words = "branches: the values of d that lead here without noise; y: the net's answer."
        yield trail.see(
            f"x = {value:.3g}", r"p(d \mid x) = \sum_i p_i \, N(d;\, o_i, \sigma^2)", arrays, words
        )


def draw(ax, now, history):
    inside = inverse.possible(np.full(len(grid), now["x"]), grid)
    ax.fill_between(
        grid,
        inside / (inside.mean() * np.ptp(grid)),
        color=plots.GREY,
        alpha=0.4,
        step="mid",
        linewidth=0,
    )
    ax.plot(
        grid, bells(now["y"], sigma_net)[0], "--", color=plots.ORANGE, linewidth=2.5, label="net"
    )
    own = now["p"][:, None] * bells(now["o"], sigma)
    ax.plot(grid, own.sum(axis=0), color=plots.BLACK, linewidth=2.5, label="mixture")
    for i, colour in enumerate(plots.COLOURS[:3]):
        ax.fill_between(grid, own[i], color=colour, alpha=0.5, linewidth=0)
    ax.set(
        title=f"{now.phase}   (grey: the truth)",
        xlabel="$d$",
        ylabel="density",
        ylim=(0, 12),
        xlim=(-0.2, 1.2),
    )
    ax.legend(frameon=False, loc="upper center")


steps = Steps(across(), draw=draw)
next(steps)

# %%
view(steps)  # forward, back, slider, play; where there are no widgets: next(steps), steps.back()

# %% [markdown]
# ## 7. What to ask of it
#
# The mixture hands you a list with probabilities. You can take its mean (the blend, $y = \sum_i p_i o_i$), its best
# entry (the answer of the expert with the largest $p_i$), or toss dice (an expert drawn with the probabilities $p_i$).
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

by_net = -0.5 * ((d_test - answer(x_test)) / sigma_net) ** 2 - np.log(
    sigma_net * np.sqrt(2 * np.pi)
)
by_mixture = logsumexp(np.log(p) - 0.5 * ((d_test - o) / sigma) ** 2) - np.log(
    sigma * np.sqrt(2 * np.pi)
)
exact = inverse.log_density(x_test[:, 0]).mean()
print(
    f"\nlog likelihood of a case: net {by_net.mean():.2f}, mixture {by_mixture.mean():.2f}, the truth {exact:.2f}"
)
net_row, blend, likeliest, dice = table.values()
assert net_row[0] < blend[0] < likeliest[0] < dice[0]  # the order of the squared errors ...
assert likeliest[1] < dice[1] < net_row[1] < blend[1]  # ... and of what can be
assert by_net.mean() + 0.3 < by_mixture.mean() < exact

# %% [markdown]
# The two answers that are means are the best by squared error and the worst by what can be. The net wins by squared
# error, and a third of what it says is impossible. The blend of the mixture is a mean like any other, and as impossible
# as one. **A mixture does not make the mean right. It makes the distribution right**, and then you may ask for
# something else than the mean.
#
# What is left between the mixture and the truth is honest, too: the branches are curved and the experts are straight,
# and bells have tails where the truth has edges.
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
# 3. **Break it.** Fit two experts to the three branches, and then six. What happens to the likelihood on the training
#    and on the test set? Which branch is given up, and who pays for it?
#
# Solutions: `lessons/solutions/01_why_one_averages.py`.
#
# Next: 02, the gate, and how it learns whom to believe.
