# %% [markdown]
# # 03 · Three errors, and why the third makes experts compete
#
# Afterwards you can say, for any error that joins experts, what it tells an expert that is right, one that is near
# and one that is far off; and you can compute when a mixture will split and when it will not.
#
# Jacobs, Jordan, Nowlan and Hinton (1991) write down three errors for the same experts and the same gate:
#
# | | error of one case | in code | what is taken for the answer |
# |---|---|---|---|
# | eq. 1 | $\lVert d - \sum_i p_i o_i \rVert^2$ | `cooperative` | the blend of all experts |
# | eq. 2 | $\sum_i p_i \lVert d - o_i \rVert^2$ | `competitive` | one expert, drawn with probability $p_i$ |
# | eq. 3 | $-\log \sum_i p_i e^{-\frac12 \lVert d - o_i \rVert^2}$ | `mixture` | one expert, and noise of variance 1 |
#
# Symbols as in lesson 02: wanted output `d` (N, C), answers `o` (N, E, C), the gate's belief `p` (N, E),
# responsibilities `resp` (N, E). New here: the **push** on an expert, `-do`, the direction in which descent moves
# its answer.

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.coursework import self_check
from moe_np.mixtures import jacobs1991
from moe_np.show import lesson_plots
from moe_np.show.steps import Steps, state
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
wanted = np.array([[1.0]])
three_answers = np.array([[[1.0], [0.0], [-2.0]]])
thirds = np.full((1, 3), 1 / 3)
pushes = {error: push(error, three_answers, thirds, wanted)[0, :, 0] for error in NAMES}
print("        right   near    far off")
for error, name in NAMES.items():
    print(name, "  {:6.3f}  {:6.3f}  {:6.3f}".format(*pushes[error]))

first, second, third = pushes.values()
assert np.ptp(first) < 1e-12 and first[0] > 0  # eq. 1: all alike, the right one too
assert second[0] == third[0] == 0  # the others leave it alone
assert second.argmax() == 2 and third.argmax() == 1

# %% [markdown]
# * **Eq. 1** pushes all three by the same amount, $2 p_i (d - y)$, since what counts is the blend
#   $y = \sum_i p_i o_i$. The expert that is right is told to overshoot, to repair what the others do. Experts
#   **cooperate**: none of them has to be right alone, and when one changes, all others have to change with it.
# * **Eq. 2** pushes each by its own residual, $2 p_i (d - o_i)$. The expert that is right is not pushed. But the hardest
#   push goes to the expert that is farthest off: it is told to come here, although another one already has the case.
#   All experts learn from all cases.
# * **Eq. 3** pushes by $h_i\,(d - o_i)$, with $h_i$ the responsibility (`resp`), which is small for an expert that is far
#   off compared with the others. The one that is near is drawn in; the one that is far off is free for other cases.
#
# ## 2. How far does the pull reach?
#
# Two experts, $p = ½$ each. One stays at distance 2 from the wanted output. Move the other from distance 0 to 5.
#
# **Predict.** Draw the push on the moving expert against its distance, for eq. 2 and for eq. 3.

# %%
distance = np.linspace(0, 5, 201)
pairs = np.stack([distance, np.full_like(distance, 2.0)], axis=1)[:, :, None]
even, zeros = np.full((201, 2), 0.5), np.zeros((201, 1))
pulls = {
    error: np.abs(push(error, pairs, even, zeros))[:, :, 0] for error in ("competitive", "mixture")
}

fig, ax = plt.subplots(figsize=(7.5, 4))
for error, pull in pulls.items():
    ax.plot(distance, pull[:, 0], color=COLOUR[error], linewidth=2.5)
    ax.plot(distance, pull[:, 1], color=COLOUR[error], linewidth=1.5, linestyle=":")
    plots.label(ax, 4.6, pull[184, 0], NAMES[error], COLOUR[error], size=15)
