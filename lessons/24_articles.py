# %% [markdown]
# # 24 · What articles say, and how to find out
#
# Afterwards you can take a sentence from an article and turn it into a number with an interval: claim, measure, control,
# criterion, verdict. You have done it with ten sentences that are repeated often.
#
# The sentences are here in our words. The page [What articles say](site/articles.md) has these and sixteen more, with the
# evidence for each.
#
# | symbol | in code | meaning |
# |---|---|---|
# | $N, E, k$ | `N, E, k` | tokens, experts, choices per token |
# | $D, H$ | `D, H` | features of a token, hidden units of an expert |
# | $n$ | `n` | runs, from different seeds |
# | $d$ | `difference` | a difference between two systems, seed by seed |
# | $\delta$ | `smallest` | the smallest difference that would matter to a reader |

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np

from moe_np import accounting, plots
from moe_np.adapt import layer_parts
from moe_np.base.numerics import softmax
from moe_np.coursework import self_check
from moe_np.data import regimes
from moe_np.experiments.common import power, statistics, verdicts
from moe_np.language import corpus, shipped_model
from moe_np.layers import diagnostics
from moe_np.mixtures import em
from moe_np.routing import contract, expert_choice, kmeans, noisy_top_k, switch, top_k
from moe_np.show import walk
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)

# %% [markdown]
# ## 0. Your judgement first
#
# Read the ten sentences and write `"right"`, `"wrong"` or `"depends"` after each. Do it before you read on: at the end your
# words are printed beside what came out.

# %%
SENTENCES = {
    1: "A softmax gate gives the weight 0 to the experts that are not needed.",
    2: "The softplus ensures that the noise of a noisy gate is positive.",
    3: "The router learns only with two or more experts per token.",
    4: "The cost of a mixture is O(1) in the number of experts.",
    5: "A mixture is an advantage because its models are smaller.",
    6: "Mixtral is a Switch Transformer.",
    7: "Expert choice looks at the content of a token, and not only at its position.",
    8: "A mixture of experts is an ensemble of weak learners.",
    9: "The gate learns to cluster the data.",
    10: "Mixtures overfit when they are fine-tuned.",
}
judgement = {
    1: "",
    2: "",
    3: "",
    4: "",
    5: "",
    6: "",
    7: "",
    8: "",
    9: "",
    10: "",
}  # your words here
found = {}  # sentence -> verdict; the sections below fill it in
print("judged:", sum(map(bool, judgement.values())), "of", len(SENTENCES))

# %% [markdown]
# ## 1. A softmax gate gives the weight 0 to the experts that are not needed
#
# **Predict.** Ten thousand tokens, eight experts, logits with a standard deviation of 5, which is a very sure gate. How many
# of the 80,000 weights are exactly 0?

# %%
rng = np.random.default_rng(0)
logits = 5 * rng.normal(size=(10_000, 8))
weights = softmax(logits)
kept = np.where(contract.demand_of(contract.top_k(logits, 2), 8), weights, 0)
print(f"softmax: {(weights == 0).sum()} zeros, smallest weight {weights.min():.0e}")
print(f"top 2 of it: {(kept == 0).mean():.0%} zeros")
assert not (weights == 0).any()
found[1] = "wrong"

# %% [markdown]
# **Answer.** None: $e^z$ is never 0. (Only rounding makes it 0, for logits some 700 below the largest.) The zeros come from
# the step after it, which keeps the $k$ largest. Without that step all experts have to be computed. **Wrong.**
#
# ## 2. The softplus ensures that the noise of a noisy gate is positive
#
# Noisy top-k gating adds $\text{softplus}(x W_{noise}) \cdot \epsilon$ to the logits, with $\epsilon$ standard normal. Walk through
# it: which of the arrays is positive?

# %%
x = rng.normal(size=(6, 3))
params = noisy_top_k.init(rng, 3, 4)
params = {name: p + rng.normal(size=p.shape) for name, p in params.items()}  # they begin at 0
steps = walk.route(noisy_top_k, params, x, k=2, rng=np.random.default_rng(1))
next(steps)

