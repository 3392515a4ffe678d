# %% [markdown]
# # Assignment 2: EM for a mixture of experts
#
# Assignment 1 trained a mixture by small steps down a gradient. Here you train one by EM (Jordan and Jacobs 1994): ask
# which expert is responsible for each case, then solve each expert's regression, and the gate's, with these
# responsibilities. There is no learning rate, and the likelihood never falls. In the end three straight lines answer a question
# that has three answers. It follows lesson 05; allow three to four hours.
#
# **What to do.** Eight functions have a body to write, where it says `# YOUR CODE HERE`. Keep their names and
# arguments. The cell under each holds visible checks: run it, and no error means they pass. All checks at once, as
# in grading: `moe-np coursework check 2_em.ipynb`.
#
# **What is graded.** Each function by itself, on other inputs than you see here, drawn anew for each grading: other
# shapes, cases far away from every expert, gates that are much too sure. 22 points: Gaussian density 2, density of a
# label 2, E step 3, regressions 3, variances 2, the gate's derivatives 3, the gate's step 3, EM 4. A question gives
# points in proportion to the hidden inputs that are answered right, in half points, and none below half of them.
# Results count as right within a relative 1e-4 (questions 3, 4, 7 and 8: 1e-3). Float32 will do in questions 1 to 3, 5
# and 6; stay with NumPy's own float64 elsewhere. A function must not change its inputs, and must answer within
# seconds.
#
# **What may be imported.** NumPy, Matplotlib, and of this package `moe_np.base.checks`, `moe_np.base.gradcheck` and
# `moe_np.data.inverse`. Nothing else of `moe_np` exists where your work is graded. Each function is graded alone, so
# if you call one of your own functions from another, a mistake in it costs both.
#
# | paper | code | shape | meaning |
# |---|---|---|---|
# | $x$ | `x` | (N, D) | inputs of N cases; **the last column is 1**, so no constants are needed besides |
# | $y$ | `y` | (N, C) | wanted outputs |
# | $W_i$ | `W` | (E, D, C) | expert $i$ says that $y$ is $x W_i$ on average |
# | $\sigma_i^2$ | `var` | (E,) | variance of expert $i$, the same for all C outputs |
# | $u_i$ | `U` | (D, E) | the gate: $g$ = softmax($xU$); **its last column is 0** |
# | $\log g_i$ | `log_gate` | (N, E) | |
# | $\log P_i$ | `log_density` | (N, E) | $\log P(y \mid x, \text{expert } i)$ |
# | $h_i$ | `resp` | (N, E) | responsibility of expert $i$; a row sums to 1 |
#
# Why may a column of `U` be fixed? Adding the same vector to all columns adds the same number to all totals of a
# case, and the softmax stays the same. Only differences count; with one column at 0 there is one `U` for each gate.
# All logarithms are natural ones.

# %% given="setup"
import numpy as np

from moe_np.base.gradcheck import gradient_error, slope
from moe_np.data import inverse

# %% [markdown]
# ## 1. How likely is this, expert? (2 points)
#
# Expert $i$ says that the C outputs are independent Gaussians of variance $\sigma_i^2$ about $x W_i$:
#
# $$P(y \mid x, i) = \prod_{c=1}^{C} \frac{1}{\sqrt{2\pi\sigma_i^2}}
# \exp\Big( -\frac{(y_c - (x W_i)_c)^2}{2\sigma_i^2} \Big).$$
#
# Return its logarithm for all cases and experts. In assignment 1 all variances were 1 and the factor in front could be
# left out. Now they are learned, and without the factor the likelihood could always be raised by a larger variance.


# %% answer="q1_gaussian"
def gaussian_log_density(x, y, W, var):
    """log P(y_n | x_n, expert i). x (N, D), y (N, C), W (E, D, C), var (E,), variances -> (N, E)

    Cases may be so far from an expert that the density itself is 0 in floating point; its logarithm
    is not −inf.
    """
    ### BEGIN SOLUTION
    far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return -0.5 * (far / var + y.shape[1] * np.log(2 * np.pi * var))
    ### END SOLUTION


