# %% [markdown]
# # 17 · One transformer block, by hand, forward and backward
#
# Afterwards you can write a transformer block with experts in NumPy, forward and backward, test that no token sees
# its future, and say what the picture of the block in an article leaves out.
#
# (In two sittings: sections 1 to 6 are attention, 7 to 10 the block.)
#
# Every large language model with experts is a stack of such blocks. A block does two things to a sequence of tokens:
# *attention* lets each token read from the tokens before it, and *experts* (lessons 07 and 10) then work on each
# token alone. A token is a piece of text with a number; here it is a word.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $T, D$ | `T, D` | | tokens of the sequence, features of a token |
# | $x$ | `x` | (T, D) | the residual stream: one row per token, to which every layer adds |
# | $q, k, v$ | `q, k, v` | (T, d) | queries, keys and values of one head, of width $d$ |
# | $S, P$ | `S, P` | (T, T) | scores of the keys (columns) for each query (rows), and their softmax |
# | $O$ | `O` | (T, d) | what each query takes from the values |
# | $H_q, H_k$ | `heads, kv_heads` | | heads of queries; heads of keys and values |
# | $E$ | `experts` | | experts; each token goes to 2 of them |
# | $dS$ | `dS` | as $S$ | gradient of the loss with respect to $S$, and so for every name |
#
# (In other lessons $k$ is also the number of experts per token. Here that number is 2 and needs no letter.)

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base.gradcheck import gradient_error
from moe_np.base.params import leaves, nest
from moe_np.coursework import self_check
from moe_np.layers import attention, mixture_layer, norms, rotary
from moe_np.models import decoder
from moe_np.show import model_plots, walk
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)
fig, ax = plt.subplots(figsize=(8.5, 6.4))
model_plots.residual_block(ax)
plt.show()

# %% [markdown]
# Read it from bottom to top. The thick line is the *residual stream*: a vector per token that goes through the whole
# model. Attention and experts only ever *add* something to it.
#
# ## 1. From words to rows
#
# An *embedding* is a table with one row per word of the vocabulary. Looking a word up is all that it does.
#
# **Predict.** "there" is word 4 and word 8 of the sentence. Are the rows `x[4]` and `x[8]` equal?

# %%
sentence = "and God said let there be light and there was light"
words = sentence.split()
vocabulary = sorted(set(words))
ids = np.array([vocabulary.index(word) for word in words])
rng = np.random.default_rng(0)
T = len(words)
D = 8
embed = rng.normal(size=(len(vocabulary), D))
x = embed[ids]
print("token numbers:", ids)
print("x has the shape", x.shape)
print("x[4] and x[8] equal:", np.array_equal(x[4], x[8]))
assert np.array_equal(x[4], x[8])

# %% [markdown]
# **Answer.** Yes: a row says which word it is, not where it stands and not what stands around it. A router that read
# these rows would send both to the same experts. What makes them different is attention.
#
# ## 2. Queries, keys, values
#
# Each token makes three vectors of width $d$ from its row, with three matrices: a *query* (what it looks for), a
# *key* (what it offers to be found by) and a *value* (what it hands over).
#
# $$ q = x\,w_q, \quad k = x\,w_k, \quad v = x\,w_v, \qquad S_{ts} = \frac{q_t \cdot k_s}{\sqrt d}, \qquad
# P_{ts} = \frac{e^{S_{ts}}}{\sum_j e^{S_{tj}}}, \qquad O_t = \sum_s P_{ts}\, v_s $$
#
# It is a gate (lesson 02) in which the tokens themselves take the place of the experts: row $t$ of $P$ is a softmax
# that says how much token $t$ takes from each token. (Vaswani and others 2017, arXiv 1706.03762, eq. 1. Without the
# $\sqrt d$ the scores of wide heads would be large and the softmax nearly 0 and 1.)
#
# **Predict.** We swap two words in the middle, "said" and "let". Does the output of the last word change?

# %%
heads = 2
kv_heads = 1
d = 4
params = attention.init(rng, D, heads=heads, kv_heads=kv_heads, d=d)
for name, matrix in params.items():
    print(name, matrix.shape)