# %%
next(steps)

# %%
view(steps)

# %% [markdown]
# **Predict.** In which share of the cases is the noise negative? A share has an interval: with $c$ of $n$ cases, that of
# Wilson 1927 holds the true share in 95 % of all repetitions, for few cases too.

# %%
many = rng.normal(size=(500, 3))
_, cache = noisy_top_k.route(params, many, k=2, rng=np.random.default_rng(2))
noise = cache.noisy - cache.clean
share = statistics.wilson_interval(int((noise < 0).sum()), noise.size)
print(
    f"scale: all positive {bool((cache.sigma > 0).all())}; noise: negative in {share.estimate:.1%}",
    end="",
)
print(f" of the cases, 95 % interval {share.low:.1%} to {share.high:.1%}")
assert share.low < 0.5 < share.high and share.low > 0.1
found[2] = "wrong"

# %% [markdown]
# **Answer.** In half of them. The softplus makes the *scale* positive, the standard deviation. **Wrong.**
#
# ## 3. The router learns only with two or more experts per token
#
# The sentence is about a gradient, so measure one: the slope of $\sum_i c_i\,\text{gate}_i$ along a random direction of the
# logits. A **control** belongs to it, a case in which the answer is known: two experts.
#
# **Predict.** Four slopes: one expert or two, weights renormalised or not. Which of them are 0?


# %%
def gate(logits, k, renormalise):
    """Weights of one token: the k largest probabilities, divided by their sum or not."""
    p = softmax(logits[None])[0]
    weight = np.where(np.argsort(np.argsort(-p)) < k, p, 0)
    return weight / weight.sum() if renormalise else weight


token, c, v = rng.normal(size=4), rng.normal(size=4), rng.normal(size=4)
slopes = {}
for k in (1, 2):
    for renormalise in (True, False):
        up, down = (c @ gate(token + sign * 1e-6 * v, k, renormalise) for sign in (1, -1))
        slopes[k, renormalise] = (up - down) / 2e-6
        print(f"k = {k}, renormalised {renormalise!s:5}: slope {slopes[k, renormalise]:7.4f}")
assert slopes[1, True] == 0 and abs(slopes[1, False]) > 1e-3 and abs(slopes[2, True]) > 1e-3
found[3] = "depends"

# %% [markdown]
# **Answer.** One: a single weight divided by itself is 1. Switch does not divide, and its router learns from one expert.
# **It depends** on renormalisation, which the sentence does not mention (errata 4).
#
# ## 4. The cost of a mixture is O(1) in the number of experts
#
# **Predict.** "Cost" is not a number yet. Name four that it could be, and say which of them grow with $E$.

# %%
D, H, k, tokens = 1024, 2048, 2, 64
print("       E   experts' work   router's work   memory, GB   experts read by 64 tokens")
for E in (8, 64, 512, 16384):
    of_experts, of_router = 2 * k * 3 * D * H, 2 * D * E  # operations per token
    memory = 2 * E * 3 * D * H / 1e9
    read = E * (1 - (1 - k / E) ** tokens)
    print(f"{E:8d} {of_experts:15,d} {of_router:15,d} {memory:12.1f} {read:12.0f}")
assert of_router > of_experts  # at the last E
found[4] = "depends"

# %% [markdown]
# **Answer.** One of four is constant, the operations of the chosen experts. Memory grows with $E$, and so does what a batch
# reads, until each of its 128 choices has an expert of its own. From $E > 3kH$ on the router is more work than the experts. **It depends** on what is counted. A sentence that does
# not say what it counts cannot be tested; here it was our first task to name it.
#
# ## 5. A mixture is an advantage because its models are smaller
#
# **Predict.** Mixtral 8x7B: how large is it, beside a dense model of the same operations per token?

