# %% [markdown]
# # Assignment 3: noisy top-k gates and balance
#
# You build the sparse gating network of Shazeer et al. (2017): the best $k$ experts of each token, noise that lets others have
# a try, a load that can be differentiated although it is a count, and losses that keep all experts at work. In the
# end you train twelve experts, once with the task alone and twice with a load-balancing loss, and look at who works. It
# follows lessons 07 and 09; allow three to four hours.
#
# **What to do.** Eight functions have a body to write, where it says `# YOUR CODE HERE`. Keep their names and
# arguments. The cell under each holds visible checks: run it, and no error means they pass. All checks at once, as
# in grading: `moe-np coursework check 3_gates.ipynb`.
#
# **What is graded.** Each function by itself, on other inputs than you see here, drawn anew for each grading: ties,
# very large logits, padding, perfect balance, all experts kept. 23 points: top-k gate 3, its gradient 3, noise 2, load
# 3, the load's gradient 4, CV² 3, Switch's loss 3, z-loss 2. A question gives points in proportion to the hidden
# inputs that are answered right, in half points, and none below half of them. Results count as right within a relative
# 1e-4, so float32 will do. A function must not change its inputs, and must answer within seconds, gradients of
# thousands of tokens too (by differences of the loss that takes minutes).
#
# **What may be imported.** NumPy, Matplotlib, and of this package `moe_np.base.checks`, `moe_np.base.gradcheck` and
# `moe_np.data.regimes`. Nothing else of `moe_np` exists where your work is graded. Each function is graded alone, so
# if you call one of your own functions from another, a mistake in it costs both.
#
# | paper | code | shape | meaning |
# |---|---|---|---|
# | $x$ | `x` | (N, D) | N tokens |
# | $x W_g$ | `clean` | (N, E) | logits of E experts |
# | | `sigma`, `noise` | (N, E) | deviation of the noise, and the standard normal numbers that were drawn |
# | $H(x)$ | `noisy` | (N, E) | `clean + sigma * noise` |
# | | `logits` | (N, E) | logits, noisy or not |
# | KeepTopK | `kept` | (N, E) | bool: which $k$ experts each token keeps |
# | $G(x)$ | `G` | (N, E) | weights of the experts, 0 where they are not kept |
# | Load | | (E,) | (expected) number of tokens of each expert |
# | | `valid` | (N,) | bool: False where a token is padding |
#
# The gradient of a loss with respect to `G` is called `dG`, and so for all of them. It is a gradient of the loss as
# it stands: nothing is divided by N unless the loss is.

# %% given="setup"
from math import erf

import numpy as np

from moe_np.base.gradcheck import gradient_error
from moe_np.data import regimes


def Phi(z):
    """The normal distribution function of each number z: the probability of a number below z."""
    return np.array([0.5 * (1 + erf(v / 2**0.5)) for v in np.ravel(z)]).reshape(np.shape(z))


# %% [markdown]
# ## 1. The best k (3 points)
#
# A token keeps the $k$ experts with the largest logits. Their weights are, with $p$ the softmax over **all** logits,
#
# * not renormalised: $G_i = p_i$ for the kept ones (they sum to 1 at most);
# * renormalised: $G_i = p_i / \sum_{j\ \text{kept}} p_j$, the same as a softmax over the kept logits alone.
#
# Everywhere else $G_i$ = 0. Where logits are equal, the lower index is kept first: a gate at zero ties everywhere,
# and exactly $k$ have to be kept.


# %% answer="q1_top_k"
def top_k_gate(logits, k, renormalise):
    """logits (N, E), k from 1 to E, renormalise True or False -> (G (N, E), kept (N, E) bool)

    Logits may be very large or very small.
    """
    ### BEGIN SOLUTION
    choice = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    kept = np.zeros(logits.shape, bool)
    np.put_along_axis(kept, choice, True, axis=1)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    shared = e * kept if renormalise else e
    return e * kept / shared.sum(axis=1, keepdims=True), kept
    ### END SOLUTION