# %% test="q1_gaussian"
# visible checks of q1_gaussian
flat = np.array([[[0.0], [1.0]], [[0.0], [3.0]]])  # two experts: y = 1 and y = 3, for any x
x, y = np.array([[7.0, 1.0], [7.0, 1.0]]), np.array([[1.0], [3.0]])
got = gaussian_log_density(x, y, flat, np.array([1.0, 4.0]))
assert got is not None, "gaussian_log_density returned nothing"
message = f"two cases, two experts: wanted the shape (2, 2), got {np.shape(got)}"
assert np.shape(got) == (2, 2), message
message = "at its mean a Gaussian of variance 1 has the density 0.39894"
assert np.isclose(got[0][0], -0.9189385), message
assert np.isclose(got[0][1], -2.1120857), "one standard deviation (2) from its mean: 0.12099"
message = "the second case, y = 3: densities of 0.05399 and 0.19947"
assert np.allclose(got[1], [-2.9189385, -1.6120857]), message
line = np.linspace(-30, 30, 20001)[:, None]
W, var = np.full((1, 1, 1), 2.0), np.array([6.25])
total = np.exp(gaussian_log_density(np.ones((20001, 1)), line, W, var)).sum() * 0.003
assert np.isclose(total, 1), f"a density sums to 1 over all y, got {total:.4f}"
two = gaussian_log_density(np.ones((1, 1)), np.array([[1.0, 2.0]]), np.zeros((1, 1, 2)), np.ones(1))
message = f"two outputs, off by 1 and 2: −½ (1 + 4 + 2 ln 2π) = −4.337877, got {two}"
assert np.allclose(two, -4.337877), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("2_em", "q1_gaussian", gaussian_log_density)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. And if it is a label? (2 points)
#
# EM does not care what the experts are, as long as they can say how likely the answer is. Let the answer be a label,
# one of C classes, and expert $i$ a softmax over the **classes**:
#
# $$P(c \mid x, i) = \frac{e^{(x W_i)_c}}{\sum_{c'} e^{(x W_i)_{c'}}}.$$
#
# (The number of an expert has nothing to do with the number of a class. There may be more experts than classes, or
# fewer.) This function is not needed further down; with it in the place of the first, the next question's E step is
# that of a mixture of classifiers.


# %% answer="q2_classes"
def class_log_density(x, label, W):
    """log P(label_n | x_n, expert i). -> (N, E)

    x (N, D), label (N,) whole numbers from 0 to C − 1, W (E, D, C)
    Totals x W_i may be in the thousands, either sign.
    """
    ### BEGIN SOLUTION
    totals = np.einsum("nd,edc->nec", x, W)
    totals = totals - totals.max(axis=2, keepdims=True)
    log_p = totals - np.log(np.exp(totals).sum(axis=2, keepdims=True))
    return log_p[np.arange(len(x)), :, label]
    ### END SOLUTION


# %% test="q2_classes"
# visible checks of q2_classes
x, label = np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([2, 0])
W = np.zeros((2, 2, 3))
W[1, 1] = np.log([1.0, 2.0, 5.0])  # expert 1 gives the classes 1/8, 2/8 and 5/8, for any x
got = class_log_density(x, label, W)
assert got is not None, "class_log_density returned nothing"
message = f"two cases, two experts: wanted the shape (2, 2), got {np.shape(got)}"
assert np.shape(got) == (2, 2), message
wanted = [[1 / 3, 5 / 8], [1 / 3, 1 / 8]]
assert np.allclose(np.exp(got), wanted), f"the densities are {np.exp(got)}"
log_p = [class_log_density(x, np.array([c, c]), 1000 * W) for c in range(3)]
message = "over all classes an expert's probabilities sum to 1"
assert np.allclose(np.exp(log_p).sum(axis=0), 1), message
message = f"far below: 1000 (ln 1 − ln 5) = −1609.4, got {log_p[0][0][1]}"
assert np.isclose(log_p[0][0][1], -1000 * np.log(5)), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("2_em", "q2_classes", class_log_density)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The E step (3 points)
#
# Before $y$ is seen, expert $i$ is responsible with probability $g_i$. Afterwards (Bayes):
#
# $$h_i = \frac{g_i\,P_i}{\sum_j g_j\,P_j}, \qquad \ell = \sum_n \log \sum_i g_i\,P_i .$$
#
# $\ell$ is the log likelihood of all cases together: what EM climbs. Both come from the same numbers; work with
# logarithms until the end.