def softmax(S):
    """Row by row, over the last axis."""
    e = np.exp(S - S.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attend(x):
    """One head without mask and positions: -> O (T, d), P (T, T)."""
    q = x @ params["wq"][:, :d]  # the first head of two
    k = x @ params["wk"]
    v = x @ params["wv"]
    S = q @ k.T / np.sqrt(d)
    P = softmax(S)
    return P @ v, P


O, P = attend(x)
swapped = np.array([0, 1, 3, 2, *range(4, T)])
O_swapped, _ = attend(x[swapped])
print("largest change of the last output:", np.abs(O_swapped[-1] - O[-1]).max())
np.testing.assert_allclose(O_swapped[-1], O[-1], rtol=1e-12)

# %% [markdown]
# **Answer.** It does not (the rest is rounding). Attention as it stands here sees a *set* of words. Two things are
# missing: who may read whom, and where each word stands.
#
# ## 3. The causal mask
#
# The model will be trained to say the next word. So no token may read from a later one: scores of later keys become
# $-\infty$ *before* the softmax, and the rest of each row sums to 1 again.
#
# **Predict.** For which token is the output now exactly its own value, $O_t = v_t$?

# %%
position = np.arange(T)
visible = position[None, :] <= position[:, None]  # (query, key)


def attend_causal(x):
    q = x @ params["wq"][:, :d]
    k = x @ params["wk"]
    v = x @ params["wv"]
    S = q @ k.T / np.sqrt(d)
    S[~visible] = -np.inf
    P = softmax(S)
    return P @ v, P


O_causal, P_causal = attend_causal(x)
fig, axes = plt.subplots(1, 2, figsize=(10.4, 5))
for ax, title, matrix in zip(axes, ("P without a mask", "P, causal"), (P, P_causal), strict=True):
    model_plots.attention_weights(ax, matrix, words)
    ax.set_title(title)
plt.show()
print("rows sum to", P_causal.sum(axis=1).round(12))
print("O[0] is v[0]:", np.allclose(O_causal[0], (x @ params["wv"])[0]))
assert P_causal[0, 0] == 1

# %% [markdown]
# **Answer.** For the first: it can read only itself, so $P_{00} = 1$. See in the left picture that the two columns of
# "there" are equal, and those of "and" and "light": equal words have equal keys.
#
# Batches are filled up to equal length with *padding*, and its keys are hidden in the same way. A query may then see no
# key at all. The softmax above would divide 0 by 0; the package gives such a query the output 0.
#
# ## 4. Positions by rotation
#
# Before the scores are computed, query and key are *turned*. The $d$ features form $d/2$ pairs, and pair $i$ of the
# token at position $t$ turns by the angle $t\,\theta^{-2i/d}$ with $\theta = 10{,}000$: the first pair by one radian
# per token, later ones more slowly (Su and others 2021, arXiv 2104.09864). The pairs are $(i, i + d/2)$ here, as in
# Mixtral's files; Meta's files pair $(2i, 2i + 1)$, and mixing the two up is errata 21.
#
# **Predict.** The whole sentence moves 100 places to the right. What changes: `q`, `k`, `P`?


# %%
def rotate(a, position, theta=10_000.0):
    """Turn the pairs (i, i + d/2) of a (T, d) by position · θ^(−2i/d)."""
    half = a.shape[1] // 2
    angle = position[:, None] * theta ** (-np.arange(half) / half)
    first = a[:, :half]
    second = a[:, half:]
    cos = np.cos(angle)
    sin = np.sin(angle)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)


def attend_rotated(x, position):
    """One head, causal, with rotary positions."""
    q = rotate(x @ params["wq"][:, :d], position)
    k = rotate(x @ params["wk"], position)
    S = q @ k.T / np.sqrt(d)
    S[~visible] = -np.inf
    P = softmax(S)
    return P @ (x @ params["wv"]), P, q


O_here, P_here, q_here = attend_rotated(x, position)
O_there, P_there, q_there = attend_rotated(x, position + 100)
print("largest change of q:", np.abs(q_there - q_here).max().round(3))
print("largest change of P:", np.abs(P_there - P_here).max())
np.testing.assert_allclose(P_there, P_here, atol=1e-12)

one_key = np.tile([1.0, 0.5, 0.3, 0.2], (31, 1))  # the same key at 31 positions
turned = rotate(one_key, np.arange(31))
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
model_plots.turning_pair(left, turned[:6, [0, 2]])
left.set_title("a pair of features of one key,\nat the positions 0 to 5")
right.plot(turned @ one_key[0] / np.sqrt(d), color=plots.BLUE, linewidth=2)
right.set(xlabel="distance from key to query, in tokens", ylabel="score")
right.set_title("the same query and the same key")
plt.show()