# %% test="q1_top_k"
# visible checks of q1_top_k
logits = np.log([[1.0, 4.0, 2.0, 3.0], [4.0, 1.0, 3.0, 2.0]])
got = top_k_gate(logits, 2, True)
assert got is not None, "top_k_gate returned nothing"
G, kept = got
message = f"experts 1 and 3, 0 and 2 have the largest logits, got {kept}"
assert np.array_equal(kept, [[False, True, False, True], [True, False, True, False]]), message
message = f"renormalised: 4 and 3 of 7, got {G}"
assert np.allclose(G, [[0, 4 / 7, 0, 3 / 7], [4 / 7, 0, 3 / 7, 0]]), message
G_all = top_k_gate(logits, 2, False)[0]
message = "not renormalised: 4 and 3 of 10"
assert np.allclose(G_all, [[0, 0.4, 0, 0.3], [0.4, 0, 0.3, 0]]), message
G_far = top_k_gate(logits - [[5000], [0]], 2, True)[0]
assert np.allclose(G_far, G, atol=1e-3), "adding a constant to a token's logits changes nothing"
kept = top_k_gate(np.zeros((1, 4)), 2, True)[1]
assert np.array_equal(kept, [[True, True, False, False]]), "all tied: the first two"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("3_gates", "q1_top_k", top_k_gate)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Back through it (3 points)
#
# Which experts are kept is a comparison and has no gradient: `kept` is given and held. What has one are the weights.
# The layer computes kept experts only, so what stands in `dG` for the others is without meaning; leave it out.
#
# Work out both cases. Which logits get a gradient in each? And what is left of it with $k$ = 1, renormalised? (Your
# result should be 0 there, exactly or to rounding, and not merely small. It is why Shazeer et al. keep at least two.)


# %% answer="q2_backward"
def gate_backward(dG, logits, kept, renormalise):
    """Gradient at the logits of the gate of question 1. -> dlogits (N, E)

    dG, logits (N, E), kept (N, E) bool; where kept is False, dG may be any number, nan too. Logits
    may be very large or very small.
    Renormalised, logits that are not kept get exactly 0.
    """
    ### BEGIN SOLUTION
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    e = e * kept if renormalise else e
    p = e / e.sum(axis=1, keepdims=True)
    dp = np.where(kept, dG, 0)
    return p * (dp - (p * dp).sum(axis=1, keepdims=True))
    ### END SOLUTION


# %% test="q2_backward"
# visible checks of q2_backward
rng = np.random.default_rng(0)
logits, dG = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
kept = logits >= np.sort(logits, axis=1)[:, 3:4]  # two of five; no ties here
for renormalise in (True, False):
    got = gate_backward(dG, logits, kept, renormalise)
    assert got is not None, "gate_backward returned nothing"
    message = f"a gradient for each logit: wanted the shape (6, 5), got {np.shape(got)}"
    assert np.shape(got) == (6, 5), message

    def gate_loss(params, renormalise=renormalise):
        """A loss of the weights: Σ dG · G, over the kept ones."""
        e = np.exp(params["logits"])
        total = (e * kept if renormalise else e).sum(axis=1, keepdims=True)
        return (dG * kept * e / total).sum()

    error = gradient_error(gate_loss, {"logits": logits}, {"logits": got}, rng)["logits"]
    case = f"renormalise={renormalise}"
    assert error < 1e-4, f"the gradient check, {case}: relative error {error:.1g}"
    dropped = np.asarray(got)[~kept]
    wanted = "0 exactly" if renormalise else "numbers other than 0"
    message = f"{case}, logits that are not kept: wanted {wanted}, got {dropped}"
    assert (dropped == 0).all() == renormalise, message
message = "dG of experts that are not kept has no meaning: {}"
for number in (9.0, np.nan):  # whatever is in memory
    got_with_noise = gate_backward(np.where(kept, dG, number), logits, kept, False)
    assert np.allclose(got_with_noise, got), message.format(f"it may be {number}")
largest = logits == logits.max(axis=1, keepdims=True)
rounding = np.abs(gate_backward(dG, logits, largest, True)).max()
assert rounding < 1e-12, f"k = 1, renormalised: only rounding is left, got {rounding:.1g}"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("3_gates", "q2_backward", gate_backward)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Noise (2 points)
#
# An expert that is never kept never learns, and will never be kept. So the paper adds noise to the logits (eq. 4):
#
# $$H(x)_i = (x W_g)_i + \text{noise}_i \cdot \sigma_i, \qquad
# \sigma_i = \text{softplus}\big((x W_{\text{noise}})_i\big) = \log\big(1 + e^{(x W_{\text{noise}})_i}\big).$$
#
# The scale has a matrix of its own. At evaluation there is no noise.