# %% answer="q3_e_step"
def e_step(log_gate, log_density):
    """log_gate (N, E), log_density (N, E) -> (resp (N, E), log_likelihood)

    log_likelihood is one number, the sum over cases. All densities of a case may be far below
    1e-300, and log_gate may be −inf for some of a case's experts.
    """
    ### BEGIN SOLUTION
    joint = log_gate + log_density
    top = joint.max(axis=1, keepdims=True)
    total = top + np.log(np.exp(joint - top).sum(axis=1, keepdims=True))
    return np.exp(joint - total), total.sum()
    ### END SOLUTION


# %% test="q3_e_step"
# visible checks of q3_e_step
log_gate = np.log([[0.5, 0.5], [0.9, 0.1]])
log_density = np.log([[0.2, 0.6], [0.1, 0.9]])
got = e_step(log_gate, log_density)
assert got is not None, "e_step returned nothing"
resp, log_likelihood = got
message = f"gate times density, divided by the sum of its row; got {resp}"
assert np.allclose(resp, [[0.25, 0.75], [0.5, 0.5]]), message
assert np.shape(log_likelihood) == (), "the log likelihood is one number"
message = "the cases have the likelihoods .4 and .18"
assert np.isclose(log_likelihood, np.log(0.4) + np.log(0.18)), message
far_resp, far_likelihood = e_step(log_gate, log_density - 5000)
assert np.allclose(far_resp, resp, rtol=1e-3), "far away the responsibilities are the same"
assert np.isclose(far_likelihood, log_likelihood - 10000), "each of two cases has 5000 less"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("2_em", "q3_e_step", e_step)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. The M step of the experts: regressions (3 points)
#
# EM raises $\sum_n \sum_i h_{ni} \log (g_i P_i)$ with $h$ held. It falls into parts: one for each expert, one for the
# gate. In expert $i$'s part $W_i$ is where
#
# $$\sum_n h_{ni}\, \lVert y_n - x_n W_i \rVert^2$$
#
# is smallest: a regression in which case $n$ counts $h_{ni}$ times. Set the derivative to zero and solve for $W_i$; no
# descent is needed. Every expert has enough cases here, so the linear systems have one solution.


# %% answer="q4_regressions"
def regressions(x, y, resp):
    """W_i that makes Σ_n resp_ni ‖y_n − x_n W_i‖² smallest. -> W (E, D, C)

    x (N, D), y (N, C), resp (N, E)
    Some entries of resp may be 0.
    """
    ### BEGIN SOLUTION
    weights = resp.T[:, :, None]
    return np.stack([np.linalg.solve(x.T @ (h * x), x.T @ (h * y)) for h in weights])
    ### END SOLUTION


# %% test="q4_regressions"
# visible checks of q4_regressions
x, y = np.ones((3, 1)), np.array([[0.0], [3.0], [9.0]])
got = regressions(x, y, np.array([[0.5, 0.5], [0.5, 0.5], [0.0, 1.0]]))
assert got is not None, "regressions returned nothing"
message = f"two experts, one input, one output: wanted (2, 1, 1), got {np.shape(got)}"
assert np.shape(got) == (2, 1, 1), message
message = "where x is a constant, W is a weighted mean: of 0 and 3 in equal parts"
assert np.allclose(got[0], 1.5), message
assert np.allclose(got[1], 5.25), "of 0, 3 and 9 with weights ½, ½ and 1"
rng = np.random.default_rng(0)
x = np.hstack([rng.normal(size=(20, 2)), np.ones((20, 1))])
resp, true = rng.random((20, 2)), rng.normal(size=(3, 2))
got = regressions(x, x @ true, resp)
assert np.allclose(got, true), "where y is x·W exactly, every weighting finds W"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("2_em", "q4_regressions", regressions)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The M step of the experts: variances (2 points)
#
# Put $\log P_i$ of question 1 into expert $i$'s part, $\sum_n h_{ni} \log P_i$, and set its derivative with respect to
# $\sigma_i^2$ to zero. You should find a weighted mean of squared errors. Mind what it is a mean over: case $n$ counts
# $h_{ni}$ times, and has C errors.
#
# An expert that fits its few cases exactly would get the variance 0 and an infinite likelihood, and would never change
# afterwards. Hence `floor`: the result is never smaller than that.


