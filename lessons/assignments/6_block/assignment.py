# %% [markdown]
# # Assignment 6: a transformer block with experts, by hand
#
# You write what a language model with experts is made of: rotary positions, attention, a norm, a block with a router and
# experts, the loss, and one update of AdamW, forward and backward. In the end you write no model but tests, which find the
# faults of other people's routers. It follows lessons 17, 18 and 25; allow five to six hours.
#
# **What to do.** Eight functions have a body to write, where it says `# YOUR CODE HERE`. Keep their names and
# arguments. The cell under each holds visible checks: run it, and no error means they pass. All checks at once, as
# in grading: `moe-np coursework check 6_block.ipynb`.
#
# **What is graded.** Each function by itself, on other inputs than you see here, drawn anew for each grading: other
# shapes, padding, large numbers, experts that nobody wants. 25 points: rotation 2, attention 3, its gradient 5, norm
# 2, block 5, loss 3, update 3, audit 2. A question gives points in proportion to the hidden inputs that are answered
# right, in half points, and none below half of them. Results count as right within a relative 1e-4 (1e-3 for
# gradients), so float32 will do. A function must not change its inputs, and must answer within seconds (gradients by
# differences of the loss would take minutes).
#
# **What may be imported.** NumPy, Matplotlib, and of this package `moe_np.base.checks` and `moe_np.base.gradcheck`.
# Nothing else of `moe_np` exists where your work is graded. Each function is graded alone, so if you call one of your own
# functions from another, a mistake in it costs both. (Helpers of your own belong into the answer cell that uses them, or
# into a cell that you add.)
#
# | symbol | code | shape | meaning |
# |---|---|---|---|
# | $q$ | `q` | (T, Hq, d) | queries of one sequence: T positions, Hq heads, d numbers each |
# | $k, v$ | `k`, `v` | (T, Hk, d) | keys and values; Hk divides Hq |
# | | `valid` | (T,) | False at padding |
# | $x$ | `x` | (T, D) | one row per token, the residual stream |
# | $g$ | `g` | (D,) | gain of a norm |
# | | `choice` | (T, k) | the experts of each token |

# %% given="setup"
import numpy as np

from moe_np.base.gradcheck import gradient_error

# %% [markdown]
# ## 1. Rotary positions (2 points)
#
# Attention does not know where a token stands. Rotary positions (Su et al. 2021) tell it by turning pairs of numbers
# of each query and key: at position $t$, pair $i$ by the angle $t\,\theta^{-2i/d}$. Here the pairs are the **halves**
# $(i, i + d/2)$, as in the published Mixtral:
#
# $$y_i = x_i \cos - x_{i+d/2} \sin, \qquad y_{i+d/2} = x_{i+d/2} \cos + x_i \sin, \qquad i = 0, \dots, d/2 - 1.$$
#
# Positions need not begin at 0 nor follow each other, and may be negative: turning by $-t$ undoes turning by $t$, which
# is also the backward pass. They may be large; then the **angles** have to be float64, whatever `x` is.


