# %% [markdown]
# # 21 · Solutions

# %%
import numpy as np

from moe_np.adapt import distillation, fine_tuning, layer_parts, merging, splitting, upcycling
from moe_np.base import gradcheck
from moe_np.base.numerics import softmax
from moe_np.coursework import self_check
from moe_np.language import corpus, shipped_model
from moe_np.layers import experts, sparse_layer
from moe_np.routing import top_k

shipped, tokeniser = shipped_model.load()
config, params = shipped.config, shipped.params
text = corpus.shipped()
english = np.array(tokeniser.encode(text.train[:6_000]))
unseen = np.array(tokeniser.encode(text.validation[:6_000]))


def cut(tokens, n, length=64):
    return tokens[: n * length].reshape(n, length), tokens[1 : n * length + 1].reshape(n, length)


def held_out(config, params):
    return fine_tuning.held_out_loss(config, params, *cut(unseen, 16))


# %% [markdown]
# ## Hints
#
# 1. Two losses are mixed, and both are cross-entropies of the same logits: the gradient of each is softmax minus its
#    target distribution.
# 2. The hard target is one-hot, the soft target is the softmax of the teacher's logits. Mix the two with `soft`,
#    subtract from the student's softmax, and divide by the number of tokens.

# %% [markdown]
# ## Your turn
#
# Both parts are cross-entropies, and the gradient of a cross-entropy is $p$ minus its targets, hard or soft.


# %%
def distillation_gradient(logits, targets, teacher, soft):
    p, q = softmax(logits), softmax(teacher)
    hot = np.eye(logits.shape[1])[targets]
    return (p - (1 - soft) * hot - soft * q) / len(logits)


def reference(logits, targets, teacher, soft):
    _, cache = distillation.loss_forward(logits, targets, teacher, soft=soft)
    return distillation.loss_backward(1.0, cache)


def cases(rng):
    for N, V, soft in ((4, 5, 0.25), (1, 3, 1.0), (6, 4, 0.0), (3, 2, 0.5)):
        yield rng.normal(size=(N, V)), rng.integers(0, V, N), 3 * rng.normal(size=(N, V)), soft


assert self_check(distillation_gradient, reference, cases)

# %% [markdown]
# ## 1. Split
#
# A hidden layer is a sum over its units, so $E_i = A_i + B_i$ with the first and the second half of the units. Both halves get
# the *same* column of the router: their logits are equal, so the four best are the halves of the two best. But the
# weights are now a softmax over four, in which each half has $w_i / 2$. So `w2` is doubled.


# %%
def outputs(layer, h, k):
    routing, _ = top_k.route(layer["router"], h, k=k, renormalise=True)
    return sparse_layer.forward(layer["experts"], h, routing, experts.SWIGLU)[0]


def split(layer):
    w1, w3, w2 = (layer["experts"][name] for name in ("w1", "w3", "w2"))
    half = w1.shape[2] // 2
    new = {"w1": [], "w3": [], "w2": []}
    for m in range(len(w1)):
        for units in (slice(half), slice(half, None)):
            new["w1"].append(w1[m][:, units])
            new["w3"].append(w3[m][:, units])
            new["w2"].append(2 * w2[m][units])
    finer = {name: np.stack(arrays) for name, arrays in new.items()}
    return {"experts": finer, "router": {"w": np.repeat(layer["router"]["w"], 2, axis=1)}}


seen = layer_parts.on_text(config, params, cut(english, 8)[0])
h, layer = seen[3].h, params["layers"][3]
np.testing.assert_allclose(outputs(split(layer), h, 4), outputs(layer, h, 2), atol=1e-4)

finer_config, finer = splitting.split(config, params, parts=2)  # the package's, all layers
assert np.isclose(held_out(finer_config, finer), held_out(config, params), atol=1e-4)
print(f"split: 16 experts, 4 per token, {held_out(finer_config, finer):.4f} nats as before")

# %% [markdown]
# ## 2. Why $T^2$
#
# The inner derivative of $\text{logits}/T$ gives a factor $1/T$: the gradient is $(p(T) - q(T)) / T$ per token. For large $T$,
# $p_v(T) \approx (1 + a_v/T) / V$ for logits $a$ whose mean is 0, and likewise $q_v \approx (1 + b_v/T)/V$. So the
# gradient is $(a_v - b_v) / (V T^2)$: it shrinks with $T^2$, while that of the hard targets does not. The factor $T^2$ keeps the
# mixture of both what it was (Hinton and others 2015). What is left for large $T$ is a squared error between logits.

# %%
rng = np.random.default_rng(0)
a, b = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
a -= a.mean(axis=1, keepdims=True)
b -= b.mean(axis=1, keepdims=True)
target = np.zeros(3, int)
for T in (1.0, 4.0, 1000.0):
    loss, cache = distillation.loss_forward(a, target, b, soft=1.0, temperature=T)
    gradient = distillation.loss_backward(1.0, cache)
    by_hand = T * (softmax(a / T) - softmax(b / T)) / 3
    np.testing.assert_allclose(gradient, by_hand)
    measured = gradcheck.gradient_error(
        lambda p, T=T: distillation.loss_forward(p["a"], target, b, soft=1.0, temperature=T)[0],
        *({"a": a}, {"a": gradient}, rng),
    )["a"]
    print(f"T = {T:6.0f}: largest gradient {np.abs(gradient).max():.3f}, check {measured:.0e}")
    assert T > 100 or measured < 1e-6
np.testing.assert_allclose(gradient, (a - b) / (5 * 3), atol=1e-3)

# %% [markdown]
# ## 3. Merge everything
#
# Eight *trained* experts are eight different functions, and alignment saves little: there is no order of units in which
# they would be alike. Eight experts of an upcycled model are one function eight times; shuffled, they look different, and
# alignment finds them again, to rounding. The match of units repairs what is only a matter of names.

# %%
losses = {
    align: held_out(*merging.to_dense(config, params, align=align)) for align in (False, True)
}
print(f"trained: {held_out(config, params):.2f}; merged, not aligned {losses[False]:.2f}, ", end="")
print(f"aligned {losses[True]:.2f}")
assert min(losses.values()) > held_out(config, params) + 1

dense_config, dense = distillation.single_expert(config, params, cut(english, 8)[0])
new_config, upcycled = upcycling.upcycle(dense_config, dense, experts=8, rng=rng)
for layer in upcycled["layers"]:  # shuffle the units of every copy
    for m in range(8):
        order = rng.permutation(config.hidden)
        shuffled = merging.permuted(layer_parts.expert_of(layer, m), order)
        for name, p in shuffled.items():
            layer["experts"][name][m] = p
wanted = held_out(dense_config, dense)
assert np.isclose(held_out(new_config, upcycled), wanted, atol=1e-4)
again = {a: held_out(*merging.to_dense(new_config, upcycled, align=a)) for a in (False, True)}
print(f"copies: {wanted:.2f}; merged, not aligned {again[False]:.2f}, aligned {again[True]:.2f}")
assert np.isclose(again[True], wanted, atol=1e-4) and abs(again[False] - wanted) > 0.01