# %% answer="q5_variances"
def variances(x, y, resp, W, floor):
    """The variance of each expert that raises Σ_n resp_ni log P_i most, or `floor` if it is larger.

    x (N, D), y (N, C), resp (N, E), W (E, D, C) given, floor a number above 0 -> var (E,)
    """
    ### BEGIN SOLUTION
    far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return np.maximum((resp * far).sum(axis=0) / (y.shape[1] * resp.sum(axis=0)), floor)
    ### END SOLUTION


# %% test="q5_variances"
# visible checks of q5_variances
x, y = np.ones((4, 1)), np.array([[0.0], [0.0], [2.0], [2.0]])
resp = np.array([[0.5, 0.5], [0.5, 0.5], [0.75, 0.25], [0.75, 0.25]])
got = variances(x, y, resp, np.array([[[1.0]], [[0.0]]]), 0.1)
assert got is not None, "variances returned nothing"
assert np.shape(got) == (2,), f"one for each expert: wanted the shape (2,), got {np.shape(got)}"
message = f"all four errors of expert 0 are 1, and so is its variance; got {got[0]}"
assert np.isclose(got[0], 1), message
message = f"expert 1: errors of 0, 0, 2, 2, that count ½, ½, ¼, ¼; got {got[1]}"
assert np.isclose(got[1], 4 / 3), message
doubled = variances(x, np.hstack([y, y]), resp, np.array([[[1.0, 1.0]], [[0.0, 0.0]]]), 0.1)
assert np.allclose(doubled, got), "a second output equal to the first changes no variance"
one_exact = variances(x, np.hstack([y, 0 * y]), resp, np.array([[[1.0, 0.0]]] * 2), 0.1)
message = f"a second output without errors halves the variance, got {one_exact}"
assert np.allclose(one_exact, 0.5), message
got = variances(x, 0 * y, resp, np.zeros((2, 1, 1)), 0.1)
assert np.allclose(got, 0.1), "no errors at all: the floor"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("2_em", "q5_variances", variances)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. The gate's part: slope and curvature (3 points)
#
# What is left is the gate's part,
#
# $$Q(U) = \sum_n \sum_{i=1}^{E} h_{ni} \log g_{ni}, \qquad g_n = \mathrm{softmax}(x_n U),$$
#
# a logistic regression whose targets are not labels but the responsibilities. It has no solution in one line.
# Newton's method needs first and second derivatives, with respect to the first E − 1 columns of $U$ (the last one
# is fixed at 0).
#
# Show, on paper, that $\partial Q / \partial s_{ni} = h_{ni} - g_{ni}$ with $s_n = x_n U$ (in assignment 1, question 5
# had this line for another loss, the sign apart). Go on from there to $U$; then take the derivative once more, with
# $\partial g_i / \partial s_j = g_i (\delta_{ij} - g_j)$. What has become of $h$ in the second derivative?


# %% answer="q6_gate_derivatives"
def gate_derivatives(x, resp, U):
    """First derivatives of Q, and *minus* the second: -> (gradient, curvature).

    They are with respect to the first E − 1 columns of U.

    x (N, D), resp (N, E), U (D, E) with its last column 0; totals x U may be in the thousands
    gradient   (D, E − 1)            gradient[d, i] = ∂Q / ∂U_di, a sum over cases
    curvature  (D, E − 1, D, E − 1)  curvature[d, i, f, j] = −∂²Q / ∂U_di ∂U_fj
    """
    ### BEGIN SOLUTION
    e = np.exp(x @ U - (x @ U).max(axis=1, keepdims=True))
    g = (e / e.sum(axis=1, keepdims=True))[:, :-1]
    weight = -g[:, :, None] * g[:, None, :]
    weight[:, np.arange(g.shape[1]), np.arange(g.shape[1])] += g
    return x.T @ (resp[:, :-1] - g), np.einsum("nd,nij,nf->difj", x, weight, x)
    ### END SOLUTION


