# %% [markdown]
# # 18 · A transformer with experts, trained on real text
#
# Afterwards you can train a small language model with experts on a text, say what its loss is worth, and measure what
# its experts took up, against what chance would give.
#
# Lesson 17 built one block. Here a few of them, with an embedding below and a head above, learn to say the next token
# of the King James Bible. It comes with the package, and whole books of it are held out.
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $V$ | `tokeniser.size` | | tokens of the vocabulary, 1,024 |
# | $B, T$ | `ids.shape` | | windows of text per update, tokens per window |
# | ids | `ids` | (B, T) | token numbers |
# | targets | `targets` | (B, T) | the token that follows each of them |
# | $p_n$ | | | probability that the model gives to the right next token $n$ |
# | loss | `loss.task` | | mean of $-\ln p_n$, in nats per token; its exponential is the *perplexity* |
# | $E$ | `config.experts` | | experts per layer, 8; each token goes to 2 |
# | – | `first` | (N,) | the expert with the larger weight, of each of N tokens |

# %%
import textwrap

import matplotlib.pyplot as plt
import numpy as np

from moe_np import plots
from moe_np.base import optim
from moe_np.base.params import leaves
from moe_np.coursework import self_check
from moe_np.data.text import bible, windows
from moe_np.language import continuation, shipped_model
from moe_np.language.model_files import Model
from moe_np.layers import specialisation
from moe_np.models import decoder
from moe_np.show import lesson_plots, model_plots

plt.rcParams.update(plots.STYLE)

# %% [markdown]
# ## 1. From text to tokens
#
# A *tokeniser* cuts the text into pieces of a fixed vocabulary. This one knows 1,024: the 256 bytes, and 768 pieces
# that it made by merging the most frequent pair of neighbours, again and again (byte-pair encoding). It was made for
# the small model that comes with the package, and we use it too.
#
# **Predict.** Into how many tokens does it cut "And Ruth said, Intreat me not to leave thee"? Which words will be
# whole?

# %%
shipped, tokeniser = shipped_model.load()
sentence = "And Ruth said, Intreat me not to leave thee"
print([tokeniser.decode([number]) for number in tokeniser.encode(sentence)])

split = bible.split()
train_text = bible.running_text(split.train)[:1_000_000]  # a quarter of it is enough here
train_tokens = tokeniser.encode(train_text)
held_out_tokens = tokeniser.encode(bible.running_text(split.validation)[:60_000])
print(f"{len(train_tokens):,} tokens to train on, {len(held_out_tokens):,} held out")
assert tokeniser.decode(train_tokens[:5000]) in train_text

# %% [markdown]
# **Answer.** Frequent words are one token, with the space before them; rare ones fall into pieces. Every text can be
# written, since every byte is a token. Held out are whole books (Esther, Ecclesiastes, Romans) and not random verses:
# the Bible tells many stories twice in the same words.
#
# ## 2. What is a good loss?
#
# The model gives a probability to each of the $V$ tokens, and the loss is the mean of $-\ln p_n$ of the right ones.
# Three models need no training and say what the number is worth:
#
# - **uniform**: every token has $1/V$;
# - **frequencies**: every token has its share of the training text;
# - **pairs**: the share after the token before it, counted in the training text (mixed with the frequencies, since
#   most pairs never occur).
#
# **Predict.** The uniform loss is $\ln 1024 = 6.93$. What do you expect for the two others: 6, 5, 4, 3?

# %%
count = np.bincount(train_tokens, minlength=tokeniser.size) + 1
frequency = count / count.sum()
pairs = np.zeros((tokeniser.size, tokeniser.size))
np.add.at(pairs, (train_tokens[:-1], train_tokens[1:]), 1)  # adds up pairs that occur twice
mixed_in = 100
after = (pairs + mixed_in * frequency) / (pairs.sum(axis=1, keepdims=True) + mixed_in)

before_it = held_out_tokens[:-1]
token = held_out_tokens[1:]
baselines = {
    "uniform": np.log(tokeniser.size),
    "frequencies": -np.log(frequency[token]).mean(),
    "pairs": -np.log(after[before_it, token]).mean(),
}
for name, loss_of_name in baselines.items():
    print(f"{name:12s} {loss_of_name:.2f} nats, perplexity {np.exp(loss_of_name):6.1f}")
assert baselines["pairs"] < baselines["frequencies"] < baselines["uniform"]

