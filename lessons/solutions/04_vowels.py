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
# ## Hints
#
# 1. Forward: logistic experts `o` (N, E), softmax gate `p`, and `resp`, proportional to $p_i\, e^{-(d - o_i)^2 /
#    2}$. Then two gradients at the totals: one for the experts, one for the gate.
# 2. At the experts' totals it is `-resp * (d - o) * o * (1 - o)`, at the gate's `p - resp`. The gradient of `U`
#    is `x.T @ (p - resp)`; that of `W` has the shape (E, 2, 1), and both biases are sums over cases.

# %% [markdown]
# ## Your turn
#
# For the gate $p - h$, for an expert $-h\,(d - o)$ times the derivative of its logistic output; then the sums over cases.


# %%
def one_epoch(W, b, U, c, x, d, lr):
    o = 1 / (1 + np.exp(-(x @ W[:, :, 0].T + b[:, 0])))  # (N, E)
    s = x @ U + c
    p = np.exp(s - s.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    joint = p * np.exp(-0.5 * (d - o) ** 2)
    resp = joint / joint.sum(axis=1, keepdims=True)
    dtotal = -resp * (d - o) * o * (1 - o)
    ds = p - resp
    W = W - lr * (dtotal.T @ x)[:, :, None]
    b = b - lr * dtotal.sum(axis=0)[:, None]
    return W, b, U - lr * x.T @ ds, c - lr * ds.sum(axis=0)


def reference(W, b, U, c, x, d, lr):
    params = {"W": W, "b": b, "U": U, "c": c}
    _, cache = model.system_forward(params, x, d)
    _, grads = model.system_backward(np.ones(len(x)), cache)
    return tuple(params[name] - lr * grads[name] for name in ("W", "b", "U", "c"))


def cases(rng):
    for E in (1, 3, 4):
        q = model.init_mixture(rng, E, init_range=1.0)
        q["U"], q["c"] = rng.normal(size=(2, E)), rng.normal(size=E)
        inputs, targets = rng.normal(size=(7, 2)), rng.integers(2, size=(7, 1)).astype(float)
        yield q["W"], q["b"], q["U"], q["c"], inputs, targets, 0.3


assert self_check(one_epoch, reference, cases)

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
# Under eq. 2 the weight of an expert's gradient is $p_i$, which does not depend on who did well: at the learning rate 0.04
# the run has not arrived after 4000 epochs. Under eq. 1 it is, and sooner than under eq. 3.

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
