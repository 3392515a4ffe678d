# %% [markdown]
# # 19 · Solutions

# %%
import json
import pathlib
import tempfile

import numpy as np

from moe_np.base import numerics
from moe_np.coursework import self_check
from moe_np.data.text import bible
from moe_np.language import shipped_model
from moe_np.layers import rotary
from moe_np.models import checkpoints, decoder, generation

# %% [markdown]
# ## Hints
#
# 1. Sort by falling probability first (`np.argsort(-p, kind="stable")`), and think of the sum of all *more* probable
#    tokens.
# 2. A token is kept if the sum before it is still below `share`. The one that crosses the line has a sum before it
#    that is below, so it stays by itself.
#
# ## Your turn


# %%
def nucleus(p, share):
    order = np.argsort(-p, kind="stable")
    falling = p[order]
    before = np.cumsum(falling) - falling
    cut = np.zeros_like(p)
    cut[order] = np.where(before < share, falling, 0)
    return cut / cut.sum()


def reference(p, share):
    return generation.probabilities(np.log(p)[None], top_p=share)[0]


def cases(rng):
    yield np.full(4, 0.25), 0.5
    yield np.array([0.7, 0.2, 0.1]), 0.65
    for share in (0.1, 0.5, 0.9, 1.0):
        yield rng.dirichlet(np.full(12, 0.5)) + 1e-9, share


assert self_check(nucleus, reference, cases)

# %% [markdown]
# ## 1. OLMoE, and a key that nothing contradicts
#
# The key is `norm_topk_prob`. Turned round in the file, the model loads without an error and without a warning: no
# shape depends on it. Only the logits are others. (OLMoE and Qwen2-MoE have false, Qwen3-MoE true. It must be read,
# and never guessed.)

# %%
config = decoder.Config(
    vocabulary=64,
    d_model=24,
    layers=2,
    heads=6,
    kv_heads=3,
    d_head=8,
    experts=4,
    hidden=20,
    context=64,
    qk_norm="whole",
    options={"k": 2, "renormalise": False},
)
ids = np.random.default_rng(1).integers(0, 64, (1, 12))
found = {}
with tempfile.TemporaryDirectory() as folder:
    checkpoints.save(folder, config, decoder.init(np.random.default_rng(0), config))
    path = pathlib.Path(folder, "config.json")
    settings = json.loads(path.read_text())
    print("model_type:", settings["model_type"], "  norm_topk_prob:", settings["norm_topk_prob"])
    for value in (False, True):
        path.write_text(json.dumps({**settings, "norm_topk_prob": value}))
        read, params = checkpoints.load(folder)
        found[value], _ = decoder.forward(params, ids, read)
change = np.abs(found[True] - found[False]).max() / np.abs(found[False]).max()
print(f"largest change of a logit, relative to the largest: {change:.2f}")
assert settings["norm_topk_prob"] is False and change > 0.01

# %% [markdown]
# ## 2. Positions
#
# Without a cache, step $i$ (from 0) computes $m + i$ positions: $nm + n(n - 1)/2$ together. With a cache the prompt
# is computed once and each new token but the last once: $m + n - 1$. For $m = 3$, $n = 60$: 1,950 and 62.
#
# For $m = 1000$ the ratio is larger than 100 from $n = 105$ on: there the plain loop computes 110,460 positions and
# the other 1,104. (An attention step still reads all keys that are there, so a step is not free of the length; but it
# does no work for the old positions.)


# %%
def plain(m, n):
    return n * m + n * (n - 1) // 2


def cached(m, n):
    return m + n - 1


first = next(n for n in range(1, 1000) if plain(1000, n) > 100 * cached(1000, n))
print(first, plain(1000, first), cached(1000, first))
assert (plain(3, 60), cached(3, 60)) == (1950, 62)

# %% [markdown]
# ## 3. The wrong layout of pairs
#
# The columns of queries and keys are permuted in the same way, so all lengths and all products of an *unturned* query
# with an unturned key are right, and nothing raises. But now other features are turned together. At position 0 the
# angle is 0 and a token attends to itself alone: there every number is exactly right. Further on the loss is worse.
# Large models have been seen to write well for some twenty tokens in this state, which is how such converters get
# published.

# %%
model, tokeniser = shipped_model.load()
broken = {
    **model.params,
    "layers": [
        {
            **layer,
            "attention": {
                **layer["attention"],
                "wq": rotary.interleaved_to_half(layer["attention"]["wq"], model.config.heads),
                "wk": rotary.interleaved_to_half(layer["attention"]["wk"], model.config.kv_heads),
            },
        }
        for layer in model.params["layers"]
    ],
}
text = tokeniser.encode(bible.running_text(bible.of_books(["Ruth"])))
T = 64
windows = text[: len(text) // T * T].reshape(-1, T)


def loss_by_position(params):
    logits, _ = decoder.forward(params, windows, model.config)
    log_p = numerics.log_softmax(logits[:, :-1].astype(np.float64).reshape(-1, logits.shape[2]))
    targets = windows[:, 1:].ravel()
    losses = -log_p[np.arange(len(targets)), targets]
    return losses.reshape(len(windows), T - 1).mean(axis=0), logits


right, right_logits = loss_by_position(model.params)
wrong, wrong_logits = loss_by_position(broken)
print("position         right   wrong layout")
for name, where in (("0", slice(0, 1)), ("1 to 7", slice(1, 8)), ("8 to 62", slice(8, 63))):
    print(f"{name:14s} {right[where].mean():7.2f} {wrong[where].mean():10.2f}")
np.testing.assert_allclose(right_logits[:, 0], wrong_logits[:, 0], rtol=1e-4, atol=1e-4)
assert wrong[8:].mean() > right[8:].mean() + 0.2