# %%
counts = accounting.count("mixtral-8x7b")
print(f"{counts.total / 1e9:.1f}B stored, {counts.active / 1e9:.1f}B used per token: ", end="")
print(f"{counts.total / counts.active:.1f} times as large as a dense model of its operations")
assert counts.total > 3 * counts.active
found[5] = "wrong"

# %% [markdown]
# **Answer.** Larger, 3.6 times. It is larger for the same work, and that is its idea. **Wrong**, and a table in the same
# article says that a mixture needs more memory: read the whole article before you test a sentence.
#
# ## 6. Mixtral is a Switch Transformer
#
# A sentence "A is a B" becomes a number by a list of what makes a B. Take the small Mixtral of this package, and let Switch's
# rule route the same tokens by the same logits.
#
# **Predict.** For both: experts per token, the sum of a token's weights, the share of dropped tokens.

# %%
model, tokeniser = shipped_model.load()
ids = np.array(tokeniser.encode(corpus.shipped().validation[:4000]))[:1024].reshape(-1, 128)
seen = layer_parts.on_text(model.config, model.params, ids)[2]  # what layer 2 reads and chooses
by_switch, _ = switch.route(model.params["layers"][2]["router"], seen.h, capacity_factor=1.25)
print("           assignments   sum of weights of a token   dropped")
sums = {}
for name, routing in (("Mixtral", seen.routing), ("Switch", by_switch)):
    sums[name] = np.bincount(routing.token, routing.weight, len(seen.h))
    dropped = diagnostics.dropped_share(routing)
    print(
        f"{name:10s} {len(routing.token):11d} {sums[name].min():13.2f} to {sums[name].max():.2f} {dropped:16.1%}"
    )
print(
    "matrices of an expert: Mixtral",
    len(model.params["layers"][2]["experts"]),
    "(SwiGLU), Switch 2",
)
assert np.allclose(sums["Mixtral"], 1) and sums["Switch"].max() < 1
found[6] = "wrong"

# %% [markdown]
# **Answer.** Two experts against one, weights that sum to 1 against one probability, nothing dropped against a capacity, three
# matrices against two. **Wrong.** Mixtral's rule is top-k gating, renormalised.
#
# ## 7. Expert choice looks at the content of a token, and not only at its position
#
# The sentence says that other routers look at the position. Put it to the test: give the same tokens in another order.
# What changes its experts by that looks at the position. And as the second question, leave half of the tokens away.
#
# **Predict.** For top-k, Switch with a capacity, and expert choice: does a token's routing change (a) with the order, (b)
# with the other tokens?


# %%
def demanded(router, x, **options):
    """(N, E) bool: the experts that work on each token."""
    routing, _ = router.route({"w": w}, x, **options)
    works = np.zeros(routing.demand.shape, bool)
    works[routing.token, routing.expert] = True
    return works


tokens_64, w = rng.normal(size=(64, 5)), rng.normal(size=(5, 8))
order = rng.permutation(64)
rules = {
    "top-k": (top_k, {"k": 2, "renormalise": True}),
    "Switch": (switch, {"capacity_factor": 1.25}),
    "expert choice": (expert_choice, {"capacity_factor": 2.0}),
}
changed = {}
for name, (router, options) in rules.items():
    usual = demanded(router, tokens_64, **options)
    moved = (usual[order] != demanded(router, tokens_64[order], **options)).any(axis=1).mean()
    alone = (usual[:32] != demanded(router, tokens_64[:32], **options)).any(axis=1).mean()
    changed[name] = moved, alone
    print(f"{name:14s} another order changes {moved:4.0%} of the tokens, other tokens {alone:4.0%}")
assert changed["top-k"] == (0, 0) and changed["expert choice"][0] == 0 < changed["Switch"][0]
found[7] = "wrong"

