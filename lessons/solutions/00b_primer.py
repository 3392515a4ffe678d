# %% [markdown]
# # 00b · Solutions

# %%
import warnings

import numpy as np

from moe_np.base import gradcheck
from moe_np.coursework import self_check

# %% [markdown]
# ## Hints
#
# 1. Write $ds_i = \sum_j dp_j\, \partial p_j / \partial s_i$ and put in the derivative from the text. One of the
#    two terms needs no sum.
# 2. $ds_i = p_i\, dp_i - p_i \sum_j p_j\, dp_j$. The sum is one number per row: `(p * dp).sum(axis=1,
#    keepdims=True)`.

# %% [markdown]
# ## Your turn
#
# $ds_i = \sum_j dp_j\, p_j ([i = j] - p_i) = p_i\, dp_i - p_i \sum_j p_j\, dp_j$. The sum is one number per row.


# %%
def softmax_gradient(dp, p):
    return p * (dp - (p * dp).sum(axis=1, keepdims=True))


def jacobian_gradient(dp, p):
    return np.stack([(np.diag(row) - np.outer(row, row)) @ d for d, row in zip(dp, p, strict=True)])


def cases(rng):
    for N, E in ((5, 4), (3, 2), (1, 6)):
        yield rng.normal(size=(N, E)), rng.dirichlet(np.ones(E), size=N)


assert self_check(softmax_gradient, jacobian_gradient, cases)

# %% [markdown]
# ## 1. Two hidden layers
#
# The same three lines once more: the gradient at a hidden layer is the one above it times the matrix between them,
# transposed, times $1 - \tanh^2$.

# %%
rng = np.random.default_rng(0)
x = rng.uniform(-1, 1, (100, 1))
target = np.sin(3 * x)
params = {
    **{"W1": rng.normal(size=(1, 10)), "b1": rng.normal(size=10)},
    **{"W2": rng.normal(size=(10, 6)), "b2": rng.normal(size=6)},
    **{"W3": rng.normal(size=(6, 1)), "b3": np.zeros(1)},
}


def net(params):
    h1 = np.tanh(x @ params["W1"] + params["b1"])
    h2 = np.tanh(h1 @ params["W2"] + params["b2"])
    y = h2 @ params["W3"] + params["b3"]
    dy = 2 * (y - target) / len(x)
    d2 = (dy @ params["W3"].T) * (1 - h2**2)
    d1 = (d2 @ params["W2"].T) * (1 - h1**2)
    grads = {"W3": h2.T @ dy, "b3": dy.sum(axis=0), "W2": h1.T @ d2, "b2": d2.sum(axis=0)}
    return ((y - target) ** 2).mean(), {**grads, "W1": x.T @ d1, "b1": d1.sum(axis=0)}


def loss_of(q):
    return net(q)[0]


errors = gradcheck.gradient_error(loss_of, params, net(params)[1], np.random.default_rng(1))
print({name: f"{error:.0e}" for name, error in errors.items()})
assert max(errors.values()) < 1e-7

# %% [markdown]
# ## 2. The derivative of a softmax
#
# With $Z = \sum_j e^{s_j}$ and the quotient rule: $\partial p_j / \partial s_i = [i = j]\, e^{s_j} / Z - e^{s_j} e^{s_i} /
# Z^2 = p_j ([i = j] - p_i)$. For $\text{loss} = -\log p_r$ the derivative is $-\frac{1}{p_r}\, p_r ([i = r] - p_i) = p_i -
# [i = r]$, probabilities minus labels.

# %%
s = rng.normal(size=5)
p = np.exp(s) / np.exp(s).sum()
by_rule = softmax_gradient(-np.eye(5)[[2]] / p[2], p[None])[0]
assert np.allclose(by_rule, p - np.eye(5)[2])

# %% [markdown]
# ## 3. Overflow
#
# $e^{1000}$ is larger than any floating-point number: inf, and inf / inf is nan. NumPy warns of both, and the
# program goes on with nan.

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    e = np.exp(np.full(3, 1000.0))
    broken = e / e.sum()
print(broken, [str(w.message) for w in caught])
assert np.isnan(broken).all() and len(caught) == 2
