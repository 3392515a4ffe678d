# %% [markdown]
# # Assignment 1: a mixture of local experts
#
# You build the mixture of experts of Jacobs, Jordan, Nowlan and Hinton (1991) from its parts, check each gradient,
# and train it on the vowels that the paper used. It follows lessons 02 to 04; allow two to three hours.
#
# **What to do.** Seven functions have a body to write, where it says `# YOUR CODE HERE`. Keep their names and
# arguments. The cell under each holds visible checks: run it, and no error means they pass. All checks at once, as
# in grading: `moe-np coursework check 1_mixture.ipynb`.
#
# **What is graded.** Each function by itself, on other inputs than you see here, drawn anew for each grading: other
# shapes, very large totals, shut gates. 20 points: softmax 2, gate 3, loss 3, responsibilities 2, their gradient 3,
# training 4, report 3. A question gives points in proportion to the hidden inputs that are answered right, in half
# points, and none below half of them. Results count as right within a relative 1e-4 (3e-3 for responsibilities and
# their gradient, 1e-3 for training), so float32 will do. A function must not change its inputs, and must answer within
# seconds, gradients of thousands of cases too (by differences of the loss that takes minutes).
#
# **What may be imported.** NumPy, Matplotlib, and of this package `moe_np.base.checks`, `moe_np.base.gradcheck` and
# `moe_np.data.speech.vowels`. Nothing else of `moe_np` exists where your work is graded. Each function is graded alone, so
# if you call one of your own functions from another, a mistake in it costs both.
#
# | symbol | code | shape | meaning |
# |---|---|---|---|
# | $x$ | `x` | (N, D) | inputs of N cases |
# | $d$ | `d` | (N, C) | wanted outputs |
# | $s_i$ | `s` | (N, E) | total input of the gate's unit $i$, $s = xU + c$ |
# | $p_i$ | `p` | (N, E) | the gate's output, softmax of $s$ |
# | $o_i$ | `o` | (N, E, C) | output of expert $i$ |
# | $y$ | `y` | (N, C) | the blend $\sum_i p_i o_i$ |
# | $h_i$ | `resp` | (N, E) | responsibility of expert $i$ |
#
# The gradient of a loss with respect to `p` is called `dp`, and so for all of them.

# %% given="setup"
import numpy as np

from moe_np.base.gradcheck import gradient_error
from moe_np.data.speech.vowels import vowel_task

# %% [markdown]
# ## 1. The gate's softmax (2 points)
#
# $$p_i = \frac{e^{s_i}}{\sum_j e^{s_j}}$$
#
# `np.exp(1000)` is infinite. Subtracting the same number from all totals of a case changes no $p_i$: choose it so
# that nothing overflows.


# %% answer="q1_softmax"
def softmax(s):
    """p_i = exp(s_i) / Σ_j exp(s_j) over the last axis. s (..., E) -> p (..., E)

    Totals may be very large or very small, and some may be −inf (a choice that is ruled out: its p
    is 0).
    """
    ### BEGIN SOLUTION
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
    ### END SOLUTION


# %% test="q1_softmax"
# visible checks of q1_softmax
s = np.array([[0.0, np.log(3.0)], [2.0, 2.0]])
p = softmax(s)
assert p is not None, "softmax returned nothing"
assert np.allclose(p, [[0.25, 0.75], [0.5, 0.5]]), f"exp(s) shared out by rows, got {p}"
message = "adding a constant to all totals of a row changes nothing"
assert np.allclose(softmax(s + np.array([[1000], [0]])), p, atol=1e-3), message
p = softmax(np.array([[-np.inf, 1.0, 1.0]]))
assert np.allclose(p, [[0, 0.5, 0.5]]), "a total of −inf has p = 0"
assert np.allclose(softmax(s[0]), [0.25, 0.75]), "one axis only: the last one is the first, too"
message = "three axes: the softmax is over the last one"
assert np.allclose(softmax(np.array([s, s[::-1]]))[1], [[0.5, 0.5], [0.25, 0.75]]), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("1_mixture", "q1_softmax", softmax)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Back through the gate (3 points)
#
# Somebody hands you `dp`, the gradient of a loss with respect to $p$. Show first, on paper, that
#
# $$\frac{\partial p_j}{\partial s_i} = p_j(\delta_{ij} - p_i), \qquad \text{so} \qquad ds_i = p_i\Big(dp_i - \sum_j p_j\,dp_j\Big),$$
#
# then go on to $x$, $U$ and $c$ of $s = xU + c$. The check below draws a random direction and compares the slope of
# the loss along it with what your gradient promises (`moe_np.base.gradcheck`).