ax.set(xlabel="distance of the moving expert", ylabel="push", xlim=(0, 5))
ax.set_title("full: the moving expert; dotted: the one that stays at 2")
plt.show()
moving = pulls["mixture"][:, 0]
print(f"eq. 3 pulls hardest at a distance of {distance[moving.argmax()]:.2f}; ", end="")
print(f"at 5 its push is {moving[-1]:.5f}")
assert moving[-1] < 1e-3 and 1 < distance[moving.argmax()] < 2

# %% [markdown]
# Under eq. 2 the push grows with the distance, like a spring, and it does not care where the other expert is: the
# dotted line is flat. Under eq. 3 the pull has a reach. Beyond about 3, the case belongs to the other expert, whose
# push (dotted) rises to take it over.
#
# The paper says in its section 1: while the gate has no opinion and all experts are farther off than 1, eq. 2 adapts the
# best of them the slowest, eq. 3 the fastest. Here is that sentence, tried on a thousand random cases.

# %%
far_answers = np.random.default_rng(0).uniform(1, 4, (1000, 3, 1))
undecided, targets_0 = np.full((1000, 3), 1 / 3), np.zeros((1000, 1))
nearest = far_answers[:, :, 0].argmin(axis=1)
by_2 = np.abs(push("competitive", far_answers, undecided, targets_0))[:, :, 0]
by_3 = np.abs(push("mixture", far_answers, undecided, targets_0))[:, :, 0]
print(
    f"eq. 2 pushes the best expert least in {(by_2.argmin(axis=1) == nearest).mean():.0%} of cases"
)
print(
    f"eq. 3 pushes the best expert most in {(by_3.argmax(axis=1) == nearest).mean():.0%} of cases"
)
assert (by_2.argmin(axis=1) == nearest).all() and (by_3.argmax(axis=1) == nearest).all()

# %% [markdown]
# ## 3. What the errors look like from above
#
# Now there are no inputs and no gate to train: half of the wanted outputs are −2, half are +2, two experts may each say
# one number, $p = ½$ each. The mean error is then a landscape over $(o_0, o_1)$.
#
# **Predict.** Where is the bottom of each landscape? A single expert alone would say 0, the mean. Start at (0.6,
# 0.3): where does descent end?


# %%
def landscape(error, o0, o1, a):
    """The mean error when half of the targets are −a and half +a; o0, o1 any shape."""
    pairs = np.stack([np.ravel(o0), np.ravel(o1)], axis=1)[:, :, None]
    half = np.full((len(pairs), 2), 0.5)
    error_of, _ = jacobs1991.ERRORS[error]
    low, _ = error_of(pairs, half, np.full((len(pairs), 1), -a))
    high, _ = error_of(pairs, half, np.full((len(pairs), 1), a))
    return ((low + high) / 2).reshape(np.shape(o0))


def descend(error, start, a, steps=400, lr=0.05):
    """The path of gradient descent over the landscape (steps + 1, 2)."""
    targets, half = np.array([[-a], [a]]), np.full((2, 2), 0.5)
    path = [np.array(start)]
    for _ in range(steps):
        answers = np.stack([path[-1], path[-1]])[:, :, None]  # the same two to both targets
        path.append(path[-1] + lr * push(error, answers, half, targets).mean(axis=0)[:, 0])
    return np.array(path)


# %%
grid = np.linspace(-3, 3, 121)
o0, o1 = np.meshgrid(grid, grid)
fig, axes = plt.subplots(1, 3, figsize=(12, 4.8), sharey=True)
ends = {}
for ax, error in zip(axes, NAMES, strict=True):
    path = descend(error, (0.6, 0.3), 2.0)
    ends[error] = path[-1]
    lesson_plots.landscape_with_path(ax, o0, o1, landscape(error, o0, o1, 2.0), path)
    ax.set(title=NAMES[error], xlabel="$o_0$")
axes[0].set_ylabel("$o_1$")
plt.show()
print({NAMES[error]: end.round(3) for error, end in ends.items()})
assert abs(ends["cooperative"].sum()) < 1e-6 and np.allclose(ends["competitive"], 0, atol=1e-6)
assert np.allclose(ends["mixture"], [2, -2], atol=0.01)