# %% test="q6_gate_derivatives"
# visible checks of q6_gate_derivatives
rng = np.random.default_rng(1)
x = np.hstack([rng.normal(size=(6, 2)), np.ones((6, 1))])
U = rng.normal(size=(3, 4))
U[:, -1] = 0
resp = rng.random((6, 4))
resp /= resp.sum(axis=1, keepdims=True)


def gate_objective(free, x=x, resp=resp):
    """Q, from the columns of U that are free."""
    s = np.hstack([x @ free, np.zeros((len(x), 1))])
    s = s - s.max(axis=1, keepdims=True)
    return float((resp * (s - np.log(np.exp(s).sum(axis=1, keepdims=True)))).sum())


got = gate_derivatives(x, resp, U)
assert got is not None, "gate_derivatives returned nothing"
gradient, curvature = got
message = f"the gradient: wanted the shape (3, 3), got {np.shape(gradient)}"
assert np.shape(gradient) == (3, 3), message
errors = gradient_error(lambda p: gate_objective(p["U"]), {"U": U[:, :-1]}, {"U": gradient}, rng)
assert errors["U"] < 1e-4, f"the gradient check: relative error {errors['U']:.1g}"
message = f"the curvature: wanted the shape (3, 3, 3, 3), got {np.shape(curvature)}"
assert np.shape(curvature) == (3, 3, 3, 3), message
first, second = rng.normal(size=(2, 3, 3))  # the slope of a slope, in two random directions
bend = slope(lambda free: slope(gate_objective, free, first, 0.01), U[:, :-1], second, 0.01)
promised = np.einsum("di,difj,fj->", first, curvature, second)
message = f"curvature along two directions: promised {promised:.5f}, is {-bend:.5f}"
assert np.isclose(promised, -bend, rtol=1e-4), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("2_em", "q6_gate_derivatives", gate_derivatives)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. The gate's step: Newton, halved where it must be (3 points)
#
# Newton's step solves $A\,\Delta = G$, with the gradient $G$ as a vector of $D(E-1)$ numbers and the curvature $A$ as a
# matrix (`reshape` turns one shape into the other). It is the same as a least squares with weights $g(1-g)$, hence
# **IRLS**, iteratively reweighted least squares.
#
# Newton's step leads to the top of a parabola. Where the gate is very sure, the parabola is flat and its top far
# away, and the step can land *lower* than it began. EM would then fall. So: try the whole step; if $Q$ is not higher
# there than at `U`, try half of it, then a quarter, and so on. Take the first that raises $Q$. Ten sizes are enough:
# 1, ½, …, 1/512. If none helps, `U` stays.
#
# One step will do. EM comes back here after the next E step, and a gate that is only *better*, not best, raises the
# likelihood too.


# %% answer="q7_gate_step"
def gate_step(x, resp, U):
    """One step of Newton's on Q, halved until Q rises. -> new U (D, E)

    x (N, D), resp (N, E), U (D, E), last column 0
    The new U = U + size · Δ, with size the first of 1, ½, ¼, ... 1/512 at which Q is higher than at
    U.
    """

    ### BEGIN SOLUTION
    def log_softmax(s):
        s = s - s.max(axis=1, keepdims=True)
        return s - np.log(np.exp(s).sum(axis=1, keepdims=True))

    g = np.exp(log_softmax(x @ U))[:, :-1]
    weight = g[:, :, None] * (np.eye(g.shape[1]) - g[:, None, :])
    gradient = x.T @ (resp[:, :-1] - g)
    curvature = np.einsum("nd,nij,nf->difj", x, weight, x).reshape(gradient.size, gradient.size)
    delta = np.zeros(U.shape)
    delta[:, :-1] = np.linalg.solve(curvature, gradient.ravel()).reshape(gradient.shape)
    before = (resp * log_softmax(x @ U)).sum()
    for size in 0.5 ** np.arange(10):
        if (resp * log_softmax(x @ (U + size * delta))).sum() > before:
            return U + size * delta
    return U.copy()
    ### END SOLUTION