# %% answer="q2_gate_backward"
def gate_backward(dp, x, U, p):
    """Gradients of the gate p = softmax(x U + c): -> (dx, dU, dc).

    dp (N, E), x (N, D), U (D, E), p (N, E)
    """
    ### BEGIN SOLUTION
    ds = p * (dp - (dp * p).sum(axis=1, keepdims=True))
    return ds @ U.T, x.T @ ds, ds.sum(axis=0)
    ### END SOLUTION


# %% test="q2_gate_backward"
# visible checks of q2_gate_backward
rng = np.random.default_rng(0)
x, U, c = rng.normal(size=(5, 2)), rng.normal(size=(2, 3)), rng.normal(size=3)
weight = rng.normal(size=(5, 3))


def gate_loss(params):
    """Any scalar of p will do: here Σ weight · p, whose gradient with respect to p is `weight`."""
    s = params["x"] @ params["U"] + params["c"]
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return (weight * e / e.sum(axis=1, keepdims=True)).sum()


e = np.exp(x @ U + c)
before = weight.copy(), x.copy(), U.copy()
got = gate_backward(weight, x, U, e / e.sum(axis=1, keepdims=True))
assert got is not None, "gate_backward returned nothing"
assert all(map(np.array_equal, (weight, x, U), before)), "the inputs were changed"
grads = dict(zip(("x", "U", "c"), got, strict=True))
errors = gradient_error(gate_loss, {"x": x, "U": U, "c": c}, grads, rng)
assert max(errors.values()) < 1e-4, f"the gradient check: relative errors {errors}"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("1_mixture", "q2_gate_backward", gate_backward)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The error that makes experts compete (3 points)
#
# Equation 3 of the paper, for one case:
#
# $$E = -\log \sum_i p_i\, e^{-\frac12 \lVert d - o_i\rVert^2}$$
#
# Where $d$ is far from all outputs every exponential is 0 in floating point, and the log of it −inf. Work with
# logarithms until the end: $\log\sum_i e^{a_i} = m + \log\sum_i e^{a_i - m}$ with $m = \max_i a_i$.


# %% answer="q3_mixture_loss"
def mixture_loss(o, p, d):
    """E = −log Σ_i p_i exp(−½ ‖d − o_i‖²), one value per case. -> (N,)

    o (N, E, C), p (N, E), d (N, C)
    Targets may be far from every output, and some p may be exactly 0.
    """
    ### BEGIN SOLUTION
    with np.errstate(divide="ignore"):
        log_share = np.log(p) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    top = log_share.max(axis=1)
    return -top - np.log(np.exp(log_share - top[:, None]).sum(axis=1))
    ### END SOLUTION


# %% test="q3_mixture_loss"
# visible checks of q3_mixture_loss
o = np.array([[[0.0], [2.0]], [[0.0], [2.0]]])
p = np.array([[0.5, 0.5], [0.5, 0.5]])
loss = mixture_loss(o, p, np.array([[1.0], [102.0]]))
assert loss is not None, "mixture_loss returned nothing"
assert np.shape(loss) == (2,), f"one value per case, got the shape {np.shape(loss)}"
assert np.allclose(loss[0], 0.5), "halfway, both outputs are at distance 1: E = −log exp(−½) = ½"
assert np.allclose(loss[1], 5000 + np.log(2)), "far away, only the nearer output counts"
two = mixture_loss(np.zeros((1, 1, 2)), np.ones((1, 1)), np.array([[1.0, 2.0]]))
assert np.allclose(two, 2.5), f"two outputs, one expert: ½ (1² + 2²) = 2.5, got {two}"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("1_mixture", "q3_mixture_loss", mixture_loss)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Who answered for it? (2 points)
#
# The share of each expert in the sum above: the gate's opinion $p_i$, corrected by how well each expert did.
#
# $$h_i = \frac{p_i\, e^{-\frac12 \lVert d - o_i\rVert^2}}{\sum_j p_j\, e^{-\frac12 \lVert d - o_j\rVert^2}}$$
#
# Targets that are far away need the same care as in question 3.