# %% [markdown]
# (Dark is low; the circle is the start, the square the end.)
#
# * Eq. 1 has a **valley**: every pair with $o_0 + o_1 = 0$ is as good as any other, and descent stops where it
#   first meets it. All that is asked for is a blend of 0. The experts may be anything.
# * Eq. 2 has a **bowl** around the mean. Both experts say 0: two copies of the one net that averages (lesson 01).
# * Eq. 3 has **two bottoms**, one expert for each kind of target, and between them a saddle, as of a mountain pass.
#   Which expert gets which is decided by the start: the one that was a little higher goes up.
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
# **Predict.** For a = 0.5, 1, 1.5 and 2: where is the bottom?

# %%
eps = np.linspace(-3, 3, 301)
fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2))
for error, name in NAMES.items():
    height = landscape(error, eps, -eps, 2.0)
    left.plot(eps, height - height[150], color=COLOUR[error], linewidth=2.5)
    plots.label(left, eps[270], height[270] - height[150], name, COLOUR[error], size=15)
left.set(title="targets ±2", xlabel="ε", ylabel="mean error, less that at ε = 0")
left.set(ylim=(-2.2, 10), xlim=(-3, 3))

bottoms = {}
for a, colour in ((0.5, plots.PINK), (1.0, plots.SKY), (1.5, plots.AMBER), (2.0, plots.BLACK)):
    height = landscape("mixture", eps, -eps, a)
    formula = 0.5 * a**2 + 0.5 * eps**2 - np.log(np.cosh(eps * a))
    assert np.allclose(height, formula)
    bottoms[a] = abs(eps[height.argmin()])
    right.plot(eps, height - height[150], color=colour, linewidth=2.5)
    plots.label(right, eps[265], height[265] - height[150], f"a = {a:g}", colour, size=15)
right.set(title="eq. 3, targets ±a", xlabel="ε", ylim=(-1.6, 3.2), xlim=(-3, 3))
plt.show()
print("bottom at |ε| =", {a: float(place.round(2)) for a, place in bottoms.items()})
assert bottoms[0.5] == 0 and bottoms[1.0] == 0 and bottoms[1.5] > 1 and bottoms[2.0] > 1.9
assert all(abs(e - a * np.tanh(a * e)) < 0.02 for a, e in bottoms.items())

# %% [markdown]
# So eq. 3 does not always compete. Up to $a = 1$ the experts stay together: what they would have to divide is no
# larger than noise. From there on, two bottoms open, quickly. The 1 is the variance inside the exponent, and it has
# the units of the outputs: multiply all targets by ten, and other mixtures split (exercise 2).
#
# **A warning before lesson 04.** There the targets are 0 and 1, that is $a = 0.5$, and yet the experts part. This is
# no contradiction. The rule above is for experts *without inputs* under a gate that stays at ½. With inputs there is
# a second way to gain: experts and gate together can make the **blend** $\sum_i p_i o_i$ better, as in eq. 1. For
# targets that vary little, eq. 3 is $\tfrac12 (d - y)^2$ plus half the variance of the answers under $p$, to second
# order. Its first part is the blend's error, and lesson 04 measures that it is this part which falls.
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


def train(error, epochs):
    """Gradient descent on the mean error: yields (epoch, parameters, cache) before each step."""
    params = start
    for epoch in range(epochs + 1):
        _, cache = jacobs1991.system_forward(params, x, d, error, kind="linear")
        yield epoch, params, cache
        _, grads = jacobs1991.system_backward(np.full(len(x), 1 / len(x)), cache)
        params = {name: params[name] - RATE[error] * grads[name] for name in params}


# %%
AT = np.array([10, 50, 85, 115, 150, 190])  # six of the inputs
SHOWN = (0, 5, 10, 20, 30, 40, 60, 100, 300)
AXES = {"x": "case", "d": "case", "o": "case E", "p_0": "case", "resp_0": "case"}


