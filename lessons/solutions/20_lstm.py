# %% [markdown]
# # 20 · Solutions

# %%
import numpy as np

from moe_np.base import optim
from moe_np.coursework import self_check
from moe_np.data.text import bible, tokenisers, windows
from moe_np.experiments.specialisation import contexts
from moe_np.experiments.specialisation.snapshots import Routings
from moe_np.layers import balance, lstm
from moe_np.models import lstm_moe
from moe_np.routing import noisy_top_k

# %% [markdown]
# ## Hints
#
# 1. `np.nonzero(choice == expert)` gives the places and the columns of the expert's assignments, in the order of the
#    text. Sort by `-weight` with `kind="stable"`: equal weights then keep that order.
# 2. Walk through the places and keep a `set` of the contexts that were shown. A context is three numbers; use −1 for
#    the token before place 0.
#
# ## Your turn


# %%
def best_places(choice, weight, ids, following, expert):
    place, column = np.nonzero(choice == expert)
    order = np.argsort(-weight[place, column], kind="stable")
    shown = set()
    kept = []
    for n in place[order]:
        before = ids[n - 1] if n else -1
        context = (before, ids[n], following[n])
        if context not in shown:
            shown.add(context)
            kept.append(n)
        if len(kept) == 10:
            break
    return np.array(kept, int)


def reference(choice, weight, ids, following, expert):
    given = Routings(ids, following, following, choice[None], weight[None])
    return contexts.places_of(given, 0, expert)


def cases(rng):
    for n_tokens, n_words in ((1, 2), (8, 2), (60, 3), (200, 40)):
        text = rng.integers(0, n_words, n_tokens + 1)
        choice = np.argsort(rng.random((n_tokens, 4)), axis=1)[:, :2]
        weight = rng.integers(1, 9, (n_tokens, 2)) / 10  # with ties
        yield choice, weight, text[:-1], text[1:], 1


assert self_check(best_places, reference, cases)

# %% [markdown]
# ## 1. In stretches
#
# The outputs are the same to rounding: the state is all that a step needs of the past. The gradients differ, because
# each stretch stops at its first state: what a parameter did more than seven steps before an output is not counted
# for it. Stretches of 7 are short, and a third is missing; with the dozens of tokens that are usual, less is, since
# the gradient falls by a factor per step (section 2). It is accepted because a whole book that is unrolled does not
# fit into memory.

# %%
rng = np.random.default_rng(0)
params = lstm.init(rng, 6, 8)
x = rng.normal(size=(2, 60, 6))
dout = rng.normal(size=(2, 60, 8))
whole, _, cache = lstm.forward(params, x)
_, _, grads = lstm.backward(dout, cache)

state = None
outputs = []
truncated = {name: np.zeros_like(p) for name, p in params.items()}
for start in range(0, 60, 7):
    stretch = slice(start, start + 7)
    out, state, cache = lstm.forward(params, x[:, stretch], state)  # the state goes on
    _, _, of_stretch = lstm.backward(dout[:, stretch], cache)  # its gradient does not
    outputs.append(out)
    truncated = {name: g + of_stretch[name] for name, g in truncated.items()}
np.testing.assert_allclose(np.concatenate(outputs, axis=1), whole, atol=1e-12)
for name, g in grads.items():
    share = np.linalg.norm(truncated[name] - g) / np.linalg.norm(g)
    print(f"{name}: the truncated gradient differs by {share:.0%}")
    assert 0.001 < share < 1

# %% [markdown]
# ## 2. A gate of zeros, with noise
#
# All experts are equal, so each has the share 1/8 of the choices, and Importance, the sum of weights, is on average
# $N/8 = 96$. For its spread: a token gives an expert about ½ with probability $k/E = ¼$, and else 0. So
# $E[w] = 1/E$, $E[w^2] \approx \frac{k}{E} \cdot \frac{1}{k^2} = \frac{1}{kE}$, and over $N$ independent tokens
#
# $$ \text{CV}^2 \approx \frac{E^2 \left( \frac{1}{kE} - \frac{1}{E^2} \right)}{N} = \frac{E/k - 1}{N} =
# \frac{3}{768} = 0.004 . $$
#
# So a balance loss of a few thousandths is what a fair draw has, and not a sign of imbalance.

# %%
N, E = 768, 8
gate = noisy_top_k.init(rng, 4, E)
tokens = rng.normal(size=(N, 4))
values = []
shares = []
for _ in range(200):
    routing, _ = noisy_top_k.route(gate, tokens, k=2, rng=rng)
    values.append(balance.importance(routing).value)
    shares.append(np.bincount(routing.expert, minlength=E) / len(routing.expert))
print(f"importance loss {np.mean(values):.4f}, predicted {(E / 2 - 1) / N:.4f}")
print("shares:", np.mean(shares, axis=0).round(3))
assert abs(np.mean(values) - (E / 2 - 1) / N) < 0.001

# %% [markdown]
# ## 3. Another order of the parts
#
# Nothing raises: the shapes are the same, and the outputs stay between −1 and 1. The loss is much worse. The right
# conversion exchanges the second and third part and takes the 1 off the bias of the forget gate, since the step adds
# it.


# %%
text = bible.running_text(bible.split().train)[:150_000]
tokeniser = tokenisers.train("words", text, 512)
train_tokens = tokeniser.encode(text)
config = lstm_moe.Config(
    vocabulary=tokeniser.size, d_model=32, experts=8, expert_hidden=32, options={"k": 2}
)


def batch(rng):
    return windows.random_windows(train_tokens, rng, batch=16, length=24)


rng = np.random.default_rng(0)
model = lstm_moe.init(rng, config)
adam = None
for _ in range(60):
    _, step = lstm_moe.loss_and_grads(model, *batch(rng), config, rng=rng)
    model, adam = optim.adamw(model, step, adam, lr=0.01)


def as_read_there(layer):
    """What the other library computes with these arrays, as parameters in our order."""
    H = len(layer["b"]) // 4
    read = {}
    for name, p in layer.items():
        i, g, f, o = np.split(p, 4, axis=-1)
        read[name] = np.concatenate([i, f, g, o], axis=-1)
    read["b"][H : 2 * H] += 1
    return read


def converted(layer):
    """Our parameters as arrays for the other library."""
    H = len(layer["b"]) // 4
    b = layer["b"].copy()
    b[H : 2 * H] -= 1
    arrays = {}
    for name, p in {**layer, "b": b}.items():
        i, f, g, o = np.split(p, 4, axis=-1)
        arrays[name] = np.concatenate([i, g, f, o], axis=-1)
    return arrays


ids, targets = batch(np.random.default_rng(1))
misread = {part: as_read_there(model[part]) for part in ("lstm1", "lstm2")}
right = {part: as_read_there(converted(model[part])) for part in ("lstm1", "lstm2")}
found = {}
for name, layers in (("as trained", {}), ("misread", misread), ("converted", right)):
    logits, _ = lstm_moe.forward({**model, **layers}, ids, config)
    p = np.exp(logits - logits.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    found[name] = -np.log(np.take_along_axis(p, targets[..., None], axis=2)).mean()
    print(f"{name:11s} loss {found[name]:.3f}")
assert found["misread"] > found["as trained"] + 0.2
assert abs(found["converted"] - found["as trained"]) < 1e-4