# %% [markdown]
# Perplexity is the number of tokens among which one would have to guess. A language model that does not get below the
# pairs has learned less than a table.
#
# ## 3. The model
#
# Two blocks of lesson 17. Every feed-forward network is a router and 8 SwiGLU experts, of which a token uses 2.


# %%
config = decoder.Config(
    vocabulary=tokeniser.size,
    d_model=48,
    layers=2,
    heads=3,
    kv_heads=1,
    d_head=16,
    experts=8,
    hidden=32,
    context=64,
    tied=True,  # the head is the embedding, transposed
)
for name, array in leaves(decoder.init(np.random.default_rng(0), config)).items():
    if not name.startswith("layers.1"):  # as layer 0
        print(f"{name:28s} {array.shape}")

# %% [markdown]
# ## 4. Train it
#
# This is the whole training loop: draw windows, loss and gradients, update. The loss that is trained also has a
# load-balancing loss per layer with the coefficient 0.01 (lesson 09); `loss.task` is without it.
#
# *The gradient* begins at the logits, with what lesson 00b has found: probabilities minus labels, here divided by the
# number of targets, since the loss is a mean. A position without a target (padding, target −1) has no gradient and is
# not counted. From there it goes down through the blocks, as in lesson 17.
#
# *The update* is AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101). It keeps two running means per parameter, of its
# gradient, $m \leftarrow \beta_1 m + (1 - \beta_1)\,g$, and of its square, $v \leftarrow \beta_2 v + (1 - \beta_2)\,g^2$, and
# makes the step $-\eta\, m / \sqrt{v}$ with the learning rate $\eta$: against the sign of the mean gradient, and of at most
# about the size $\eta$, whatever the size of the gradients is. (Both means begin at 0, so they are divided by $1 - \beta^t$ in
# update $t$, and a small number stands beside the root.) *Weight decay* also multiplies each matrix by a little less
# than 1 per update; it is 0 here. An expert without tokens has the gradient 0 and moves even so, by its mean $m$ (errata
# 29).
#
# The next cell takes 5 to 20 seconds.
#
# **Predict.** 200 updates of 16 · 64 tokens. When does the loss pass the line of the frequencies? Will it pass the
# pairs?


# %%
def train(config, updates, balance=decoder.SWITCH_LOSS, report=25):
    """-> params, the losses, and the share of each expert of the last layer, by update."""
    rng = np.random.default_rng(0)
    params = decoder.init(rng, config)
    state = None
    losses = []
    shares = []
    for update in range(updates):
        ids, targets = windows.random_windows(train_tokens, rng, batch=16, length=64)
        loss, grads = decoder.loss_and_grads(params, ids, targets, config, losses=balance)
        rate = 0.01 * min(1, (update + 1) / 10)  # warm-up: small steps first
        params, state = optim.adamw(params, grads, state, lr=rate)
        losses.append(loss.task)
        demand = loss.routings[-1].demand  # (N, E)
        shares.append(demand.sum(axis=0) / demand.sum())
        if update % report == 0:
            print(f"update {update:3d}   loss {loss.task:.3f}   {'■' * int(8 * loss.task)}")
    return params, losses, shares


params, losses, shares = train(config, updates=200)
fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4))
model_plots.loss_with_baselines(left, losses, baselines)
left.set_title("loss on the batch (dashed: on the held-out books)")
model_plots.shares_by_update(right, shares)
right.set_title("the 8 experts of the last layer (dashed: 1/8)")
plt.show()

held_ids, held_targets = windows.random_windows(
    held_out_tokens, np.random.default_rng(1), batch=64, length=64
)
held_out = decoder.loss(params, held_ids, held_targets, config).task
held_out_shipped = decoder.loss(shipped.params, held_ids, held_targets, shipped.config).task
print(f"held out: {held_out:.2f} nats after 200 updates")
print(f"          {held_out_shipped:.2f} nats for the shipped model, after 2,500 larger ones")
assert abs(losses[0] - np.log(tokeniser.size)) < 0.05
assert held_out_shipped < baselines["pairs"] < held_out < baselines["frequencies"]

