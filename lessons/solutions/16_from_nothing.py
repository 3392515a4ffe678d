# %% [markdown]
# # 16 · Solutions
#
# First `moe.py`, as it stands at the end of the lesson.

# %%
import numpy as np


def gate(x, w, k=2):
    logits = x @ w  # (N, E)
    choice = np.argsort(-logits, axis=1)[:, :k]  # (N, k): the best first
    kept = np.take_along_axis(logits, choice, axis=1)
    e = np.exp(kept - kept.max(axis=1, keepdims=True))
    return choice, e / e.sum(axis=1, keepdims=True)


def gate_backward(dweight, x, w, choice, weight):
    dkept = weight * (dweight - (weight * dweight).sum(axis=1, keepdims=True))  # softmax
    dlogits = np.zeros((len(x), w.shape[1]))
    np.put_along_axis(dlogits, choice, dkept, axis=1)  # all other logits: 0
    return x.T @ dlogits


def expert(x, w1, b1, w2, b2):
    hidden = np.maximum(x @ w1 + b1, 0)
    return hidden @ w2 + b2, hidden


def expert_backward(dy, x, hidden, w2):
    dhidden = (dy @ w2.T) * (hidden > 0)
    return {"w1": x.T @ dhidden, "b1": dhidden.sum(0), "w2": hidden.T @ dy, "b2": dy.sum(0)}


def layer(p, x):
    choice, weight = gate(x, p["w"])
    out, cache = np.zeros((len(x), p["b2"].shape[1])), []
    for m in range(len(p["w1"])):
        rows, place = np.nonzero(choice == m)
        y, hidden = expert(x[rows], p["w1"][m], p["b1"][m], p["w2"][m], p["b2"][m])
        out[rows] += weight[rows, place][:, None] * y
        cache.append((rows, place, y, hidden))
    return out, (choice, weight, cache)


def layer_backward(p, x, dout, saved):
    choice, weight, cache = saved
    grads = {name: np.zeros_like(value) for name, value in p.items()}
    dweight = np.zeros(weight.shape)
    for m, (rows, place, y, hidden) in enumerate(cache):
        dy = weight[rows, place][:, None] * dout[rows]
        dweight[rows, place] = (dout[rows] * y).sum(axis=1)
        for name, g in expert_backward(dy, x[rows], hidden, p["w2"][m]).items():
            grads[name][m] = g
    grads["w"] = gate_backward(dweight, x, p["w"], choice, weight)
    return grads


def loss_and_grads(p, x, t):
    out, saved = layer(p, x)
    return ((out - t) ** 2).sum(1).mean(), layer_backward(p, x, 2 * (out - t) / len(x), saved)


def init(rng, D, E, H, C):
    return {
        "w": rng.normal(size=(D, E)) / D**0.5,
        "w1": rng.normal(size=(E, D, H)) * (2 / D) ** 0.5,
        "b1": np.zeros((E, H)),
        "w2": rng.normal(size=(E, H, C)) / H**0.5,
        "b2": np.zeros((E, C)),
    }


def adam(p, grads, state, step, lr=0.02, beta1=0.9, beta2=0.999):
    for name, g in grads.items():
        m, v = state.setdefault(name, (0.0, 0.0))
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        state[name] = m, v
        p[name] = p[name] - lr * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + 1e-8)


def train(p, x, t, steps=100):
    p, state, losses = dict(p), {}, []
    for step in range(1, steps + 1):
        loss, grads = loss_and_grads(p, x, t)
        adam(p, grads, state, step)
        losses.append(loss)
    return p, losses


# %% [markdown]
# ## Hints
#
# 1. Two steps. First the gradient at all probabilities: `dweight` at the chosen places, 0 elsewhere. Then the
#    softmax over all experts.
# 2. $ds_i = p_i\,(dp_i - \sum_j p_j\, dp_j)$, in which the sum needs the chosen $j$ only. `np.put_along_axis`
#    writes `dweight` at `choice`.

# %% [markdown]
# ## Your turn
#
# First the chosen entries of `dprobs`, zeros elsewhere; then the softmax over all experts. No entry of `dlogits` is 0: each
# logit is in the denominator of all probabilities.

# %%
from moe_np.base import numerics
from moe_np.coursework import self_check


def full_softmax_backward(dweight, probs, choice):
    chosen = np.take_along_axis(probs, choice, axis=1)
    dlogits = -probs * (chosen * dweight).sum(axis=1, keepdims=True)
    return dlogits + probs * np.stack(
        [np.bincount(c, d, probs.shape[1]) for c, d in zip(choice, dweight, strict=True)]
    )


