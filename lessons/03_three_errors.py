# %% [markdown]
# # 03 · Three errors, and why the third makes experts compete
#
# Afterwards you can say, for any error that joins experts, what it tells an expert that is right, one that is near
# and one that is far off; and you can compute when a mixture will split and when it will not.
#
# Jacobs, Jordan, Nowlan and Hinton (1991) write down three errors for the same experts and the same gate:
#
# | | error of one case | in code | who adds up to the answer |
# |---|---|---|---|
# | eq. 1 | $\lVert d - \sum_i p_i o_i \rVert^2$ | `cooperative` | all experts together |
# | eq. 2 | $\sum_i p_i \lVert d - o_i \rVert^2$ | `competitive` | one expert, drawn with probability $p_i$ |
# | eq. 3 | $-\log \sum_i p_i e^{-\frac12 \lVert d - o_i \rVert^2}$ | `mixture` | one expert, and noise of variance 1 |
#
# Symbols as in lesson 02: wanted output `d` (N, C), answers `o` (N, E, C), the gate's belief `p` (N, E),
# responsibilities `resp` (N, E). New here: the **push** on an expert, `-do`, the direction in which descent moves
# its answer.

# %%
import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.coursework import self_check
from moe_np.mixtures import jacobs1991
from moe_np.show.steps import Steps, Trail
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)
NAMES = {"cooperative": "eq. 1", "competitive": "eq. 2", "mixture": "eq. 3"}
COLOUR = dict(zip(NAMES, plots.COLOURS, strict=False))


def push(error, o, p, d):
    """−do for a batch of cases: o (N, E, C), p (N, E), d (N, C) -> (N, E, C)."""
    forward, backward = jacobs1991.ERRORS[error]
    loss, cache = forward(o, p, d)
    return -backward(np.ones_like(loss), cache)[0]


# %% [markdown]
# ## 1. One case, three experts
#
# The wanted output is 1. Expert 0 says 1, expert 1 says 0, expert 2 says −2. The gate has no opinion yet:
# $p_i = 1/3$.
#
# **Predict.** Fill in the signs and the order of size before you run it. How hard does each error push the expert
# that is exactly right? Which expert gets the hardest push?

# %%
d = np.array([[1.0]])
o = np.array([[[1.0], [0.0], [-2.0]]])
p = np.full((1, 3), 1 / 3)
print("        right   near     far off")
for error, name in NAMES.items():
    print(name, "  {:6.3f}  {:6.3f}  {:6.3f}".format(*push(error, o, p, d)[0, :, 0]))

one, two, three = (push(error, o, p, d)[0, :, 0] for error in NAMES)
assert np.ptp(one) < 1e-12 and one[0] > 0  # eq. 1: all alike, the right one too
assert two[0] == three[0] == 0  # the others leave it alone
assert two.argmax() == 2 and three.argmax() == 1

# %% [markdown]
# * **Eq. 1** pushes all three by the same amount, $2 p_i (d - y)$, since what counts is the blend
#   $y = \sum_i p_i o_i$. The expert that is right is told to overshoot, to make good what the others do. Experts
#   **cooperate**: none of them has to make sense by itself, and when one changes, all others have to change with
#   it.
# * **Eq. 2** pushes each by its own residual, $2 p_i (d - o_i)$. Whoever is right is left in peace. But the hardest
#   push goes to the expert that is farthest off: it is told to come here, although another one has the case in
#   hand. All experts hear of all cases.
# * **Eq. 3** pushes by $h_i\,(d - o_i)$, with $h_i$ the responsibility (`resp`), which is small for whoever is far
#   off compared with the others. The one that is near is drawn in; the one that is far off is free for other cases.
#
# ## 2. How far does the pull reach?
#
# Two experts, $p = ½$ each. One stays at distance 2 from the wanted output. Move the other from distance 0 to 5.
#
# **Predict.** Draw the push on the moving expert against its distance, for eq. 2 and for eq. 3.

# %%
distance = np.linspace(0, 5, 201)
o = np.stack([distance, np.full_like(distance, 2.0)], axis=1)[:, :, None]
p, d = np.full((201, 2), 0.5), np.zeros((201, 1))

