# %% [markdown]
# # 20 · LSTM with experts, 2017
#
# Afterwards you can write a step of an LSTM and its gradient, say why the experts of 2017 stood between two recurrent
# layers, start a gate from zeros without losing most experts, and make the table of contexts from which it was first
# said that experts specialise.
#
# Before transformers, language models were *recurrent*: they read one token after the other and kept a state. Shazeer
# and others 2017 (arXiv 1701.06538) put a sparse layer between two such layers, with up to 131,072 experts. Noisy
# top-k gating, importance and load (lessons 07 and 09) come from this paper; here is the model around them.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $B, T, D$ | `x.shape` | | sequences, tokens per sequence, features per token |
# | $H$ | `H` | | cells of an LSTM |
# | $x_t$ | `x[:, t]` | (B, D) | the tokens at time $t$ |
# | $h_t, c_t$ | `h, c` | (B, H) | state: output and cells |
# | $i, f, g, o$ | `i, f, g, o` | (B, H) | input gate, forget gate, new content, output gate |
# | $w_x, w_h, b$ | `params["wx"]`, ... | (D, 4H), (H, 4H), (4H,) | parameters, with the four parts side by side |
# | $E, k$ | `config.experts` | | experts 8, per token 2 |
# | $G(x)_i$ | `weight` | (A,) | weight of expert $i$ for a token |
# | $dc$ | `dc` | as `c` | gradient of the loss with respect to $c$, and so for every name |

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base import optim
from moe_np.base.gradcheck import gradient_error
from moe_np.base.numerics import sigmoid
from moe_np.coursework import self_check
from moe_np.data.text import bible, tokenisers, windows
from moe_np.experiments.specialisation import contexts
from moe_np.experiments.specialisation.snapshots import Routings
from moe_np.layers import lstm, specialisation
from moe_np.models import lstm_moe
from moe_np.show import model_plots, walk
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)

# %% [markdown]
# ## 1. One step
#
# A recurrent layer computes its state from the input and the state before. An LSTM has *cells* $c$ that are kept by
# multiplication with a *forget gate*, and three more parts (Hochreiter and Schmidhuber 1997; the forget gate is from
# Gers and others 2000):
#
# $$ z = x_t w_x + h_{t-1} w_h + b, \qquad i, f, o = \sigma(z_i), \sigma(z_f), \sigma(z_o), \qquad g = \tanh(z_g) $$
# $$ c_t = f \odot c_{t-1} + i \odot g, \qquad h_t = o \odot \tanh(c_t) $$
#
# These gates have nothing to do with the gate of a mixture: they do not choose, and do not sum to 1.
#
# **Predict.** $f = 1$ and $i = 0$ for some cell, for 100 steps. What is in it?


# %%
def step_by_hand(params, x_t, h, c):
    """x_t (B, D), h, c (B, H) -> h, c after the step, and the four parts."""
    z = x_t @ params["wx"] + h @ params["wh"] + params["b"]
    z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
    i = sigmoid(z_i)
    f = sigmoid(z_f)
    g = np.tanh(z_g)
    o = sigmoid(z_o)
    c = f * c + i * g
    h = o * np.tanh(c)
    return h, c, (i, f, g, o)


rng = np.random.default_rng(0)
B, T, D, H = 2, 5, 3, 4
params = lstm.init(rng, D, H)
x = rng.normal(size=(B, T, D))

h = np.zeros((B, H))
c = np.zeros((B, H))
outputs = []
for t in range(T):
    h, c, _ = step_by_hand(params, x[:, t], h, c)
    outputs.append(h)
by_hand = np.stack(outputs, axis=1)

out, state, cache = lstm.forward(params, x)
print("largest difference from moe_np.layers.lstm:", np.abs(by_hand - out).max())
print("bias of the forget gate at initialisation:", params["b"][H : 2 * H])
np.testing.assert_allclose(by_hand, out, atol=1e-12)