# %% answer="q3_noise"
def noisy_logits(x, w, w_noise, noise):
    """-> (clean, sigma, noisy), all (N, E). x (N, D), w (D, E), w_noise (D, E), noise (N, E)

    At evaluation noise is None, and noisy equals clean; sigma is computed as always. x·w_noise may
    be in the thousands, of either sign.
    """
    ### BEGIN SOLUTION
    clean, raw = x @ w, x @ w_noise
    sigma = np.maximum(raw, 0) + np.log1p(np.exp(-np.abs(raw)))
    return clean, sigma, clean if noise is None else clean + sigma * noise
    ### END SOLUTION


# %% test="q3_noise"
# visible checks of q3_noise
x = np.array([[1.0, 2.0], [2.0, 1.0]])
w = np.array([[1.0, 0.0], [0.0, -1.0]])
w_noise = np.array([[0.0, 3.0], [0.0, -1.5]])
got = noisy_logits(x, w, w_noise, np.array([[1.0, -2.0], [0.0, 1.0]]))
assert got is not None, "noisy_logits returned nothing"
clean, sigma, noisy = got
assert np.allclose(clean, [[1, -2], [2, -1]]), f"clean is x·w, got {clean}"
message = f"x·w_noise is 0, 0 and 0, 4.5; softplus(0) = log 2, softplus(4.5) = 4.511; got {sigma}"
assert np.allclose(sigma, [[np.log(2), np.log(2)], [np.log(2), 4.5110479]]), message
wanted = [[1 + np.log(2), -2 - 2 * np.log(2)], [2, -1 + 4.5110479]]
assert np.allclose(noisy, wanted), f"clean + sigma · noise, got {noisy}"
_, sigma_test, noisy_test = noisy_logits(x, w, w_noise, None)
assert np.allclose(noisy_test, clean), "no noise at evaluation"
assert np.allclose(sigma_test, sigma), "sigma is the same at evaluation"
sigma = noisy_logits(x, w, w_noise + 700, None)[1]
message = "for large numbers softplus is the number itself"
assert np.allclose(sigma, [[2100, 2100], [2100, 2104.5]]), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("3_gates", "q3_noise", noisy_logits)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. A load with a slope (3 points)
#
# How many tokens an expert gets is a count. The paper replaces it by an expectation (eqs. 9 and 10): draw expert
# $i$'s noise again, leave all other noise as it is. What is the chance that $i$ is kept?
#
# $$P(x, i) = \Phi\Big( \frac{(xW_g)_i - \text{the } k\text{-th largest noisy logit of the others}}{\sigma_i} \Big),
# \qquad \text{Load}_i = \sum_x P(x, i)$$
#
# **Of the others**: think about which of the sorted noisy logits that is if $i$ is kept now, and which if it is not.
# With $k$ = E nothing has to be beaten and $P$ = 1. Padding is nobody's load. `Phi` is in the first cell of code.


# %% answer="q4_load"
def load(clean, sigma, noisy, k, valid):
    """Expected load of each expert. -> (E,)

    clean, sigma, noisy (N, E), k from 1 to E, valid (N,) bool
    No two noisy logits of a token are equal. Rows that are not valid hold arbitrary numbers and do
    not count.
    """
    ### BEGIN SOLUTION
    E = noisy.shape[1]
    if k == E:
        return np.full(E, float(valid.sum()))
    ranked = np.sort(noisy, axis=1)[:, ::-1]
    kept = noisy >= ranked[:, k - 1 : k]
    threshold = np.where(kept, ranked[:, k : k + 1], ranked[:, k - 1 : k])
    # the valid rows alone: the numbers of the others may be infinite
    z = (clean[valid] - threshold[valid]) / sigma[valid]
    return Phi(z).sum(axis=0)
    ### END SOLUTION


