# %% [markdown]
# # 01 · Solutions

# %%
import numpy as np

from moe_np.coursework import self_check
from moe_np.data import inverse
from moe_np.experiments.one_to_many.runs import fit_mixture
from moe_np.mixtures import jacobs1991, nowlan1991

# %% [markdown]
# ## Hints
#
# 1. Section 3: which answer has the smallest mean squared error, and what is that error called?
# 2. The mean is `values @ probs`, the variance `((values - mean) ** 2) @ probs`. For the third number section 4
#    has the rule for two independent draws with the same mean.

# %% [markdown]
# ## Your turn
#
# The best answer is the mean, its error the variance. Of two independent draws with the same mean, the mean squared
# difference is the sum of their variances.


# %%
def best_and_drawn(values, probs):
    mean = values @ probs
    variance = ((values - mean) ** 2) @ probs
    return mean, variance, 2 * variance


def reference(values, probs):
    tried = np.stack([(values - y) ** 2 @ probs for y in values])
    mean = values @ probs
    return mean, ((values - mean) ** 2) @ probs, tried @ probs


def cases(rng):
    for K in (2, 3, 6):
        yield rng.normal(size=K), rng.dirichlet(np.ones(K))


assert self_check(best_and_drawn, reference, cases)

# %% [markdown]
# ## 1. The absolute error
#
# It asks for the **median**: an answer with half of the probability on either side. Of 0.2, 0.5, 0.8 that is 0.5. Of −2
# and 2 it is *anything between them*: the straight arm is as good as the two right answers, and no worse than any other
# wrong one. So it does not get the hand to the target either. It is another single number; what is missing is the list.

# %%
grid = np.linspace(-3, 3, 601)
for values in ((0.2, 0.5, 0.8), (-2.0, 2.0)):
    error = np.abs(np.array(values)[:, None] - grid).mean(axis=0)
    best = grid[error < error.min() + 1e-9]
    print(f"answers {values}: best from {best.min():.2f} to {best.max():.2f}")
assert np.allclose([best.min(), best.max()], [-2, 2])

# %% [markdown]
# ## 2. Within and between
#
# Given the expert, $d = o_i + \text{noise}$, so the mean of $(d - y)^2$ is $\sigma^2 + (o_i - y)^2$, since noise has
# mean 0. The mean over experts, each with its probability $p_i$, is the variance. A single wide bell has a variance as
# well, any that you like: it can say *how much* there is in total. It cannot say that the part between the experts
# comes in lumps with nothing in the gaps.

# %%
x, d = inverse.inverse_problem(300, np.random.default_rng(0))
x_test, d_test = inverse.inverse_problem(4000, np.random.default_rng(1))
settings = {"init_range": 0.5, "sigma": 0.1, "rounds": 6, "max_iter": 200}


def fitted(E):
    """(params, sigma) of the likeliest of eight starts."""
    rngs = [np.random.default_rng(seed) for seed in range(8)]
    found = [fit_mixture(rng, x, d, experts=E, **settings) for rng in rngs]
    return max(found, key=lambda f: f[2])[:2]


params, sigma = fitted(3)
half = np.array([[0.5]])
o = jacobs1991.experts_forward(params, half, "linear")[0][0, :, 0]
p = jacobs1991.gate_forward(params, half)[0][0]
y = p @ o
within, between = sigma**2, p @ (o - y) ** 2
rng = np.random.default_rng(3)
draws = o[rng.choice(3, 200_000, p=p)] + sigma * rng.normal(size=200_000)
print(
    f"within {within:.4f} + between {between:.4f} = {within + between:.4f}; measured {draws.var():.4f}"
)
assert abs(draws.var() / (within + between) - 1) < 0.01 and between > 5 * within

# %% [markdown]
# ## 3. Two experts, and six
#
# With two, the branch in the middle is given up: both slopes are positive, and no line runs downhill. All pay for it,
# since there is one $\sigma$ for everybody: it is nearly twice as wide, on the outer branches as well. With six, a
# little is gained, since a curved branch can be made of two lines; but some experts are hardly ever believed, and each
# start ends somewhere else. More experts have more local optima, not only more to say.

# %%
found = {3: (params, sigma)} | {E: fitted(E) for E in (2, 6)}
rows = {}
for E, (params, sigma) in sorted(found.items()):
    likelihood = []
    for inputs, wanted in ((x, d), (x_test, d_test)):
        loss, _ = nowlan1991.system_forward(
            params, inputs, inputs, wanted, sigma=sigma, kind="linear"
        )
        likelihood.append(nowlan1991.log_likelihood(loss, sigma, 1).mean())
    share = jacobs1991.gate_forward(params, x)[0].mean(axis=0)
    rows[E] = likelihood[1], sigma, params["W"][:, 0, 0], share
    print(
        f"{E} experts: log likelihood {likelihood[0]:.2f}, test {likelihood[1]:.2f}; sigma {sigma:.3f}"
    )
    print(f"    shares {np.sort(share)[::-1].round(2)}; slopes {np.sort(rows[E][2]).round(1)}")
assert rows[2][0] < rows[3][0] - 0.2 and rows[2][1] > 1.5 * rows[3][1]
assert (rows[2][2] > 0).all() and (rows[3][2] < 0).sum() == 1
assert rows[3][0] < rows[6][0] < rows[3][0] + 0.15 and rows[6][3].min() < 0.05
