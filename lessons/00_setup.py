# %% [markdown]
# # 00 · Start here: what a mixture of experts is, and how this course works
#
# Afterwards you can say what a mixture of experts is, why the largest language models are built from them, and what a
# token is; you have walked through a computation step by step; and you know which lessons are for you.
#
# Run a cell with Shift+Enter. The first one loads what this page needs. Wherever it says *Predict*, write down what you
# expect before you run the next cell: a guess will do (section 6 says why).

# %%
import matplotlib.pyplot as plt
import numpy as np

from moe_np import accounting, plots
from moe_np.coursework import self_check
from moe_np.language import continuation, shipped_model
from moe_np.routing import top_k
from moe_np.show import diagrams, lesson_plots, walk
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)
print("ready, with NumPy", np.__version__)

# %% [markdown]
# ## 1. A sentence, and who worked on it
#
# This package comes with a small language model, trained on the King James Bible. Like every language model it reads
# **tokens**: pieces of text, often a word with the space before it, sometimes a part of a word. Each token becomes a
# row of numbers, a *vector*, and the model changes these vectors layer by layer until it can say which token comes next.
#
# In this model, a layer has eight small nets, its **experts**. A token does not go through all of them. A **router**
# looks at its vector and sends it to two. Below, each token has the colour of the expert that got the larger weight.
#
# **Predict.** Nobody told the router which expert is for which words. Will the colours look random?

# %%
model, tokeniser = shipped_model.load()
text = (
    "And God said, Let there be light: and there was light. And God saw the light, that it was "
    "good: and God divided the light from the darkness."
)
pieces = list(continuation.continue_text(model, tokeniser, text, tokens=0, temperature=0))
LAYER = 3  # of the layers 0 to 3; try the others
first = [piece.experts[LAYER][0] for piece in pieces if piece.text]
words = [piece.text for piece in pieces if piece.text]

fig, ax = plt.subplots(figsize=(11, 2.6))
lesson_plots.coloured_tokens(ax, words, first)
plt.show()
print(len(words), "tokens; in each layer every token runs 2 of 8 experts")
assert len({expert for word, expert in zip(words, first, strict=True) if word == " God"}) == 1

# %% [markdown]
# (A dot stands for a space.) Not random: "God" has one colour every time, so has "li", and so has "ght"; the commas,
# colons and full stops share one. The router has *learned* to sort the tokens while the model learned to write. What it sorts by is not
# what one might hope for: it is mostly the token itself, not its topic.
#
# ## 2. Where the experts are
#
# A large language model is a stack of equal **blocks**. A block has two parts. In *attention* the tokens look at each
# other. Then comes a part that works on each token alone. In an ordinary model, which is called *dense*, that part is one
# **feed-forward net**: a matrix, a function that bends each number, another matrix. In a mixture of experts it is a
# router and many such nets, of which a token uses a few. This part is called a **sparse layer**.
#
# Read the drawing from the bottom to the top. A grey line carries the vector past a part, and what the part computes is
# added to it; "norm" gives all vectors about the same length. (Lesson 17 builds the whole block.)
#
# **Predict.** The layer in the drawing adds the answers of experts 1 and 5, with the weights 0.7 and 0.3. What would it
# cost to have 64 experts and still use two?

# %%
fig, ax = plt.subplots(figsize=(12, 7.2))
diagrams.transformer_block(ax)
plt.show()

# %% [markdown]
# **Answer.** The work per token stays the same, but for a longer list of scores in the router. The memory for the
# parameters grows eightfold. That is the bargain:
#
# ## 3. Why the largest models are built like this
#
# A model knows more if it has more parameters. But each parameter that a token passes costs a multiplication and an
# addition, for every token, in training and afterwards. **A mixture of experts separates the two: it has many
# parameters and uses few of them per token.** The price is memory, and the trouble of sending tokens around.
#
# **Predict.** Mixtral has 8 experts per layer and uses 2. Is its share of parameters in use a quarter, more or less?
#
# (In the picture the dark part is what a token uses. The axis is logarithmic, because the models differ so much in size:
# read the share from the numbers, not from the lengths.)