# %% [markdown]
# **Answer.** Top-k looks at the content alone. Position matters in Switch, where the later tokens find an expert full (and the
# number of tokens, which sets the capacity: that is its 22 %). What is new in expert choice: the order does not matter, and
# still *which* experts a token gets depends on *who else is there*. In Switch that decides only whether there is room.
# **Wrong**: the sentence names as a novelty what all learned routers do, and misses what is new.
#
# ## 8. A mixture of experts is an ensemble of weak learners
#
# An ensemble's members are trained to answer every case, and their mean is better than each of them. Fit both kinds to
# $y = |x|$ plus noise, with straight lines as members.
#
# **Predict.** Order the errors: one line; the mean of ten lines from resampled data (an ensemble); a mixture of two lines
# with its gate; the *mean* of the mixture's two lines.


# %%
def line(x, y):
    return np.polynomial.Polynomial.fit(x, y, 1)


names = ("one line", "ten lines, mean", "mixture", "its two lines, mean")
errors = {name: [] for name in names}
for seed in range(6):
    draw = np.random.default_rng(seed)
    x_train, x_test = draw.uniform(-1, 1, 200), draw.uniform(-1, 1, 500)
    y_train = np.abs(x_train) + 0.05 * draw.normal(size=200)
    resampled = [draw.integers(0, 200, 200) for _ in range(10)]
    fit = em.fit(x_train[:, None], y_train[:, None], 2, family=em.Gaussian(), rng=draw, restarts=6)
    experts = fit.outputs(x_test[:, None])[..., 0]  # (N, E): the answer of each
    answers = (
        line(x_train, y_train)(x_test),
        np.mean([line(x_train[i], y_train[i])(x_test) for i in resampled], axis=0),
        (fit.gate(x_test[:, None]) * experts).sum(axis=1),
        experts.mean(axis=1),
    )
    for name, answer in zip(names, answers, strict=True):
        errors[name].append(np.sqrt(np.mean((answer - np.abs(x_test)) ** 2)))
for name in names:
    interval = statistics.t_interval(errors[name])
    print(
        f"{name:20s} error {interval.estimate:.3f}, 95 % interval {interval.low:.3f} to {interval.high:.3f}"
    )
assert np.mean(errors["mixture"]) < 0.3 * np.mean(errors["ten lines, mean"])
found[8] = "wrong"

# %% [markdown]
# **Answer.** The ensemble is as wrong as one line: a mean of lines is a line. The mixture is almost perfect, and the mean of
# its two experts is twice as bad as one line. Its experts are not weak learners of everything; each is a good learner of a
# part, and the gate knows which. **Wrong.**
#
# ## 9. The gate learns to cluster the data: the whole procedure
#
# This one is vague, often said, and neither right nor wrong. So do it properly. A form with seven lines, filled in
# **before** the runs:
#
# | line | here |
# |---|---|
# | claim | the gate of a trained mixture finds the clusters of the inputs |
# | measure | bits that the gate's choice tells about the true region (mutual information, at most 2 for four regions), *less* those that k-means of the inputs tells: $d$, seed by seed |
# | the article's case | inputs in four clouds, a rule of its own in each |
# | control in which it must hold | k-means from another start in place of the gate |
# | control in which it must fail | one cloud without clusters and with one smooth rule: there is nothing to find |
# | cases that separate the causes | clouds with *one* rule; one cloud with *several* rules |
# | criterion | "as good as k-means" if the whole 95 % interval of $d$ is above $-0.1$ bits; "worse" if it is below; else it cannot be told |
#
# Eight seeds; each draws a new task. The measure is a difference within a seed, because the tasks differ in difficulty
# and the difference does not care.
#
# **Predict.** Four cells: clouds or one cloud, a rule per region or one rule. In which of them does the gate find as much as
# k-means? Is there one in which it finds *more*?


