# %% [markdown]
# # 05 · Solutions

# %%
import warnings

import numpy as np

from moe_np.coursework import self_check
from moe_np.data import inverse
from moe_np.mixtures import em
from moe_np.mixtures.least_squares import weighted_least_squares
from moe_np.show import walk

x, d = inverse.inverse_problem(300, np.random.default_rng(0))
X, N = np.hstack([x, np.ones_like(x)]), len(x)

# %% [markdown]
# ## Hints
#
# 1. One expert at a time: weighted least squares, with the column `resp[:, i]` as weights and a column of ones
#    beside `x`.
# 2. `X.T @ (h[:, None] * X)` and `X.T @ (h[:, None] * d)` go into `np.linalg.solve`. For the variance divide by
#    `h.sum()` times the number of outputs.

# %% [markdown]
# ## Your turn
#
# Multiply each case by its weight on *one* side of each product. Weights of 0 do no harm: such a case is not there.


# %%
def m_step(x, d, resp):
    ones = np.hstack([x, np.ones((len(x), 1))])
    W, b, var = [], [], []
    for h in resp.T:
        coef = np.linalg.solve(ones.T @ (h[:, None] * ones), ones.T @ (h[:, None] * d))
        residual = d - ones @ coef
        W.append(coef[:-1])
        b.append(coef[-1])
        var.append((h[:, None] * residual**2).sum() / (h.sum() * d.shape[1]))
    return np.stack(W), np.stack(b), np.array(var)


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


assert self_check(m_step, reference, cases)

# %% [markdown]
# ## 1. A gate step that goes all the way
#
# It saves almost no rounds. Any step that raises $B$ raises $\ell$; to be at the top of a bound that will be replaced
# in a moment is worth little. (And with this data, going all the way sends more of the starts into a poor local
# optimum: early on, the responsibilities are mostly wrong, and a gate that takes them at their word is harder to talk
# out of it. Eight starts are an observation and no law.)

# %%
found = {}
for irls_steps in (1, 25):
    rounds, ends = [], []
    for seed in range(8):
        options = {"family": em.Gaussian("shared"), "irls_steps": irls_steps}
        climb = [
            s
            for s in walk.em(x, d, 3, rng=np.random.default_rng(seed), **options)
            if s.phase == "E step"
        ]
        rounds.append(len(climb) - 1)
        ends.append(float(climb[-1]["log_likelihood"]) / N)
    found[irls_steps] = np.mean(rounds), np.round(ends, 3)
    print(
        f"irls_steps {irls_steps:2}: rounds {rounds}, mean {np.mean(rounds):.0f}; ends {found[irls_steps][1]}"
    )
assert abs(found[25][0] / found[1][0] - 1) < 0.25
assert (found[25][1] > 0.9).sum() <= (found[1][1] > 0.9).sum()

# %% [markdown]
# ## 2. EM is a gradient step with a matrix
#
# The gradient at the old line is $\partial\ell/\partial w_i = X^\top H_i (d - X w_\text{old}) / \sigma^2$ (lesson 02:
# responsibility times residual). So
#
# $$\sigma^2 (X^\top H_i X)^{-1}\, \partial\ell/\partial w_i = (X^\top H_i X)^{-1} X^\top H_i\, d - w_\text{old}
# = w_\text{new} - w_\text{old}.$$
#
# The step size is $\sigma^2 (X^\top H_i X)^{-1}$: large where few cases and little spread of $x$ hold the line, small
# where there is much of both, and different for each direction. The data chose it.

# %%
family = em.Gaussian("fixed", variance=0.01)
states = walk.em(x, d, 3, family=family, rng=np.random.default_rng(8))
old = {name: states[1][name] for name in ("W", "b", "U", "c", "var")}
resp, new = states[1]["resp"], states[2]
_, grads = em.gradient(old, x, d, family=family)
for i, h in enumerate(resp.T):
    gradient = np.vstack([grads["W"][i], grads["b"][i]])
    moved = np.vstack([new["W"][i] - old["W"][i], new["b"][i] - old["b"][i]])
    by_matrix = 0.01 * np.linalg.solve(X.T @ (h[:, None] * X), gradient)
    print(
        f"expert {i}: moved by {moved.ravel().round(4)}, matrix times gradient {by_matrix.ravel().round(4)}"
    )
    assert np.allclose(moved, by_matrix)

# %% [markdown]
# ## 3. No maximum
#
# A line through two points has no residual. An expert that has just two cases to itself can let its variance go to 0,
# and the density of these two to infinity. So the smallest variances go to whatever floor there is, the likelihood of
# the training cases follows, and that of other cases is a catastrophe. The default floor is a millionth of the variance
# of $d$: it bounds the likelihood, so that there is a maximum to climb to; it does not make it a sensible one. What
# helps: fewer experts for so few cases, and one variance for all, which no pair of cases can pull to 0 alone.

# %%
few = np.random.default_rng(0).choice(N, 30, replace=False)
others = np.setdiff1d(np.arange(N), few)
for name, family in (
    ("floor 1e-12", em.Gaussian("expert", floor=1e-12)),
    ("default floor", em.Gaussian("expert")),
    ("one variance", em.Gaussian("shared")),
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        fit = em.fit(x[few], d[few], 10, family=family, rng=np.random.default_rng(0), restarts=1)
    scores = fit.log_likelihood / 30, fit.score(x[others], d[others])
    print(f"{name}: log likelihood per case {scores[0]:.1f}, of the other cases {scores[1]:.1f}")
    if fit.params["var"].ndim:
        order = fit.params["var"].argsort()
        print("    variances", " ".join(f"{v:.0e}" for v in fit.params["var"][order]))
        print("    cases    ", " ".join(f"{n:.0f}".rjust(5) for n in fit.resp.sum(axis=0)[order]))
    if "1e-12" in name:
        smallest = fit.params["var"] < 1e-11
        assert smallest.sum() >= 3 and (fit.resp.sum(axis=0)[smallest] < 3.5).all()
        assert scores[0] > 4 and scores[1] < -10
