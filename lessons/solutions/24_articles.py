# %% [markdown]
# # 24 · Solutions

# %%
import numpy as np
from scipy import stats

from moe_np.coursework import self_check
from moe_np.data import regimes
from moe_np.experiments.common import power, statistics, verdicts
from moe_np.layers import diagnostics
from moe_np.routing import kmeans

# %% [markdown]
# ## Hints
#
# 1. The half width of the interval is `scipy.stats.t.ppf(0.975, n - 1)` times the sample standard deviation
#    (`ddof=1`) over the root of n.
# 2. Compare both ends of the interval with `smallest`. "No part above" means that the upper end is not above it.

# %% [markdown]
# ## Your turn


# %%
def judge(differences, smallest):
    n = len(differences)
    half = stats.t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / np.sqrt(n)
    mean = np.mean(differences)
    if mean - half > smallest:
        return 1
    return -1 if mean + half <= smallest else 0


def reference(differences, smallest):
    rule = verdicts.Criterion("difference", smallest)
    word = verdicts.verdict(rule, statistics.t_interval(differences))
    return {verdicts.HOLDS: 1, verdicts.NOT_SUPPORTED: -1}.get(word, 0)


def cases(rng):
    for n, mean, smallest in ((5, 2.0, 0.0), (5, -2.0, 0.0), (4, 0.1, 0.0), (8, 1.0, 0.9)):
        yield mean + 0.3 * rng.normal(size=n), smallest
    yield np.array([0.30, 0.34, 0.32]), 0.2
    yield np.array([0.1, 0.9]), 0.0  # two seeds: t is 12.7


assert self_check(judge, reference, cases)

# %% [markdown]
# ## 1. K-means that sees the targets
#
# It does not. Whatever the factor, k-means looks for cases that are *near to each other*, and cases of one rule are not: the
# target of a sloping rule takes all values. A mixture groups cases by whether one expert is right about them, and this is
# no distance. (With a large factor k-means cuts by the height of the target alone.)

# %%
for factor in (0, 1, 3, 10):
    bits = []
    for seed in range(8):
        draw = np.random.default_rng(seed)
        drawn = regimes.draw(regimes.make_task(draw), 300, draw, clouds=False, rules=True)
        seen = np.concatenate([drawn.x, factor * drawn.d], axis=1)
        centres, _ = kmeans.fit(draw, seen, 4, rounds=20)
        clusters, _ = kmeans.route(centres, seen, k=1, weights="one")
        bits.append(diagnostics.mutual_information(clusters.expert, drawn.region, draw).bits)
    interval = statistics.t_interval(bits)
    print(f"targets times {factor:2d}: {interval.estimate:.2f} bits ", end="")
    print(f"({interval.low:.2f} to {interval.high:.2f}); the gate had 1.97")
    assert interval.high < 1.8

# %% [markdown]
# ## 2. How many runs
#
# The mean of $n$ differences has the standard deviation $s/\sqrt n$. It is called different from 0 beyond 1.96 of them; that
# happens in 80 % of the cases if the true $\delta$ is 0.84 further out, since 80 % of a normal distribution lie above its
# mean less 0.84. So $\delta = (1.96 + 0.84)\, s/\sqrt n$, and $n = 2.80^2 (s/\delta)^2 = 7.85\,(s/\delta)^2$. For small $n$ the
# quantile of $t$ is larger, and one needs two or three more.
#
# Of 45 tests of claims that are not true, $45 \cdot 0.05 = 2.25$ come out by chance. Holm multiplies the smallest p by 45, the
# next by 44, and so on: then *any* false one comes out in at most 5 % of such articles.

# %%
z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
print(f"constant: {z**2:.2f}")
for ratio in (0.5, 1.0, 2.0, 5.0):
    print(f"s/δ = {ratio}: formula {z**2 * ratio**2:6.1f}, exact {power.runs_needed(1.0, ratio)}")
assert abs(power.runs_needed(1.0, 5.0) - z**2 * 25) < 4
rng = np.random.default_rng(0)
tables = rng.random((2000, 45))  # p values where nothing is true
by_chance = (tables < 0.05).sum(axis=1).mean()
corrected = np.mean([min(verdicts.holm(row.tolist())) < 0.05 for row in tables[:500]])
print(f"by chance {by_chance:.2f} of 45; articles with any after Holm {corrected:.1%}")
assert 2.1 < by_chance < 2.4 and corrected < 0.08

# %% [markdown]
# ## 3. Stop when it looks good
#
# A quarter of the repetitions "find" a difference, where 5 % should. Each look is one more chance. So the number of seeds
# belongs to what is fixed before the runs.

# %%
n = np.arange(3, 31)
quantile = stats.t.ppf(0.975, n - 1)
stopped = 0
for _ in range(1000):
    values = rng.normal(size=30)  # no difference at all
    means = np.cumsum(values)[n - 1] / n
    squares = np.cumsum(values**2)[n - 1]
    se = np.sqrt((squares - n * means**2) / (n - 1) / n)
    stopped += (np.abs(means) > quantile * se).any()
print(f"a difference is found in {stopped / 1000:.0%} of 1,000 repetitions")
assert stopped > 150
