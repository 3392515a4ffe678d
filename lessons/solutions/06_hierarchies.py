# %% [markdown]
# # 06 · Solutions

# %%
import numpy as np

from moe_np.base import gradcheck
from moe_np.base.machine import one_blas_thread
from moe_np.base.numerics import logsumexp
from moe_np.coursework import self_check
from moe_np.data.piecewise import piecewise
from moe_np.experiments.jordan1994.runs import Config, run_one, spec_of
from moe_np.mixtures import hme, hme_em
from moe_np.mixtures.least_squares import make_design

# %% [markdown]
# ## Hints
#
# 1. In logarithms a product is a sum, and a sum over branches is `logsumexp`. First `log_below + log_density`,
#    (N, a, b).
# 2. The evidence is `logsumexp` of that over the last axis, (N, a). Subtract it for $h_{j \mid i}$; add
#    `log_top` to it and normalise over a for $h_i$; the last result is the product of the two.

# %% [markdown]
# ## Your turn
#
# A product of probabilities is a sum of logarithms, the sum over branches a `logsumexp`; `exp` comes last, when what
# is left is a logarithm of a share.


# %%
def posteriors(log_top, log_below, log_density):
    share = log_below + log_density
    evidence = logsumexp(share)  # (N, a)
    h_below = np.exp(share - evidence[:, :, None])
    above = log_top + evidence
    h_top = np.exp(above - logsumexp(above, keepdims=True))
    return h_top, h_below, h_top[:, :, None] * h_below


def reference(log_top, log_below, log_density):
    post = hme.posterior([log_top[:, None], log_below], log_density.reshape(len(log_top), -1))
    return post.h[0][:, 0], post.h[1], post.resp.reshape(log_below.shape)


def cases(rng):
    for a, b, far in ((2, 2, 1), (3, 4, 1), (2, 3, 5000)):
        below = np.log(rng.dirichlet(np.ones(b), size=(6, a)))
        yield (
            np.log(rng.dirichlet(np.ones(a), size=6)),
            below,
            far * rng.normal(size=(6, a, b)) - far,
        )


assert self_check(posteriors, reference, cases)

# %% [markdown]
# ## 1. Is it the tree?
#
# Hardly. Here 16 experts under one flat gate have the *lower* error, in about the same time. (A flat softmax over 16
# branches is one regression of 15 · 13 numbers, the tree's gates are 15 of 13 each, so trees were the cheaper ones when
# this took minutes. And a guess: a tree makes its first cut before its leaves have found anything to be good at.) On
# another task the order may be another one; the paper has no flat row.

# %%
config = Config(n_train=2000, n_test=1000)
mean = {}
with one_blas_thread():
    for tree in ([2, 2, 2, 2], [4, 4], [16]):
        runs = [
            run_one(spec_of(config, "HME, Algorithm 1", s, epochs=40, tree=tree)) for s in range(3)
        ]
        mean[str(tree)] = np.mean([run["error"] for run in runs])
        seconds = np.mean([run["timing"]["seconds"][-1] for run in runs])
        print(
            f"{tree!s:12}  errors {[round(run['error'], 3) for run in runs]}   40 epochs {seconds:.2f} s"
        )
assert mean["[16]"] < mean["[2, 2, 2, 2]"]

# %% [markdown]
# ## 2. The gradient of a gate below
#
# Let $s_j$ be its totals. $\partial \log g_{k \mid i} / \partial s_j = [j = k] - g_{j \mid i}$. So for one case
#
# $$\frac{\partial \ell}{\partial s_j} = \sum_k \frac{g_i\, g_{k \mid i} P_{ik}}{e^\ell} ([j = k] - g_{j \mid i})
# = \sum_k h_{ik} ([j = k] - g_{j \mid i}) = h_{ij} - h_i\, g_{j \mid i} = h_i\, (h_{j \mid i} - g_{j \mid i}).$$
#
# It learns nothing if the case is not its affair ($h_i = 0$), and nothing if it was right already
# ($h_{j \mid i} = g_{j \mid i}$).

# %%
data = piecewise(np.random.default_rng(0), 300)
x, d, N = data.x, data.y, len(data.x)
params = hme.init(np.random.default_rng(4), (2, 2), 1, 1, init_range=1.0, var=0.3)
loss, cache = hme.forward(params, x, d)
h_top, h_below = cache.post.h[0][:, 0], cache.post.h[1]
dlogits = -h_top[:, :, None] * (h_below - cache.g[1])  # of the loss, which is −ℓ
grads = {"U2": np.einsum("nd,npb->dpb", x, dlogits), "c2": dlogits.sum(axis=0)}
errors = gradcheck.gradient_error(
    lambda q: hme.forward({**params, **q}, x, d)[0].sum(),
    {name: params[name] for name in grads},
    grads,
    np.random.default_rng(0),
)
print({name: f"{error:.0e}" for name, error in errors.items()})
assert max(errors.values()) < 1e-7

# %% [markdown]
# ## 3. Without the weight
#
# It falls in about half of the runs, often by so little that no plot shows it, and *every* run ends lower. In the
# others it rises to the end, like a correct program. That is why one tests that the likelihood never falls by more than
# rounding, on many starts, instead of looking at a curve.

# %%
design = make_design(x)
fell, lower = 0, 0
for seed in range(12):
    paths = {}
    for forget in (False, True):
        params, path = (
            hme.init(np.random.default_rng(seed), (2, 2), 1, 1, init_range=1.0, var=0.3),
            [],
        )
        family, _ = hme_em.family_of(params, d)
        for _ in range(60):
            loss, cache = hme_em.e_step(params, x, d)
            path.append(-loss.mean())
            post = cache.post
            if forget:
                post = post._replace(joint=[np.ones_like(post.joint[0]), post.joint[1]])
            params = hme_em.m_step(params, design, d, post, family=family)
        paths[forget] = np.array(path)
    assert (np.diff(paths[False]) > -1e-9).all()
    fell += bool((np.diff(paths[True]) < -1e-6).any())
    lower += bool(paths[True][-1] < paths[False][-1])
print(f"without the weight: fell in {fell} of 12 runs, lower at the end in {lower} of 12")
assert 2 < fell < 12 and lower >= 10