# %% answer="q4_responsibilities"
def responsibilities(o, p, d):
    """resp_i = p_i exp(−½ ‖d − o_i‖²) / Σ_j p_j exp(−½ ‖d − o_j‖²). -> (N, E)

    o (N, E, C), p (N, E), d (N, C), as in question 3
    """
    ### BEGIN SOLUTION
    with np.errstate(divide="ignore"):
        log_share = np.log(p) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    share = np.exp(log_share - log_share.max(axis=1, keepdims=True))
    return share / share.sum(axis=1, keepdims=True)
    ### END SOLUTION


# %% test="q4_responsibilities"
# visible checks of q4_responsibilities
o = np.array([[[0.0], [2.0]], [[0.0], [2.0]]])
p = np.array([[0.5, 0.5], [0.25, 0.75]])
resp = responsibilities(o, p, np.array([[2.0], [1.0]]))
assert resp is not None, "responsibilities returned nothing"
wanted = [1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))]
assert np.allclose(resp[0], wanted), "exact for expert 1, off by 2 for expert 0"
assert np.allclose(resp[1], p[1]), "both are as far away: the gate decides"
resp = responsibilities(o, p, np.array([[300.0], [300.0]]))
assert np.allclose(np.sum(resp, axis=1), 1), "they sum to 1, far away as well"
two = np.array([[[0.0, 0.0], [1.0, 2.0]]])
resp = responsibilities(two, np.array([[0.5, 0.5]]), np.array([[1.0, 2.0]]))
message = f"two outputs: expert 0 is off by 1 and 2, expert 1 exact; got {resp}"
assert np.allclose(resp, [[1 / (1 + np.exp(2.5)), 1 / (1 + np.exp(-2.5))]]), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("1_mixture", "q4_responsibilities", responsibilities)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The gradient of it (3 points)
#
# Show that for one case
#
# $$\frac{\partial E}{\partial o_i} = -h_i\,(d - o_i), \qquad \frac{\partial E}{\partial s_i} = p_i - h_i,$$
#
# where $s_i$ is the gate's total: the softmax and the logarithm together leave this one line. Return both for all
# cases, as gradients of the **sum** of $E$ over cases.


# %% answer="q5_mixture_backward"
def mixture_backward(o, p, d):
    """Gradients of Σ_n E_n: -> do (N, E, C), and ds (N, E) at the gate's totals.

    o (N, E, C), p (N, E), d (N, C), as in question 3
    """
    ### BEGIN SOLUTION
    with np.errstate(divide="ignore"):
        log_share = np.log(p) - 0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2)
    share = np.exp(log_share - log_share.max(axis=1, keepdims=True))
    resp = share / share.sum(axis=1, keepdims=True)
    return -resp[:, :, None] * (d[:, None, :] - o), p - resp
    ### END SOLUTION


# %% test="q5_mixture_backward"
# visible checks of q5_mixture_backward
rng = np.random.default_rng(1)
o, s, d = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3)), rng.normal(size=(4, 2))


def total_loss(params):
    p = np.exp(params["s"]) / np.exp(params["s"]).sum(axis=1, keepdims=True)
    distances = ((d[:, None] - params["o"]) ** 2).sum(axis=2)
    return -np.log((p * np.exp(-0.5 * distances)).sum(axis=1)).sum()


