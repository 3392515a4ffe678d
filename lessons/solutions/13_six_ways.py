# %% [markdown]
# # 13 · Solutions

# %%
import dataclasses

import numpy as np

from moe_np.base import gradcheck
from moe_np.base.machine import one_blas_thread
from moe_np.base.params import flatten
from moe_np.coursework import self_check
from moe_np.experiments.training_methods import problems
from moe_np.experiments.training_methods.runs import Config, begin, spec_of, until
from moe_np.training.methods import em, evolutionary, joint, method
from moe_np.training.methods.population import expert_of_entry, population_losses

task = problems.task("piecewise")
problem = task.problem

# %% [markdown]
# ## Hints
#
# 1. Begin with an array of zeros, and write 1 and then 2 where they belong: the later one wins.
# 2. `answer[before - last > moving] = 1` and then `answer[last < level] = 2`. A comparison with nan is False, so a
#    failed run keeps its 0. (Except one: what if `before` is nan, and `last` is not?)

# %% [markdown]
# ## Your turn
#
# Where `before` is nan and `last` is below the level, the run did arrive: 2 is right. Only `last` decides that.


# %%
def verdicts(before, last, level, moving):
    answer = np.zeros(len(last), int)
    answer[before - last > moving] = 1
    answer[last < level] = 2
    return answer


def reference(before, last, level, moving):
    pairs = zip(before, last, strict=True)
    return np.array([2 if end < level else int(start - end > moving) for start, end in pairs])


def cases(rng):
    yield np.array([1.0, 1.0, 1.0]), np.array([0.1, 0.5, 1.0]), 0.2, 0.05
    yield rng.normal(size=8), rng.normal(size=8), 0.0, 0.1
    yield np.array([0.5, np.nan, 0.1]), np.array([np.nan, 0.3, 0.2]), 0.25, 0.05


assert self_check(verdicts, reference, cases)

# %% [markdown]
# ## 1. CMA-ES
#
# It arrives in some starts, after several thousand passes. Joint training took 6000 passes to arrive in five of six. So
# with this budget a search without any gradient is not hopeless in 16 dimensions; it is no better either, on a problem
# whose gradient is to be had.

# %%
config = dataclasses.replace(Config(), passes=1000)
ends = []
print("passes      1000    3000   10000")
with one_blas_thread():
    for seed in range(4):
        steps = begin(spec_of(config, "piecewise", "CMA-ES, 10 times", seed)).steps
        seen = [(s.passes, s.loss) for s in until(steps, 10_000)]
        losses = [
            next(loss for passes, loss in reversed(seen) if passes <= n)
            for n in (1000, 3000, 10_000)
        ]
        ends.append(losses)
        print(f"start {seed} ", *(f"{loss:7.2f}" for loss in losses))
assert min(loss for *_, loss in ends) < -0.28 < min(loss for loss, *_ in ends)

# %% [markdown]
# ## 2. Where alternating stands still
#
# Its experts' turn changes nothing: $\partial\,\text{loss} / \partial\,\text{experts} = 0$. Its gate's turn changes
# nothing: $\partial\,\text{loss} / \partial\,\text{gate} = 0$. Together that is the whole gradient, and joint training
# stands still there too. The two differ in the way and not in the places where it may end.
#
# *Separate* ends where $\sum_n [\text{label}_n = i]\; \partial \log f_i(y_n) = 0$ for each expert and
# $\sum_n (p_n - \text{onehot}_n)\, x_n = 0$: the same two equations, with the clusters' numbers where the
# responsibilities should stand. So joint training can go on from there. It does, and ends lower than most of the runs
# of lesson 13 that began at random and had 1000 passes: as a *start*, separate training is not bad at all.

# %%
with one_blas_thread():
    steps = begin(spec_of(config, "piecewise", "separate", 0)).steps
    *_, end = until(steps, 1000)
    _, cache = method.forward(problem, end.params)
    grads = method.backward(problem, cache)
    joint_steps = joint.train(problem, np.random.default_rng(0), initial=end.params)
    on = [step.loss for step in until(joint_steps, 1000)]
for part in method.PARTS:
    print(
        part,
        "gradient at the end of separate:",
        {k: f"{np.linalg.norm(g):.2f}" for k, g in grads[part].items()},
    )
print(f"joint training goes on from there: loss {on[0]:.2f} -> {on[-1]:.2f}")
assert on[-1] < on[0] - 0.1

check = gradcheck.gradient_error(
    lambda q: method.loss_of(problem, {**end.params, "gate": q}), end.params["gate"], grads["gate"],
    np.random.default_rng(0),
)  # fmt: skip
assert max(check.values()) < 1e-6

# %% [markdown]
# ## 3. Perfect parents, terrible children
#
# Every parent has loss −0.57, and the median child is worse than one line alone. The parents have solved the same
# problem with **different numbering**: expert 0 of one has the first piece, expert 0 of the other the last. A child
# that takes experts 0 and 1 from one and 2 and 3 from the other has two experts for one piece and none for another;
# and it has two halves of two gates, whose totals were never meant to be compared. (Only differences of a gate's
# totals count, and what is added to all of them differs from parent to parent.)
#
# If every number goes its own way, even a line's slope and height come from two lines, and hardly any child is good. So
# much for "crossover combines the best of both": it does so for parents that agree who does what.

# %%
parents = []
for seed in range(6):
    for step in em.train(problem, np.random.default_rng(seed)):
        if step.number == 80:
            break
    parents.append(step)
like = parents[0].params
vectors = np.stack([flatten(p.params) for p in parents])
print("parents:", [round(p.loss, 2) for p in parents])
good = {}
for name, owner in (
    ("an expert with its column", expert_of_entry(like)),
    ("every number", np.arange(vectors.shape[1])),
):
    children, _ = evolutionary.breed(
        np.random.default_rng(0), vectors, np.full(6, 1e-9), 200, owner
    )
    losses = population_losses(problem, children, like)
    good[name] = (losses < -0.5).mean()
    print(
        f"inherited together: {name:26} median loss {np.median(losses):6.2f}, as good as a parent {good[name]:.1%}"
    )
    assert np.median(losses) > 2
assert good["every number"] < good["an expert with its column"] < 0.3
