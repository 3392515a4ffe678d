# %% [markdown]
# # 17 · Solutions

# %%
import numpy as np

from moe_np.coursework import self_check
from moe_np.layers import attention, norms, rotary
from moe_np.models import decoder

# %% [markdown]
# ## Hints
#
# 1. Call $u = dy \odot g$, the gradient of $x\,r$. By the product rule `x` gets a part with `r` held, and a part that
#    comes through `r`. For the second, first find $dr$, one number per token.
# 2. $r = (\text{mean}(x^2) + \varepsilon)^{-1/2}$, so $\partial r / \partial x_i = -r^3 x_i / D$. The gain is shared
#    by all tokens, so its gradient is a sum over them.
#
# ## Your turn
#
# Let $u = dy \odot g$. Directly, $dx$ gets $u\,r$. Through $r$: $dr = \sum_j u_j x_j$ and $\partial r/\partial x_i =
# -r^3 x_i / D$. So $dx = r\,u - x\,r^3\,\text{mean}(u \odot x)$. The gain collects over all tokens: $dg = \sum_t dy
# \odot x\,r$.


# %%
def rms_backward(dy, x, g, eps):
    r = 1 / np.sqrt((x * x).mean(axis=1, keepdims=True) + eps)
    u = dy * g
    dx = r * u - x * r**3 * (u * x).mean(axis=1, keepdims=True)
    return dx, (dy * x * r).sum(axis=0)


def reference(dy, x, g, eps):
    _, cache = norms.rms_forward({"g": g}, x, eps=eps)
    dx, grads = norms.rms_backward(dy, cache)
    return dx, grads["g"]


def cases(rng):
    for n_tokens, n_features in ((1, 1), (1, 4), (5, 3), (7, 8)):
        dy = rng.normal(size=(n_tokens, n_features))
        yield dy, rng.normal(size=(n_tokens, n_features)), rng.normal(size=n_features), 1e-5


assert self_check(rms_backward, reference, cases)

# %% [markdown]
# ## 1. A sliding window
#
# One line: a key is also hidden when it is `window` or more positions behind the query. "Window 3" counts the token
# itself, so the distance is at most 2 (errata 25: off by one here is a common mistake).


# %%
def softmax(S):
    e = np.exp(S - S.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rotate(a, position, theta=10_000.0):
    half = a.shape[1] // 2
    angle = position[:, None] * theta ** (-np.arange(half) / half)
    first = a[:, :half]
    second = a[:, half:]
    cos = np.cos(angle)
    sin = np.sin(angle)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)


def attention_by_hand(params, h, heads, kv_heads, window=None, ahead=0):
    """As in the lesson; `ahead` tokens of the future are visible, which is exercise 3."""
    T = len(h)
    d = params["wq"].shape[1] // heads
    position = np.arange(T)
    distance = position[:, None] - position[None, :]
    hidden_keys = distance < -ahead
    if window is not None:
        hidden_keys |= distance >= window
    joined = np.empty((T, heads * d))
    for head in range(heads):
        mine = slice(head * d, (head + 1) * d)
        shared = head // (heads // kv_heads)
        theirs = slice(shared * d, (shared + 1) * d)
        q = rotate(h @ params["wq"][:, mine], position)
        k = rotate(h @ params["wk"][:, theirs], position)
        S = q @ k.T / np.sqrt(d)
        S[hidden_keys] = -np.inf
        joined[:, mine] = softmax(S) @ (h @ params["wv"][:, theirs])
    return joined @ params["wo"]


rng = np.random.default_rng(0)
T, D = 9, 8
x = rng.normal(size=(T, D))
params = attention.init(rng, D, heads=4, kv_heads=2)
angles = rotary.angles(np.arange(T), 2)
for window in (1, 3, None):
    expected, _ = attention.forward(
        params, x[None], heads=4, kv_heads=2, causal=True, rotary=angles, window=window
    )
    found = attention_by_hand(params, x, 4, 2, window=window)
    print(f"window {window}: largest difference {np.abs(found - expected[0]).max():.0e}")
    np.testing.assert_allclose(found, expected[0], atol=1e-12)

# %% [markdown]
# ## 2. Gradients of keys sum to zero
#
# $dk_s = \frac{1}{\sqrt d} \sum_t dS_{ts}\, q_t$, so $\sum_s dk_s = \frac{1}{\sqrt d} \sum_t q_t \sum_s dS_{ts} = 0$,
# because each row of $dS$ sums to 0. In words: a vector that is added to *all* keys adds the same number to all
# scores of a query, and the softmax does not see it.
#
# A bias of the keys is such a vector: $db_k = \sum_s dk_s = 0$. It is never trained and has no effect. With the
# rotation each key is turned by its own angle *after* the bias was added, so the bias becomes another vector at every
# position, and it does have an effect: it can prefer some distances.

# %%
biased = attention.init(rng, D, heads=4, kv_heads=2, biases=True)
biased["bk"] = rng.normal(size=biased["bk"].shape)
dout = rng.normal(size=(1, T, D))
for name, turned in (("without rotation", None), ("with rotation", angles)):
    _, cache = attention.forward(biased, x[None], heads=4, kv_heads=2, causal=True, rotary=turned)
    _, grads = attention.backward(dout, cache)
    size = np.abs(grads["bk"]).max()
    print(f"{name}: largest entry of the gradient of bk {size:.1e}")
    assert (size < 1e-12) == (turned is None)

# %% [markdown]
# ## 3. One token ahead
#
# A token that may read the next one reads its own target. In training the loss would fall far below what is possible,
# towards 0, and nothing would raise an error; in generation, where there is no next token yet, the model would write
# nonsense. A loss that is too good is a symptom.
#
# The test knows nothing of the code: an output that moves although only later tokens were changed has seen the
# future.


# %%
def leaks(block, x):
    """The pairs (t, s), s < t, for which a change of token t moves the output of token s."""
    before = block(x)
    found = []
    for t in range(1, len(x)):
        changed = x.copy()
        changed[t] += 1.0
        moved = np.abs(block(changed) - before)[:t].max(axis=1) > 0
        found += [(t, int(s)) for s in np.flatnonzero(moved)]
    return found


def off_by_one(h):
    return attention_by_hand(params, h, 4, 2, ahead=1)


right = leaks(lambda h: attention_by_hand(params, h, 4, 2), x)
wrong = leaks(off_by_one, x)
print("leaks with the right mask:", right)
print("with the mask off by one: ", wrong)
assert right == [] and wrong == [(t, t - 1) for t in range(1, T)]

# %% [markdown]
# The same test, for a whole block of the package:

# %%
config = decoder.Config(8, D, 1, 4, 2, 2, experts=4, hidden=6, context=T, tied=True)
layer = decoder.init(rng, config, dtype=np.float64)["layers"][0]
batch = decoder.Batch(np.zeros((1, T), int), angles, None, None, None, False)
found = leaks(lambda h: decoder.block_forward(layer, h[None], config, 0, batch)[0][0], x)
print("leaks of a whole block:", found)
assert found == []