fig, ax = plt.subplots(figsize=(7.5, 4))
pulls = {error: np.abs(push(error, o, p, d)) for error in ("competitive", "mixture")}
for error, own in pulls.items():
    ax.plot(distance, own[:, 0, 0], color=COLOUR[error], linewidth=2.5)
    ax.plot(distance, own[:, 1, 0], color=COLOUR[error], linewidth=1.5, linestyle=":")
    plots.label(ax, 4.6, own[184, 0, 0], NAMES[error], COLOUR[error], size=15)
ax.set(xlabel="distance of the moving expert", ylabel="push", xlim=(0, 5))
ax.set_title("full: the moving expert; dotted: the one that stays at 2")
plt.show()
own = pulls["mixture"][:, 0, 0]
print(
    f"eq. 3 pulls hardest at a distance of {distance[own.argmax()]:.2f}; at 5 its push is {own[-1]:.5f}"
)
assert own[-1] < 1e-3 and 1 < distance[own.argmax()] < 2

# a claim of the paper's section 1: p equal, all experts farther than 1 off
o = np.random.default_rng(0).uniform(1, 4, (1000, 3, 1))
p, d = np.full((1000, 3), 1 / 3), np.zeros((1000, 1))
nearest = o[:, :, 0].argmin(axis=1)
assert (
    np.abs(push("competitive", o, p, d))[:, :, 0].argmin(axis=1) == nearest
).all()  # eq. 2: pushed the least
assert (
    np.abs(push("mixture", o, p, d))[:, :, 0].argmax(axis=1) == nearest
).all()  # eq. 3: pushed the most

# %% [markdown]
# Under eq. 2 the push grows with the distance, like a spring, and it does not care where the other expert is: the
# dotted line is flat. Under eq. 3 the pull has a reach. Beyond about 3, the case belongs to the other expert, whose
# own push (dotted) rises to take it over. The paper says it like this: while the gate has no opinion and all
# experts are farther off than 1, eq. 2 adapts the best of them the slowest, eq. 3 the fastest. The last two asserts
# are that sentence, tried on a thousand random cases.
#
# ## 3. What the errors look like from above
#
# No inputs now, no gate to train: half of the wanted outputs are −2, half are +2, two experts may each say one
# number, $p = ½$ each. The mean error is then a landscape over $(o_0, o_1)$.
#
# **Predict.** Where is the bottom of each landscape? A single expert alone would say 0, the mean. Start at (0.6,
# 0.3): where does descent end?


# %%
def landscape(error, o0, o1, a):
    """The mean error when half of the targets are −a and half +a; o0, o1 any shape."""
    pairs = np.stack([np.ravel(o0), np.ravel(o1)], axis=1)[:, :, None]
    half = np.full((len(pairs), 2), 0.5)
    both = [
        jacobs1991.ERRORS[error][0](pairs, half, np.full((len(pairs), 1), t))[0] for t in (-a, a)
    ]
    return (sum(both) / 2).reshape(np.shape(o0))


def descend(error, start, a, steps=400, lr=0.05):
    path, half = [np.array(start)], np.full((2, 2), 0.5)
    for _ in range(steps):
        o = np.tile(path[-1][None, :, None], (2, 1, 1))  # the same two answers to both targets
        path.append(path[-1] + lr * push(error, o, half, np.array([[-a], [a]])).mean(axis=0)[:, 0])
    return np.array(path)


a = 2.0
grid = np.linspace(-3, 3, 121)
o0, o1 = np.meshgrid(grid, grid)
fig, axes = plt.subplots(1, 3, figsize=(12, 4.8), sharey=True)
ends = {}
for ax, error in zip(axes, NAMES, strict=True):
    height = landscape(error, o0, o1, a)
    ax.contourf(o0, o1, height, levels=np.quantile(height, np.linspace(0, 1, 16)), cmap="Blues_r")
    path = descend(error, (0.6, 0.3), a)
    ax.plot(*path.T, color=plots.ORANGE, linewidth=2.5)
    ax.plot(*path[0], "o", markerfacecolor="white", markeredgecolor=plots.ORANGE, markersize=9)
    ax.plot(*path[-1], "s", color=plots.ORANGE, markeredgecolor="white", markersize=10)
    ends[error] = path[-1]
    ax.set(title=NAMES[error], xlabel="$o_0$", aspect="equal")