got = mixture_backward(o, np.exp(s) / np.exp(s).sum(axis=1, keepdims=True), d)
assert got is not None, "mixture_backward returned nothing"
grads = dict(zip(("o", "s"), got, strict=True))
errors = gradient_error(total_loss, {"o": o, "s": s}, grads, rng)
assert max(errors.values()) < 1e-4, f"the gradient check: relative errors {errors}"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("1_mixture", "q5_mixture_backward", mixture_backward)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Training (4 points)
#
# Put it together: logistic experts, the gate, equation 3, and gradient descent on the sum of $E$ over all cases, as
# in the paper: no momentum, one update per epoch. An expert is $o_i = \sigma(x W_i + b_i)$ with $\sigma'(t) =
# \sigma(t)(1 - \sigma(t))$.


# %% answer="q6_train"
def train(params, x, d, lr, epochs):
    """`epochs` steps of gradient descent on Σ_n E_n. Returns the new parameters.

    The parameters that come in stay as they are.

    params  {"W": (E, D, C), "b": (E, C), "U": (D, E), "c": (E,)}
            experts o_i = sigmoid(x W_i + b_i), gate p = softmax(x U + c)
    x (N, D), d (N, C)
    The gate's totals may be very large.
    lr      the learning rate: every step is p ← p − lr · (gradient of the sum over all cases)
    """
    ### BEGIN SOLUTION
    W, b, U, c = (params[name] for name in ("W", "b", "U", "c"))
    for _ in range(epochs):
        o = 1 / (1 + np.exp(-(np.einsum("nd,edc->nec", x, W) + b)))
        s = x @ U + c
        p = np.exp(s - s.max(axis=1, keepdims=True))
        p = p / p.sum(axis=1, keepdims=True)
        share = p * np.exp(-0.5 * ((d[:, None, :] - o) ** 2).sum(axis=2))
        resp = share / share.sum(axis=1, keepdims=True)
        dtotals = -resp[:, :, None] * (d[:, None, :] - o) * o * (1 - o)
        ds = p - resp
        W = W - lr * np.einsum("nd,nec->edc", x, dtotals)
        b = b - lr * dtotals.sum(axis=0)
        U = U - lr * x.T @ ds
        c = c - lr * ds.sum(axis=0)
    return {"W": W, "b": b, "U": U, "c": c}
    ### END SOLUTION


# %% test="q6_train"
# visible checks of q6_train
rng = np.random.default_rng(2)
start = {"W": rng.normal(size=(3, 2, 1)), "b": rng.normal(size=(3, 1))}
start |= {"U": rng.normal(size=(2, 3)), "c": np.zeros(3)}
x = rng.normal(size=(20, 2))
d = (rng.random((20, 1)) < 0.5).astype(float)


def system_loss(params):
    o = 1 / (1 + np.exp(-(np.einsum("nd,edc->nec", x, params["W"]) + params["b"])))
    s = x @ params["U"] + params["c"]
    p = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
    return -np.log((p * np.exp(-0.5 * ((d[:, None] - o) ** 2).sum(axis=2))).sum(axis=1)).sum()


before = {name: value.copy() for name, value in start.items()}
after = train(start, x, d, 0.01, 1)
assert after is not None, "train returned nothing"
unchanged = all(np.array_equal(start[name], before[name]) for name in start)
assert unchanged, "the parameters that came in were changed"
assert set(after) == set(start), f"wanted W, b, U and c, got {sorted(after)}"
grads = {name: (start[name] - after[name]) / 0.01 for name in start}
errors = gradient_error(system_loss, start, grads, rng)
assert max(errors.values()) < 1e-3, f"the gradient check of one step: relative errors {errors}"
twice = train(train(start, x, d, 0.01, 1), x, d, 0.01, 1)
after = train(start, x, d, 0.01, 2)
same = all(np.allclose(after[name], twice[name], atol=1e-5) for name in start)
assert same, "two epochs are one epoch after another"
after = train(start, x, d, 0.01, 50)
assert system_loss(after) < system_loss(start), "fifty small steps lower the loss"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("1_mixture", "q6_train", train)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. What came of it (3 points)


