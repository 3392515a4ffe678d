# %% [markdown]
# # 00b · A primer: six things that the lessons assume
#
# Afterwards you can use softmax and cross-entropy, the normal density, Bayes' rule, the backward pass of a net, gradient
# descent, and the score trick. Each has a few lines of text and a few of code.
#
# ## Are you ready? Ten questions
#
# Answer them on paper, then open the answers. Eight or more right: go to [lesson 01](01_why_one_averages.ipynb). For each
# one that you miss, the section below is named.
#
# 1. What is the softmax of (0, 0, 0)? And of (1000, 1000, 1000)? (Section 1)
# 2. A constant is added to all logits. What happens to their softmax? (1)
# 3. A classifier gives the right class the probability ¼. What is the cross-entropy, in nats? (1)
# 4. What is the gradient of cross-entropy with respect to the logits? (1)
# 5. $d$ is normal with mean $\mu$ and variance 1. What is $-\log$ of its density, up to a constant? (2)
# 6. Two causes are equally likely beforehand. The first makes what you saw three times as probable as the second. How
#    probable is the first now? (3)
# 7. $y = xW$ with `x` (N, D) and `W` (D, C), and `dy` (N, C) is known. Write `dW` and `dx`. (4)
# 8. The forward pass sums over an axis. What does the backward pass do there? (4)
# 9. What goes wrong with a learning rate that is too large, and with one that is too small? (5)
# 10. Which expectation does $f(z)\, \partial \log p(z)$ estimate, with $z$ drawn from $p$? (6)
#
# <details><summary>Answers</summary>
#
# 1: ⅓, ⅓, ⅓, both times (a program that does not subtract the maximum says nan for the second). 2: nothing. 3:
# log 4 = 1.39. 4: probabilities minus labels. 5: $\frac12 (d - \mu)^2$. 6: ¾. 7: `x.T @ dy` and `dy @ W.T`. 8: it copies
# along the axis. 9: the loss grows or jumps; it falls too slowly. 10: the gradient of the mean of $f$ under $p$.
# </details>

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base import gradcheck
from moe_np.coursework import self_check

plt.rcParams.update(plots.STYLE)

# %% [markdown]
# ## 1. Softmax and cross-entropy
#
# A model gives each of E options a number, its **logit**. The softmax turns logits into probabilities, and cross-entropy
# is minus the logarithm of the probability of the right option:
#
# $$p_i = \frac{e^{s_i}}{\sum_j e^{s_j}}, \qquad \text{loss} = -\log p_\text{right}.$$
#
# (If the label is itself a list of probabilities $q$, the loss is $-\sum_i q_i \log p_i$.) Its gradient with respect to
# the logits is as short as a gradient can be: **probabilities minus labels**. Many lessons come back to this line.
#
# **Predict.** The right option has the smallest logit, −1, the others 2 and 0. What signs do the three gradients have?

# %%
s = np.array([2.0, 0.0, -1.0])
e = np.exp(s - s.max())  # minus the largest: e cannot overflow, and the result is the same
p = e / e.sum()
label = np.array([0, 0, 1])
loss = -np.log(p[2])
print("p", p.round(3), "  loss", loss.round(3), "  gradient p − label", (p - label).round(3))

nudged = s + np.array([0, 0, 1e-6])  # the third gradient, by trying
q = np.exp(nudged) / np.exp(nudged).sum()
print("measured, third:", round((-np.log(q[2]) - loss) / 1e-6, 3))
assert abs((-np.log(q[2]) - loss) / 1e-6 - (p - label)[2]) < 1e-5

# %% [markdown]
# **Answer.** Two are positive and one is negative. Descent goes against the gradient, so the right logit rises and all
# others fall, in proportion to how much they were believed. They sum to 0.
#
# ## 2. The normal density, and where the squared error comes from
#
# $$N(d;\, \mu, \sigma^2) = \frac{1}{\sigma \sqrt{2\pi}}\, e^{-(d - \mu)^2 / 2\sigma^2}, \qquad
# -\log N = \frac{(d - \mu)^2}{2\sigma^2} + \log \sigma + \text{const}.$$
#
# A density is not a probability; it may be larger than 1. A model that says "$d$ is normal about my answer $\mu$", and is
# judged by minus the log of the density of what came, has the squared error as its loss. **Likelihood** is the density of
# the data, seen as a function of the parameters; one works with its logarithm, and sums over cases.
#
# **Predict.** Two experts say 0. One expects to miss by 0.1, the other by 1. What came is 0.5. Whose density is higher?


# %%
def normal(d, mean, sigma):
    return np.exp(-((d - mean) ** 2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))


line = np.linspace(-3, 3, 601)
fig, ax = plt.subplots(figsize=(7, 3))
for sigma, colour in ((0.1, plots.BLUE), (1.0, plots.ORANGE)):
    ax.plot(line, normal(line, 0, sigma), color=colour, label=f"σ = {sigma:g}")