axes[0].set_ylabel("$o_1$")
plt.show()
print({NAMES[error]: end.round(3) for error, end in ends.items()})
assert abs(ends["cooperative"].sum()) < 1e-6 and np.allclose(ends["competitive"], 0, atol=1e-6)
assert np.allclose(ends["mixture"], [2, -2], atol=0.01)

# %% [markdown]
# * Eq. 1 has a **valley**: every pair with $o_0 + o_1 = 0$ is as good as any other, and descent stops where it
#   first meets it. All that is asked for is a blend of 0. The experts may be anything.
# * Eq. 2 has a **bowl** around the mean. Both experts say 0: two copies of the one net that averages (lesson 01).
# * Eq. 3 has **two bottoms**, one expert for each kind of target, and between them a pass. Which expert gets which
#   is decided by the start: the one that was a little higher goes up.
#
# ## 4. When does eq. 3 split?
#
# Let the experts say $\mu + \varepsilon$ and $\mu - \varepsilon$, with $\mu$ the mean of the wanted outputs, and
# write $r = d - \mu$. Put this into the three errors and expand; with $p = ½$ the products do the work:
#
# $$\text{loss}_1 = r^2, \qquad \text{loss}_2 = r^2 + \varepsilon^2, \qquad
# \text{loss}_3 = \tfrac12 r^2 + \tfrac12 \varepsilon^2 - \log\cosh(\varepsilon r).$$
#
# The whole difference between the errors is in these three: moving apart is **free** in eq. 1, it **costs**
# $\varepsilon^2$ in eq. 2, and in eq. 3 it costs $\tfrac12\varepsilon^2$ and **earns** $\log\cosh(\varepsilon r)$.
# While $\varepsilon$ is small, that is $\tfrac12 \varepsilon^2 r^2$, so on average over the cases
#
# $$\text{loss}_3 \approx \text{const} + \tfrac12\, \varepsilon^2\, (1 - \operatorname{Var} d).$$
#
# **The experts part if, and only if, the wanted outputs vary by more than the variance 1 that eq. 3 takes for
# noise.** ($\log\cosh z \le \tfrac12 z^2$ for all $z$, so it pays neither near nor far if it does not pay at
# first.) For targets $\pm a$ the bottom is where $\varepsilon = a \tanh(a \varepsilon)$.
#
# **Predict.** For a = 0.5 (the targets 0 and 1 of the vowels, say, seen from their mean), 1, 1.5 and 2: where is
# the bottom?

# %%
eps = np.linspace(-3, 3, 301)
fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2))
for error, name in NAMES.items():
    height = landscape(error, eps, -eps, 2.0)
    left.plot(eps, height - height[150], color=COLOUR[error], linewidth=2.5)
    plots.label(left, eps[270], height[270] - height[150], name, COLOUR[error], size=15)
left.set(
    title="targets ±2",
    xlabel="ε",
    ylabel="mean error, less that at ε = 0",
    ylim=(-2.2, 10),
    xlim=(-3, 3),
)

bottoms = {}
for colour, a in zip(
    (plots.PINK, plots.SKY, plots.AMBER, plots.BLACK), (0.5, 1.0, 1.5, 2.0), strict=True
):
    height = landscape("mixture", eps, -eps, a)
    formula = 0.5 * a**2 + 0.5 * eps**2 - np.log(np.cosh(eps * a))
    assert np.allclose(height, formula)
    bottoms[a] = abs(eps[height.argmin()])
    right.plot(eps, height - height[150], color=colour, linewidth=2.5)
    plots.label(right, eps[265], height[265] - height[150], f"a = {a:g}", colour, size=15)
right.set(title="eq. 3, targets ±a", xlabel="ε", ylim=(-1.6, 3.2), xlim=(-3, 3))
plt.show()
print("bottom at |ε| =", {a: float(found.round(2)) for a, found in bottoms.items()})
assert bottoms[0.5] == 0 and bottoms[1.0] == 0 and bottoms[1.5] > 1 and bottoms[2.0] > 1.9
assert all(abs(e - a * np.tanh(a * e)) < 0.02 for a, e in bottoms.items())