def states():
    """A state for each of the epochs in SHOWN."""
    before = None
    for epoch, params, cache in train("mixture", max(SHOWN)):
        if epoch in SHOWN:
            arrays = {"x": x[AT, 0], "d": d[AT, 0], "o": cache.o[AT, :, 0]}
            arrays |= {"p_0": cache.p[AT, 0], "resp_0": cache.scores.resp[AT, 0]}
            arrays |= {"W": params["W"], "b": params["b"]}
            note = "p_0 and resp_0 are those of expert 0."
            before = state(f"epoch {epoch}", "", arrays, axes=AXES, note=note, before=before)
            yield before


def draw(ax, now, history):
    lesson_plots.two_lines(ax, x[:, 0], d[:, 0], now)


steps = Steps(states(), draw=draw)
next(steps)

# %%
view(steps)  # forward, back, slider, play; where there are no widgets: next(steps), steps.back()

# %% [markdown]
# `resp` leads and `p` follows, because the gate's gradient is `p - resp` (lesson 02). A small difference between
# the answers makes a difference in responsibility; that makes the experts' answers differ more, and the gate learns
# to tell where. Each of the three feeds the next. The cell below draws how far both are from ½, and then the same start
# trained with all three errors.
#
# **Predict.** After 300 epochs, which errors have found the two branches? Which of them has the smallest
# squared error of the blend?

# %%
away = []  # of resp and of p from ½
for _, _, cache in train("mixture", 60):
    away.append([np.abs(q[:, 0] - 0.5).mean() for q in (cache.scores.resp, cache.p)])
away = np.array(away)
assert (away[1:41, 0] > away[1:41, 1]).all()  # resp is ahead of p all the way

fig, axes = plt.subplots(1, 4, figsize=(14, 3.8))
for path, name, colour in zip(away.T, ("resp", "p"), (plots.GREEN, plots.BLACK), strict=True):
    axes[0].plot(path, linewidth=2.5, color=colour)
    plots.label(axes[0], 25, path[25], name, colour, size=15)
axes[0].set(title="eq. 3: mean distance from ½", xlabel="epoch")
found = {}
for ax, error in zip(axes[1:], NAMES, strict=True):
    *_, (_, _, cache) = train(error, 300)  # the last epoch
    lesson_plots.two_answers(ax, x[:, 0], d[:, 0], cache.o[:, :, 0], cache.p, cache.y[:, 0])
    ax.set_title(NAMES[error])
    distance_of = ((d[:, None, :] - cache.o) ** 2).sum(axis=2)
    alone = distance_of[np.arange(len(x)), cache.p.argmax(axis=1)].mean()
    found[error] = float(((d - cache.y) ** 2).mean()), alone
plt.show()
print("mean squared error of    the blend    the expert the gate likes best, alone")
for error, (blend, alone) in found.items():
    print(f"{NAMES[error]:>21}    {blend:9.2f}    {alone:.2f}")
assert found["mixture"][1] < 0.3 < 0.9 < min(found["cooperative"][1], found["competitive"][1])

# %% [markdown]
# The stronger the colour, the larger `p`; the thin black line is the blend. Eq. 3 has split. Eq. 2 has made two copies of
# one line, and the gate has nothing to choose between. Eq. 1 has not found the branches either.
#
# Look at the two columns of the table for eq. 3: the expert that the gate likes best is better *alone* than the
# blend. Eq. 3 asks for experts that can answer alone. That is what a sparse layer needs, where all but a few are
# never run (lesson 07).
#
# This task is a hard one for eqs. 1 and 2, because its two halves mirror each other: near the best single line, a small
# change of the gate and a small change of the experts do not help each other. Exercise 1 has a task on which all three
# errors arrive. So "only eq. 3 works" would be too much to conclude.
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
# 1. **Change the code.** In section 5, train the three errors on $d = 4|x| - 2$. Print, for each, the first epoch at which the
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
# Next: [04, the vowels](04_vowels.ipynb): the same mixture on real data, epoch by epoch, and what the numbers of its
# table are worth.