# %% test="q4_load"
# visible checks of q4_load
got = load(np.zeros((1, 3)), np.ones((1, 3)), np.array([[2.0, 1.0, -1.0]]), 1, np.array([True]))
assert got is not None, "load returned nothing"
message = f"one number for each expert: wanted the shape (3,), got {np.shape(got)}"
assert np.shape(got) == (3,), message
message = f"k = 1: expert 0 has to exceed 1, the others 2: Φ(−1), Φ(−2), Φ(−2); got {got}"
assert np.allclose(got, [0.158655, 0.022750, 0.022750], atol=1e-5), message
draws = 4000  # on average over the noise, the load is the count
rng = np.random.default_rng(1)
clean = np.repeat([[1.0, 0.5, 0.0, -1.0]], draws, axis=0)
sigma = np.repeat([[0.5, 1.0, 2.0, 1.0]], draws, axis=0)
noisy = clean + sigma * rng.normal(size=clean.shape)
counted = (noisy >= np.sort(noisy, axis=1)[:, 2:3]).sum(axis=0)
got = load(clean, sigma, noisy, 2, np.ones(draws, bool))
message = f"{draws} equal tokens: counted {counted}, expected {np.round(got)}"
assert np.allclose(got, counted, atol=0.03 * draws), message
message = f"{draws} tokens keep two experts: {2 * draws}, got {sum(got):.0f}"
assert np.isclose(sum(got), 2 * draws, rtol=0.01), message
valid = np.arange(draws) < 2000
padded = [np.where(valid[:, None], a, np.nan) for a in (clean, sigma, noisy)]
half = load(*padded, 2, valid)
wanted = load(clean[:2000], sigma[:2000], noisy[:2000], 2, np.ones(2000, bool))
assert np.allclose(half, wanted), "padding is counted: there may be any number, nan as well"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("3_gates", "q4_load", load)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Its gradient (4 points)
#
# Now `dload`, the gradient of some loss with respect to the load, has to go on into `clean` and `sigma`; the `noise`
# that was drawn is held, and so is who is whose rival. $\Phi'(z) = e^{-z^2/2} / \sqrt{2\pi}$. With
# $z_i = (\text{clean}_i - \text{threshold}_i) / \sigma_i$ there are **three** ways by which $z_i$ moves: through
# $\text{clean}_i$, through $\sigma_i$, and through the threshold. For the threshold is somebody: the rival's noisy
# logit, $\text{clean}_r + \sigma_r\, \text{noise}_r$. And one expert is the rival of several.


# %% answer="q5_load_backward"
def load_backward(dload, clean, sigma, noise, k):
    """Gradient of the load of question 4, all tokens valid. -> (dclean, dsigma), both (N, E)

    dload (E,); clean, sigma, noise (N, E), with noisy = clean + sigma · noise; k is less than E. No
    two noisy logits of a token are equal.
    """
    ### BEGIN SOLUTION
    noisy = clean + sigma * noise
    rows = np.arange(len(clean))[:, None]
    order = np.argsort(-noisy, axis=1)
    rank = np.argsort(order, axis=1)
    rival = np.where(rank < k, order[:, k : k + 1], order[:, k - 1 : k])
    z = (clean - noisy[rows, rival]) / sigma
    dz = dload * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    dnoisy = np.zeros(clean.shape)
    np.add.at(dnoisy, (rows, rival), -dz / sigma)
    return dz / sigma + dnoisy, -dz * z / sigma + dnoisy * noise
    ### END SOLUTION


# %% test="q5_load_backward"
# visible checks of q5_load_backward
clean = np.zeros((2, 2))
sigma, noise = np.array([[2.0, 1.0]] * 2), np.array([[1.0, 0.5]] * 2)
got = load_backward(np.array([1.0, 0.0]), clean, sigma, noise, 1)
assert got is not None, "load_backward returned nothing"
assert np.shape(got) == (2, 2, 2), "two arrays, dclean and dsigma, both of the shape (N, E)"
message = f"P₀ = Φ((clean₀ − noisy₁)/σ₀), z = −¼: dclean is {got[0]}"
assert np.allclose(got[0], [0.193334, -0.193334]), message
message = f"σ₀ divides, and σ₁ is in the threshold: dsigma is {got[1]}"
assert np.allclose(got[1], [0.048334, -0.096667]), message
rng = np.random.default_rng(2)
dload = rng.normal(size=5)
clean, noise = rng.normal(size=(2, 6, 5))
sigma = rng.uniform(0.5, 2, (6, 5))
dclean, dsigma = load_backward(dload, clean, sigma, noise, 2)
message = "raising all logits of a token by the same amount changes no P"
assert np.allclose(np.sum(dclean, axis=1), 0, atol=1e-5), message
message = "doubling logits and scales changes no P"
change = clean * np.asarray(dclean) + sigma * np.asarray(dsigma)
assert np.allclose(change.sum(axis=1), 0, atol=1e-5), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("3_gates", "q5_load_backward", load_backward)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. How uneven? (3 points)
#
# The squared coefficient of variation of E numbers, here loads or summed weights (eqs. 7 and 11), and its gradient:
#
# $$\text{CV}^2(v) = \frac{\text{Var}(v)}{\text{mean}(v)^2}, \qquad
# \text{Var}(v) = \frac1E \sum_i (v_i - \text{mean}(v))^2.$$
#
# Mind that the mean depends on $v$, and that the gradient has to exist at perfect balance too. For one expert, and
# for numbers that are all 0, value and gradient are 0.