# %%
NAMES = ("mixtral-8x7b", "deepseekmoe-16b", "grok-1", "glam-64b-64e", "switch-base")
counts = [accounting.count(name) for name in NAMES]
fig, ax = plt.subplots(figsize=(9, 3.4))
lesson_plots.bars_of_parameters(
    ax, NAMES, [c.active / 1e9 for c in counts], [c.total / 1e9 for c in counts]
)
plt.show()
print(f"Mixtral 8x7B: a token uses {counts[0].active / counts[0].total:.0%} of the parameters")

# %% [markdown]
# **Answer.** A little more, because attention is not divided among experts. Lesson 14 counts this by hand. The models
# are from Jiang and others 2024 (Mixtral), Dai and others 2024 (DeepSeekMoE), Du and others 2021 (GLaM) and Fedus et al.
# 2021 (Switch); the sizes of Grok-1 are those of its published weights.
#
# Articles like to compare it with medicine: a general practitioner (the router) sends each patient to one or two
# specialists (the experts), and the clinic as a whole knows more than any doctor. The picture is right in one way: only
# the chosen ones work. It misleads in two. Nobody decides beforehand what a specialist is for, and patients are sent on
# after every layer, so that "an expert" has no subject that one could name. [What articles say](site/articles.md)
# collects 26 such sentences with what is right.
#
# ## 4. A mixture in five lines
#
# The idea is older than language models and needs none. Three words: an **expert** is a model, often a small one. A
# **gate** (a router, in sparse layers) looks at the input and gives each expert a weight. The weighted sum of the
# experts' answers is the answer of the **mixture**.
#
# Here is a toy of which the articles are fond. The input is a whole number $n$. One expert knows what to do with even
# numbers, $n / 2$, the other with odd ones, $3n + 1$. The gate looks whether $n$ is odd.
#
# **Predict.** What does the mixture answer for 7, with the gate? And what if both experts always have the weight ½?

# %%
n = np.array([3, 4, 7, 10])
outputs = np.stack([n / 2, 3 * n + 1], axis=1)  # a row per input, a column per expert
odd = n % 2
gate = np.stack([1 - odd, odd], axis=1)  # weights: each row sums to 1
print("with the gate:     ", (gate * outputs).sum(axis=1))
print("weights ½, ½:      ", (0.5 * outputs).sum(axis=1))
assert np.array_equal((gate * outputs).sum(axis=1), np.where(odd, 3 * n + 1, n / 2))

# %% [markdown]
# The last line is the difference to an **ensemble**. In an ensemble every model is trained on everything, all of them
# answer, and one takes the mean: it makes good models a little better. In a mixture each expert is good for a part only,
# and the gate, which reads the input, decides which part. The mean of an expert for even numbers and one for odd numbers
# is good for nothing. Here the gate was given. That it can be *learned* together with the experts, from answers alone, is
# what lessons 01 to 04 are about.
#
# ## 5. Stepping
#
# Everything in this package can be walked through, one operation at a time. An array is written with the names of its
# axes. Four letters are enough for now: **N** tokens (rows), **D** features of a token (columns), **E** experts, and
# **k** experts that a token goes to. All others are introduced where they are needed, and stand in one
# [table](site/notation.md).
#
# Six tokens, four experts, two experts per token. The router's scores are called **logits**. They become probabilities,
# and with `renormalise=True` those of the two chosen experts are divided by their sum. `next(steps)` makes one step and
# prints the state: its equation, and the arrays that are new.

# %%
rng = np.random.default_rng(0)
N, D, E, k = 6, 3, 4, 2
x = rng.normal(size=(N, D))
router = top_k.init(rng, D, E)  # {"w": (D, E)}: the router has one matrix
steps = walk.route(top_k, router, x, k=k, renormalise=True)
next(steps)

# %% [markdown]
# Run the next cell several times. `steps.back()` goes back, `steps.goto(3)` goes to state 3, `steps.now` is where you
# are, and an array of it is `steps.now["logits"]`.

# %%
next(steps)