# %% [markdown]
# **Answer.** `q` and `k` change, `P` does not. A turn keeps lengths, and the product of two turned vectors depends on
# the *difference* of their angles: only the distance of the two tokens counts. The values are not turned. Two further
# things to see: the picture on the right is a property of the rotation alone, nothing has been learned yet (its waves
# are those of the first pair, $2\pi$ tokens long; a head of 128 features has 64 pairs, and all others turn more slowly);
# and a wrong layout of the pairs cannot be seen from shapes or lengths.
#
# ## 5. All heads, against the reference
#
# A layer has several heads, each with a $P$ of its own; their outputs stand side by side and go through a last matrix
# $w_o$. Keys and values may have fewer heads: query head $h$ reads key head $h\,//\,(H_q/H_k)$. That is grouped-query
# attention (Ainslie and others 2023, arXiv 2305.13245), which Mixtral has, with 32 heads of queries and 8 of keys.
#
# **Predict.** Mixtral's `wq` is 4096 × 4096. What is the shape of its `wk`?


# %%
def attention_by_hand(params, h, heads, kv_heads):
    """h (T, D) -> out (T, D), and what the backward pass needs."""
    T = len(h)
    d = params["wq"].shape[1] // heads
    position = np.arange(T)
    hidden_keys = position[None, :] > position[:, None]
    joined = np.empty((T, heads * d))
    kept = []
    for head in range(heads):
        mine = slice(head * d, (head + 1) * d)
        shared = head // (heads // kv_heads)
        theirs = slice(shared * d, (shared + 1) * d)
        q = rotate(h @ params["wq"][:, mine], position)
        k = rotate(h @ params["wk"][:, theirs], position)
        v = h @ params["wv"][:, theirs]
        S = q @ k.T / np.sqrt(d)
        S[hidden_keys] = -np.inf
        P = softmax(S)
        joined[:, mine] = P @ v
        kept.append((mine, theirs, q, k, v, P))
    return joined @ params["wo"], (h, joined, kept)


angles = rotary.angles(position, d)
expected, _ = attention.forward(
    params, x[None], heads=heads, kv_heads=kv_heads, causal=True, rotary=angles
)
by_hand, _ = attention_by_hand(params, x, heads, kv_heads)
print("largest difference from moe_np.layers.attention:", np.abs(by_hand - expected[0]).max())
np.testing.assert_allclose(by_hand, expected[0], atol=1e-12)

# %% [markdown]
# **Answer.** 4096 × 1024: 8 heads of width 128. The keys and values that generation has to keep are four times
# smaller (lesson 19 counts them).
#
# ## 6. Backward: the gradient of a softmax
#
# $O = Pv$ and $S = q k^\top / \sqrt d$ are products, whose gradients you know. Only the softmax is new. From
# $\partial P_j / \partial S_s = P_j (\delta_{js} - P_s)$, row by row:
#
# $$ dS_{ts} \;=\; \sum_j dP_{tj}\, P_{tj}\,(\delta_{js} - P_{ts}) \;=\;
# P_{ts} \Big( dP_{ts} - \sum_j P_{tj}\, dP_{tj} \Big) $$
#
# In words: a key gets more score if taking from it was better than the mean of what the query took. Where $P = 0$, at
# the hidden keys, the gradient is exactly 0, so the mask needs no backward pass.
#
# **Predict.** Which query has the gradient $dq_t = 0$, whatever the loss is? And what does each row of $dS$ sum to?


# %%
def head_backward(dO, q, k, v, P):
    """dO (T, d) -> dq, dk, dv of one head, and dS (T, T)."""
    dv = P.T @ dO
    dP = dO @ v.T
    dS = P * (dP - (P * dP).sum(axis=1, keepdims=True))
    scale = 1 / np.sqrt(q.shape[1])
    dq = scale * dS @ k
    dk = scale * dS.T @ q
    return dq, dk, dv, dS


_, (_, _, kept_heads) = attention_by_hand(params, x, heads, kv_heads)
_, _, q, k, v, P_first = kept_heads[0]
dO = rng.normal(size=(T, d))
dq, dk, dv, dS = head_backward(dO, q, k, v, P_first)
print("dq of the first three tokens:")
print(dq[:3].round(4))
print("largest sum of a row of dS:", np.abs(dS.sum(axis=1)).max())
assert (dq[0] == 0).all()