# %% [markdown]
# So eq. 3 does not always compete. Up to $a = 1$ the experts stay together: what they would have to divide is no
# larger than noise. From there on, two bottoms open, quickly. The 1 is the variance inside the exponent, and it has
# the units of the outputs: multiply all targets by ten, and other mixtures split (exercise 2).
#
# ## 5. With inputs, and a gate that learns
#
# One input in [−1, 1]. On the left the wanted output is $x - 2$, on the right $x + 2$, with a little noise. Two
# linear experts, a linear gate, all parameters trained together from almost nothing. A single line can do no better
# than a mean squared error of about 1.
#
# Step through it with eq. 3, at six inputs. For each there are the gate's `p` and the responsibilities `resp` of
# expert 0.
#
# **Predict.** At the start all is even, `p` is ½ everywhere. Which of the two leaves ½ first, and which follows?

# %%
rng = np.random.default_rng(0)
x = np.sort(rng.uniform(-1, 1, (200, 1)), axis=0)
d = x + np.where(x > 0, 2.0, -2.0) + 0.2 * rng.normal(size=x.shape)
start = jacobs1991.init_mixture(np.random.default_rng(1), E=2, D=1)
RATE = {
    "cooperative": 0.15,
    "competitive": 0.15,
    "mixture": 0.3,
}  # eqs. 1 and 2 lack the ½ of eq. 3


def train(error, x=x, d=d, start=start):
    """The steps of gradient descent on the mean error."""
    return jacobs1991.train(start, x, d, lr=RATE[error] / len(x), error=error, kind="linear")


AT = np.array([10, 50, 85, 115, 150, 190])  # six of the inputs
AXES = {
    "W": "E D C",
    "b": "E C",
    "x": "case",
    "d": "case",
    "o": "case E",
    "p_0": "case",
    "resp_0": "case",
}


def walk(error, epochs):
    trail = Trail(AXES)
    for step in itertools.islice(train(error), max(epochs) + 1):
        if step.number in epochs:
            o, p, resp = step.cache.o[AT, :, 0], step.cache.p[AT, 0], step.cache.scores.resp[AT, 0]
            arrays = {"x": x[AT, 0], "d": d[AT, 0], "o": o, "p_0": p, "resp_0": resp}
            arrays |= {
                "W": step.params["W"],
                "b": step.params["b"],
                "squared_error": step.squared_error,
            }
            yield trail.see(
                f"epoch {step.number}", "", arrays, "p_0 and resp_0 are those of expert 0."
            )


def draw(ax, now, history):
    """The data, the two experts' lines, and the six inputs in the colour of the more responsible expert."""
    ax.plot(x, d, ".", color=plots.GREY, markersize=3)
    for W, b, colour in zip(now["W"], now["b"], (plots.BLUE, plots.ORANGE), strict=True):
        ax.plot(x, x @ W + b, color=colour, linewidth=2.5)
    blend = matplotlib.colors.LinearSegmentedColormap.from_list(
        "", [plots.ORANGE, "white", plots.BLUE]
    )
    ax.scatter(
        now["x"],
        now["d"],
        s=130,
        c=now["resp_0"],
        cmap=blend,
        vmin=0,
        vmax=1,
        edgecolor=plots.BLACK,
        zorder=5,
    )
    ax.set(title=now.phase, xlabel="x", ylim=(-4, 4))


steps = Steps(walk("mixture", (0, 5, 10, 20, 30, 40, 60, 100, 300)), draw=draw)
next(steps)

# %%
view(steps)  # forward, back, slider, play; where there are no widgets: next(steps), steps.back()

# %% [markdown]
# `resp` leads and `p` follows, because the gate's gradient is `p - resp` (lesson 02). A small difference between
# the answers makes a difference in responsibility; that makes the experts' answers differ more, and the gate learns
# to tell where. Each of the three feeds the next. The cell below draws it, and then trains the same start with all
# three errors.
#
# **Predict.** After 300 epochs, which errors have found the two branches? Which of the errors is smallest on the
# squared error of the blend?

# %%
leaves = []
for step in itertools.islice(train("mixture"), 61):
    leaves.append([np.abs(q[:, 0] - 0.5).mean() for q in (step.cache.scores.resp, step.cache.p)])