# %% answer="q6_cv"
def cv_squared(v):
    """v (E,), none negative -> (value, one number; dv (E,))"""
    ### BEGIN SOLUTION
    m = v.mean()
    if m == 0:
        return 0.0, np.zeros(v.shape)
    var = ((v - m) ** 2).mean()
    return var / m**2, 2 * (v - m - var / m) / (len(v) * m**2)
    ### END SOLUTION


# %% test="q6_cv"
# visible checks of q6_cv
got = cv_squared(np.array([3.0, 1.0]))
assert got is not None, "cv_squared returned nothing"
assert np.isclose(got[0], 0.25), f"(3, 1): the variance is 1, the mean 2; got {got[0]}"
assert np.isclose(cv_squared(np.array([8.0, 0, 0, 0]))[0], 3), "all on one of E experts: E − 1"
v = np.array([1.0, 4.0, 2.0, 0.5])
value, dv = cv_squared(v)
assert np.isclose(cv_squared(10 * v)[0], value), "it does not depend on the number of tokens"
rng = np.random.default_rng(3)
error = gradient_error(lambda p: p["v"].var() / p["v"].mean() ** 2, {"v": v}, {"v": dv}, rng)["v"]
assert error < 1e-3, f"the gradient check: relative error {error:.1g}"
value, dv = cv_squared(np.full(3, 5.0))
message = f"perfect balance: 0, and gradient 0; got {value}, {dv}"
assert np.isclose(value, 0) and np.allclose(dv, 0), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("3_gates", "q6_cv", cv_squared)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. Switch's loss (3 points)
#
# $$\text{value} = E \sum_i f_i P_i$$
#
# with $f_i$ the share of expert $i$ in **all choices** of the $k$ best (it sums to 1 over experts), a constant of
# the gradient because it is a count; and $P_i$ the mean over tokens of the softmax over **all** logits. Padding is
# left out of both. (Fedus, Zoph and Shazeer 2021, whose $k$ is 1.)


# %% answer="q7_switch"
def switch_loss(logits, k, valid):
    """-> (value, dlogits (N, E), which is 0 in rows of padding)

    logits (N, E), k, valid (N,) bool, at least one True
    No two logits of a token are equal. Logits may be very large or very small.
    """
    ### BEGIN SOLUTION
    E = logits.shape[1]
    kept = (logits >= np.sort(logits, axis=1)[:, E - k : E - k + 1]) & valid[:, None]
    f = kept.sum(axis=0) / kept.sum()
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    dp = E * f * valid[:, None] / valid.sum()
    return (dp * p).sum(), p * (dp - (dp * p).sum(axis=1, keepdims=True))
    ### END SOLUTION


# %% test="q7_switch"
# visible checks of q7_switch
logits = np.log(np.array([[0.51, 0.49]] * 9 + [[0.0001, 0.9999]]))
got = switch_loss(logits, 1, np.ones(10, bool))
assert got is not None, "switch_loss returned nothing"
message = f"f = (.9, .1), P = (.45901, .54099); got {got[0]}"
assert np.isclose(got[0], 2 * (0.9 * 0.45901 + 0.1 * 0.54099)), message
even = np.array([np.roll([4.0, 2.0, 1.0, 0.0], n) for n in range(4)])
got = switch_loss(even, 2, np.ones(4, bool))
assert np.isclose(got[0], 1), "perfect balance: 1, for any k"
rng = np.random.default_rng(4)
logits, valid = rng.normal(size=(10, 5)), rng.permutation(10) < 7
value, dlogits = switch_loss(logits, 2, valid)
without_padding = switch_loss(logits[valid], 2, np.ones(7, bool))[0]
assert np.isclose(value, without_padding), "padding does not count"