# %% [markdown]
# **Answer.** What was in it 100 steps ago. That is the point: without a gate, a state that is multiplied at every
# step by the same matrix vanishes or explodes.
#
# ## 2. The gradient of a step
#
# From $dh_t$ (from above and from the step after) and $dc_t$ (from the step after), line by line, from the last to
# the first. The derivative of $\sigma$ is $\sigma(1 - \sigma)$, that of $\tanh$ is $1 - \tanh^2$.
#
# **Predict.** By what is the gradient of the cells multiplied on its way from $c_t$ to $c_{t-1}$?


# %%
def step_backward_by_hand(dh, dc, params, c_before, parts, c):
    """-> dz (B, 4H), and dh, dc for the step before."""
    i, f, g, o = parts
    tanh_c = np.tanh(c)
    do = dh * tanh_c
    dc = dc + dh * o * (1 - tanh_c**2)
    di = dc * g
    dg = dc * i
    df = dc * c_before
    dz = np.concatenate(
        [di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1
    )
    return dz, dz @ params["wh"].T, dc * f


def backward_by_hand(dout, params, x):
    """Backpropagation through time: dout (B, T, H) -> dx, grads."""
    B, T, _ = x.shape
    H = len(params["wh"])
    h = [np.zeros((B, H))]
    c = [np.zeros((B, H))]
    parts = []
    for t in range(T):
        h_t, c_t, parts_t = step_by_hand(params, x[:, t], h[t], c[t])
        h.append(h_t)
        c.append(c_t)
        parts.append(parts_t)
    grads = {name: np.zeros_like(p) for name, p in params.items()}
    dx = np.zeros_like(x)
    dh_after = np.zeros((B, H))
    dc_after = np.zeros((B, H))
    for t in reversed(range(T)):
        dz, dh_after, dc_after = step_backward_by_hand(
            dout[:, t] + dh_after, dc_after, params, c[t], parts[t], c[t + 1]
        )
        grads["wx"] += x[:, t].T @ dz  # every step adds: they share their parameters
        grads["wh"] += h[t].T @ dz
        grads["b"] += dz.sum(axis=0)
        dx[:, t] = dz @ params["wx"].T
    return dx, grads


dout = rng.normal(size=out.shape)
dx_by_hand, grads_by_hand = backward_by_hand(dout, params, x)
dx, _, grads = lstm.backward(dout, cache)
np.testing.assert_allclose(dx_by_hand, dx, atol=1e-12)
for name in params:
    np.testing.assert_allclose(grads_by_hand[name], grads[name], atol=1e-12)


def loss(p):
    matrices = {name: p[name] for name in params}
    return (lstm.forward(matrices, p["x"])[0] * dout).sum()


errors = gradient_error(loss, {**params, "x": x}, {**grads_by_hand, "x": dx_by_hand}, rng)
for name, error in errors.items():
    print(f"relative error of the gradient of {name}: {error:.0e}")
assert max(errors.values()) < 1e-7

# %% [markdown]
# **Answer.** By $f$, number by number (and there is a second way, through $h$). So the forget gate decides how far
# back a gradient reaches, too. Through the cells alone, 20 steps with $f = ½$ leave $2^{-20}$ of it, a millionth.
#
# **Predict.** The bias of the forget gate is 0, 1 or 3 at initialisation ($f$ near .5, .73, .95). We send a gradient
# into the last of 40 outputs only and look at what arrives at the inputs. By what does it fall per step?

# %%
long_x = rng.normal(size=(8, 40, 16))
reach = {}
for bias in (0, 1, 3):
    of_bias = lstm.init(np.random.default_rng(1), 16, 16, forget_bias=bias)
    long_out, _, long_cache = lstm.forward(of_bias, long_x)
    last_only = np.zeros_like(long_out)
    last_only[:, -1] = 1
    dlong, _, _ = lstm.backward(last_only, long_cache)
    reach[bias] = np.linalg.norm(dlong, axis=(0, 2))[::-1]
    left = reach[bias][-1] / reach[bias][0]
    print(
        f"bias {bias}: {left:.0e} of it after 39 steps, a factor of {left ** (1 / 39):.2f} per step"
    )
fig, ax = plt.subplots(figsize=(8, 4))
model_plots.gradient_reach(ax, {f"bias {bias}": sizes for bias, sizes in reach.items()})
plt.show()
assert reach[3][-1] > 100 * reach[1][-1] > 100 * reach[0][-1]

# %% [markdown]
# **Answer.** By a constant factor, a straight line on the logarithmic axis. It is somewhat larger than $f$, because a
# part goes through $h$ as well. This is why `init` sets the bias to 1 and not to 0. (With 3 the gradient reaches further
# still, but cells also have to forget; 1 is the usual choice.) A whole book cannot be unrolled,
# so text is read in *stretches*: the state goes on from one to the next, the gradient does not (truncated
# backpropagation through time).
#
# ## 3. Step through it
#
# (The states name the output before it leaves the cell `m`. Some LSTMs make it shorter, of size P, with one more matrix;
# here $m = h$ and P is H.)
#
# **Predict**, at state 34, "backward, step 2: new content": $dg = dc \odot i$. Which gate decides whether the input
# of this step learns anything through the cells?

# %%
small = lstm.init(rng, 2, 2)
steps = walk.lstm(small, rng.normal(size=(1, 3, 2)), dh=rng.normal(size=(1, 3, 2)))
next(steps)

# %%
steps.goto(34)

# %%
view(steps)

# %% [markdown]
# **Answer.** The input gate $i$: what did not come in gets no gradient.
#
# ## 4. Experts between two LSTMs
#
# $$ x^1 = x^0 + \text{LSTM}_1(x^0), \qquad x^2 = x^1 + \sigma\Big( \sum_i G(x^1)_i\, E_i(x^1) \Big), \qquad
# x^3 = x^2 + \text{LSTM}_2(x^2) $$
#
# $x^0$ is the embedding; the head makes logits from $x^3$. Each layer's output is added to its input. The experts'
# sum passes a sigmoid first (appendix C.1); Mixtral has none.
#
# **Predict.** 32 windows of 24 tokens. How many tokens does the router see in one call? And if the experts were
# *inside* the recurrence, part of the step?

# %%
train_text = bible.running_text(bible.split().train)[:400_000]
tokeniser = tokenisers.train("words", train_text, 1024)  # whole words, so that a table can be read
train_tokens = tokeniser.encode(train_text)
print(f"{len(train_tokens):,} tokens:", [tokeniser.decode([n]) for n in train_tokens[:8]])

config = lstm_moe.Config(
    vocabulary=tokeniser.size,
    d_model=32,
    experts=8,
    expert_hidden=32,
    options={"k": 2},  # of router="noisy_top_k", the default
)
model = lstm_moe.init(np.random.default_rng(0), config, dtype=np.float64)
ids, targets = windows.random_windows(train_tokens, rng, batch=32, length=24)


def logits_by_hand(model, ids):
    """In evaluation: without noise."""
    x0 = model["embed"]["w"][ids]
    x1 = x0 + lstm.forward(model["lstm1"], x0)[0]
    rows = x1.reshape(-1, config.d_model)  # all positions of all windows
    order = np.argsort(-rows @ model["mixture"]["router"]["w"], axis=1, kind="stable")[:, :2]
    chosen = np.take_along_axis(rows @ model["mixture"]["router"]["w"], order, axis=1)
    weight = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    experts = model["mixture"]["experts"]
    out = np.zeros_like(rows)
    for m in range(config.experts):  # lesson 07: each expert on the tokens that chose it
        token, place = np.nonzero(order == m)
        hidden = np.maximum(rows[token] @ experts["w1"][m] + experts["b1"][m], 0)
        answer = hidden @ experts["w2"][m] + experts["b2"][m]
        out[token] += weight[token, place, None] * answer
    x2 = x1 + sigmoid(out).reshape(x1.shape)
    x3 = x2 + lstm.forward(model["lstm2"], x2)[0]
    return x3 @ model["head"]["w"]


_, model_cache = lstm_moe.forward(model, ids, config)
print("tokens that the router sees at once:", len(model_cache.mixture.mixture.routing.probs))

# compared with a gate that is not 0, so that the tokens go to different experts
gate = np.random.default_rng(1).normal(size=(config.d_model, config.experts))
with_gate = {**model["mixture"], "router": {**model["mixture"]["router"], "w": gate}}
with_gate = {**model, "mixture": with_gate}
expected, _ = lstm_moe.forward(with_gate, ids, config)
print("largest difference by hand:", np.abs(logits_by_hand(with_gate, ids) - expected).max())
np.testing.assert_allclose(logits_by_hand(with_gate, ids), expected, atol=1e-10)

# %% [markdown]
# **Answer.** 768. The layer stands *between* the recurrent ones, so it can take all positions at once, as large
# blocks (lesson 10). Inside the recurrence it would see 32, four per expert, and each step would wait for the step
# before. The paper names this among its cures for the "shrinking batch" (section 3.1).
#
# ## 5. Why the gate needs noise
#
# The gates are 0 at initialisation (appendix A). Then all logits are equal, and ties go to the lowest expert.
#
# **Predict.** How many of the 8 experts get tokens before the first update, without the noise? And with it?

# %%
quiet = model_cache.mixture.mixture.routing
_, noisy_cache = lstm_moe.forward(model, ids, config, rng=np.random.default_rng(0))
noisy = noisy_cache.mixture.mixture.routing
print("tokens per expert, without noise:", np.bincount(quiet.expert, minlength=8))
print("                      with noise:", np.bincount(noisy.expert, minlength=8))
assert np.count_nonzero(np.bincount(quiet.expert, minlength=8)) == 2

# %% [markdown]
# **Answer.** Two without, all eight with it. Noise of standard deviation $\ln 2$ on equal logits is a fair draw, and
# every expert begins to learn.
#
# ## 6. Train it, three times
#
# With noise and the paper's two balance losses (importance and load, .1 each); with noise alone; with neither, from
# the same zeros. The next cell takes 5 to 15 seconds.
#
# **Predict.** Sort the three by the evenness of their loads after 120 updates. Then by their loss.


# %%
def train(config, losses, updates=120):
    """-> model, mean loss and share of each expert over the last 20 updates."""
    rng = np.random.default_rng(0)
    model = lstm_moe.init(rng, config)
    state = None
    late = []
    for update in range(updates):
        ids, targets = windows.random_windows(train_tokens, rng, batch=32, length=24)
        loss, grads = lstm_moe.loss_and_grads(model, ids, targets, config, losses=losses, rng=rng)
        model, state = optim.adamw(model, grads, state, lr=0.01)
        count = np.bincount(loss.routings[0].expert, minlength=config.experts)
        late.append((loss.task, count / count.sum()))
        if update % 40 == 0:
            print(f"   update {update:3d}   loss {loss.task:.2f}")
    tasks, shares = zip(*late[-20:], strict=True)
    return model, np.mean(tasks), np.mean(shares, axis=0)


without_noise = config._replace(
    router="top_k", options={"k": 2, "renormalise": True}, init_options={"scale": 0.0}
)
settings = {
    "noise, both losses": (config, lstm_moe.default_losses(config)),
    "noise alone": (config, ()),
    "neither": (without_noise, ()),
}
trained = {}
for name, (of_name, losses) in settings.items():
    print(name)
    trained[name] = train(of_name, losses)
fig, ax = plt.subplots(figsize=(9, 3.4))
model_plots.sorted_shares(ax, {name: share for name, (_, _, share) in trained.items()})
plt.show()
for name, (_, task, share) in trained.items():
    print(f"{name:20s} loss {task:.2f}   shares from {share.min():.3f} to {share.max():.3f}")

gap = {name: share.max() - share.min() for name, (_, _, share) in trained.items()}
assert gap["noise, both losses"] < 0.05 < min(gap["noise alone"], gap["neither"])
tasks = [task for _, task, _ in trained.values()]
assert max(tasks) - min(tasks) < 0.15

# %% [markdown]
# **Answer.** With the two losses the loads are even; without them the fullest expert has several times the load of
# the emptiest, with noise or without. The losses are equal but for chance. Nothing has collapsed in 120 updates, also
# without anything against it. In the paper's Table 6, without both losses, the fullest expert of a longer training
# has 17.8 times the mean load, and perplexity is worse. **A loss curve does not show uneven loads.** Watch them.
#
# ## 7. The table from which it was said that experts specialise
#
# Table 9 of the paper shows three of 2,048 experts of a translation model: for each, the places of the text with the
# largest gate values $G(x)_i$, with the words around them. They read like rules of grammar. It is a fine procedure,
# with two questions to ask: who picked the three, and what would a random expert show?
#
# So here a *rule* picks: the experts whose ten best contexts have the same word in the middle most often. Beside them
# stand experts drawn at random (of eight, some are in both lists), and ten random places of the text.
#
# **Predict.** 120 updates, 8 experts. Will the picked ones look like specialists? The random ones?

# %%
best, _, _ = trained["noise, both losses"]
length = 24
some = train_tokens[30_000 : 30_000 + 400 * length + 1]
rows = some[:-1].reshape(-1, length)
_, table_cache = lstm_moe.forward(best, rows, config)
found = specialisation.choices(table_cache.mixture.mixture.routing)
routings = Routings(
    ids=some[:-1],
    following=some[1:],
    predicted=some[1:],
    choice=found.expert[None],
    weight=found.weight[None],
)
table = contexts.compared(
    routings, config.experts, lambda n: tokeniser.decode([n]), np.random.default_rng(3)
)


def shown(expert):
    print(f"expert {expert['expert']}, the same word in the middle: {expert['uniformity']:.0%}")
    for before, middle, after in expert["contexts"][:6]:
        print(f"      {before!r:>12} {middle!r:^14} {after!r}")


print("PICKED BY THE RULE")
for expert in table["picked"]:
    shown(expert)
print("DRAWN AT RANDOM")
for expert in table["random"]:
    shown(expert)
print({name: round(value, 2) for name, value in table["uniformity"].items()})
assert table["uniformity"]["all"] > table["uniformity"]["by chance"]

# %% [markdown]
# **Answer.** The picked ones do: one word in ten different surroundings. (The vocabulary has the thousand most
# frequent words; rarer ones are spelt, so single letters are tokens, too.) The random ones are nearly as uniform, and
# all experts together are far above random places of the text, so it is not the picking. The experts follow the
# *word*, as in lesson 18. Three experts out of 2,048 can be chosen to show nearly anything; a table needs its rule
# and its baseline.
#
# ## Your turn
#
# Write the procedure of Table 9: the places of one expert's largest weights, the largest first, equal weights in the
# order of the text. A context (the token before, the token, the token after) that has been shown already is left out.
# Ten contexts at most.


# %%
def best_places(choice, weight, ids, following, expert):
    """choice, weight (N, k), ids, following (N,) -> places in the text, at most ten.

    The token before place n is ids[n - 1]; before place 0 there is none.
    """
    # your code here
    return None


def reference(choice, weight, ids, following, expert):
    given = Routings(ids, following, following, choice[None], weight[None])
    return contexts.places_of(given, 0, expert)


def cases(rng):
    for n_tokens, n_words in ((1, 2), (8, 2), (60, 3), (200, 40)):
        text = rng.integers(0, n_words, n_tokens + 1)
        choice = np.argsort(rng.random((n_tokens, 4)), axis=1)[:, :2]
        weight = rng.integers(1, 9, (n_tokens, 2)) / 10  # with ties
        yield choice, weight, text[:-1], text[1:], 1


self_check(best_places, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Read a text of 60 tokens in stretches of 7 with `lstm.forward`, with the state passed on,
#    and show that the outputs are those of the whole pass. Then compare the gradients of the parameters: by how much
#    do they differ, and why is this accepted?
# 2. **Derive.** At zero gates the noisy logits are $\epsilon_i \ln 2$ with $\epsilon_i$ standard normal. What is the
#    expected share of each expert? What is Importance on average, and what does the importance loss
#    $\text{CV}^2$ come to, roughly, for 768 tokens? Check by drawing.
# 3. **Break it.** Some libraries have the four parts in the order $i, g, f, o$ and add 1 to $z_f$ inside of the step.
#    Train a model for 60 updates, then read its parameters as if they were in that order. What raises? What happens
#    to the loss? Write the conversion that is right.
#
# Solutions: `lessons/solutions/20_lstm.py`.
#
# Next: 21, after training.
