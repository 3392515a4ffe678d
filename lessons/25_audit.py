# %% [markdown]
# # 25 · Audit somebody's router
#
# Afterwards you can test a router that you did not write, and do not fully understand, by a handful of questions whose
# answers are known beforehand; read the report of `moe_np.audit`; and keep your own router under the same tests.
#
# A router runs, the loss falls, and it is wrong: lesson 15 had bugs of that kind, and they were found by reading. But
# who reads the router of every library that is used? Here a router is a box. We call it and look at what comes out.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $N, D, E, k$ | `N, D, E, k` | | tokens, features, experts, choices per token |
# | $x$ | `x` | (N, D) | tokens |
# | $w$ | `w` | (D, E) | the router's matrix: logits are `x @ w` |
# | – | `weights`, `indices` | (N, k) | what the router returns: its experts per token, and their weights |
# | $g$ | `gate` | (N, E) | the same as one array, 0 where an expert was not chosen |
# | – | `valid` | (N,) | False where a token is padding |
# | $c$ | `cotangent` | (N, E) | any numbers: the gradient that comes from above |

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.audit import assert_router, audit
from moe_np.base.numerics import softmax
from moe_np.coursework import self_check
from moe_np.show.steps import Steps, state
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)

# %% [markdown]
# ## 1. Four routers
#
# The first one could be yours: top-k gating as in Mixtral, a softmax over the logits that were kept. The other three
# come from colleagues, who had their reasons. All four run, and in all four the weights of a token are positive.
#
# - **undivided** has the softmax written out, with the largest logit subtracted, as one should.
# - **in_order** gives the experts of a token in rising order, because memory is read faster like that.
# - **level** subtracts from each expert's logits their mean over the batch, so that no expert is the favourite of all.
#
# **Predict.** Each of the three has a bug. Find them by reading, if you can, and note which one you are least sure of.


