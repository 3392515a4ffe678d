# %% [markdown]
# # 19 · Mixtral, end to end: from the files to a text
#
# Afterwards you can open a checkpoint of a model with experts, compute it by hand from the names in its files,
# generate with a key-value cache that changes nothing, choose how to sample, and say which routers a language model
# must refuse.
#
# Mixtral 8x7B has 93 GB of weights. So we make a folder with the same names and a model of the same kind, small and
# random; everything that reads it would read the large one. For text we take the small trained Mixtral that comes
# with the package. Lesson 17 has derived the block; lesson 14 has counted it.
#
# | symbol | in code | small folder | meaning |
# |---|---|---|---|
# | $V, D, L$ | `vocab_size`, `hidden_size`, `num_hidden_layers` | 64, 24, 2 | vocabulary, features per token, layers |
# | $H_q, H_k, d$ | `num_attention_heads`, `num_key_value_heads`, `head_dim` | 6, 3, 8 | heads of queries, of keys and values, their width |
# | $E, k$ | `num_local_experts`, `num_experts_per_tok` | 4, 2 | experts per layer, and per token |
# | $H$ | `intermediate_size` | 20 | hidden units of an expert |
# | $T$ | `len(ids)` | | tokens so far |
# | $p$ | `p` | (V,) | probabilities of the next token |
#
# The names in code are those of the file `config.json`. `decoder.Config` says `vocabulary`, `d_model`, `layers`, `heads`,
# `kv_heads`, `d_head`, `experts`, `options["k"]` and `hidden` for them, in this order.

# %%
import json
import pathlib
import tempfile
import textwrap

import matplotlib.pyplot as plt
import numpy as np

from moe_np import accounting, plots, routing
from moe_np.base.checks import InputError
from moe_np.coursework import self_check
from moe_np.language import continuation, shipped_model
from moe_np.models import checkpoint_names, checkpoints, decoder, decoder_config, generation
from moe_np.routing import expert_choice
from moe_np.show import model_plots

plt.rcParams.update(plots.STYLE)

# %% [markdown]
# ## 1. What is in the folder
#
# A checkpoint is a `config.json` with the sizes and one or several `.safetensors` files with the arrays. The format
# is simple: 8 bytes that say how long the header is, the header as JSON, then the numbers, one array after the other.
#
# **Predict.** How many arrays does a Mixtral with 2 layers and 4 experts have? (Per layer: two norms, four matrices
# of attention, the router, three matrices per expert. Once: embedding, last norm, head.)

# %%
small = decoder.Config(
    vocabulary=64,
    d_model=24,
    layers=2,
    heads=6,
    kv_heads=3,
    d_head=8,
    experts=4,
    hidden=20,
    context=64,
)
with tempfile.TemporaryDirectory() as folder:
    checkpoints.save(folder, small, decoder.init(np.random.default_rng(0), small))
    files = {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}
print({name: f"{len(content):,} bytes" for name, content in sorted(files.items())})

settings = json.loads(files["config.json"])
content = files["model.safetensors"]
length = int.from_bytes(content[:8], "little")
header = json.loads(content[8 : 8 + length])
numbers = content[8 + length :]
header.pop("__metadata__")
arrays = {}
for name, facts in header.items():
    start, end = facts["data_offsets"]
    arrays[name] = np.frombuffer(numbers[start:end], np.float32).reshape(facts["shape"])

print(len(arrays), "arrays; those of layer 0, of one of its experts, and of no layer:")
for name, array in arrays.items():
    if ".layers.1." not in name and not any(f".experts.{m}." in name for m in (0, 1, 2)):
        print(f"  {name:52s} {array.shape}")
assert len(arrays) == 3 + 2 * (2 + 4 + 1 + 3 * 4)

# %% [markdown]
# **Answer.** 41. Look at the shapes: matrices are stored as (out, in), so that a forward pass is `x @ W.T`. Here,
# `load` turns them round and puts the experts of a layer into one array.
#
# ## 2. Load it
#
# `load` checks that every array of the files is used and every parameter is filled. What `config.json` says is read
# there and never guessed from the shapes of the arrays.
#
# **Predict.** We rename one array before loading. What should happen: an error, a random matrix in its place, or
# zeros?