ax.axvline(0.5, color=plots.BLACK, linestyle="--", linewidth=1)
ax.set(xlabel="d", ylabel="density")
ax.legend(frameon=False)
plt.show()
print("at 0.5:", normal(0.5, 0, 0.1).round(6), "and", normal(0.5, 0, 1.0).round(3))
assert normal(0.5, 0, 1.0) > 1000 * normal(0.5, 0, 0.1)

# %% [markdown]
# **Answer.** That of the expert who expects to miss by 1, by far. Who claims to be exact wins near 0 and loses everywhere
# else: at 0.5 the other is five of its $\sigma$ away.
#
# ## 3. Bayes' rule: who did it?
#
# Expert $i$ was chosen with probability $p_i$ (the **prior**), and if it was, it produces $d$ with density $P_i$. Now we
# have seen $d$. The probability that it was expert $i$ (the **posterior**) is
#
# $$h_i = \frac{p_i P_i}{\sum_j p_j P_j}.$$
#
# In this course $h_i$ is called the **responsibility** of the expert. It is a comparison: multiply all $P$ by the same
# number, and nothing changes.
#
# **Predict.** The gate believed expert 0 with 0.9. What came is 0.1 as dense under expert 0 as under expert 1. Who
# did it?

# %%
prior = np.array([0.9, 0.1])
P = np.array([0.02, 0.2])
posterior = prior * P / (prior * P).sum()
print("responsibilities", posterior.round(3))
assert abs(posterior[1] - 0.1 * 0.2 / (0.9 * 0.02 + 0.1 * 0.2)) < 1e-12 and posterior[1] > 0.5

# %% [markdown]
# **Answer.** Expert 1, by a little. A good explanation can make up for a small prior, if the others explain badly enough.
#
# ## 4. The backward pass of one net
#
# **Backpropagation** is the chain rule, carried out from the loss to the parameters, one line of code per line of the
# forward pass. Write `dname` for the gradient of the loss with respect to `name`; it has the shape of `name`. Three
# rules:
#
# 1. **Chain.** If $b = f(a)$, then `da = db * f'(a)`. For a matrix product `b = a @ W`: `da = db @ W.T`, `dW = a.T @ db`.
#    (The shapes leave no other way.)
# 2. **Copy and sum.** Where the forward pass sums over an axis, the backward pass copies along it, and the other way
#    round. A bias is copied to all rows: its gradient is a sum over rows.
# 3. **Add.** What is used twice gets the sum of two gradients.
#
# **Predict.** Which lines of the backward pass need something that the forward pass has computed?

# %%
rng = np.random.default_rng(0)
x = rng.uniform(-1, 1, (100, 1))
target = np.sin(3 * x) + 0.1 * rng.normal(size=x.shape)
start = {
    "W1": 2 * rng.normal(size=(1, 10)),
    "b1": rng.normal(size=10),
    "W2": 0.3 * rng.normal(size=(10, 1)),
    "b2": np.zeros(1),
}


def net(params):
    """(loss, gradients): a net with ten hidden units, and the mean squared error over 100 cases."""
    total = x @ params["W1"] + params["b1"]  # (100, 10)
    hidden = np.tanh(total)
    y = hidden @ params["W2"] + params["b2"]  # (100, 1)
    loss = ((y - target) ** 2).mean()

    dy = 2 * (y - target) / len(x)
    dhidden = dy @ params["W2"].T
    dtotal = dhidden * (1 - hidden**2)  # the derivative of tanh is 1 − tanh²
    grads = {"W2": hidden.T @ dy, "b2": dy.sum(axis=0)}
    grads |= {"W1": x.T @ dtotal, "b1": dtotal.sum(axis=0)}
    return loss, grads


# %% [markdown]
# **Answer.** `dy` needs `y`, `dtotal` needs `hidden`, and `W2`'s gradient needs `hidden` again. So a forward pass keeps
# its intermediate results; in this package they are called its *cache*.
#
# **Is it right?** A gradient $g$ is a promise: along any direction $v$ the slope of the loss is $\sum g v$. The slope can
# be measured with two evaluations of the loss. One random direction tests all entries at once, since an error anywhere
# shows in the sum. That is what `gradcheck.gradient_error` does. It returns the difference between measured and promised
# slope, divided by the larger of the two: tiny if $g$ is right, near 1 if it has nothing to do with the loss.
#
# **Predict.** What does it say if the division by `len(x)` in `dy` is forgotten?

# %%
loss_of = lambda params: net(params)[0]  # noqa: E731
grads = net(start)[1]
too_large = {name: g * len(x) for name, g in grads.items()}
right = gradcheck.gradient_error(loss_of, start, grads, np.random.default_rng(1))
wrong = gradcheck.gradient_error(loss_of, start, too_large, np.random.default_rng(1))
print("right:          ", {name: f"{error:.0e}" for name, error in right.items()})
print("without 1/100:  ", {name: round(error, 4) for name, error in wrong.items()})
assert max(right.values()) < 1e-7 and all(abs(error - 0.99) < 1e-6 for error in wrong.values())