# %% [markdown]
# `view` shows the same with buttons, a slider and a picture. Press *forward* until you see dots: a dot is an
# *assignment*, a pair of a token and an expert that works on it, and its size is the weight. (Without widgets, `view`
# prints the state.)
#
# **Predict.** How many dots will there be? How many are in one row, and how many in one column?

# %%
view(walk.route(top_k, router, x, k=k, renormalise=True))

# %%
routing, _ = top_k.route(router, x, k=k, renormalise=True)
print("assignments:", len(routing.token), "  tokens per expert:", np.bincount(routing.expert))
assert len(routing.token) == N * k

# %% [markdown]
# **Answer.** Twelve, N times k, and two per token. How many an expert gets is not fixed, and lesson 09 is about that.
#
# ## 6. What you need, and the way through
#
# You need Python with NumPy, matrices, and the chain rule. You also need six things that many courses assume without
# saying so: softmax with cross-entropy, Bayes' rule, the normal density, the backward pass of one net, gradient descent,
# and the score trick. [Lesson 00b](00b_primer.ipynb) begins with ten questions. If you can answer them, skip it; if not,
# it has all six on a few pages.
#
# | you are | take | for |
# |---|---|---|
# | an engineer with an evening | 07, 09, 10 | how a sparse layer routes, keeps its experts busy, and is computed |
# | somebody who wants to build one | 07, then 16 | a mixture of experts in one file, written from nothing |
# | curious about language models | 14, then 17 to 20 | a block by hand, one trained on text, Mixtral, and the LSTM of 2017 |
# | somebody who runs large models | 14, 21 to 23 | changing experts, many processes, and when sparse is faster |
# | a student | all, in order | each lesson ends with what comes next |
# | a researcher, for the history | 01 to 06, 12, 20 | from Jacobs, Jordan, Nowlan and Hinton (1991) to what the old tables are worth |
# | somebody who judges claims or code | 13, 15, 24, 25 | fair comparisons, bugs that train, sentences of articles, audits |
#
# The [table of all lessons](README.md) says what you can do after each.
#
# **How to take a lesson.** Wherever it says *Predict*, write down what you expect, and only then run the cell. That is
# where the learning is: a surprise that you did not commit to is soon forgotten. At the end of each lesson you write a
# function, and `self_check` tries it on fresh inputs and says `right` or `not yet`. Then there are three exercises: one
# changes code, one derives, and one breaks something.
#
# Boxes that begin with **Seen in public code** are mistakes that were found in programs which people use. There is a
# [list of them](errata.md), each with a test.
#
# ## Your turn
#
# Write the mixture of section 4 for experts whose answers are vectors of C numbers. Run the check as it is first, and
# see what it says; then write the body.


# %%
def mixture(weights, outputs):
    """The answer of a mixture (N, C): weights (N, E) from the gate, outputs (N, E, C) of the experts."""
    # your code here
    return None


# %%
def reference(weights, outputs):
    return np.einsum("ne,nec->nc", weights, outputs)


def cases(rng):
    for N, E, C in ((4, 3, 2), (2, 2, 2), (5, 4, 1)):
        yield rng.dirichlet(np.ones(E), size=N), rng.normal(size=(N, E, C))


self_check(mixture, reference, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** In section 1, colour the sentence by layers 0, 1 and 2 (`LAYER`). Is " and" always with the
#    same expert? Then put a sentence of your own into `text`.
# 2. **Derive.** A model has $S$ parameters that every token uses, and per layer $E$ experts of $e$ parameters, in $L$
#    layers. Write the number of all parameters and of those that a token uses with $k$ experts. What does the share in
#    use approach when $E$ grows?
# 3. **Break it.** Route with `renormalise=False` in section 5, and walk to the weights. What do the two weights of a token
#    sum to now? What would the layer do to a token whose weights are all near 0?
#
# Solutions: `lessons/solutions/00_setup.py`.
#
# Next: [00b, a primer](00b_primer.ipynb), with the question whether you need it; or at once
# [01, why one expert averages](01_why_one_averages.ipynb).