def loss_of_logits(params):
    """E Σ f P, with the f of the logits above."""
    rows = logits[valid]
    f = (rows >= np.sort(rows, axis=1)[:, 3:4]).mean(axis=0) / 2
    e = np.exp(params["logits"][valid])
    return 5 * (f * (e / e.sum(axis=1, keepdims=True)).mean(axis=0)).sum()


error = gradient_error(loss_of_logits, {"logits": logits}, {"logits": dlogits}, rng)["logits"]
assert error < 1e-3, f"the gradient check: relative error {error:.1g}"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("3_gates", "q7_switch", switch_loss)
### END HIDDEN TESTS

# %% [markdown]
# ## 8. The z-loss (2 points)
#
# $$\text{value} = \frac1N \sum_n \Big( \log \sum_j e^{\text{logits}_{nj}} \Big)^2$$
#
# over the N tokens that are valid, of the logits as they are (Zoph et al. 2022). It keeps them where floating point
# is fine. It stands in many lists of balance losses; what does it say about a gate that sends everything to expert
# 0?


# %% answer="q8_z_loss"
def z_loss(logits, valid):
    """-> (value, dlogits (N, E), which is 0 in rows of padding)

    logits (N, E), valid (N,) bool, at least one True
    Logits may be very large.
    """
    ### BEGIN SOLUTION
    top = logits.max(axis=1, keepdims=True)
    log_z = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    counts = valid[:, None] / valid.sum()
    return (log_z**2 * counts).sum(), 2 * log_z * np.exp(logits - log_z) * counts
    ### END SOLUTION


# %% test="q8_z_loss"
# visible checks of q8_z_loss
got = z_loss(np.zeros((3, 8)), np.ones(3, bool))
assert got is not None, "z_loss returned nothing"
assert np.isclose(got[0], np.log(8) ** 2), f"logits of 0: (ln 8)², and not 0; got {got[0]}"
value = z_loss(np.full((2, 4), 1000.0), np.ones(2, bool))[0]
assert np.isclose(value, (1000 + np.log(4)) ** 2), "large logits"
rng = np.random.default_rng(5)
logits, valid = rng.normal(size=(6, 4)), np.array([True, True, False, True, False, True])
value, dlogits = z_loss(logits, valid)
without_padding = z_loss(logits[valid], np.ones(4, bool))[0]
assert np.isclose(value, without_padding), "padding does not count"


def loss_of_logits(params):
    return (np.log(np.exp(params["s"][valid]).sum(axis=1)) ** 2).mean()


error = gradient_error(loss_of_logits, {"s": logits}, {"s": dlogits}, rng)["s"]
assert error < 1e-3, f"the gradient check: relative error {error:.1g}"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("3_gates", "q8_z_loss", z_loss)
### END HIDDEN TESTS

# %% [markdown]
# ## Twelve experts, and who works
#
# Put it to use. 1,024 tokens lie in eight clouds; in each cloud another straight rule leads from $x$ to the wanted
# number. Twelve experts that are straight lines, $k$ = 2, your noisy gate. One input is 6 for all tokens, as vectors
# inside a network have something in common: that is what makes gates collapse (lesson 09). The gate starts at zero.
# The loop below is given; all of the gate in it is yours. Mind the lines marked `added`: public models have computed
# a balance loss and left them out.
#
# **Predict.** How many of the twelve work in the end, with the task alone? Does balance cost accuracy? Nothing below
# is graded.

# %% tags=["look"]
task = regimes.make_task(np.random.default_rng(0), n_regions=8, d_model=3, noise=0.05)
x, d, cloud = regimes.draw(task, 1024, np.random.default_rng(1))
x = np.hstack([x, np.full((1024, 1), 6.0)])
E, k = 12, 2


def outputs(params, x, G):
    """The output of each expert (N, E), and of the layer (N, 1)."""
    o = x @ params["W"]
    return o, (G * o).sum(axis=1, keepdims=True)