# %% [markdown]
# **Answer.** 0.99, that is 1 − 1/100. The direction is right, the length is not, so training would still go down, with a
# learning rate that is another one than you think. The check does not forgive it. Every backward pass of this package has
# to pass it, and so will yours.
#
# > **Seen in public code** (errata 16): exactly this, a mean loss with a summed gradient. (The number is that of the
# > [list of such mistakes](errata.md), each of which has tests.)
#
# ## 5. Gradient descent
#
# Go a little against the gradient, again and again: $w \leftarrow w - \eta\, dw$. The **learning rate** $\eta$ has to be
# chosen. One pass over all data is an **epoch**; here a step uses all data, so it is the same.
#
# **Predict.** 500 steps with the learning rates 0.01, 0.05, 0.2 and 0.4. Which ends lowest?

# %%
losses = {}
for lr in (0.01, 0.05, 0.2, 0.4):
    params, losses[lr] = start, []
    for _ in range(500):
        loss_now, grads_now = net(params)
        losses[lr].append(loss_now)
        if loss_now > 1000:
            break  # it has jumped out of the valley
        params = {name: params[name] - lr * grads_now[name] for name in params}

fig, ax = plt.subplots(figsize=(7, 3.6))
for (lr, path), colour in zip(losses.items(), plots.COLOURS, strict=False):
    ax.plot(path, color=colour, label=f"η = {lr:g}: {path[-1]:.3f} after {len(path)} steps")
ax.set(xlabel="step", ylabel="loss", yscale="log", ylim=(1e-2, 1e1))
ax.legend(frameon=False)
plt.show()
assert losses[0.2][-1] < losses[0.05][-1] < losses[0.01][-1] and losses[0.4][-1] > 1000

# %% [markdown]
# Too small is slow. Too large jumps over the valley, farther each time. Between the two, larger is faster, up to an edge
# that one finds by trying.
#
# ## 6. The score trick
#
# Sometimes a program *draws* something: a gate draws expert $z$ with probability $p_z$, and then the loss is $f(z)$. The
# mean loss is $\sum_z p_z f(z)$. Its gradient with respect to the logits of $p$ can be estimated from draws, without a
# derivative of $f$, since $\partial p_z = p_z\, \partial \log p_z$:
#
# $$\partial \sum_z p_z f(z) = \sum_z p_z\, f(z)\, \partial \log p_z
# = \text{mean over draws of } f(z)\, \partial \log p_z .$$
#
# For a softmax, $\partial \log p_z / \partial s_i = [i = z] - p_i$, where $[i = z]$ is 1 if $i$ is $z$, and
# else 0. The method has a name, **REINFORCE** (Williams 1992), and lesson 08 uses it.
#
# **Predict.** Is one draw a good estimate? How many digits do 100,000 draws give?

# %%
f = np.array([3.0, 1.0, 2.0])
chance = np.array([0.5, 0.3, 0.2])
exact = chance * (f - chance @ f)  # the sum over z, worked out
z = np.random.default_rng(2).choice(3, size=100_000, p=chance)
draws = f[z][:, None] * (np.eye(3)[z] - chance)  # one estimate per row
print("exact         ", exact.round(3))
print("mean of draws ", draws.mean(axis=0).round(3))
print("one draw      ", draws[0].round(3), "  standard deviation", draws.std(axis=0).round(2))
assert np.abs(draws.mean(axis=0) - exact).max() < 0.02

# %% [markdown]
# **Answer.** A single draw is nearly all noise, and 100,000 give two digits. It is right on average, and nothing else.
#
# ## Your turn
#
# Section 1 gave the gradient of cross-entropy. Here the derivatives `dp` of some loss with respect to the *probabilities*
# are known, and you are to find `ds`. The softmax couples them: every $p_j$ depends on every $s_i$,
# $\partial p_j / \partial s_i = p_j ([i = j] - p_i)$.


# %%
def softmax_gradient(dp, p):
    """ds (N, E) of p = softmax(s), row by row, from dp (N, E) and p (N, E)."""
    # your code here
    return None


# %%
def jacobian_gradient(dp, p):
    """By the matrix of all derivatives, one row at a time."""
    return np.stack([(np.diag(row) - np.outer(row, row)) @ d for d, row in zip(dp, p, strict=True)])


def cases(rng):
    for N, E in ((5, 4), (3, 2), (1, 6)):
        yield rng.normal(size=(N, E)), rng.dirichlet(np.ones(E), size=N)


self_check(softmax_gradient, jacobian_gradient, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Give the net of section 4 a second hidden layer, and check its gradient.
# 2. **Derive.** Show $\partial p_j / \partial s_i = p_j ([i = j] - p_i)$ from the definition of the softmax, and from it
#    that cross-entropy has the gradient $p - \text{label}$.
# 3. **Break it.** Leave out `- s.max()` in section 1 and use logits of 1000. What comes out, and does NumPy say so?
#
# Solutions: `lessons/solutions/00b_primer.py`.
#
# Next: [01, why one expert averages](01_why_one_averages.ipynb).