# %% [markdown]
# **Answer.** The first token's query: it has one key to choose from, so its softmax is 1 whatever the score is. And
# every row of $dS$ sums to 0, because adding a constant to all scores of a query changes nothing.
#
# Now the whole layer. A rotation is undone by the rotation by the negative angles. A key head collects the gradients
# of all query heads that read it, and `h` was read three times.


# %%
def attention_backward_by_hand(dout, params, cache):
    """dout (T, D) -> dh (T, D), and the gradients of wq, wk, wv, wo."""
    h, joined, kept = cache
    position = np.arange(len(h))
    grads = {name: np.zeros_like(matrix) for name, matrix in params.items()}
    grads["wo"] = joined.T @ dout
    djoined = dout @ params["wo"].T
    dh = np.zeros_like(h)
    for mine, theirs, q, k, v, P in kept:
        dq, dk, dv, _ = head_backward(djoined[:, mine], q, k, v, P)
        dq = rotate(dq, -position)
        dk = rotate(dk, -position)
        grads["wq"][:, mine] = h.T @ dq
        grads["wk"][:, theirs] += h.T @ dk  # added up over the query heads of a group
        grads["wv"][:, theirs] += h.T @ dv
        dh += dq @ params["wq"][:, mine].T
        dh += dk @ params["wk"][:, theirs].T + dv @ params["wv"][:, theirs].T
    return dh, grads


dout = rng.normal(size=(T, D))
_, kept_attention = attention_by_hand(params, x, heads, kv_heads)
dx_by_hand, grads_by_hand = attention_backward_by_hand(dout, params, kept_attention)

_, cache = attention.forward(
    params, x[None], heads=heads, kv_heads=kv_heads, causal=True, rotary=angles
)
dx_reference, grads_reference = attention.backward(dout[None], cache)
np.testing.assert_allclose(dx_by_hand, dx_reference[0], atol=1e-12)
for name in params:
    np.testing.assert_allclose(grads_by_hand[name], grads_reference[name], atol=1e-12)


def attention_loss(p):
    matrices = {name: p[name] for name in params}
    return (attention_by_hand(matrices, p["x"], heads, kv_heads)[0] * dout).sum()


errors = gradient_error(attention_loss, {**params, "x": x}, {**grads_by_hand, "x": dx_by_hand}, rng)
for name, error in errors.items():
    print(f"relative error of the gradient of {name}: {error:.0e}")
assert max(errors.values()) < 1e-7

# %% [markdown]
# Equal to the reference to rounding, and right by differences of the loss (the gradient check of lesson 00b), which
# know nothing of either.
#
# ## 7. The block
#
# Two parts are left. The **norm** divides each token by the root of its mean square, and multiplies each feature by a
# learned gain: $y = g \odot x / \sqrt{\text{mean}(x^2) + \varepsilon}$ (Zhang and Sennrich 2019, arXiv 1910.07467).
# And the **experts** stand where the first transformers had one feed-forward network: a router reads the normed
# token, and two of four SwiGLU experts (lesson 14) answer. In them $\text{silu}(a) = a\,\sigma(a) = a / (1 + e^{-a})$.
#
# **Predict.** We set $w_o$ of attention and $w_2$ of all experts to 0. What does the block compute?


# %%
def rms_norm(g, x, eps):
    return g * x / np.sqrt((x * x).mean(axis=1, keepdims=True) + eps)


def expert_by_hand(experts, m, row):
    """SwiGLU expert m on one token: (silu(row w1) · row w3) w2."""
    a = row @ experts["w1"][m]
    return (a / (1 + np.exp(-a)) * (row @ experts["w3"][m])) @ experts["w2"][m]


def experts_by_hand(layer, h):
    """Each token goes to the two experts with the largest logits."""
    logits = h @ layer["router"]["w"]
    out = np.zeros_like(h)
    for t in range(len(h)):
        two = np.argsort(-logits[t], kind="stable")[:2]
        weight = softmax(logits[t, two])
        for m, w in zip(two, weight, strict=True):
            out[t] += w * expert_by_hand(layer["experts"], m, h[t])
    return out