# %% answer="q7_report"
def report(params, x, d):
    """How good is a mixture, and who works in it? Returns (squared_error, percent_correct, active).

    squared_error    mean over cases of ‖d − y‖², y = Σ_i p_i o_i
    percent_correct  percent of cases where y is on the same side of ½ as d (one output, d is 0
                     or 1)
    active           number of experts that have the largest p for at least a twentieth (5 %) of
                     the cases
    The gate's totals may be very large.
    """
    ### BEGIN SOLUTION
    o = 1 / (1 + np.exp(-(np.einsum("nd,edc->nec", x, params["W"]) + params["b"])))
    s = x @ params["U"] + params["c"]
    p = np.exp(s - s.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    y = (p[:, :, None] * o).sum(axis=1)
    counts = np.bincount(p.argmax(axis=1), minlength=p.shape[1])
    squared_error = ((d - y) ** 2).sum(axis=1).mean()
    percent_correct = 100 * ((y > 0.5) == (d > 0.5)).mean()
    return squared_error, percent_correct, (counts >= 0.05 * len(x)).sum()
    ### END SOLUTION


# %% test="q7_report"
# visible checks of q7_report
model = {"W": np.zeros((2, 1, 1)), "b": np.array([[20.0], [-20.0]])}
model |= {"U": np.array([[9.0, -9.0]]), "c": np.zeros(2)}
x, d = np.array([[1.0], [1.0], [1.0], [-1.0]]), np.array([[1.0], [1.0], [0.0], [0.0]])
got = report(model, x, d)
assert got is not None, "report returned nothing"
message = f"three of four cases right, two experts at work; got {got}"
assert np.allclose(got, (0.25, 75, 2), atol=1e-4), message
got = report(model, np.ones((4, 1)), np.ones((4, 1)))
assert np.allclose(got, (0, 100, 1), atol=1e-4), f"all right, one expert at work; got {got}"
unsure = {**model, "U": np.zeros((1, 2)), "c": np.array([np.log(3.0), 0.0])}
got = report(unsure, np.ones((4, 1)), np.ones((4, 1)))
message = f"p = ¾ and ¼ of the outputs 1 and 0: y = ¾, an error of 1/16; got {got}"
assert np.allclose(got, (0.0625, 100, 1), atol=1e-4), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("1_mixture", "q7_report", report)
### END HIDDEN TESTS

# %% [markdown]
# ## The vowels
#
# Now run it: four experts on two formants of four vowels, [i] and [ʌ] coded 1, [ɪ] and [ɑ] coded 0 (no single line
# parts these). The paper stops when the squared error is .08; it needed 1124 epochs on average, over 25
# initialisations. How many do you need? How many experts are at work in the end? Nothing below is graded.

# %% tags=["look"]
task = vowel_task()
rng = np.random.default_rng(0)
params = {"W": rng.uniform(-0.05, 0.05, (4, 2, 1)), "b": rng.uniform(-0.05, 0.05, (4, 1))}
params |= {"U": np.zeros((2, 4)), "c": np.zeros(4)}
for epoch in range(0, 3000, 100):
    squared_error, percent, active = report(params, task.x_train, task.d_train)
    print(f"epoch {epoch:4}: squared error {squared_error:.3f}, {percent:.1f} % correct", end="")
    print(f", {active} experts at work")
    if squared_error <= 0.08:
        break
    params = train(params, task.x_train, task.d_train, 0.06, 100)

# %% tags=["look"]
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(6, 5))
for vowel, name in enumerate(("i", "ɪ", "ɑ", "ʌ")):
    cases = task.x_train[task.vowel_train == vowel]
    ax.plot(cases[:, 0], cases[:, 1], "o+sx"[vowel], alpha=0.6, label=f"[{name}]")
f1 = np.array([0.2, 1.2])
chosen = softmax(task.x_train @ params["U"] + params["c"]).argmax(axis=1)
for e in np.flatnonzero(np.bincount(chosen, minlength=4) >= 20):
    f2 = -(params["b"][e, 0] + params["W"][e, 0, 0] * f1) / params["W"][e, 1, 0]
    ax.plot(f1, f2, label=f"expert {e}")  # the line on which its output is ½
ax.set(xlabel="F1, kHz", ylabel="F2, kHz", ylim=(0.5, 4))
ax.legend()
plt.show()