# %%
def bits(clouds, rules, seed):
    """(of the gate, of k-means, of k-means from another start): what they tell about the region."""
    draw = np.random.default_rng(seed)
    cases = regimes.draw(regimes.make_task(draw), 300, draw, clouds=clouds, rules=rules)
    with warnings.catch_warnings():  # a fit that was cut short is taken as it is
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        mixture = em.fit(cases.x, cases.d, 4, family=em.Gaussian(), rng=draw, restarts=6, short=20)
    choices = [mixture.gate(cases.x).argmax(axis=1)]
    for start in (draw, np.random.default_rng([seed, 1])):
        centres, _ = kmeans.fit(start, cases.x, 4, rounds=20)
        choices.append(kmeans.route(centres, cases.x, k=1, weights="one")[0].expert)
    return [diagnostics.mutual_information(c, cases.region, draw).bits for c in choices]


cells = {
    "clouds, a rule for each": (True, True),
    "clouds, one rule": (True, False),
    "one cloud, several rules": (False, True),
    "one cloud, one rule": (False, False),
}
print("about six seconds")
difference = {}
for name, (clouds, rules) in cells.items():
    measured = np.array([bits(clouds, rules, seed) for seed in range(8)])
    difference[name] = measured[:, 0] - measured[:, 1]
    d = statistics.t_interval(difference[name])
    print(
        f"{name:25s} gate {measured[:, 0].mean():.2f}, k-means {measured[:, 1].mean():.2f}, ",
        end="",
    )
    print(f"d {d.estimate:+.2f} ({d.low:+.2f} to {d.high:+.2f})", flush=True)
    if clouds and rules:  # the control in which it must hold
        again = statistics.t_interval(measured[:, 2] - measured[:, 1])
print(f"k-means from another start, in the first cell: d {again.low:+.2f} to {again.high:+.2f}")


def draw_cells():
    _, ax = plt.subplots(figsize=(7.5, 3.2))
    for row, values in enumerate(difference.values()):
        d = statistics.t_interval(values)
        ax.plot(values, np.full(len(values), row), "o", color=plots.GREY, alpha=0.5)
        ax.plot([d.low, d.high], [row, row], color=plots.BLUE, linewidth=5, solid_capstyle="butt")
    ax.axvline(-0.1, color=plots.ORANGE, linestyle="--")
    ax.set_yticks(range(4), list(difference))
    ax.set_xticks((-1, -0.5, 0, 0.5, 1))
    ax.set(xlabel="bits of the gate less bits of k-means, eight seeds", ylim=(3.5, -0.9))
    ax.text(-0.12, -0.55, "criterion", color=plots.ORANGE, ha="right")
    plt.show()


draw_cells()
as_good = {name: statistics.t_interval(values).low > -0.1 for name, values in difference.items()}
print(as_good)
assert list(as_good.values()) == [True, False, True, False] and again.low > -0.1
found[9] = "depends"

# %% [markdown]
# **Answer.** In the article's case the gate finds the clouds, as well as k-means does. With clouds and *one* rule it does
# not: nothing in the targets asks for it. With one cloud and several rules it finds regions that k-means cannot even
# see. And both controls come out: k-means from another start is as good as k-means, and without structure the claim
# fails. So the gate does not learn clusters. It learns **where each expert is right**, and where clusters have *straight*
# rules of their own, the kind that an expert can have, that is the same. **It depends.** (With rules that no expert can
# have it is not the same: item 26 of the page, and `moe-np run why_it_works --only learns`.)
#
# Look at what the four cells did. The first alone would have said "true". A report that has only the case in which a claim
# holds is an illustration and no test.
#
# ## 10. Mixtures overfit when they are fine-tuned
#
# Nine sentences took some lines each. This one does not: one would have to train a sparse and a dense model, tune both with
# equal care, fine-tune both on small sets, and look at the *difference* of their losses. Before that: **how many runs?**
# From a pilot, let the difference have a standard deviation of 0.02 nats over seeds.
#
# **Predict.** How large must a true difference be so that 3 seeds show it in 80 % of the cases? And how many seeds does a
# difference of 0.01 nats need?

# %%
for n in (2, 3, 5, 10, 30):
    print(
        f"{n:3d} seeds: a difference of {power.smallest_difference(n, 0.02):.3f} nats is seen in 80 % of the cases"
    )