# %% test="q7_gate_step"
# visible checks of q7_gate_step
resp = np.array([[0.8, 0.2], [0.8, 0.2]])
got = gate_step(np.ones((2, 1)), resp, np.zeros((1, 2)))
assert got is not None, "gate_step returned nothing"
message = f"the new U is as large as the old one: wanted the shape (1, 2), got {np.shape(got)}"
assert np.shape(got) == (1, 2), message
got = np.asarray(got)
got = got - got[:, -1:]  # adding the same number to all columns does not change a gate
message = f"from g = ½ to .8 Newton's first step is .6/.5 = 1.2, got {got}"
assert np.allclose(got, [[1.2, 0]]), message
for _ in range(8):
    got = np.asarray(gate_step(np.ones((2, 1)), resp, got))
message = "after some steps the gate says .8: a log odds of log 4"
assert np.isclose(got[0, 0] - got[0, 1], np.log(4)), message
three = np.asarray(gate_step(np.ones((1, 1)), np.array([[0.6, 0.3, 0.1]]), np.zeros((1, 3))))
message = f"three experts of equal probability, got {three}"
assert np.allclose(three - three[:, -1:], [[1.5, 0.6, 0]]), message
x = np.array([[1.0, 1.0], [-1.0, 1.0]])
two = np.asarray(gate_step(x, np.array([[0.8, 0.2], [0.4, 0.6]]), np.zeros((2, 2))))
message = f"two inputs, G = (.4, .2) and A is ½ on its diagonal, got {two}"
assert np.allclose(two - two[:, -1:], [[0.8, 0], [0.4, 0]]), message
# says .993, and should say .8
sure = np.asarray(gate_step(np.ones((2, 1)), resp, np.array([[5.0, 0.0]])))
message = (
    "from U = 5 the whole step goes to −24.08, where Q is lower, and so it is after a half and "
    "after a quarter; after an eighth it is higher"
)
assert np.isclose(sure[0, 0] - sure[0, 1], 5 - 29.077241 / 8), message
start = np.array([[2.6, 0.0]])
first = np.asarray(gate_step(np.ones((2, 1)), resp, start))
assert np.array_equal(start, [[2.6, 0.0]]), "U was changed"
g = 1 / (1 + np.exp(-2.6))
message = "from U = 2.6 the whole step raises Q and is taken, though the half would raise it more"
assert np.isclose(first[0, 0] - first[0, 1], 2.6 + (0.8 - g) / (g * (1 - g))), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("2_em", "q7_gate_step", gate_step)
### END HIDDEN TESTS

# %% [markdown]
# ## 8. EM (4 points)
#
# Put it together. One step of EM:
#
# 1. E step: responsibilities $h$ and the log likelihood $\ell$ from the parameters as they are;
# 2. M step of the experts: new $W_i$ with weights $h$; then the new $\sigma_i^2$ from the errors of the **new** $W_i$,
#    not below the floor;
# 3. M step of the gate: one step of Newton's on $Q$, with the **same** $h$, halved until $Q$ rises, as in question 7.
#
# You may call your functions from above (then a mistake in one of them costs this question as well) or write it out.


# %% answer="q8_em"
def em(params, x, y, steps, floor):
    """`steps` steps of EM: -> (new params, history). The parameters that come in stay as they are.

    params   {"W": (E, D, C), "var": (E,), "U": (D, E), last column 0}
    x (N, D), last column 1; y (N, C); floor: the least variance of an expert
    history  (steps + 1,) the log likelihood before each step, and after the last one
    """

    ### BEGIN SOLUTION
    def log_softmax(s):
        s = s - s.max(axis=1, keepdims=True)
        return s - np.log(np.exp(s).sum(axis=1, keepdims=True))

    W, var, U = params["W"], params["var"], params["U"]
    C, history = y.shape[1], []
    for number in range(steps + 1):
        log_gate = log_softmax(x @ U)
        far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
        joint = log_gate - 0.5 * (far / var + C * np.log(2 * np.pi * var))
        top = joint.max(axis=1, keepdims=True)
        total = top + np.log(np.exp(joint - top).sum(axis=1, keepdims=True))
        history.append(total.sum())
        if number == steps:
            break
        resp = np.exp(joint - total)

        weights = resp.T[:, :, None]
        W = np.stack([np.linalg.solve(x.T @ (h * x), x.T @ (h * y)) for h in weights])
        far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
        var = np.maximum((resp * far).sum(axis=0) / (C * resp.sum(axis=0)), floor)

        g = np.exp(log_gate)[:, :-1]
        weight = g[:, :, None] * (np.eye(g.shape[1]) - g[:, None, :])
        gradient = x.T @ (resp[:, :-1] - g)
        curvature = np.einsum("nd,nij,nf->difj", x, weight, x).reshape(gradient.size, gradient.size)
        delta = np.zeros(U.shape)
        delta[:, :-1] = np.linalg.solve(curvature, gradient.ravel()).reshape(gradient.shape)
        for size in 0.5 ** np.arange(10):
            if (resp * log_softmax(x @ (U + size * delta))).sum() > (resp * log_gate).sum():
                U = U + size * delta
                break
    return {"W": W, "var": var, "U": U}, np.array(history)
    ### END SOLUTION


