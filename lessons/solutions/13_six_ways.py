# %% [markdown]
# # 13 · Solutions

# %%
import dataclasses
from math import comb

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
# ## Your turn
#
# Of all ways to draw $k$ of $n$ runs, those that draw from the stuck ones only.


# %%
def chance_all_stuck(stuck, n, k):
    return comb(stuck, k) / comb(n, k)


def reference(stuck, n, k):
    chance = 1.0
    for already in range(k):
        chance *= max(stuck - already, 0) / (n - already)
    return chance


def cases(rng):
    yield from ((1, 6, 1), (3, 6, 2), (1, 6, 2), (20, 25, 10), (25, 25, 10), (0, 25, 3))


assert self_check(chance_all_stuck, reference, cases)

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