needed = power.runs_needed(0.01, 0.02)
print(f"for 0.010 nats: {needed} seeds")
assert 30 < needed < 40
found[10] = "depends"

# %% [markdown]
# **Answer.** 0.065 nats, more than three standard deviations, and 34 seeds. So a single run in a blog, whatever it shows, and
# "we saw no difference" with three seeds say next to nothing. `moe-np run fine_tuning` has five seeds or more for each
# system, equal tuning, intervals, and says its power. Reported is both: overfitting with few examples (Zoph and others 2022,
# arXiv 2202.08906), and fine-tuned Switch models *better* than T5 of equal operations on most tasks (Fedus et al. 2021).
# **It depends**, at least on the size of the data.
#
# ## What you thought

# %%
for number, sentence in SENTENCES.items():
    word = judgement[number] or "–"
    verdict = found.get(number, "not yet tried")
    mark = "" if not judgement[number] else ("  same" if word == verdict else "  other")
    print(f"{number:2d}. {sentence}\n      you: {word:8s} found: {verdict}{mark}")
judged = [n for n in judgement if judgement[n] and n in found]
if judged:
    print(f"{sum(judgement[n] == found[n] for n in judged)} of {len(judged)} as found")

# %% [markdown]
# Six wrong, four that hold under a condition that was left out, none simply right. (They were chosen for that. Most of what
# articles say is right, and nobody needs to test it.) What the ten had in common: **a word that was no number yet** (cost,
# smaller, is, learns), **no control**, or **one case in place of several**.
#
# ## Your turn
#
# Write the judge. Given the differences $d$ of $n$ seeds and the smallest one that matters, $\delta \ge 0$: take the 95 %
# interval of the mean, $\bar d \pm t_{n-1,\,0.975}\; s/\sqrt n$ with the sample standard deviation $s$. Return 1 ("holds") if
# the whole interval is above $\delta$, $-1$ ("not supported") if no part of it is, else 0 ("cannot be told").


# %%
def judge(differences, smallest):
    """differences (n,), n of 2 or more, smallest >= 0 -> 1, 0 or -1."""
    # your code here: scipy.stats.t.ppf(0.975, n - 1) is the quantile
    return None


def reference(differences, smallest):
    rule = verdicts.Criterion("difference", smallest)
    word = verdicts.verdict(rule, statistics.t_interval(differences))
    return {verdicts.HOLDS: 1, verdicts.NOT_SUPPORTED: -1}.get(word, 0)


def cases(rng):
    for n, mean, smallest in ((5, 2.0, 0.0), (5, -2.0, 0.0), (4, 0.1, 0.0), (8, 1.0, 0.9)):
        yield mean + 0.3 * rng.normal(size=n), smallest
    yield np.array([0.30, 0.34, 0.32]), 0.2
    yield np.array([0.1, 0.9]), 0.0  # two seeds: t is 12.7


self_check(judge, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** "K-means could find the rules too, if it saw the targets." Give it $[x, d]$ in the cell *one cloud,
#    several rules*, with $d$ multiplied by 1, 3 and 10. Does it reach the gate?
# 2. **Derive.** For large $n$, a difference of $\delta$ with standard deviation $s$ is seen in 80 % of the cases if
#    $n \approx 7.85\,(s/\delta)^2$. Where does 7.85 come from? Compare with `power.runs_needed`. And: an article tests 45
#    claims at $p < 0.05$ of which none is true. How many come out, and what does the correction of Holm 1979 do?
# 3. **Break it.** Cheat without lying: two systems that do not differ at all, and you look at the interval after every seed
#    from the third to the thirtieth, and stop as soon as it leaves 0 out. In which share of 1,000 repetitions do you
#    find a difference? What should it be?
#
# Solutions: `lessons/solutions/24_articles.py`.
#
# Next: [25, audit somebody's router](25_audit.ipynb).