leaves = np.array(leaves)
assert (leaves[1:41, 0] > leaves[1:41, 1]).all()  # resp is ahead of p all the way

fig, axes = plt.subplots(1, 4, figsize=(14, 3.8))
for own, name, colour in zip(leaves.T, ("resp", "p"), (plots.GREEN, plots.BLACK), strict=True):
    axes[0].plot(own, linewidth=2.5, color=colour)
    plots.label(axes[0], 25, own[25], name, colour, size=15)
axes[0].set(title="eq. 3: mean |· − ½|", xlabel="epoch")
found = {}
for ax, error in zip(axes[1:], NAMES, strict=True):
    step = next(itertools.islice(train(error), 300, None))
    ax.plot(x, d, ".", color=plots.GREY, markersize=3)
    for i, colour in enumerate((plots.BLUE, plots.ORANGE)):
        ax.scatter(
            x,
            step.cache.o[:, i],
            s=14,
            color=colour,
            alpha=np.clip(step.cache.p[:, i], 0.1, 1),
            linewidths=0,
        )
    ax.plot(x, step.cache.y, color=plots.BLACK, linewidth=1.2)
    ax.set(title=NAMES[error], xlabel="x", ylim=(-4, 4))
    alone = ((d[:, None, :] - step.cache.o) ** 2).sum(axis=2)
    found[error] = step.squared_error, alone[np.arange(len(x)), step.cache.p.argmax(axis=1)].mean()
plt.show()
print("mean squared error of    the blend    the expert the gate likes best, alone")
for error, (blend, alone) in found.items():
    print(f"{NAMES[error]:>21}    {blend:9.2f}    {alone:.2f}")
assert found["mixture"][1] < 0.3 < 0.9 < min(found["cooperative"][1], found["competitive"][1])

# %% [markdown]
# Colour strength is `p`, the thin black line the blend. Eq. 3 has split. Eq. 2 has made two copies of one line, and
# the gate has nothing to choose between. Eq. 1 is no further either.
#
# Look at the two columns of the table for eq. 3: the expert that the gate likes best is better *alone* than the
# blend. Eq. 3 asks for experts that can answer alone. That is what a sparse layer needs, where all but a few are
# never run (lesson 07).
#
# Do not take more from it than it says. This task is a hard one for eqs. 1 and 2, because its two halves mirror
# each other: near the best single line, a small change of the gate and a small change of the experts do not help
# each other. Exercise 1 has a task on which all three errors arrive.
#
# ## Your turn
#
# Write the gradient of eq. 3 at the experts' answers. It must survive experts that the gate has ruled out,
# $p_i = 0$, and cases that are far from all experts.


# %%
def mixture_gradient(o, p, d):
    """do (N, E, C) of Σ_n −log Σ_i p_i exp(−½ ‖d − o_i‖²): o (N, E, C), p (N, E) with rows summing to 1, d (N, C)."""
    # your code here
    return None


# %%
def reference(o, p, d):
    return -push("mixture", o, p, d)


def cases(rng):
    for scale in (1, 1, 60):
        p = rng.dirichlet(np.ones(4), size=5)
        p[0] = [0, 0.5, 0, 0.5]
        yield rng.normal(size=(5, 4, 2)), p, scale * rng.normal(size=(5, 2))


self_check(mixture_gradient, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Train the three errors on $d = 4|x| - 2$. Print, for each, the first epoch at which the
#    expert the gate likes best has a mean squared error under 0.3 alone, and the squared error of the blend at
#    epoch 100. In which order do they arrive?
# 2. **Derive.** Give eq. 3 a variance: $-\log \sum_i p_i e^{-\lVert d - o_i \rVert^2 / 2\sigma^2}$. Redo section 4.
#    For which $\sigma$ do targets of ±½ split? (No new code is needed to try it: which other quantity can be scaled
#    instead?)
# 3. **Break it.** Start both experts from exactly the same parameters. What does eq. 3 do now, and why can no
#    number of epochs change it? How small a difference is enough? (With branches at ±3 instead of ±2 it is quicker
#    to see.)
#
# Solutions: `lessons/solutions/03_three_errors.py`.
#
# Next: 04, the vowels: the same mixture on real data, epoch by epoch, and what the numbers of its table are worth.