def reference(dweight, probs, choice):
    dprobs = np.zeros(probs.shape)
    np.put_along_axis(dprobs, choice, dweight, axis=1)
    return numerics.softmax_backward(dprobs, probs)


def cases(rng):
    for N, E, k in ((5, 4, 2), (3, 6, 3), (4, 3, 1)):
        probs = rng.dirichlet(np.ones(E), size=N)
        yield rng.normal(size=(N, k)), probs, np.argsort(-probs, axis=1)[:, :k]


assert self_check(full_softmax_backward, reference, cases)

# %% [markdown]
# ## 1. Eight experts
#
# The loss is a little lower on average, although in every run one to three experts have no token at the end. An expert
# without tokens gets no gradient, and its logit gets none either, so it cannot win a token by learning. It can only come
# back if the logits of the *others* fall below its own.

# %%
rng = np.random.default_rng(5)
x = rng.uniform(-1, 1, (512, 2))
quarter = (x[:, 0] > 0) + 2 * (x[:, 1] > 0)
slopes = np.array([[3, 0], [0, 3], [-3, 2], [2, -3]])
t = (x * slopes[quarter]).sum(axis=1, keepdims=True) + np.array([1, -1, -1, 1])[quarter][:, None]
unused, ends = [], []
for seed in range(8):
    p, losses = train(init(np.random.default_rng(seed), D=2, E=8, H=8, C=1), x, t)
    load = np.bincount(gate(x, p["w"])[0].ravel(), minlength=8)
    unused.append(int((load == 0).sum()))
    ends.append(losses[-1])
    print(f"start {seed}: loss {losses[-1]:.3f}, tokens per expert {load}")
print(f"mean loss {np.mean(ends):.2f}; experts without tokens {unused}")
assert np.mean(ends) < 0.5 and sum(n > 0 for n in unused) >= 4

# %% [markdown]
# ## 2. The backward pass of a softmax
#
# For $w_i = e^{a_i} / \sum_j e^{a_j}$: $\partial w_j / \partial a_i = w_j ([i = j] - w_i)$. So $da_i = \sum_j dw_j\, w_j
# ([i = j] - w_i) = w_i (dw_i - \sum_j w_j\, dw_j)$, the line of `gate_backward`. Its sum over $i$ is $\sum_i w_i\, dw_i -
# \sum_j w_j\, dw_j = 0$. With $k = 1$ a row has one entry, which must then be 0 itself: the gate learns nothing.

# %%
for k in (1, 2, 3):
    x5, w5 = rng.normal(size=(5, 2)), rng.normal(size=(2, 4))
    choice, weight = gate(x5, w5, k)
    dweight = rng.normal(size=weight.shape)
    dkept = weight * (dweight - (weight * dweight).sum(axis=1, keepdims=True))
    assert np.abs(dkept.sum(axis=1)).max() < 1e-15 and (k > 1 or np.abs(dkept).max() < 1e-15)

# %% [markdown]
# ## 3. Without the weight
#
# The loss falls nearly as far: each expert's gradient points in a useful direction, only its length is wrong, and Adam
# divides by the length. The check of section 5 sees it at once. "It trains" is no proof of a gradient.


# %%
def wrong_backward(p, x, dout, saved):
    choice, weight, cache = saved
    ones = np.ones_like(weight)
    grads = layer_backward(p, x, dout, (choice, ones, cache))
    return {**grads, "w": layer_backward(p, x, dout, saved)["w"]}


p, state, losses = init(np.random.default_rng(3), D=2, E=4, H=8, C=1), {}, []
right = loss_and_grads(p, x, t)[1]["w2"]
wrong = wrong_backward(p, x, 2 * (layer(p, x)[0] - t) / len(x), layer(p, x)[1])["w2"]
for step in range(1, 101):
    out, saved = layer(p, x)
    losses.append(((out - t) ** 2).sum(1).mean())
    adam(p, wrong_backward(p, x, 2 * (out - t) / len(x), saved), state, step)
print(
    f"loss from {losses[0]:.2f} to {losses[-1]:.2f}; relative error of the gradient of w2 ", end=""
)
print(f"{np.abs(wrong - right).max() / np.abs(right).max():.2f}")
assert losses[-1] < 0.6 and np.abs(wrong - right).max() > 0.5 * np.abs(right).max()