def block_by_hand(layer, x):
    h1 = rms_norm(layer["norm1"]["g"], x, config.eps)
    attended, _ = attention_by_hand(layer["attention"], h1, config.heads, config.kv_heads)
    a = x + attended
    h2 = rms_norm(layer["norm2"]["g"], a, config.eps)
    return a + experts_by_hand(layer, h2)


config = decoder.Config(
    vocabulary=len(vocabulary),
    d_model=D,
    layers=1,
    heads=heads,
    kv_heads=kv_heads,
    d_head=d,
    experts=4,
    hidden=6,
    context=T,
    tied=True,
)
model = decoder.init(np.random.default_rng(3), config, dtype=np.float64)
layer = model["layers"][0]
layer["norm1"]["g"] = rng.normal(1, 0.2, D)  # gains that have learned something
layer["norm2"]["g"] = rng.normal(1, 0.2, D)

# what all blocks of a pass share: token numbers, and the angles of the positions
batch = decoder.Batch(ids[None], angles, None, None, None, False)
x_next, block_cache = decoder.block_forward(layer, x[None], config, 0, batch)
np.testing.assert_allclose(block_by_hand(layer, x), x_next[0], atol=1e-12)
print("equal to moe_np.models.decoder:", np.allclose(block_by_hand(layer, x), x_next[0]))

# `leaves` makes a flat dict, {"attention.wo": array, ...}, and `nest` undoes it
silent = {name: value.copy() for name, value in leaves(layer).items()}
silent["attention.wo"][:] = 0
silent["experts.w2"][:] = 0
print(
    "with wo = 0 and w2 = 0 the block returns x:", np.array_equal(block_by_hand(nest(silent), x), x)
)
assert np.array_equal(block_by_hand(nest(silent), x), x)

# %% [markdown]
# **Answer.** Nothing: it returns `x`. A new model begins near this point, because what writes into the stream is
# drawn small, and every block learns what to *add*.
#
# The two "there" of the sentence, equal in `x`, have become different, so the router can now treat them differently: see
# the weights of tokens 4 and 8 (in a trained model, the experts too).

# %%
routing = block_cache.mixture.routing
for t, word in enumerate(words):
    chosen = routing.token == t
    pairs = zip(routing.expert[chosen], routing.weight[chosen], strict=True)
    text = ", ".join(f"expert {m} with {w:.2f}" for m, w in pairs)
    print(f"{t:2d} {word:6s} {text}")
assert not np.allclose(x_next[0, 4], x_next[0, 8])

# %% [markdown]
# ## 8. The block, backward
#
# The forward pass, read from top to bottom. At each $+$ the gradient goes both ways: past the sublayer and into it.
#
# **Predict.** How many paths lead from $dx_{next}$ to $dx$? And suppose that no token goes to some expert: which
# gradient do its parameters get, and which its column of the router?


# %%
def block_backward_by_hand(dx_next, layer, x):
    """-> dx (T, D), and the gradients of the block by name."""
    grads = {}
    h1, norm1 = norms.rms_forward(layer["norm1"], x, eps=config.eps)
    attended, kept = attention_by_hand(layer["attention"], h1, config.heads, config.kv_heads)
    h2, norm2 = norms.rms_forward(layer["norm2"], x + attended, eps=config.eps)
    _, mixture = mixture_layer.forward(
        layer,
        h2,
        expert=mixture_layer.KINDS[config.expert],
        router=mixture_layer.router_of(config.router),
        options=config.options,
    )

    dh2, grads_experts = mixture_layer.backward(dx_next, mixture)  # lessons 07 and 10
    past_norm2, grads["norm2"] = norms.rms_backward(dh2, norm2)  # yours, below
    da = dx_next + past_norm2
    dh1, grads["attention"] = attention_backward_by_hand(da, layer["attention"], kept)
    past_norm1, grads["norm1"] = norms.rms_backward(dh1, norm1)
    dx = da + past_norm1
    return dx, {**grads, **grads_experts}


dx_next = rng.normal(size=(T, D))
dx, grads = block_backward_by_hand(dx_next, layer, x)
dx_package, grads_package = decoder.block_backward(dx_next[None], block_cache)
np.testing.assert_allclose(dx, dx_package[0], atol=1e-12)
for name, gradient in leaves(grads_package).items():
    np.testing.assert_allclose(leaves(grads)[name], gradient, atol=1e-12)