# %%
def loaded(content):
    """`checkpoints.load` of a folder with these arrays and the config.json of above."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "config.json").write_bytes(files["config.json"])
        pathlib.Path(folder, "model.safetensors").write_bytes(content)
        return checkpoints.load(folder)


config, params = loaded(content)
w1_of_expert_3 = arrays["model.layers.0.block_sparse_moe.experts.3.w1.weight"]
print("the experts' w1 of layer 0, here:", params["layers"][0]["experts"]["w1"].shape)
assert config == small
assert np.array_equal(params["layers"][0]["experts"]["w1"][3], w1_of_expert_3.T)

renamed = content.replace(b"experts.3.w1.weight", b"experts.3.w9.weight", 1)
try:
    loaded(renamed)
except InputError as error:
    print("refused:", str(error).partition("; ")[2])
else:
    raise AssertionError("it should have been refused")

# %% [markdown]
# **Answer.** An error that lists the names. A loader that goes on all the same runs a model with one random matrix,
# and nothing in its output says so (errata 31).
#
# ## 3. One pass by hand
#
# From the arrays and their names alone, with the equations of lesson 17. Four facts are in no shape: query head $h$
# reads key head $h \mathbin{//} (H_q/H_k)$; an expert is $w_2(\text{silu}(w_1 x) \odot w_3 x)$; the rotation pairs the
# first half of a head with the second; and the weights of the chosen experts are divided by their sum.
#
# **Predict.** Somebody takes $w_1$ for $w_3$ and $w_3$ for $w_1$ in every expert. What comes out: an error, NaN, the
# same logits, or others?


# %%
def rms_norm(g, x):
    return g * x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + settings["rms_norm_eps"])


def softmax(S):
    e = np.exp(S - S.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rotate(a):
    """(T, d): pairs (i, i + d/2) turned by position · θ^(−2i/d)."""
    half = a.shape[1] // 2
    angle = np.arange(len(a))[:, None] * settings["rope_theta"] ** (-np.arange(half) / half)
    first, second = a[:, :half], a[:, half:]
    turned = first * np.cos(angle) - second * np.sin(angle)
    return np.concatenate([turned, second * np.cos(angle) + first * np.sin(angle)], axis=1)


def attention_by_hand(arrays, name, h, key_head):
    d = settings["head_dim"]
    q = h @ arrays[f"{name}.q_proj.weight"].T
    k = h @ arrays[f"{name}.k_proj.weight"].T
    v = h @ arrays[f"{name}.v_proj.weight"].T
    later = np.triu(np.ones((len(h), len(h)), bool), 1)
    joined = np.empty_like(q)
    for head in range(settings["num_attention_heads"]):
        mine = slice(head * d, (head + 1) * d)
        theirs = slice(key_head(head) * d, (key_head(head) + 1) * d)
        S = rotate(q[:, mine]) @ rotate(k[:, theirs]).T / np.sqrt(d)
        joined[:, mine] = softmax(np.where(later, -np.inf, S)) @ v[:, theirs]
    return joined @ arrays[f"{name}.o_proj.weight"].T


def experts_by_hand(arrays, name, h):
    logits = h @ arrays[f"{name}.gate.weight"].T
    out = np.zeros_like(h)
    for t in range(len(h)):
        best = np.argsort(-logits[t], kind="stable")[: settings["num_experts_per_tok"]]
        for m, weight in zip(best, softmax(logits[t, best]), strict=True):
            w1, w2, w3 = (arrays[f"{name}.experts.{m}.w{i}.weight"] for i in (1, 2, 3))
            a = w1 @ h[t]
            out[t] += weight * (w2 @ (a / (1 + np.exp(-a)) * (w3 @ h[t])))
    return out


def repeated(head):
    """Query heads 0, 1 read key head 0, then 2, 3 read 1, and 4, 5 read 2."""
    return head // (settings["num_attention_heads"] // settings["num_key_value_heads"])


def logits_by_hand(arrays, ids, key_head=repeated):
    x = arrays["model.embed_tokens.weight"][ids]
    for i in range(settings["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        h = rms_norm(arrays[f"{layer}.input_layernorm.weight"], x)
        x = x + attention_by_hand(arrays, f"{layer}.self_attn", h, key_head)
        h = rms_norm(arrays[f"{layer}.post_attention_layernorm.weight"], x)
        x = x + experts_by_hand(arrays, f"{layer}.block_sparse_moe", h)
    x = rms_norm(arrays["model.norm.weight"], x)
    return x @ arrays["lm_head.weight"].T


ids = np.random.default_rng(1).integers(0, small.vocabulary, 12)
expected, _ = decoder.forward(params, ids[None], config)
size = np.abs(expected).max()
print("by hand against moe_np.models.decoder, relative to the largest logit:")
print(
    f"   as it should be     {np.abs(logits_by_hand(arrays, ids) - expected[0]).max() / size:.1e}"
)


def swapped(name):
    return name.replace(".w1.", ".w0.").replace(".w3.", ".w1.").replace(".w0.", ".w3.")


wrong_experts = logits_by_hand({swapped(name): array for name, array in arrays.items()}, ids)
print(f"   w1 and w3 swapped   {np.abs(wrong_experts - expected[0]).max() / size:.1e}")
tiled = logits_by_hand(arrays, ids, key_head=lambda head: head % settings["num_key_value_heads"])
print(f"   heads in turn       {np.abs(tiled - expected[0]).max() / size:.1e}")
np.testing.assert_allclose(logits_by_hand(arrays, ids), expected[0], atol=1e-4 * size)
assert np.abs(wrong_experts - expected[0]).max() > 0.01 * size

# %% [markdown]
# **Answer.** Other logits, and nothing else: both matrices have the same shape, and SwiGLU is not symmetric in them.
# The same is true of query heads that read the key heads in turn (0, 1, 2, 0, 1, 2) and not in groups (errata 22), of
# a rotation in the other layout (errata 21), and of two weights that are not divided by their sum. **Only a
# comparison of numbers finds these.** The tests of this package hold every family that it reads against another
# implementation, all gradients included.
#
# ## 4. Counts
#
# The same names with the sizes of the paper (Jiang and others 2024, arXiv 2401.04088, Table 1).
#
# **Predict.** Lesson 14 counted 46.7 billion parameters. How many *arrays* are they in, and which share of the
# numbers is in the experts?

# %%
mixtral_8x7b = decoder.Config(
    vocabulary=32000,
    d_model=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    d_head=128,
    experts=8,
    hidden=14336,
    theta=1e6,
    context=32768,
)
parts = checkpoint_names.parts(mixtral_8x7b, checkpoint_names.MIXTRAL_EXPERTS, ())
shapes = {piece.name: piece.shape for pieces in parts.values() for piece in pieces}
total = sum(int(np.prod(shape)) for shape in shapes.values())
of_experts = sum(int(np.prod(shape)) for name, shape in shapes.items() if ".experts." in name)
active = total - of_experts * (8 - 2) // 8  # six of eight experts of each layer are not used
print(f"{len(shapes)} arrays, {total:,} parameters, {active:,} of them active")
print(f"in the experts: {of_experts / total:.1%};  bfloat16: {2 * total / 1e9:.0f} GB")

counted = accounting.count(decoder_config.architecture(mixtral_8x7b))
assert (total, active) == (counted.total, counted.active) == (46_702_792_704, 12_879_925_248)

# %% [markdown]
# **Answer.** 995 arrays; 96.6 % of the numbers are in the experts. 46.7B and 12.9B, as published, from the names in
# the files.
#
# ## 5. Generation, and why a cache changes nothing
#
# Greedy generation: compute the logits of the last position, take the largest, append it, and again. Now to the model
# with trained weights.
#
# **Predict.** The prompt has 3 tokens and we add 60. How many positions does the plain loop compute altogether, and
# how many are needed if nothing is computed twice?

# %%
model, tokeniser = shipped_model.load()
prompt = tokeniser.encode("And God said")[None]  # (1, 3)
NEW = 60


def without_cache():
    text = prompt
    positions = 0
    for _ in range(NEW):
        logits, _ = decoder.forward(model.params, text, model.config)  # everything, again
        positions += text.shape[1]
        text = np.concatenate([text, logits[:, -1:].argmax(axis=-1)], axis=1)
    return text, positions, logits[:, -1]


def with_cache():
    logits, state = generation.prefill(model.params, prompt, model.config)
    positions = prompt.shape[1]
    text = prompt
    for n in range(NEW):
        token = logits.argmax(axis=-1)
        text = np.concatenate([text, token[:, None]], axis=1)
        if n < NEW - 1:
            logits, state = generation.step(model.params, token, state, model.config)  # one
            positions += 1
    return text, positions, logits


slow, slow_positions, slow_logits = without_cache()
fast, fast_positions, fast_logits = with_cache()
print(f"positions computed: {slow_positions} without a cache, {fast_positions} with one")
print("the same text:", np.array_equal(slow, fast))
print(f"largest difference of the last logits: {np.abs(slow_logits - fast_logits).max():.1e}")
print(textwrap.fill(tokeniser.decode(fast[0]), 76))
assert np.array_equal(slow, fast) and slow_positions == 60 * 3 + 60 * 59 // 2

# %% [markdown]
# **Answer.** 1,950 against 62. The cache holds the keys and values of all earlier positions. They never change,
# *because* the mask is causal: what stands at position 5 does not depend on what comes later. A step needs one row of
# queries.
#
# The price is memory: $2 \cdot L \cdot H_k \cdot d$ numbers per token. For Mixtral in bfloat16 that is 131,072 bytes
# per token, 4.3 GB for a text of 32,768; with as many key heads as query heads it would be 17 GB.
#
# And look at the text. The most probable token, always, ends in a loop.
#
# ## 6. Sampling
#
# So draw from the probabilities, after changing them a little:
#
# - **temperature** $\tau$: $p = \text{softmax}(\text{logits} / \tau)$. Small: nearly the largest only. Large: nearly
#   uniform.
# - **top-k**: only the $k$ most probable tokens are left, divided by their sum.
# - **top-p**: the fewest of the most probable tokens that have $p$ together; the token that crosses the line is kept
#   (Holtzman and others 2020, arXiv 1904.09751).
#
# **Predict.** After "And God said" the model gives .70 to " unto", .21 to "," and .06 to " to". How many tokens does
# top-p with .9 keep at temperature 1? Will it keep more or fewer at temperature 2?

# %%
next_logits, _ = generation.prefill(model.params, prompt, model.config)
p = softmax(next_logits[0].astype(np.float64))
probable = np.argsort(-p, kind="stable")[:8]
names = [repr(tokeniser.decode([token]))[1:-1].replace(" ", "·") for token in probable]

p_of_temperature = {}
kept = {}
for temperature in (0.5, 1.0, 2.0):
    whole = generation.probabilities(next_logits, temperature=temperature)[0]
    cut = generation.probabilities(next_logits, temperature=temperature, top_p=0.9)[0]
    p_of_temperature[temperature] = whole[probable]
    kept[temperature] = np.count_nonzero(cut)
    print(f"temperature {temperature}: top-p .9 keeps {kept[temperature]} of {len(whole)} tokens")
fig, axes = plt.subplots(1, 3, figsize=(12, 3.6))
for ax, (temperature, p_there) in zip(axes, p_of_temperature.items(), strict=True):
    model_plots.next_tokens(ax, names, p_there, kept[temperature])
    ax.set_title(f"temperature {temperature}")
plt.show()

top_2 = np.where(p >= np.sort(p)[-2], p, 0)  # top-k with k = 2, by hand
np.testing.assert_allclose(
    top_2 / top_2.sum(), generation.probabilities(next_logits, top_k=2)[0], rtol=1e-6
)
assert kept[0.5] <= kept[1.0] == 2 < kept[2.0]

# %% [markdown]
# **Answer.** Two (blue): .70 + .21 crosses .9. At temperature 2 there are more, because the temperature comes first
# and spreads the probability over more tokens: the order matters (errata 34).

# %%
for cut in (
    {"temperature": 0.0},
    {"temperature": 0.7},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.5},
):
    pieces = continuation.continue_text(
        model, tokeniser, "And God said", tokens=45, rng=np.random.default_rng(1), **cut
    )
    text = "".join(piece.text for piece in pieces).replace("\n", " ")
    print(cut)
    print(textwrap.indent(textwrap.fill(text, 72), "    "))

# %% [markdown]
# See the loop at temperature 0, and words that do not exist at 1.5: so many improbable tokens have a little probability
# each that one of them is drawn soon. Top-p cuts this tail off.
#
# ## 7. Which routers a language model must refuse
#
# Lesson 11 has routers in which the experts choose their tokens, so that every expert is exactly full. No balance
# loss is needed.
#
# **Predict.** Eight tokens, experts that take two each. We change the *last* token. Can the experts of the *first*
# one change? What would that mean for training, and what for generation?

# %%
rng = np.random.default_rng(2)
gate = expert_choice.init(rng, 6, 4)
tokens = rng.normal(size=(8, 6))
before, _ = expert_choice.route(gate, tokens, capacity_factor=1.0)
for _ in range(100):  # some last tokens change nothing: take one that does
    other = tokens.copy()
    other[-1] = 3 * rng.normal(size=6)
    after, _ = expert_choice.route(gate, other, capacity_factor=1.0)
    earlier = [
        t
        for t in range(7)
        if set(before.expert[before.token == t]) != set(after.expert[after.token == t])
    ]
    if earlier:
        break
print("tokens before the last one whose experts have changed:", earlier)
assert earlier

for name in sorted(routing.routers()):
    try:
        decoder.check(small._replace(router=name, options={}))
    except InputError:
        print(f"   {name:20s} refused in a decoder")
    else:
        print(f"   {name:20s} accepted")

limited = small._replace(router="switch", options={"capacity_factor": 1.25})
decoder.check(limited)  # for training
try:
    generation.check_router(limited)
except InputError as error:
    print("\nSwitch's router with a capacity, in generation:")
    print(textwrap.indent(textwrap.fill(str(error), 72), "    "))

# %% [markdown]
# **Answer.** Yes. In training, whether an early token is taken says something about the later ones, which are the
# very tokens that it has to predict: the loss becomes too good. In generation the later tokens do not exist yet, so
# the model computes something else than it was trained for. `decoder.check` refuses such routers in both (errata 13).
# Of the five, three look at the whole batch; GShard and ST-MoE give all first choices their places before any second
# one.
#
# A *capacity* is a second case. Switch's places are given in the order of the tokens, so nobody sees the future. But
# the tokens of *other* sequences count as well, and a step with one token drops others than the whole pass: it is
# allowed in training and refused in generation.
#
# ## Your turn
#
# Write top-p for one distribution: keep the fewest of the most probable tokens whose sum is at least `share`, with
# the token that crosses, and divide by their sum. Among equally probable tokens the lower number comes first.


# %%
def nucleus(p, share):
    """p (V,), sum 1; 0 < share <= 1 -> the cut distribution (V,)."""
    # your code here
    return None


def reference(p, share):
    return generation.probabilities(np.log(p)[None], top_p=share)[0]


def cases(rng):
    yield np.full(4, 0.25), 0.5
    yield np.array([0.7, 0.2, 0.1]), 0.65
    for share in (0.1, 0.5, 0.9, 1.0):
        yield rng.dirichlet(np.full(12, 0.5)) + 1e-9, share


self_check(nucleus, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Make the small folder again for OLMoE's layout: `qk_norm="whole"` and `options={"k": 2,
#    "renormalise": False}`. Which key of `config.json` says that weights are not renormalised? Turn it round in the
#    file and load again. What warns you?
# 2. **Derive.** A prompt of $m$ tokens and $n$ new ones: how many positions are computed without and with a cache?
#    Check with section 5. From which $n$ on, for $m = 1000$, is the plain loop more than 100 times the work?
# 3. **Break it.** Bring the columns of `wq` and `wk` of the shipped model into the other layout of pairs
#    (`moe_np.layers.rotary.interleaved_to_half`), as a wrong converter would. Measure the loss on a held-out text by
#    the position in the window. At which position is nothing wrong? Why?
#
# Solutions: `lessons/solutions/19_mixtral.py`.
#
# Next: 20, experts between LSTM layers, 2017.
