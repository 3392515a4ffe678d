# %% [markdown]
# # 04 · Solutions

# %%
import numpy as np

from moe_np.coursework import self_check
from moe_np.data import vowel_task
from moe_np.mixtures import jacobs1991 as model

data = vowel_task()
x, d = data.x_train, data.d_train

# %% [markdown]
# ## Your turn
#
# The nearest point lies along $w$: it is $t\,w$ for some number $t$. On the line, $t\, w \cdot w + b = 0$, so
# $t = -b / \lVert w \rVert^2$.


# %%
def foot(w, b):
    return -b / (w @ w) * w


def cases(rng):
    for _ in range(5):
        yield rng.normal(size=2), float(rng.normal())


assert self_check(foot, lambda w, b: model.decision_foot(w, np.asarray(b)), cases)

# %% [markdown]
# ## 1. Larger first weights
#
# Larger weights make the experts different from the start. Does that help them to part?

# %%
for spread in (0.05, 0.5):
    epochs, used = [], []
    for seed in range(5):
        run = model.train_to_stop(
            model.init_mixture(np.random.default_rng(seed), 4, init_range=spread), x, d, lr=0.04
        )
        epochs.append(run.epochs)
        used.append(int(model.active_experts(model.gate_forward(run.params, x)[0]).sum()))
    print(f"±{spread}: epochs {epochs}, mean {np.mean(epochs):.0f}; experts in use {used}")
    assert set(used) == {2}

# %% [markdown]
# Two stay in use; the numbers of epochs scatter more, and their mean hardly moves. Ten times the range does not make
# the plateau ten times shorter.
#
# ## 2. The gate's line
#
# $p_i = p_j$ where $s_i = s_j$: $x \cdot (U_i - U_j) + (c_i - c_j) = 0$, a straight line. With two experts
# $p_1 = e^{s_1} / (e^{s_1} + e^{s_2}) = 1 / (1 + e^{-(s_1 - s_2)}) = \sigma(s_1 - s_2)$: a logistic unit, and its
# weights are the differences.

# %%
rng = np.random.default_rng(0)
two = {**model.init_mixture(rng, 2), "U": rng.normal(size=(2, 2)), "c": rng.normal(size=2)}
p = model.gate_forward(two, x)[0]
w, b = two["U"][:, 0] - two["U"][:, 1], two["c"][0] - two["c"][1]
np.testing.assert_allclose(p[:, 0], 1 / (1 + np.exp(-(x @ w + b))), rtol=1e-12)

# %% [markdown]
# ## 3. The other two errors
#
# Under eq. 2 the weight of expert $i$'s lesson is $p_i$, which knows nothing of who did well: at step .04 the run is
# not there after 4000 epochs. Under eq. 1 it is, and sooner than under eq. 3.

# %%
start = model.init_mixture(np.random.default_rng(0), 4)
runs = {
    e: model.train_to_stop(start, x, d, lr=0.04, error=e, max_epochs=4000) for e in model.ERRORS
}


def alone(run):
    """Percent right of the whole, and of each expert in use, alone, on the tokens for which the gate prefers it."""
    o, p = model.experts_forward(run.params, x)[0][..., 0], model.gate_forward(run.params, x)[0]
    top, wanted = p.argmax(axis=1), d[:, 0] > 0.5
    own = {
        int(m): round(100 * float(((o[:, m] > 0.5) == wanted)[top == m].mean()), 1)
        for m in np.flatnonzero(model.active_experts(p))
    }
    whole = ((p * o).sum(axis=1) > 0.5) == wanted
    return round(100 * float(whole.mean()), 1), own, p.max(axis=1).mean()


for error, run in runs.items():
    whole, own, sure = alone(run)
    end = f"{run.epochs} epochs" if run.reached else f"not there after {run.epochs}"
    print(f"{error:12} {end:25} whole {whole} %, alone {own}, mean largest p {sure:.2f}")
assert runs["mixture"].reached and runs["cooperative"].reached and not runs["competitive"].reached

# %% [markdown]
# So eq. 1 ends with local experts as well, here: the gate is as sure as under eq. 3, and each expert is right alone.
# The paper's case against eq. 1 is that it *allows* experts to add up, not that it forces them to. One seed and one
# step are no comparison of speed, either: that takes many runs, and for each error a step of its own.