# %% test="q8_em"
# visible checks of q8_em
rng = np.random.default_rng(2)
x = np.hstack([rng.uniform(-1, 1, (80, 1)), np.ones((80, 1))])
y = np.where(x[:, :1] < 0.2, -2 * x[:, :1], x[:, :1] + 1)  # two regimes
y = y + 0.1 * rng.normal(size=(80, 1))
start = {"W": rng.normal(size=(2, 2, 1)), "var": np.ones(2)}
start |= {"U": np.array([[0.5, 0.0], [0.0, 0.0]])}
before = {name: value.copy() for name, value in start.items()}
got = em(start, x, y, 30, 1e-4)
assert got is not None, "em returned nothing"
after, history = got
unchanged = all(np.array_equal(start[name], before[name]) for name in start)
assert unchanged, "the parameters that came in were changed"
assert set(after) == set(start), f"wanted W, var and U, got {sorted(after)}"
message = f"30 steps, 31 log likelihoods; got the shape {np.shape(history)}"
assert np.shape(history) == (31,), message
message = f"the log likelihood fell at step {np.diff(history).argmin()}"
assert np.diff(history).min() > -1e-9, message
slopes, deviation = np.asarray(after["W"])[:, 0, 0], np.sqrt(after["var"])
assert np.allclose(np.sort(slopes), [-2, 1], atol=0.2), f"slopes −2 and 1, got {slopes}"
assert np.allclose(deviation, 0.1, atol=0.03), f"noise of .1, got {deviation}"
message = f"history begins with the log likelihood of the first parameters, got {history[0]:.3f}"
assert np.isclose(history[0], -212.30205), message
first = em(start, x, y, 1, 1e-4)[0]
U = np.asarray(first["U"]) @ [1, -1]
message = f"one step: errors of the new W; got {first['var']}"
assert np.allclose(first["var"], [0.439653, 0.422450], rtol=1e-4), message
message = f"one step: the same h for the gate as for W, got {U}"
assert np.allclose(U, [0.419549, -1.399291], rtol=1e-4), message
exchanged = {"W": np.array([[[-2.0], [0.0]], [[1.0], [1.0]]]), "var": np.full(2, 0.1)}
exchanged |= {"U": np.array([[4.0, 0], [0, 0]])}  # the gate is sure of the wrong experts
history = em(exchanged, x, y, 10, 1e-4)[1]
assert np.diff(history).min() > -1e-9, "it fell, from a gate that is sure of the wrong experts"
half = em(start, x, y, 15, 1e-4)[0]
half = em({name: np.asarray(value) for name, value in half.items()}, x, y, 15, 1e-4)[0]
assert np.allclose(half["W"], after["W"]), "15 steps and 15 more are 30 steps"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("2_em", "q8_em", em)
### END HIDDEN TESTS

# %% [markdown]
# ## A question with three answers
#
# Draw $t$ uniformly on (0, 1) and let $x = t + .3 \sin 2\pi t$, plus a little noise. Now somebody tells you $x$ and
# asks for $t$ (Bishop's inverse problem). In the middle three values of $t$ lead to the same $x$. The best *function*
# of $x$ answers with their mean, which is seldom any of them. A mixture does not have to decide. Nothing below is
# graded.
#
# **Predict.** Three straight lines and a gate: where will the lines lie, and where will the gate hand over? How many
# steps will EM take?