# %% [markdown]
# **Answer.** It begins at the uniform line: the head is small at first, so that all tokens are about equally
# probable. In some ten updates it learns the frequencies, and rests a little below them until about update 40. Then it
# learns which token follows which. The curve goes below the line of the pairs, but take care: the curve is the loss on
# the text that it trains on, and the dashed lines are for the held-out books. There it has *not* reached the table of
# pairs after 200 updates: that table has a million numbers and has seen the whole text. The shipped model is far below
# it (half a million parameters, 4 layers, six minutes of training on two cores).
#
# On the right you see a router find its way: at first all tokens rush from expert to expert (½ is the most that an
# expert can have, since every token has two), then the load-balancing loss draws them towards 1/8. Exercise 3 takes it
# away.
#
# ## 5. Let them write
#
# Generation draws a token from the probabilities, appends it, and asks again (lesson 19 says how, and why it is
# fast).
#
# **Predict.** Which of the two will write existing words? Which one sentences?


# %%
def written(model, prompt, seed):
    pieces = continuation.continue_text(
        model, tokeniser, prompt, tokens=55, rng=np.random.default_rng(seed), temperature=0.7
    )
    return "".join(piece.text for piece in pieces)


ours = Model(decoder, config, params)
for name, model in (("after 200 updates", ours), ("shipped", shipped)):
    print(f"{name}:\n{textwrap.fill(written(model, 'And God said', seed=0), 76)}\n")

# %% [markdown]
# **Answer.** Ours makes up many of its words, since it puts pieces together that often stand side by side. The shipped
# model writes nearly only existing words, and parts of sentences that could stand in the book. Neither says anything.
#
# ## 6. Tokens in the colours of their experts
#
# From here on: the shipped model, on books that it has never seen (Ruth and 1 Corinthians). Each token has the colour
# of its *first* expert, the one with the larger weight, once per layer.
#
# **Predict.** Look for one thing before you run: in which layers will all commas have one colour, and does any colour
# stay through a whole clause, as a topic would?

# %%
unseen_text = bible.running_text(bible.of_books(["Ruth", "1Cor"]))
unseen = tokeniser.encode(unseen_text)
length = shipped.config.context
n_windows = 80
unseen_ids = unseen[: n_windows * length].reshape(n_windows, length)
_, cache = decoder.forward(shipped.params, unseen_ids, shipped.config)
n_experts = shipped.config.experts
first_of_layers = [
    specialisation.choices(block.mixture.routing).expert[:, 0] for block in cache.blocks
]
flat = unseen_ids.ravel()

start = len(tokeniser.encode(unseen_text[: unseen_text.index("And Ruth said, Intreat")]))
shown = slice(start, start + 80)
pieces = [tokeniser.decode([number]) for number in flat[shown]]
fig, axes = plt.subplots(4, 1, figsize=(12, 10))
for layer, (ax, first) in enumerate(zip(axes, first_of_layers, strict=True)):
    lesson_plots.coloured_tokens(ax, pieces, list(first[shown]), per_row=80)
    ax.set_title(f"layer {layer}")
plt.show()

# %% [markdown]
# **Answer.** Commas have one colour in every layer. The same is true of most tokens wherever they stand, "thee" and
# "and" among them, with exceptions in the higher layers ("thou" in layer 3). No colour stays for a clause. (A dot is a
# space, ↵ the end of a verse.)
#
# ## 7. What the experts took up
#
# A picture of eighty tokens invites stories, so count. For each expert: the tokens of which it gets the largest
# share, among those that occur at least 40 times (Muennighoff and others 2024, arXiv 2409.02060, table 8).
#
# **Predict.** Expert 1 of layer 1 gets 100 % of five tokens that you have seen above. Which?

# %%
for layer in (1, 3):
    print(f"layer {layer}")
    table = specialisation.top_tokens(
        first_of_layers[layer], flat, (n_experts, tokeniser.size), minimum=40, n=5
    )
    for m, row in enumerate(table):
        text = "  ".join(f"{tokeniser.decode([t.token])!r} {t.share:.0%}" for t in row)
        print(f"  {m}: {text}")

# %% [markdown]
# **Answer.** The marks `,` `.` `:` `;` `?`. In the same layer one expert has "the", "a" and pronouns, one has
# prepositions and "and", one has forms of "to be", one has single letters. Nobody told them. It is grammar and
# spelling, not theology.
#
# Is 100 % a lot? A token that occurs once has 100 % at some expert, whatever the router does. So *shuffle*: give the
# experts to the tokens in a random order and count again. And look at a model that has not been trained at all.
#
# **Predict.** The measure is the share of the commonest expert of a token, averaged over the text. Shuffled, with 8
# experts: 1/8, more or less?