def train(losses, steps=300, batch=256, lr=0.05, seed=2):
    """Adam on the squared error and `losses`, {name: coefficient}. lr: the learning rate.

    Returns the parameters, and each expert's share of the choices in every step (steps, E).
    """
    rng = np.random.default_rng(seed)
    shares = []
    params = {"w": np.zeros((4, E)), "w_noise": np.zeros((4, E))}
    params["W"] = 0.1 * rng.normal(size=(4, E))
    mean, square = ({name: np.zeros(p.shape) for name, p in params.items()} for _ in range(2))
    all_valid = np.ones(batch, bool)
    for step in range(1, steps + 1):
        rows = rng.choice(len(x), batch, replace=False)
        noise = rng.normal(size=(batch, E))
        clean, sigma, noisy = noisy_logits(x[rows], params["w"], params["w_noise"], noise)
        G, kept = top_k_gate(noisy, k, True)
        o, y = outputs(params, x[rows], G)
        shares.append(kept.mean(axis=0) / k)

        dy = 2 * (y - d[rows]) / batch  # the task: mean squared error
        dG = dy * o
        dlogits = dclean = dsigma = 0.0
        if "importance" in losses:
            dG = dG + losses["importance"] * cv_squared(G.sum(axis=0))[1]  # added
        if "load" in losses:
            dload = losses["load"] * cv_squared(load(clean, sigma, noisy, k, all_valid))[1]
            dclean, dsigma = load_backward(dload, clean, sigma, noise, k)
        if "switch" in losses:
            dlogits = losses["switch"] * switch_loss(noisy, k, all_valid)[1]
        dnoisy = gate_backward(dG, noisy, kept, True) + dlogits
        dclean = dnoisy + dclean  # added
        dsigma = dnoisy * noise + dsigma  # added
        slope = 1 - np.exp(-sigma)  # of softplus, from its value
        grads = {"w": x[rows].T @ dclean, "w_noise": x[rows].T @ (dsigma * slope)}
        grads["W"] = x[rows].T @ (G * dy)
        for name, g in grads.items():
            mean[name] = 0.9 * mean[name] + 0.1 * g
            square[name] = 0.99 * square[name] + 0.01 * g**2
            size = np.sqrt(square[name] / (1 - 0.99**step)) + 1e-8
            params[name] = params[name] - lr * mean[name] / (1 - 0.9**step) / size
    return params, np.array(shares)


runs = {
    "the task alone": train({}),
    "importance and load, .1 each": train({"importance": 0.1, "load": 0.1}),
    "Switch's loss, .1": train({"switch": 0.1}),
}
columns = ("squared error", "CV of load", "max / mean")
print(f"{'':30}  {columns[0]}   {columns[1]}   {columns[2]}   tokens of each expert, evaluated")
final = {}
for name, (params, _) in runs.items():
    _, _, noisy = noisy_logits(x, params["w"], params["w_noise"], None)
    G, kept = top_k_gate(noisy, k, True)
    loads = final[name] = kept.sum(axis=0)
    error = ((outputs(params, x, G)[1] - d) ** 2).mean()
    cv = np.sqrt(cv_squared(loads.astype(float))[0])
    ratio = loads.max() / loads.mean()
    print(f"{name:30} {error:14.3f} {cv:12.2f} {ratio:12.1f}   {np.sort(loads)[::-1]}")

# %% tags=["look"]
import matplotlib.pyplot as plt

fig, axes = plt.subplots(2, 3, figsize=(14, 6.5), sharey="row", layout="constrained")
colors = plt.cm.tab20.colors
for (top, bottom), (name, (_, shares)) in zip(axes.T, runs.items(), strict=True):
    order = np.argsort(-final[name], kind="stable")
    steps = range(len(shares))
    top.stackplot(steps, shares[:, order].T, colors=colors, edgecolor="white", linewidth=0.3)
    top.set(title=name, xlabel="step", ylim=(0, 1), xlim=(0, len(shares) - 1))
    bottom.bar(range(E), final[name][order], color=colors)
    bottom.axhline(len(x) * k / E, color="k", linestyle="--")
    bottom.set(xlabel="expert, the one with most tokens first")
axes[0, 0].set_ylabel("shares of the choices, with noise")
axes[1, 0].set_ylabel("tokens in the end, without noise")
plt.show()

# %% [markdown]
# With the task alone there are fewer lines at work than clouds, and the error shows it. To try: raise the
# coefficients to 10. What becomes of the error? Leave out one of the paper's two losses, then the other: which of
# them leaves experts idle? Hold the threshold in question 5 (drop its part of the gradient): does training notice?
# Mistakes in a balance loss seldom stop a run, which is how they live for years.