# %%
def best(logits, k):
    """The k largest of each row, the best first; of equal ones the first."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def silent(weights, valid):
    """Padding gets the weight 0."""
    return weights if valid is None else weights * valid[:, None]


def first(x, w, k=2, valid=None):
    logits = x @ w
    indices = best(logits, k)
    weights = softmax(np.take_along_axis(logits, indices, axis=1))
    return silent(weights, valid), indices


def undivided(x, w, k=2, valid=None):
    logits = x @ w
    indices = best(logits, k)
    chosen = np.take_along_axis(logits, indices, axis=1)
    weights = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    return silent(weights, valid), indices


def in_order(x, w, k=2, valid=None):
    weights, indices = first(x, w, k, valid)
    return weights, np.sort(indices, axis=1)


def level(x, w, k=2, valid=None):
    logits = x @ w
    logits = logits - logits.mean(axis=0)
    indices = best(logits, k)
    weights = softmax(np.take_along_axis(logits, indices, axis=1))
    return silent(weights, valid), indices


routers = {"first": first, "undivided": undivided, "in_order": in_order, "level": level}


def gate_of(router, x, w, **options):
    """What a router returns as one array (N, E)."""
    weights, indices = router(x, w, **options)
    gate = np.zeros((len(x), w.shape[1]))
    np.put_along_axis(gate, indices, weights, axis=1)
    return gate


rng = np.random.default_rng(0)
N, D, E = 8, 5, 4
x, w = rng.normal(size=(N, D)), rng.normal(size=(D, E))
for name, router in routers.items():
    print(f"{name:10s} token 0: {gate_of(router, x, w)[0].round(2)}")

# %% [markdown]
# ## 2. Question one: does the gate learn?
#
# From above comes a gradient $c$, any numbers. Then the loss is $\sum c\,g$ near this point, and its slope along a
# random direction $v$ of $w$ can be measured: move $w$ a little in this direction, and back. No formula of the router
# is needed. If the slope is 0 for every direction, the router learns nothing from the task.
#
# **Predict.** For $k = 2$ and for $k = 1$: which of the four slopes are 0?

# %%
cotangent = rng.normal(size=(N, E))
v = rng.normal(size=(D, E))


def slope(router, k, step=1e-5):
    """The slope of Σ c·g along v."""

    def loss(moved):
        return (cotangent * gate_of(router, x, moved, k=k)).sum()

    return (loss(w + step * v) - loss(w - step * v)) / (2 * step)


print("            k = 2    k = 1")
slopes = {name: (slope(router, 2), slope(router, 1)) for name, router in routers.items()}
for name, (two, one) in slopes.items():
    print(f"{name:10s} {two:7.3f}  {one:7.3f}")
assert all(abs(two) > 0.01 and one == 0 for two, one in slopes.values())

# %% [markdown]
# **Answer.** At $k = 1$ all of them are dead, the first one as well: one weight divided by itself is 1 (errata 4). A
# router that is meant for $k = 2$ is one keyword away from learning nothing. `moe_np.routing.top_k` refuses this case;
# Switch keeps the probability itself.
#
# The question found something that nobody had asked for. But it did not find the bug of `undivided`: at $k = 2$ its
# slope is not 0. Only half of it is missing. For which half, see exercise 2.
#
# ## 3. Question two: does it matter how the experts are numbered?
#
# Give the experts other numbers: turn the columns of $w$ round. Nothing has changed but names, so the columns of the
# gate must be turned round too. A question of this kind, where the answer for a changed input is known without
# knowing the function, is called an **invariance** (or an *equivariance*, when the output changes along).
#
# **Predict.** Which of the four does not follow?


# %%
def renumbered(router):
    """(wanted, got): the gate after the experts have got other numbers."""
    order = np.arange(E)[::-1]
    return gate_of(router, x, w)[:, order], gate_of(router, x, w[:, order])


for name, router in routers.items():
    wanted, got = renumbered(router)
    print(f"{name:10s} largest difference {np.abs(wanted - got).max():.2f}")
assert not np.allclose(*renumbered(in_order))
assert all(np.allclose(*renumbered(routers[name])) for name in ("first", "undivided", "level"))

# %% [markdown]
# **Answer.** `in_order`. It sorts the indices and leaves the weights where they are, so the larger weight goes to the
# expert with the lower number. For half of the tokens that is right by chance. A test that the weights sum to 1 passes,
# and so does a gradient check: the gradient belongs to the function, and the function is not the one that was meant.
#
# ## 4. Question three: who decides for a token?
#
# A language model is trained on whole texts and used token by token. So the routing of a token may not depend on tokens
# that come later. Change the later ones, and look at the earlier ones.
#
# **Predict.** Which of the four fails? And would you have called it a bug in a model that classifies images?


# %%
def later_changed(router):
    """(wanted, got): the gate of the first half of the tokens, after the second half was changed."""
    half = N // 2
    other = np.concatenate([x[:half], x[half:] + 2.0])
    return gate_of(router, x, w)[:half], gate_of(router, other, w)[:half]


def alone(router):
    """(wanted, got): the gate of token 0 in the batch, and without the others."""
    return gate_of(router, x, w)[:1], gate_of(router, x[:1], w)


for name, router in routers.items():
    differences = (
        np.abs(wanted - got).max() for wanted, got in (later_changed(router), alone(router))
    )
    print(
        f"{name:10s} later tokens changed: {next(differences):.2f}   token 0 alone: {next(differences):.2f}"
    )
assert not np.allclose(*later_changed(level)) and not np.allclose(*alone(level))

# %% [markdown]
# **Answer.** `level`, by its mean over the batch. In training the mean sees the future (errata 13), and when the model
# writes a text, one token at a time, the mean is that of a single token: all logits are 0. It is the mistake of using
# the statistics of a batch where there will be none. For images it is no leak, but still another model for every size
# of the batch.
#
# ## 5. Question four: does padding stay out?
#
# A batch is filled up to equal length. What stands in those rows is arbitrary, so it must not matter.
#
# **Predict.** All four set the weight of padding to 0. Is that enough?


# %%
def padded(router):
    """(wanted, got): the gate without padding, and with six rows of it."""
    longer = np.concatenate([x, 3.0 + np.zeros((6, D))])
    valid = np.arange(len(longer)) < N
    got = gate_of(router, longer, w, valid=valid)
    return np.concatenate([gate_of(router, x, w), np.zeros((6, E))]), got


questions = {
    "renumbered": renumbered,
    "later changed": later_changed,
    "alone": alone,
    "padded": padded,
}


def draw_answers(tables):
    """A field per router and question: blue where they agree, orange with the difference else."""
    _, ax = plt.subplots(figsize=(8, 3))
    for row, name in enumerate(tables):
        for column, value in enumerate(tables[name].values()):
            colour = plots.BLUE if value < 1e-9 else plots.ORANGE
            ax.add_patch(plt.Rectangle((column, row), 0.94, 0.9, color=colour, alpha=0.75))
            text = "right" if value < 1e-9 else f"off by {value:.2f}"
            ax.text(column + 0.47, row + 0.45, text, ha="center", va="center", color="white")
    ax.set_xticks(np.arange(4) + 0.47, list(questions))
    ax.set_yticks(np.arange(4) + 0.45, list(tables))
    ax.set(xlim=(-0.05, 4), ylim=(4, -0.05))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    plt.show()


answers = {}
for name, router in routers.items():
    pairs = {question: ask(router) for question, ask in questions.items()}
    answers[name] = {q: np.abs(wanted - got).max() for q, (wanted, got) in pairs.items()}
draw_answers(answers)
assert answers["level"]["padded"] > 0.1 and max(answers["first"].values()) < 1e-9

# %% [markdown]
# **Answer.** Not for `level`: padding has no weight of its own, but it moves the mean, and with it the choices of
# others.
#
# Here are the questions to `level` one after the other, with what was wanted and what came.


# %%
def asked(router):
    """A state per question."""
    before = None
    for question, ask in questions.items():
        wanted, got = ask(router)
        arrays = {"wanted": wanted, "got": got, "difference": np.abs(wanted - got).max()}
        axes = {"wanted": ("N", "E"), "got": ("N", "E")}
        before = state(question, "", arrays, axes=axes, note=ask.__doc__, before=before)
        yield before


steps = Steps(asked(level))
next(steps)

# %%
next(steps)

# %%
view(steps)

# %% [markdown]
# `level` fails three of four questions, and `undivided` got through all of them. It needs a question about *values*: do the weights
# equal those of a router that is known to be right? That is what an audit adds.
#
# ## 6. The audit
#
# `moe_np.audit` asks some thirty questions, these four among them, of any function, class or module in NumPy, PyTorch or
# JAX. It finds out by names and shapes what goes in and what comes out.
#
# **Predict.** Our four questions found nothing wrong with `undivided` at $k = 2$. What can an audit say that knows
# neither what its author wanted nor how it is written?

# %%
report = audit(undivided, k=2)
for finding in report.findings[:6]:
    print(f"{finding.verdict:10s} {finding.check}: {finding.text}")
print("wrong:", [finding.check for finding in report.faults])

# %% [markdown]
# **Answer.** Nothing is *wrong* by itself: a rule in which the best expert always has the weight 1 could be meant. But the
# first line says that it equals no router that is known, and how far the closest one is. **`unknown` is not `right`**: it
# is the line to read next. Say what the router should be, and the verdict changes.

# %%
report = audit(undivided, k=2, like="top_k", options={"renormalise": True})
print(report)
assert report.faults[0].check == "reference router"

# %% [markdown]
# A report has four verdicts, and the worst come first.
#
# | verdict | what to do |
# |---|---|
# | `wrong` | look at *input*, *wanted* and *got*; the number is that of the [errata](errata.md), where the right line stands |
# | `convention` | no mistake, but a choice that another implementation makes differently: write it down |
# | `right` | nothing; it was tried |
# | `unknown` | it was not tried, and the line says why: no loss, no mask, no gradient. Look there yourself |
#
# **Predict.** What will the audit say of the other three: the first one with $k = 1$, `in_order`, `level`?

# %%
for name, k in (("first", 1), ("in_order", 2), ("level", 2)):
    report = audit(routers[name], k=k)
    print(f"{name}, k = {k}")
    for finding in report.faults:
        number = "" if finding.erratum is None else f" (errata {finding.erratum})"
        print(f"    {finding.check}{number}: {finding.text}")
    assert report.faults
assert not audit(first, k=2).faults

# %% [markdown]
# **Answer.** All are found, with the cause. It also asks what we did not: ties, huge logits, one token and none, half precision.
#
# ## 7. What no audit sees
#
# **Predict.** This router reads half of every token and ignores the rest. It is causal, its gradient is right, it does not
# mind padding or other numbers. What does the audit say, without and with `like`?


# %%
def half_blind(x, w, k=2, valid=None):
    seen = x.copy()
    seen[:, x.shape[1] // 2 :] = 0
    return first(seen, w, k, valid)


for like in (None, "top_k"):
    report = audit(half_blind, k=2, like=like, options={"renormalise": True} if like else None)
    print(f"like = {like}: wrong are", [finding.check for finding in report.faults])
assert not audit(half_blind, k=2).faults

# %% [markdown]
# **Answer.** Without `like`, nothing: a router may do this. Invariances say that a function is *consistent*, not that it is
# the one you wanted. So say what you want wherever you can. And some things no call of the router can show: that the
# optimiser does not have its parameters, that its loss is not added, that its learning rate is 0. Those are seen in a
# training run, if the loads are drawn (lesson 09).
#
# ## 8. In a test of your own
#
# An audit that is run once is soon out of date. `assert_router` is one line of a test, and fails with the table as its
# message. A file `test_router.py` in your own project, run by `pytest`:
#
# ```python
# from moe_np.audit import assert_router
# from my_model import MyGate
#
# def test_my_gate():
#     assert_router(MyGate, like="top_k", k=2, renormalise=True)
# ```
#
# For a class, its sizes are found by the names of the arguments. In a terminal `moe-np audit my_model.py:MyGate` prints
# the report, `--json` the same for programs, and the exit status is 1 if something is wrong. The code is imported and
# runs as it is: audit only what you would also run.

# %%
assert_router(first, like="top_k", k=2, renormalise=True)
try:
    assert_router(in_order, like="top_k", k=2, renormalise=True)
except AssertionError as error:
    print("\n".join(str(error).strip().splitlines()[:6]))
else:
    raise RuntimeError("in_order should not have passed")

# %% [markdown]
# ## Your turn
#
# Write a router that passes for every $k$: for $k \ge 2$ the weights are a softmax over the chosen logits, for $k = 1$ the
# weight is the probability among *all* experts, as in Switch. Padding has the weight 0. The best expert stands first; of
# equal ones the lower number. It must survive logits of 1000.


# %%
def my_router(x, w, k=2, valid=None):
    """x (N, D), w (D, E), valid (N,) bool or None -> weights (N, k), indices (N, k)."""
    # your code here
    return None


def reference(x, w, k=2, valid=None):
    logits = x @ w
    indices = best(logits, k)
    scores = np.take_along_axis(softmax(logits), indices, axis=1)
    if k > 1:
        scores = softmax(np.take_along_axis(logits, indices, axis=1))
    return silent(scores, valid), indices


def cases(rng):
    for k in (2, 1, 3):
        yield rng.normal(size=(5, 4)), rng.normal(size=(4, 6)), k, None
    yield rng.normal(size=(5, 4)), rng.normal(size=(4, 6)), 2, np.arange(5) < 3
    yield 1000 * rng.normal(size=(4, 3)), rng.normal(size=(3, 4)), 2, None
    yield np.ones((2, 3)), np.zeros((3, 4)), 1, None


verdict = self_check(my_router, reference, cases)
if verdict.passed:  # then the audit has the last word
    print(audit(my_router, k=2), "\n\nk = 1:", audit(my_router, k=1).faults or "nothing wrong")

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Repair each of the three routers with as few characters as possible, so that the four questions
#    are answered right and `assert_router(..., like="top_k", k=2, renormalise=True)` passes.
# 2. **Derive.** In `undivided` with $k = 2$ let $a \ge b$ be the two chosen logits. Write the two weights and their
#    derivatives with respect to $a$ and $b$, here and in a softmax. What does the task tell the gate about the better
#    expert *alone*? Why is the slope 0 for $k = 1$?
# 3. **Break it.** Put a bug into `first` that none of our four questions finds and the audit does, without `like`. Then
#    one that only `like` finds. Then one that not even `like` finds, because it shows only for other sizes than the audit
#    tries, and find the option of `audit` that uncovers it.
#
# Solutions: `lessons/solutions/25_audit.py`.
#
# This was the last lesson. What comes next is yours: a router in a file of its own, and these questions to put to it.