# %%
def measured(params, layers):
    _, cache = decoder.forward(params, unseen_ids, shipped.config)
    rows = []
    for layer in range(layers):
        first = specialisation.choices(cache.blocks[layer].mixture.routing).expert[:, :1]
        rng = np.random.default_rng(0)
        rows.append(
            specialisation.highest_share(
                first, flat, (n_experts, tokeniser.size), rng, minimum=10, permutations=5
            )
        )
    return rows


trained = measured(shipped.params, 4)
untrained = measured(decoder.init(np.random.default_rng(0), shipped.config), 4)
print("         trained    shuffled   |   untrained   shuffled")
for layer in range(4):
    a, b = trained[layer], untrained[layer]
    print(
        f"layer {layer}  {a.value:6.2f}     {a.permuted:6.2f}      | {b.value:8.2f}     {b.permuted:6.2f}"
    )
assert all(m.value > 3 * m.permuted for m in trained)

# %% [markdown]
# **Answer.** More than 1/8: the commonest of several experts is above the mean by chance alone, the more so the rarer
# the token (exercise 2), and the loads are not equal. Against that, the trained model is at .97 in layer 0 and falls
# to .84 in layer 3: **the first expert is nearly a function of the token**, less so in higher layers, where attention
# has brought in more of the surroundings. Untrained, the measure is near its own shuffled value, so this was learned.
#
# > **Said in articles**: "each expert becomes a specialist of a domain, one for law, one for medicine". Mixtral's own
# > authors looked for domains and found syntax instead (Jiang and others 2024, arXiv 2401.04088, section 5).
#
# ## 8. Do neighbours go together?
#
# The same section measures how often two tokens in a row have the same first expert, and compares with 1/8 = 12.5 %.
#
# **Predict.** Three baselines: 1/8; the same experts in a random order; the words in their order, each with the
# expert of a random *other* occurrence of the same word. Which of the three is closest to what is measured in layer
# 3?

# %%
print("         measured   1/8   shuffled   by words")
for layer, first in enumerate(first_of_layers):
    r = specialisation.repetition(
        first[:, None], n_experts, np.random.default_rng(0), ids=flat, permutations=5
    )
    print(
        f"layer {layer}   {r.value:6.3f}  {r.uniform:6.3f}   {r.permuted:6.3f}     {r.by_tokens:6.3f}"
    )
assert r.value > r.by_tokens > r.permuted

# %% [markdown]
# **Answer.** The third. Layer 3 is at twice the chance of 1/8, as Mixtral's middle layers are, and most of that says
# only that some words often stand side by side and share an expert. What is left above the last column is what the
# router knows beyond the word. (In layer 1 neighbours are together *less* often than by chance, and the words explain
# that, too: a comma seldom follows a comma.) A baseline decides what a number says.
#
# ## Your turn
#
# Write the measure of section 7: for every kind of token the share of its commonest expert, averaged over all tokens
# of the text (so a frequent token counts more).


# %%
def commonest_share(first, kinds):
    """first (N,) experts, kinds (N,) token numbers -> a number between 0 and 1."""
    # your code here
    return None


def reference(first, kinds):
    shape = (int(first.max()) + 1, int(kinds.max()) + 1)
    rng = np.random.default_rng(0)
    return specialisation.highest_share(first[:, None], kinds, shape, rng, permutations=1).value


def cases(rng):
    for n_tokens, n_kinds in ((1, 1), (6, 2), (40, 5), (200, 30)):
        yield rng.integers(0, 8, n_tokens), rng.integers(0, n_kinds, n_tokens)


self_check(commonest_share, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Train the dense model with the same operations per token: `config._replace(experts=1,
#    hidden=64)`. Which is ahead after 100 updates, and which would you expect after 10,000? How many seeds would you
#    want before you say so in public?
# 2. **Derive.** A token occurs three times, and 8 experts are equally probable. What is the expected share of its
#    commonest expert? And if it occurs once, or a thousand times?
# 3. **Break it.** Train with `balance=()` and compare the right picture of section 4. Is the *loss* worse after 100
#    updates? What would one notice later?
#
# Solutions: `lessons/solutions/18_transformer.py`.
#
# Next: 19, Mixtral end to end.
