# %% [markdown]
# # 12 · Solutions

# %%
from math import comb

import numpy as np

from moe_np.base.machine import one_blas_thread
from moe_np.coursework import self_check
from moe_np.data.clusters import clusters
from moe_np.layers import diagnostics
from moe_np.models import patch_cnn, patch_cnn_training

K = 4
train, test = clusters(1, 1600, 1600, np.random.default_rng([2022, 1]))
test_batch = patch_cnn_training.batch(test.x, test.y)


def run(
    activation,
    data=train,
    seed=0,
    gate="softmax",
    loss="once",
    experts=8,
    filters=6,
    passes=101,
    scale=1e-3,
):
    rng = np.random.default_rng([seed, 1])
    params = patch_cnn.init(rng, experts, filters, data.x.shape[2], scale=scale, dtype=np.float32)
    how = {
        "gate": gate,
        "loss": loss,
        "lr": 3e-3,
        "lr_router": 0.1,
        "norm": "joint",
        "stop": False,
        "epochs": passes,
    }
    noise = patch_cnn_training.uniform_noise(rng)
    own = patch_cnn_training.batch(data.x, data.y)
    with one_blas_thread():
        steps = list(
            patch_cnn_training.train_mixture(
                params, own, data.cluster, noise, activation=activation, **how
            )
        )
        out, _ = patch_cnn_training.predict(
            steps[-1].params, test_batch, None, activation=activation, gate=gate
        )
    return steps, patch_cnn_training.accuracy(out, test.y)


# %% [markdown]
# ## Hints
#
# 1. Take the experts one by one: the clusters of `cluster[expert == m]`, and how many samples there are of each.
# 2. `np.unique(..., return_counts=True)` gives only counts above 0, so no logarithm of 0 comes up. Weight each
#    entropy with the share of the samples that the expert has.

# %% [markdown]
# ## Your turn


# %%
def dispatch_entropy(expert, cluster):
    total = 0.0
    for m in np.unique(expert):  # experts without samples do not come up
        _, count = np.unique(
            cluster[expert == m], return_counts=True
        )  # nor do clusters without: no log of 0
        p = count / count.sum()
        total += count.sum() / len(expert) * -(p * np.log(p)).sum()
    return total


def cases(rng):
    yield np.zeros(8, int), np.repeat(np.arange(4), 2)
    yield np.repeat(np.arange(4), 2), np.repeat(np.arange(4), 2)
    for size in (1, 9, 60):
        yield rng.integers(6, size=size), rng.integers(4, size=size)


assert self_check(dispatch_entropy, diagnostics.dispatch_entropy, cases)

# %% [markdown]
# ## 1. Two experts, four, eight
#
# Two experts cannot do better than two clusters each: $\ln 2 = .69$, and every sample of the cluster that an expert has
# not specialised in is a guess or worse.
#
# If each expert drew its cluster by lot, the chance that no cluster is left out would be, by inclusion and exclusion,
# $\sum_j (-1)^j \binom4j (1 - j/4)^E$: 9 % for four experts and 62 % for eight. Training does better than the lot,
# because the router is a referee: an expert that lost its cluster to another one gets samples of the rest.

# %%
for experts in (2, 4, 8):
    found = [run("cubic", seed=seed, experts=experts) for seed in range(3 if experts == 2 else 6)]
    by_lot = sum((-1) ** j * comb(K, j) * (1 - j / K) ** experts for j in range(K + 1))
    apart = sum(steps[-1].entropy < 0.1 for steps, _ in found)
    print(
        f"{experts} experts: {apart} of {len(found)} starts part the clusters; by lot {100 * by_lot:.0f} %;",
        end=" ",
    )
    print("entropies", *(f"{steps[-1].entropy:.2f}" for steps, _ in found))
    if experts == 2:
        assert min(steps[-1].entropy for steps, _ in found) > np.log(2) - 0.05 and apart == 0
    if experts == 8:
        assert apart >= 4

# %% [markdown]
# ## 2. A quieter decoy
#
# $\alpha$ and $\gamma$ have the same range now, so $P(\alpha > \gamma) = \frac12$ and the classifier gets
# $\frac12 + \frac12 \cdot \frac12 = 75\,\%$. It would get 100 % (but for the Gaussian noise) if $\gamma$ never exceeded
# .5, the least that $\alpha$ can be: then $\alpha y$ always decides the sign.

# %%
_, easier = clusters(3, 1, 4000, np.random.default_rng(0))
direction = easier.features.sum(axis=0)
right = 100 * ((easier.x.sum(axis=1) @ direction > 0) == easier.y).mean()
print(f"setting 3: {right:.1f} %")
assert abs(right - 75) < 3

# %% [markdown]
# ## 3. A large start
#
# $w$ lives in 50 dimensions, and only four of them are signals. At a large start most of $w$ is something else, which
# no gradient on average points at: it stays, and adds noise to every output. From a small start, the first few steps
# (each of the same length) are already longer than all that chance had put there.

# %%
for scale in (1e-3, 0.1):
    steps, right = run("cubic", scale=scale)
    share = [
        np.square(w @ train.features.T).sum() / np.square(w).sum()
        for w in (s.params["w"] for s in steps)
    ]
    print(f"scale {scale}: {right:.1f} % right, entropy {steps[-1].entropy:.2f};", end=" ")
    print(
        f"share of the signals in |w|²: {share[0]:.2f} after the first step, {share[-1]:.2f} at the end"
    )
    assert (share[-1] > 0.95) == (scale == 1e-3)