def block_loss(p):
    of_layer = {name: p[name] for name in leaves(layer)}
    return (block_by_hand(nest(of_layer), p["x"]) * dx_next).sum()


block_errors = gradient_error(
    block_loss, {**leaves(layer), "x": x}, {**leaves(grads), "x": dx}, rng, step=1e-4
)
for name, error in block_errors.items():
    print(f"{name:14s} relative error {error:.0e}")
used = np.bincount(routing.expert, minlength=config.experts)
print("tokens per expert:", used)
print(
    "norm of the gradient of w2, per expert:",
    np.linalg.norm(grads["experts"]["w2"], axis=(1, 2)).round(2),
)
assert max(block_errors.values()) < 1e-6

# %% [markdown]
# **Answer.** Four: past both sublayers, through attention only, through the experts only, and through both. The first
# one is why deep stacks can be trained: on it the gradient arrives unchanged. An expert without a token gets no
# gradient, and its column of the router gets none either: a token teaches the router about its own two experts only
# (lesson 07).
#
# ## 9. Step through it
#
# The same block inside of a whole model, from token numbers to the loss and back, one array per state. Six tokens fit
# the page.

# %%
few = np.array([[0, 1, 2, 3, 4, 1]])
following = np.array([[1, 2, 3, 4, 1, -1]])  # −1: no target
steps = walk.transformer(model, few, following, config)
next(steps)

# %% [markdown]
# `next(steps)` goes on, `steps.back()` goes back, `steps.goto(11)` jumps to state 11. Or use the slider below.
#
# **Predict**, at state 11, "layer 0: mask": how many of the 36 numbers of a head are $-\infty$?

# %%
steps.goto(11)

# %%
view(steps)

# %% [markdown]
# **Answer.** 15: the $6 \cdot 5 / 2$ above the diagonal.
#
# ## 10. What the picture in an article leaves out
#
# | in the picture | in the code |
# |---|---|
# | one box "attention" | four matrices, heads, a mask, a rotation, a softmax; most of its parameters are in $w_q$ and $w_o$ |
# | an arrow past a box | the *main road*: the boxes only add to it |
# | "norm" after the box (the figure of 2017) | before it, in nearly every model since: the stream itself is never normed, except at the end |
# | the sentence goes to an expert | each *token* goes, in each *layer* anew, and the router of a layer knows nothing of the others |
# | the router reads the text | it reads one normed vector per token, in which attention has put what it took from others |
# | an expert for mathematics, one for verbs | nobody assigns topics; lesson 18 looks at what they take |
# | positions are added to the embedding | here they turn queries and keys, in every layer, and the values not at all |
# | arrows up | for every arrow there is one down: the backward pass, with twice the multiplications |
#
# ## Your turn
#
# Section 8 took the backward pass of the norm from the package. Write it. With $r = 1/\sqrt{\text{mean}(x^2) +
# \varepsilon}$ per token, $y = g \odot x\,r$: find `dx` and `dg` from `dy`. ($r$ depends on all features of its
# token.)


# %%
def rms_backward(dy, x, g, eps):
    """dy, x (T, D), g (D,) -> (dx (T, D), dg (D,))."""
    # your code here
    return None


def reference(dy, x, g, eps):
    _, cache = norms.rms_forward({"g": g}, x, eps=eps)
    dx, grads = norms.rms_backward(dy, cache)
    return dx, grads["g"]


def cases(rng):
    for n_tokens, n_features in ((1, 1), (1, 4), (5, 3), (7, 8)):
        dy = rng.normal(size=(n_tokens, n_features))
        yield dy, rng.normal(size=(n_tokens, n_features)), rng.normal(size=n_features), 1e-5


self_check(rms_backward, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Give `attention_by_hand` (section 5) a sliding window: a token attends to itself and to
#    `window` − 1 tokens before it. Hold it against `attention.forward(..., window=3)`.
# 2. **Derive.** Without rotation, show that $\sum_s dk_s = 0$ for every head, whatever the loss is. Some models
#    (Qwen2) add a bias $b_k$ to the keys. What would its gradient be, and what changes with the rotation?
# 3. **Break it.** Let the mask be off by one: a token may also read the next one. In training on text, what would the
#    loss do? Write a test that finds the leak in any block without looking at its code: change token $t$ and see
#    which outputs move.
#
# Solutions: `lessons/solutions/17_block.py`.
#
# Next: 18, a transformer with experts on real text.