# %% answer="q1_rotate"
def rotate(x, positions, theta):
    """Turn the pairs of every head by the angles of their position. -> y (T, H, d)

    x (T, H, d) with an even d; positions (T,) whole numbers; theta, the base, such as 10000.0
    """
    ### BEGIN SOLUTION
    half = x.shape[-1] // 2
    angle = positions[:, None, None] * np.float64(theta) ** (-np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    c, s = np.cos(angle), np.sin(angle)
    return np.concatenate([a * c - b * s, b * c + a * s], axis=-1)
    ### END SOLUTION


# %% test="q1_rotate"
# visible checks of q1_rotate
x = np.array([[[1.0, 2.0, 3.0, 4.0]], [[1.0, 2.0, 3.0, 4.0]]])  # two positions, one head, d = 4
y = rotate(x, np.array([0, 1]), 100.0)
assert y is not None, "rotate returned nothing"
assert np.shape(y) == (2, 1, 4), f"wanted the shape of x, (2, 1, 4), got {np.shape(y)}"
y = np.asarray(y)
assert np.allclose(y[0], x[0]), f"position 0 is not turned, got {y[0]}"
message = "at position 1, numbers 0 and 2 are turned by 1 radian, 1 and 3 by 100^(−1/2) = 0.1"
assert np.allclose(y[1], [[-1.984111, 1.590675, 2.462378, 4.179683]], atol=1e-5), message
back = rotate(y, np.array([0, -1]), 100.0)
assert np.allclose(back, x, atol=1e-5), "turning by −1 undoes turning by 1"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("6_block", "q1_rotate", rotate)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Attention (3 points)
#
# Queries and keys are turned first, with given cosines and sines of the angles of each position. Then, for query head
# $h$, position $t$ and the key of position $s$,
#
# $$S_{ts} = \frac{q_t \cdot k_s}{\sqrt d}, \qquad P = \text{softmax over } s, \qquad \text{out}_t = \sum_s P_{ts}\, v_s.$$
#
# - **Causal**: position $t$ sees the positions $s \le t$ only, itself included.
# - **Padding**: where `valid` is False, nobody sees the key. (A query that stands there is computed like the others.)
# - **Grouped queries**: query head $h$ reads the key head $\lfloor h / (H_q/H_k) \rfloor$: of 6 query heads and 3 key
#   heads, 0 and 1 read the first.
# - A query that sees no key has the output 0. Scores may be huge: what is hidden has the score $-\infty$, and no other.


# %% answer="q2_attention"
def attention(q, k, v, valid, cos, sin):
    """Causal attention of one sequence with grouped queries. -> out (T, Hq, d)

    q (T, Hq, d); k, v (T, Hk, d); valid (T,) bool; cos, sin (T, d/2) of the angles, as in question 1
    """
    ### BEGIN SOLUTION
    T, Hq, d = q.shape
    group = Hq // k.shape[1]

    def turned(x):
        a, b = x[..., : d // 2], x[..., d // 2 :]
        c, s = cos[:, None], sin[:, None]
        return np.concatenate([a * c - b * s, b * c + a * s], axis=-1)

    q = turned(q)
    k = np.repeat(turned(k), group, axis=1)
    v = np.repeat(v, group, axis=1)
    seen = np.tril(np.ones((T, T), bool)) & valid
    scores = np.where(seen, np.einsum("thd,shd->hts", q, k) / np.sqrt(d), -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    e = np.exp(scores - np.where(np.isfinite(top), top, 0))
    p = e / np.maximum(e.sum(axis=-1, keepdims=True), 1e-30)  # a sum is 0, or at least 1
    return np.einsum("hts,shd->thd", p, v)
    ### END SOLUTION


# %% test="q2_attention"
# visible checks of q2_attention
rng = np.random.default_rng(0)
cos, sin = np.ones((3, 1)), np.zeros((3, 1))  # no rotation; T = 3, d = 2
q, k = np.zeros((3, 1, 2)), np.zeros((3, 1, 2))
v = np.array([[[1.0, 10.0]], [[3.0, 30.0]], [[8.0, 80.0]]])
everything = np.ones(3, bool)
out = attention(q, k, v, everything, cos, sin)
assert out is not None, "attention returned nothing"
assert np.shape(out) == (3, 1, 2), f"wanted the shape of q, (3, 1, 2), got {np.shape(out)}"
message = f"equal scores: the mean of the values so far, 1, 2 and 4 (and 10 times these), got {out}"
assert np.allclose(np.asarray(out)[:, 0], [[1, 10], [2, 20], [4, 40]]), message
out = attention(q, k, v, np.array([False, True, True]), cos, sin)
message = f"position 0 is padding: it sees nothing itself, and nobody sees it; got {out}"
assert np.allclose(np.asarray(out)[:, 0], [[0, 0], [3, 30], [5.5, 55]]), message
q = np.array([[[1.0, 0.0]], [[1.0, 1.0]], [[0.0, 2.0]]])
out = attention(q, q, v, everything, cos, sin)
message = f"position 2: the scores are 0, 2/√2 and 4/√2, got {np.asarray(out)[2, 0]}"
assert np.allclose(np.asarray(out)[2, 0], [6.748813, 67.488130], atol=1e-3), message
cos, sin = np.cos([[0.0], [0.5], [1.0]]), np.sin([[0.0], [0.5], [1.0]])
turned = attention(q, q, v, everything, cos, sin)
message = (
    f"with the rotation, position 1: the scores are 0.281 and √2, got {np.asarray(turned)[1, 0]}"
)
assert np.allclose(np.asarray(turned)[1, 0], [2.512789, 25.127889], atol=1e-3), message
q = rng.normal(size=(3, 6, 2))
k, v = rng.normal(size=(3, 3, 2)), rng.normal(size=(3, 3, 2))
out = np.asarray(attention(q, k, v, everything, cos, sin))
for h in range(6):
    one = attention(q[:, h : h + 1], k[:, h // 2, None], v[:, h // 2, None], everything, cos, sin)
    assert np.allclose(out[:, h], np.asarray(one)[:, 0], atol=1e-5), f"query head {h} of 6 heads"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("6_block", "q2_attention", attention)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Attention, backward (5 points)
#
# Somebody hands you `dout`, the gradient of a loss with respect to `out`. Find, on paper, those with respect to the
# queries, keys and values **as they came in**, that is before the rotation. The softmax is the only step that is no
# product: with $dP_{ts} = d\text{out}_t \cdot v_s$,
#
# $$dS_{ts} = P_{ts} \Big(dP_{ts} - \sum_r P_{tr}\, dP_{tr}\Big).$$
#
# A key head gets the sum over the queries of its group, and a key that nobody sees gets exactly 0.


# %% answer="q3_attention_backward"
def attention_backward(dout, q, k, v, valid, cos, sin):
    """Gradients of Σ dout · out of question 2. -> dq (T, Hq, d), dk (T, Hk, d), dv (T, Hk, d)

    dout (T, Hq, d); the other arguments are those of question 2
    """
    ### BEGIN SOLUTION
    T, Hq, d = q.shape
    Hk = k.shape[1]
    group = Hq // Hk

    def turned(x, sin):
        a, b = x[..., : d // 2], x[..., d // 2 :]
        c, s = cos[:, None], sin[:, None]
        return np.concatenate([a * c - b * s, b * c + a * s], axis=-1)

    q = turned(q, sin)
    k = np.repeat(turned(k, sin), group, axis=1)
    v = np.repeat(v, group, axis=1)
    seen = np.tril(np.ones((T, T), bool)) & valid
    scores = np.where(seen, np.einsum("thd,shd->hts", q, k) / np.sqrt(d), -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    e = np.exp(scores - np.where(np.isfinite(top), top, 0))
    p = e / np.maximum(e.sum(axis=-1, keepdims=True), 1e-30)

    dp = np.einsum("thd,shd->hts", dout, v)
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True)) / np.sqrt(d)
    dq = np.einsum("hts,shd->thd", ds, k)
    dk = np.einsum("hts,thd->shd", ds, q).reshape(T, Hk, group, d).sum(axis=2)
    dv = np.einsum("hts,thd->shd", p, dout).reshape(T, Hk, group, d).sum(axis=2)
    return turned(dq, -sin), turned(dk, -sin), dv
    ### END SOLUTION


# %% test="q3_attention_backward"
# visible checks of q3_attention_backward
rng = np.random.default_rng(1)
angle = np.arange(4)[:, None] * np.array([1.0, 0.3])  # T = 4, d = 4
cos, sin = np.cos(angle), np.sin(angle)
heads = {"q": rng.normal(size=(4, 2, 4)), "k": rng.normal(size=(4, 1, 4))}
heads["v"] = rng.normal(size=(4, 1, 4))
dout = rng.normal(size=(4, 2, 4))


def loss_of_attention(p):
    """Σ dout · out, written position by position, for one key head."""

    def turned(x):
        a, b = x[..., :2], x[..., 2:]
        c, s = cos[:, None], sin[:, None]
        return np.concatenate([a * c - b * s, b * c + a * s], axis=-1)

    q, k = turned(p["q"]), turned(p["k"])[:, 0]
    total = 0.0
    for t in range(4):
        for h in range(2):
            e = np.exp(k[: t + 1] @ q[t, h] / 2)
            total += dout[t, h] @ (e @ p["v"][: t + 1, 0]) / e.sum()
    return total


got = attention_backward(dout, heads["q"], heads["k"], heads["v"], np.ones(4, bool), cos, sin)
assert got is not None, "attention_backward returned nothing"
dq, dk, dv = (np.asarray(part) for part in got)
shapes = [dq.shape, dk.shape, dv.shape]
assert shapes == [(4, 2, 4), (4, 1, 4), (4, 1, 4)], f"wanted the shapes of q, k and v, got {shapes}"
errors = gradient_error(loss_of_attention, heads, {"q": dq, "k": dk, "v": dv}, rng)
assert max(errors.values()) < 1e-4, f"the gradient check: relative errors {errors}"
padded = np.array([False, True, True, False])
got = attention_backward(dout, heads["q"], heads["k"], heads["v"], padded, cos, sin)
dq, dk, dv = (np.asarray(part) for part in got)
assert not np.any(dq[0]), f"query 0 sees no key: its gradient is 0, got {dq[0]}"
assert not np.any(dk[[0, 3]]) and not np.any(dv[[0, 3]]), "nobody sees keys 0 and 3"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("6_block", "q3_attention_backward", attention_backward)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. The norm, backward (2 points)
#
# Before each sublayer a block has an RMSNorm. For one row of $D$ numbers,
#
# $$y = g \odot \frac{x}{\sqrt{\tfrac 1 D \sum_i x_i^2 + \varepsilon}}.$$
#
# The root depends on every $x_i$. The gain is the same for all rows, so its gradient is a sum over all of them.


# %% answer="q4_norm"
def norm_backward(dy, x, g, eps):
    """Gradients of Σ dy · y. -> dx (..., D), dg (D,)

    dy, x (..., D) with any number of axes in front, also none; g (D,); eps > 0 stands inside of the root
    A row may be all 0.
    """
    ### BEGIN SOLUTION
    r = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    n = x * r
    dn = dy * g
    dx = r * (dn - n * (dn * n).mean(axis=-1, keepdims=True))
    return dx, (dy * n).reshape(-1, len(g)).sum(axis=0)
    ### END SOLUTION


# %% test="q4_norm"
# visible checks of q4_norm
rng = np.random.default_rng(2)
inputs = {"x": rng.normal(size=(3, 4)), "g": rng.uniform(0.5, 2, 4)}
dy = rng.normal(size=(3, 4))


def loss_of_norm(p):
    """Σ dy · y."""
    return sum(
        dy[n] @ (p["g"] * p["x"][n] / np.sqrt(p["x"][n] @ p["x"][n] / 4 + 0.1)) for n in range(3)
    )


got = norm_backward(dy, inputs["x"], inputs["g"], 0.1)
assert got is not None, "norm_backward returned nothing"
dx, dg = np.asarray(got[0]), np.asarray(got[1])
message = f"wanted the shapes of x and g, (3, 4) and (4,), got {dx.shape} and {dg.shape}"
assert (dx.shape, dg.shape) == ((3, 4), (4,)), message
errors = gradient_error(loss_of_norm, inputs, {"x": dx, "g": dg}, rng)
assert max(errors.values()) < 1e-4, f"the gradient check: relative errors {errors}"
dx, dg = norm_backward(dy[:2].reshape(2, 1, 4), np.zeros((2, 1, 4)), inputs["g"], 0.25)
message = "a row of 0 and three axes: the root is √0.25, dx = g dy / 0.5, dg = 0"
assert np.allclose(dx, 2 * dy[:2, None] * inputs["g"], atol=1e-5) and np.allclose(dg, 0), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("6_block", "q4_norm", norm_backward)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The block (5 points)
#
# Two sublayers, each with a norm before it and a residual connection around it:
#
# $$h = \text{norm}(x, g_1), \quad a = x + M h W^v, \qquad
#   u = \text{norm}(a, g_2), \quad \text{out}_t = a_t + \sum_{j=1}^k w_{tj}\, f_{m}(u_t), \quad m = \text{choice}_{tj}.$$
#
# $M$ (T, T) is what attention has made of the positions. Question 3 has dealt with its gradient; here it is a constant,
# like the choice. The router and the experts are
#
# $$\ell = u\, W^r, \qquad w_t = \text{softmax of the } k \text{ logits } \ell_{tm},\ m \in \text{choice}_t, \qquad
#   f_m(u) = \max(0, u W^1_m)\, W^2_m.$$
#
# So `u` is used twice, by the experts and by the router, and `a` and `x` are used twice as well. An expert without
# tokens has gradients of 0. With $k = 1$ the weight is always 1: what does the router learn then? `eps` of both norms is
# 1e-5, and stands inside of the root, as in question 4.


# %% answer="q5_block"
def block_backward(params, x, mix, choice, dout):
    """Gradients of Σ dout · out. -> dx (T, D), a dict with the gradients of all parameters

    params   {"g1": (D,), "wv": (D, D), "g2": (D,), "router": (D, E), "w1": (E, D, H), "w2": (E, H, D)}
    x, dout (T, D); mix, M in the text, (T, T); choice (T, k), k different experts per token
    """

    ### BEGIN SOLUTION
    def norm(x, g):
        r = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
        return x * r * g, r

    def back_through_norm(dy, x, r, g):
        n = x * r
        dn = dy * g
        return r * (dn - n * (dn * n).mean(axis=-1, keepdims=True)), (dy * n).sum(axis=0)

    h, r1 = norm(x, params["g1"])
    a = x + mix @ (h @ params["wv"])
    u, r2 = norm(a, params["g2"])
    chosen = np.take_along_axis(u @ params["router"], choice, axis=1)
    weight = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    weight = weight / weight.sum(axis=1, keepdims=True)

    grads = {name: np.zeros_like(w) for name, w in params.items()}
    du = np.zeros_like(x)
    dweight = np.zeros_like(weight)
    for m in range(len(params["w1"])):
        t, j = np.nonzero(choice == m)
        w1, w2 = params["w1"][m], params["w2"][m]
        z = np.maximum(u[t] @ w1, 0)
        dweight[t, j] = (dout[t] * (z @ w2)).sum(axis=1)
        dy = weight[t, j][:, None] * dout[t]
        dz = dy @ w2.T * (z > 0)
        grads["w1"][m] = u[t].T @ dz
        grads["w2"][m] = z.T @ dy
        du[t] += dz @ w1.T
    dlogits = np.zeros_like(u @ params["router"])
    dchosen = weight * (dweight - (weight * dweight).sum(axis=1, keepdims=True))
    np.put_along_axis(dlogits, choice, dchosen, axis=1)
    grads["router"] = u.T @ dlogits
    du += dlogits @ params["router"].T

    da, grads["g2"] = back_through_norm(du, a, r2, params["g2"])
    da += dout
    dmixed = mix.T @ da
    grads["wv"] = h.T @ dmixed
    dx, grads["g1"] = back_through_norm(dmixed @ params["wv"].T, x, r1, params["g1"])
    return da + dx, grads
    ### END SOLUTION


# %% test="q5_block"
# visible checks of q5_block
rng = np.random.default_rng(3)
T, D, E, H = 5, 3, 4, 6
shapes = {"g1": (D,), "wv": (D, D), "g2": (D,), "router": (D, E), "w1": (E, D, H), "w2": (E, H, D)}
params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
x, dout = rng.normal(size=(T, D)), rng.normal(size=(T, D))
mix = np.tril(np.ones((T, T)))
mix /= mix.sum(axis=1, keepdims=True)
choice = np.array([[0, 2], [2, 0], [3, 2], [0, 3], [2, 3]])  # nobody chooses expert 1


def loss_of_block(p):
    """Σ dout · out, one token after the other."""
    h = p["x"] / np.sqrt((p["x"] ** 2).mean(axis=1)[:, None] + 1e-5) * p["g1"]
    a = p["x"] + mix @ (h @ p["wv"])
    total = 0.0
    for t in range(T):
        u = a[t] / np.sqrt((a[t] ** 2).mean() + 1e-5) * p["g2"]
        e = np.exp([u @ p["router"][:, m] for m in choice[t]])
        out = a[t] + sum(
            share * (np.maximum(u @ p["w1"][m], 0) @ p["w2"][m])
            for share, m in zip(e / e.sum(), choice[t], strict=True)
        )
        total += dout[t] @ out
    return total


got = block_backward(params, x, mix, choice, dout)
assert got is not None, "block_backward returned nothing"
dx, grads = got
assert set(grads) == set(params), f"wanted the keys {sorted(params)}, got {sorted(grads)}"
got = {name: np.asarray(g) for name, g in {**grads, "x": dx}.items()}
errors = gradient_error(loss_of_block, {**params, "x": x}, got, rng)
assert max(errors.values()) < 1e-4, f"the gradient check: relative errors {errors}"
assert not np.any(got["w1"][1]), "expert 1 has no tokens: its gradients are 0"
one_each = block_backward(params, x, mix, choice[:, :1], dout)[1]
message = "k = 1: the weight is always 1, and the router's gradient 0"
assert np.allclose(one_each["router"], 0, atol=1e-6), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("6_block", "q5_block", block_backward)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. The loss (3 points)
#
# A language model is asked for the next token at every position. A target of −1 is none (padding): the position counts
# neither in the sum nor in the number by which the mean divides, and what its logits are is of no matter: they may be
# anything, also not a number. With $n$ valid targets,
#
# $$\text{loss} = -\frac 1 n \sum_{\text{valid}} \ln \text{softmax}(\text{logits})_{\text{target}}.$$
#
# Without any valid target the loss is 0, and so is the gradient. Logits may be in the thousands, and so may the loss.


# %% answer="q6_loss"
def loss_and_gradient(logits, targets):
    """Cross-entropy, the mean over the valid targets. -> loss, dlogits (B, T, V)

    logits (B, T, V); targets (B, T) whole numbers, −1 where there is none
    """
    ### BEGIN SOLUTION
    valid = targets >= 0
    rows = logits[valid]
    target = targets[valid]
    n = max(len(rows), 1)
    shifted = rows - rows.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=1)
    place = np.arange(len(rows))
    loss = (np.log(total) - shifted[place, target]).sum() / n
    drows = e / total[:, None]
    drows[place, target] -= 1
    dlogits = np.zeros_like(logits)
    dlogits[valid] = drows / n
    return loss, dlogits
    ### END SOLUTION


# %% test="q6_loss"
# visible checks of q6_loss
logits = np.zeros((2, 3, 4))
targets = np.array([[0, 3, -1], [-1, 2, -1]])
logits[0, 1, 3] = np.log(3.0)  # probability 3/6
got = loss_and_gradient(logits, targets)
assert got is not None, "loss_and_gradient returned nothing"
loss, dlogits = got
message = f"three valid targets, of probability 1/4, 1/2 and 1/4: wanted (5 ln 2)/3, got {loss}"
assert np.isclose(loss, 5 * np.log(2) / 3, atol=1e-5), message
assert np.shape(dlogits) == (2, 3, 4), f"wanted the shape of logits, got {np.shape(dlogits)}"
dlogits = np.asarray(dlogits)
message = f"where the target is 0: (p − 1)/3 = −0.25, elsewhere p/3 = 0.0833; got {dlogits[0, 0]}"
assert np.allclose(dlogits[0, 0], [-0.25, 1 / 12, 1 / 12, 1 / 12], atol=1e-5), message
message = f"where the target is 3, of probability 1/2: got {dlogits[0, 1]}"
assert np.allclose(dlogits[0, 1], [1 / 18, 1 / 18, 1 / 18, -1 / 6], atol=1e-5), message
assert np.allclose(dlogits[1, 1], [1 / 12, 1 / 12, -0.25, 1 / 12], atol=1e-5), "the second sequence"
assert not np.any(dlogits[targets < 0]), "no target, no gradient"
loss, dlogits = loss_and_gradient(logits, np.full((2, 3), -1))
assert loss == 0 and not np.any(dlogits), f"no target at all: wanted 0, got {loss}"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("6_block", "q6_loss", loss_and_gradient)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. One training step (3 points)
#
# A batch that does not fit into memory comes in parts. Each brings the gradients of **its** mean loss and the number of
# valid tokens in it, which may be 0 (then its gradients mean nothing, and may be not a number). A step then is:
#
# 1. **The gradient of the whole batch**: as if it had been one, so that every token counts alike.
# 2. **Clipping**: if the norm over *all* gradients together, $\sqrt{\sum g^2}$, is more than `max_norm`, all are multiplied
#    by `max_norm` / norm.
# 3. **AdamW**, with $\beta_1 = 0.9$, $\beta_2 = 0.95$, $\varepsilon = 10^{-8}$ and $t = 1$ in the first step:
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2,$$
#
# $$p \leftarrow (1 - \eta\lambda)\, p - \eta\,
#   \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \varepsilon}.$$
#
# Gains and biases have no weight decay $\lambda$: these are the arrays whose **names** begin with `g` or `b` (the biases of
# experts have two axes, so axes do not tell). An expert without tokens has a gradient of 0, and moves even so.


# %% answer="q7_step"
def training_step(params, parts, m, v, t, lr, weight_decay, max_norm):
    """One update by AdamW. -> params, m, v, as dicts with the same keys

    params, m, v   dicts of arrays; parts, a list of (gradients as a dict, number of valid tokens)
    t              the number of this step, from 1; lr, weight_decay, max_norm: numbers
    At least one part has a valid token.
    """
    ### BEGIN SOLUTION
    total = sum(n for _, n in parts)
    grads = {k: sum(g[k] * (n / total) for g, n in parts if n > 0) for k in params}
    norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
    scale = max_norm / max(norm, max_norm)
    new, new_m, new_v = {}, {}, {}
    for k, p in params.items():
        g = grads[k] * scale
        new_m[k] = 0.9 * m[k] + 0.1 * g
        new_v[k] = 0.95 * v[k] + 0.05 * g * g
        step = new_m[k] / (1 - 0.9**t) / (np.sqrt(new_v[k] / (1 - 0.95**t)) + 1e-8)
        decay = 0 if k[0] in "gb" else weight_decay
        new[k] = (1 - lr * decay) * p - lr * step
    return new, new_m, new_v
    ### END SOLUTION


# %% test="q7_step"
# visible checks of q7_step
params = {"w1": np.array([1.0, -2.0]), "b1": np.array([[0.5], [2.0]]), "g": np.array([3.0, 1.0])}
zeros = {name: np.zeros_like(p) for name, p in params.items()}
first = {"w1": np.array([3.0, 0.0]), "b1": np.array([[0.0], [0.0]]), "g": np.array([0.0, 4.0])}
second = {"w1": np.array([-1.0, 4.0]), "b1": np.array([[4.0], [0.0]]), "g": np.array([0.0, 0.0])}
got = training_step(params, [(first, 3), (second, 1)], zeros, zeros, 1, 0.1, 0.5, 100.0)
assert got is not None, "training_step returned nothing"
new, m, v = got
keys = [sorted(part) for part in got]
assert keys == [["b1", "g", "w1"]] * 3, f"wanted three dicts with the keys of params, got {keys}"
message = "three of four tokens are of the first part: g = 0.75 first + 0.25 second; m = 0.1 g"
assert np.allclose(m["w1"], [0.2, 0.1], atol=1e-6), f"{message}; got m['w1'] = {m['w1']}"
assert np.allclose(m["b1"], [[0.1], [0]], atol=1e-6), f"{message}; got m['b1'] = {m['b1']}"
assert np.allclose(m["g"], [0, 0.3], atol=1e-6), f"{message}; got m['g'] = {m['g']}"
message = "v = 0.05 g²"
assert np.allclose(v["w1"], [0.2, 0.05], atol=1e-6), f"{message}; got v['w1'] = {v['w1']}"
assert np.allclose(v["b1"], [[0.05], [0]], atol=1e-6), f"{message}; got v['b1'] = {v['b1']}"
assert np.allclose(v["g"], [0, 0.45], atol=1e-6), f"{message}; got v['g'] = {v['g']}"
message = "the first step is lr in the direction of the sign; w1 decays by 0.1 · 0.5"
assert np.allclose(new["w1"], [0.85, -2.0], atol=1e-5), f"{message}; got {new['w1']}"
message = "biases and gains do not decay, and where the gradient is 0 nothing moves yet"
assert np.allclose(new["b1"], [[0.4], [2.0]], atol=1e-5), f"{message}; got {new['b1']}"
assert np.allclose(new["g"], [3.0, 0.9], atol=1e-5), f"{message}; got {new['g']}"
norm = np.sqrt(4 + 1 + 1 + 9)  # of g
_, m, _ = training_step(params, [(first, 3), (second, 1)], zeros, zeros, 1, 0.1, 0.5, norm / 2)
assert np.allclose(m["g"], [0, 0.15], atol=1e-6), "clipped to half the norm of all gradients"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("6_block", "q7_step", training_step)
### END HIDDEN TESTS

# %% [markdown]
# ## 8. Audit a router (2 points)
#
# Now you are given code, and have to find out whether it is right. A router is `route(logits, k, valid)`, for logits
# (N, E), and promises:
#
# - `choice` (N, k): the experts with the largest logits, the best first; of equal ones the lowest number;
# - `weight` (N, k): the softmax of these k logits; 0 at padding, where `valid` is False;
# - `loss`: Switch's, $E \sum_m f_m P_m$ over the valid tokens: $f_m$ is the share of the assignments that go to expert m
#   (it sums to 1 over all experts), $P_m$ the mean of the softmax of **all** logits. Without any valid token it is 0.
#
# A token's row depends on its own logits alone, logits may be as large as ±1000, each call with the same logits gives
# the same, and the logits are not changed. What `choice` says at padding is free, and so are the types: a right router may
# return lists or float32.
#
# You write `audit(route)`, which does nothing for a right router, and raises an AssertionError for a broken one; any other
# error while it runs counts as a find too. It is graded on three routers at a time, one right and two broken, and has to
# tell which is which. `RIGHT` below is a right one, to compare with if you like: what you have to find are the *inputs*
# that tell. Each audit has to end within a second. `check` tells of this question only whether your audit finds the two
# broken routers that are given; it is graded on others.

# %% given="routers"
RIGHT = '''
def route(logits, k, valid):
    """A router that keeps its promises: choice (N, k), weight (N, k), loss."""
    E = logits.shape[1]
    choice = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(logits, choice, axis=1)
    weight = np.exp(kept - kept.max(axis=1, keepdims=True))
    weight = weight / weight.sum(axis=1, keepdims=True) * valid[:, None]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True))[valid]
    n = max(len(p), 1)
    f = np.bincount(choice[valid].ravel(), minlength=E) / (n * k)
    return choice, weight, E * (f * p.sum(axis=0) / n).sum()
'''
NOT_RENORMALISED = RIGHT.replace("np.exp(kept - kept.max(", "np.exp(kept - logits.max(").replace(
    "weight.sum(axis=1", "np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1"
)
COUNTS_PADDING = RIGHT.replace("choice[valid].ravel()", "choice.ravel()")


def router_of(source):
    """The function `route` that a source defines."""
    names = {"np": np}
    exec(source, names)
    return names["route"]


def run_audit(first, second, third):
    """Your audit on three routers, given as text: True for each that it passes."""
    passed = []
    for source in (first, second, third):
        try:
            with np.errstate(all="ignore"):  # broken routers may divide by 0
                audit(router_of(source))
            passed.append(True)
        except NotImplementedError:
            raise
        except Exception:
            passed.append(False)
    return tuple(passed)


# %% answer="q8_audit"
def audit(route):
    """Raise an AssertionError if a router breaks a promise; return nothing if it keeps all.

    route(logits (N, E), k, valid (N,)) -> choice (N, k), weight (N, k), loss
    """
    ### BEGIN SOLUTION
    rng = np.random.default_rng(0)
    right = router_of(RIGHT)
    near = rng.normal(size=(9, 5))
    ties = np.round(rng.normal(size=(6, 40)))
    far = 1000 * rng.normal(size=(6, 4))
    some = np.arange(9) % 3 > 0
    for logits, k, valid in (
        (near, 2, np.full(9, True)),
        (near, 5, some),
        (near, 1, np.full(9, False)),
        (near[1:2], 2, some[1:2]),
        (ties, 3, some[:6]),
        (far, 2, some[:6]),
    ):
        given = logits.copy()
        got_choice, got_weight, got_loss = route(given, k, valid)
        choice, weight, loss = right(logits, k, valid)
        assert np.array_equal(given, logits), "the logits were changed"
        assert np.array_equal(np.asarray(got_choice)[valid], choice[valid]), "choice"
        assert np.shape(got_weight) == weight.shape, "shape"
        assert np.allclose(got_weight, weight, atol=1e-5), "weight"
        assert np.isclose(got_loss, loss, rtol=1e-4, atol=1e-5), "loss"
    ### END SOLUTION


# %% test="q8_audit"
# visible checks of q8_audit
audit(router_of(RIGHT))
passed = run_audit(RIGHT, NOT_RENORMALISED, COUNTS_PADDING)
assert passed[0], "the audit raises an error for the right router"
assert not passed[1], "the audit does not find what is wrong with NOT_RENORMALISED"
assert not passed[2], "the audit does not find what is wrong with COUNTS_PADDING"
passed = run_audit(COUNTS_PADDING, NOT_RENORMALISED, RIGHT)
assert list(passed) == [False, False, True], f"in another order: wanted the third, got {passed}"
lists = RIGHT.replace("return choice, weight,", "return choice.tolist(), weight.tolist(),")
assert run_audit(NOT_RENORMALISED, lists, RIGHT)[1], "a right router may return lists"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("6_block", "q8_audit", run_audit)
### END HIDDEN TESTS

# %% [markdown]
# ## What your functions make together
#
# Attention of your own on a line of text, before any training: where does each letter look? Nothing below is graded.
#
# **Predict.** With random queries and keys, is the picture of weights uniform below the diagonal? What does the rotation
# add if all queries and all keys are equal?

# %% tags=["look"]
import matplotlib.pyplot as plt

text = "experts"
T, d = len(text), 16
rng = np.random.default_rng(0)
same = np.tile(rng.normal(size=(1, 1, d)), (T, 1, 1))
pictures = {
    "random queries and keys": (rng.normal(size=(T, 1, d)), rng.normal(size=(T, 1, d))),
    "all equal": (same, same),
}
angle = np.arange(T)[:, None] * 10000.0 ** (-2 * np.arange(d // 2) / d)
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4))
for ax, (name, (q, k)) in zip(axes, pictures.items(), strict=True):
    v = np.zeros((T, 1, d))
    v[:, 0, :T] = np.eye(T)  # the output is then the row of weights
    p = attention(2 * q, k, v, np.ones(T, bool), np.cos(angle), np.sin(angle))[:, 0, :T]
    ax.imshow(p, cmap="Blues", vmin=0, vmax=1)
    ax.set(title=name, xticks=range(T), yticks=range(T), xlabel="key", ylabel="query")
    ax.set_xticklabels(text)
    ax.set_yticklabels(text)
plt.tight_layout()
plt.show()

# %% [markdown]
# With all equal, a query sees the nearest positions best: the product of a vector with itself turned by the distance is
# largest at distance 0. The rotation alone makes a token look at its neighbours.
#
# To try: `theta` of 2 in place of 10000; queries ten times as large; `d = 8`, where position 0 comes back into sight: at a
# distance of 6 the first pair has turned nearly once round.