# %% tags=["look"]
rng = np.random.default_rng(0)
N, noise = 500, 0.03
t = rng.uniform(size=(N, 1))
x = np.hstack([inverse.curve(t) + noise * rng.normal(size=(N, 1)), np.ones((N, 1))])
heights = np.array([0.2, 0.5, 0.8])  # at first: three level lines, and a gate of equal numbers
W = np.stack([np.zeros(3), heights], axis=1)[:, :, None]
start = {"W": W, "var": np.full(3, 0.05), "U": np.zeros((2, 3))}
fitted, history = em(start, x, t, 60, 1e-4)
assert np.diff(history).min() > -1e-9, "EM never falls"
steps = np.argmax(history > history[-1] - 0.01 * N)

everything = np.ones((N, 1))  # a single expert is responsible for all cases: least squares
single = regressions(x, t, everything)
single_var = variances(x, t, everything, single, 1e-4)
single_likelihood = gaussian_log_density(x, t, single, single_var).mean()
print(f"log likelihood per case: one line {single_likelihood:.3f}", end=", ")
print(f"three lines {history[-1] / N:.3f}", end=" ")
print(f"(within .01 of that after {steps} steps)")

# %% tags=["look"]
import matplotlib.pyplot as plt


def ask(at):
    """What the mixture says at inputs (N, D): the gate (N, E), and each expert's mean (N, E)."""
    e = np.exp(at @ fitted["U"] - (at @ fitted["U"]).max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True), np.einsum("nd,edc->ne", at, fitted["W"])


resp, _ = e_step(np.log(ask(x)[0]), gaussian_log_density(x, t, fitted["W"], fitted["var"]))
line = np.linspace(-0.05, 1.05, 300)
colours = np.array([[0, 114, 178], [213, 94, 0], [0, 158, 115]]) / 255
g, mean = ask(np.stack([line, np.ones(300)], axis=1))
fig, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
axes[0].scatter(x[:, 0], t, s=10, c=np.clip(resp @ colours, 0, 1), alpha=0.6)
for i in range(3):  # thick where the gate gives the expert a large probability
    axes[0].scatter(line, mean[:, i], s=30 * g[:, i], color=colours[i])
axes[0].plot(line, single[0, 0, 0] * line + single[0, 1, 0], "k:", label="one line")
axes[0].plot(line, (g * mean).sum(axis=1), "k-", label="mean of the mixture")
axes[0].set(xlabel="x", ylabel="t", ylim=(-0.05, 1.05))
axes[0].set_title("cases, in the colour of the responsible expert")
axes[0].legend(loc="upper left")

axes[1].plot(history / N, "ko-", markersize=3)
axes[1].axhline(single_likelihood, color="k", linestyle=":")
axes[1].text(60, single_likelihood, "one line", ha="right", va="bottom")
axes[1].set(xlabel="steps of EM", title="log likelihood per case: it never falls")

level = np.linspace(-0.05, 1.05, 600)
for row, at in enumerate((0.2, 0.5, 0.8)):
    g, mean = ask(np.array([[at, 1.0]]))
    var = fitted["var"]
    bells = np.exp(-0.5 * (level[:, None] - mean[0]) ** 2 / var) / np.sqrt(2 * np.pi * var)
    bells = g[0] * bells
    true = np.exp(-0.5 * ((inverse.curve(level) - at) / noise) ** 2) * ((level > 0) & (level < 1))
    true = true / (true.sum() * (level[1] - level[0]))
    high = 1.15 * max(true.max(), bells.sum(axis=1).max())  # every row has its own scale
    axes[2].fill_between(level, row, row + true / high, color="lightgrey")
    axes[2].plot(level, row + bells.sum(axis=1) / high, "k")
    axes[2].text(0.35, row + 0.9, f"x = {at}", ha="center", va="top")
axes[2].set(xlabel="t", yticks=[], title="density of t: the mixture's (line), the true one (grey)")
plt.show()

# %% [markdown]
# At $x$ = .5 three experts answer, and each is right. To try: begin with a `U` of large random numbers (last column 0),
# twenty times. Does EM always end at the same likelihood? Now take the halving out: how often does the
# likelihood fall, or the linear system break down? And at which $x$ is the black curve on the left furthest from every
# $t$ that can be?
