# %% [markdown]
# # 10 · Dispatch: from a loop to sorted blocks to compiled loops
#
# Afterwards you can write the dispatch of a sparse layer in ten lines, say what each way of doing it costs before you
# run it, and find the three mistakes that public code makes there.
#
# This lesson takes two sittings. The first, sections 1 to 4, builds the layer: a loop, masks, sorted blocks, and the sum
# that puts the rows back. The second, sections 5 to 8, measures it, compiles it, and adds capacity and the backward
# pass. A section with a star may be left out.
#
# The layer is a sum over *assignments*, one for each pair of a token and an expert that it goes to:
#
# $$ \text{out}_n \;=\; \sum_{a:\ \text{token}_a = n} \text{weight}_a \cdot \text{expert}_{\text{expert}_a}(x_n) $$
#
# The router has made the list (lesson 07). Here only one question is left: in which order do we walk through it?
#
# | symbol | in code | shape | meaning |
# |---|---|---|---|
# | $N, D, H$ | `N, D, H` | | tokens, their size, the hidden size of an expert |
# | $E, k$ | `E, k` | | experts, and how many of them a token goes to |
# | $A$ | `A` | | assignments: $A = kN$ when nothing is dropped |
# | $\text{token}_a,\ \text{expert}_a,\ \text{weight}_a$ | `routing.token, .expert, .weight` | (A,) | the list |
# | order | `order` | (A,) | the assignment that stands at each place after sorting by expert |
# | offsets | `offsets` | (E + 1,) | expert m has the places `offsets[m]` to `offsets[m + 1]` |
# | $C$ | `C` | | capacity: the most tokens that an expert takes |

# %%
import contextlib
import time

import matplotlib.pyplot as plt
import numpy as np

from moe_np import kernels, plots
from moe_np.base.gradcheck import gradient_error
from moe_np.base.machine import one_blas_thread
from moe_np.coursework import self_check
from moe_np.layers import experts, sparse_layer
from moe_np.routing import contract, top_k
from moe_np.show import walk
from moe_np.show.view import view

plt.rcParams.update(plots.STYLE)


def problem(N, D, H, E, k=2, seed=0):
    """Tokens, E experts of two layers with a ReLU between them, and a routing of every token to k experts."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)).astype(np.float32)
    params = experts.RELU.init(rng, D, E, H, dtype=np.float32)
    routing, _ = top_k.route(top_k.init(rng, D, E, dtype=np.float32), x, k=k, renormalise=True)
    return params, x, routing


params, x, routing = problem(N=1024, D=64, H=128, E=8)
A = len(routing.token)
print(f"{A} assignments; the first six, token by token, the better choice first:")
for a in range(6):
    print(
        f"  token {routing.token[a]}  ->  expert {routing.expert[a]}  with weight {routing.weight[a]:.2f}"
    )
assert 2 * len(x) == A

# %% [markdown]
# ## 1. The sum, as it is written
#
# One assignment after the other: this is hard to get wrong, so everything else is compared with it. Beside it we time a
# *dense* net of hidden size $kH$ on all tokens. It does the same number of multiplications, $A \cdot 2DH$, in two large
# matrix products: no sparse layer can be much faster.
#
# **Predict.** The same multiplications, done as 4,096 products with one row instead of 2 with 1,024. How many times
# slower is the loop: 1.5 times, 10 times, 100 times?


# %%
def one_expert(params, m, rows):
    """Expert m on some rows: (n, D) -> (n, D)."""
    h = np.maximum(rows @ params["w1"][m] + params["b1"][m], 0)
    return h @ params["w2"][m] + params["b2"][m]


def by_assignment(params, x, routing):
    """The equation, word for word."""
    out = np.zeros_like(x)
    for n, m, weight in zip(routing.token, routing.expert, routing.weight, strict=True):
        out[n] += weight * one_expert(params, m, x[n])
    return out


def dense_net(params, x, routing, k=2):
    """Not the same function, only as many multiplications: two products, the first k experts side by side."""
    w1, w2 = np.concatenate(params["w1"][:k], axis=1), np.concatenate(params["w2"][:k])
    return lambda: np.maximum(x @ w1, 0) @ w2


def least_time(runs, rounds=5, threads=one_blas_thread):
    """Seconds of the fastest of `rounds` turns of each run, on one thread unless told otherwise."""
    least = dict.fromkeys(runs, np.inf)
    with threads():
        for _ in range(rounds):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                least[name] = min(least[name], time.perf_counter() - start)
    return least


def race(ways, params, x, routing, rounds=5):
    """The time of each way as a multiple of the dense net's."""
    runs = {name: (lambda way=way: way(params, x, routing)) for name, way in ways.items()}
    least = least_time({"dense": dense_net(params, x, routing), **runs}, rounds)
    return {name: least[name] / least["dense"] for name in ways}


right = by_assignment(params, x, routing)
ratios = race({"by assignment": by_assignment}, params, x, routing)
print(f"the loop takes {ratios['by assignment']:.0f} times as long as the dense net")

# %% [markdown]
# **Answer.** Ten times and more; the number depends on the machine. A product with one row reads a whole matrix to use each
# number once. A product with 256 rows reads it once and uses
# each number 256 times. The loop reads $A$ matrices where $E$ would do; and it takes $A$ steps of Python.
#
# ## 2. One product for each expert
#
# Two ways that one finds in public code. Both take $E$ steps:
#
# - **everyone**: all experts on all tokens, then the weights, most of them 0. No indexing at all.
# - **masks**: for each expert, look through the whole list for its assignments, take their rows.
#
# | way | multiplications | matrices read | Python steps | looks through the list |
# |---|---|---|---|---|
# | by assignment | $A \cdot 2DH$ | $A$ | $A$ | once |
# | everyone | $\frac{E}{k} \cdot A \cdot 2DH$ | $E$ | $E$ | once |
# | masks | $A \cdot 2DH$ | $E$ | $E$ | $E$ times |
#
# **Predict.** $E = 8$, $k = 2$: *everyone* does $E/k = 4$ times the work. Is it faster or slower than the loop of
# section 1?


# %%
def everyone(params, x, routing):
    """All experts on all tokens."""
    out, dense_weight = np.zeros_like(x), np.zeros(routing.demand.shape, x.dtype)
    # (N, E), zero where an expert was not chosen
    dense_weight[routing.token, routing.expert] = routing.weight
    for m in range(dense_weight.shape[1]):
        out += dense_weight[:, m, None] * one_expert(params, m, x)
    return out


def masks(params, x, routing):
    """For each expert the assignments that are its own."""
    out = np.zeros_like(x)
    for m in range(routing.demand.shape[1]):
        own = routing.expert == m  # looks at all A of them
        out[routing.token[own]] += routing.weight[own, None] * one_expert(
            params, m, x[routing.token[own]]
        )
    return out


for way in (everyone, masks):
    np.testing.assert_allclose(way(params, x, routing), right, rtol=1e-3, atol=1e-5)
ratios = race(
    {"by assignment": by_assignment, "everyone": everyone, "masks": masks}, params, x, routing
)
for name, ratio in ratios.items():
    print(f"{name:14s} {ratio:5.1f} x dense")
assert ratios["masks"] < ratios["by assignment"]

# %% [markdown]
# **Answer.** Faster. Work is not time: four times the multiplications in large products cost less than the right number in small ones. That
# is why *everyone* survives in public code for small $E$, and why it is hopeless for large $E$.
#
# ## 3. Sort once
#
# If the list were in order of experts, each expert would own one *contiguous block* of it: no mask, no search. There
# are only $E$ different keys, so nothing has to be compared. A *counting sort* counts how many rows each expert gets,
# adds up where each block begins, and puts every assignment into the next free place of its block. Walk through it on
# three tokens.

# %%
few_params, few_x, few = problem(N=3, D=2, H=4, E=3, seed=4)
steps = walk.dispatch(few, few_x, per_assignment=True)
next(steps)

# %% [markdown]
# Run the next cell as often as there are states, ten; `steps.back()` goes back. Or use the slider below it.
#
# **Predict**, at the state "offsets": which place will assignment 0 get? And which one the second assignment of the
# same expert?

# %%
next(steps)

# %%
view(steps)

# %%
_, _, dozen = problem(N=12, D=2, H=4, E=4, seed=3)
order, offsets = sparse_layer.by_expert(dozen.expert, 4)
colours = np.array([plt.matplotlib.colors.to_rgb(c) for c in plots.COLOURS[:4]])
fig, axes = plt.subplots(2, 1, figsize=(11, 2.6))
for ax, places, title in (
    (axes[0], np.arange(24), "the list: token by token"),
    (axes[1], order, "sorted by expert"),
):
    ax.imshow(colours[dozen.expert[places]][None], aspect="auto")
    for i, a in enumerate(places):
        ax.text(i, 0, dozen.token[a], ha="center", va="center", color="white", fontsize=12)
    ax.set(yticks=[], xticks=[], title=title)
    ax.spines[:].set_visible(False)
for edge in offsets[1:-1]:
    axes[1].axvline(edge - 0.5, color="white", linewidth=7)
axes[1].set_xticks(offsets[:-1], [f"offsets[{m}]" for m in range(4)])
plt.show()

assert (np.diff(dozen.expert[order]) >= 0).all()  # blocks
assert all(
    (np.diff(dozen.token[order[offsets[m] : offsets[m + 1]]]) > 0).all() for m in range(4)
)  # tokens in order
assert steps[9]["order"].tolist() == sparse_layer.by_expert(few.expert, 3)[0].tolist()

# %% [markdown]
# A square is an assignment, its colour the expert, its number the token. Below, expert m reads
# `rows[offsets[m]:offsets[m + 1]]`, which costs nothing: a slice of an array is a view. Within a block the tokens keep
# their order, and no token comes up twice in it.
#
# ## 4. Put the rows back: the line that loses half of the layer
#
# Every row has been computed; now each token wants its $k$ rows added up. The line that offers itself is
#
#     out[token] += weighted_rows
#
# **Predict.** A token stands twice in `token`. What does this line make of its two rows: their sum, the first one, or
# the last one?

# %%
order, offsets = sparse_layer.by_expert(routing.expert, 8)
token, weight = routing.token[order], routing.weight[order]
y, _ = experts.RELU.forward(params, x[token], offsets)
weighted = weight[:, None] * y

lost = np.zeros_like(x)
lost[token] += weighted  # wrong

last = routing.expert.reshape(-1, 2).max(
    axis=1
)  # of a token's two experts the one with the higher number
only_last = np.zeros_like(x)
kept = routing.expert[order] == last[token]
only_last[token[kept]] = weighted[kept]

print(
    "off by, relative to the right output:",
    round(np.abs(lost - right).sum() / np.abs(right).sum(), 2),
)
print("equal to what the higher-numbered expert alone gives:", np.array_equal(lost, only_last))
assert np.array_equal(lost, only_last) and not np.allclose(lost, right, atol=0.1)

# %% [markdown]
# **Answer.** The last one. `a[i] += b` means `a[i] = a[i] + b`: with an index twice in `i`, the last one written wins. Nothing raises, shapes and
# types are right, and half of the layer is gone.
#
# > **Seen in public code** (errata 12). But look twice: issue 942 of the repository deepseek-ai/DeepSeek-V3 reports
# > exactly this for the line `y[idx] += expert(x[idx]) * weights[...]`, and the line is right. It stands *inside the
# > loop over experts*, like the one in `masks` above. Why is that enough? Exercise 2.
#
# There are two cures that always work. One is to add **expert by expert**, because a token comes up at most once per
# expert. The other turns the question round: not "where does this row go?" but "which rows does this token want?",
# `out[n] = Σ_j rows[place[n, j]]`, which is a *gather*. No place is written twice, so many threads can do it, and the
# order of the sum is always the same. (Pull request 43362 of the library Transformers repaired outputs that changed
# from run to run, in exactly this way.)


# %%
def sorted_blocks(params, x, routing):
    """The dispatch: sort, gather, one product per block, and each token gathers its k rows."""
    E, A = routing.demand.shape[1], len(routing.expert)
    order, offsets = sparse_layer.by_expert(routing.expert, E)
    rows = x[routing.token[order]]
    y = np.empty_like(rows)
    for m in range(E):
        y[offsets[m] : offsets[m + 1]] = one_expert(params, m, rows[offsets[m] : offsets[m + 1]])
    y *= routing.weight[order, None]
    place = np.empty(A, int)
    place[order] = np.arange(A)  # the inverse of the sort: where assignment a went
    return (
        y[place].reshape(len(x), -1, x.shape[1]).sum(axis=1)
    )  # top_k lists a token's k assignments side by side


out, cache = sparse_layer.forward(params, x, routing, experts.RELU)  # the package's own
for found in (sorted_blocks(params, x, routing), out):
    np.testing.assert_allclose(found, right, rtol=1e-3, atol=1e-5)

# %% [markdown]
# *Here is a good place for a break. The layer is complete.*
#
# ## 5. What each way costs, as the experts become many
#
# The work of a token stays the same, so the dense net stays the same, and a perfect sparse layer would draw a flat
# line. One more contestant shows what no dispatch can save: **products alone**, $E$ products of $A/E$ rows each, on
# rows that are in place already. What lies above it is the price of the dispatch.
#
# **Predict.** Draw the four lines before you run: which one rises in proportion to $E$? Which one is flat? And at what
# $E$ does the sort begin to pay against the masks: 4, 16, 64, 256? (The next cell takes about 15 seconds, and says which
# $E$ it has finished.)


# %%
def products_alone(params, x, routing):
    """As many products of as many rows as in `sorted_blocks`, if every expert got its even share; nothing is moved."""
    rows, E = np.concatenate([x, x]), routing.demand.shape[1]
    n = len(rows) // E
    for m in range(E):
        one_expert(params, m, rows[m * n : (m + 1) * n])


ways = {
    "everyone": everyone,
    "masks": masks,
    "sorted blocks": sorted_blocks,
    "products alone": products_alone,
}
counts, measured = (4, 16, 64, 256), {name: [] for name in ways}
for E in counts:
    rounds = 12 if E <= 64 else 5  # the least time of many rounds is steadier on a busy machine
    for name, ratio in race(ways, *problem(N=1024, D=64, H=128, E=E), rounds=rounds).items():
        measured[name].append(ratio)
    print(f"E = {E} done", end="   ", flush=True)
print()

fig, ax = plt.subplots(figsize=(7.5, 4.2))
for colour, (name, values) in zip(plots.COLOURS, measured.items(), strict=False):
    dotted = name == "products alone"
    ax.loglog(
        counts,
        values,
        ":" if dotted else "o-",
        color=plots.BLACK if dotted else colour,
        linewidth=2,
    )
    text = f"  {name}  {values[-1]:.1f}"
    ax.text(
        counts[-1],
        values[-1],
        text,
        color=plots.BLACK if dotted else colour,
        va="top" if dotted else "bottom",
    )
ax.axhline(1, color=plots.GREY, linestyle="--")
ax.set(xlabel="experts E", ylabel="time / dense net's time", xticks=counts, xlim=(3.5, 1200))
ax.set_xticklabels(counts)
ax.minorticks_off()
plt.show()
for name, values in measured.items():
    print(
        f"{name:15s}",
        *(f"E = {E}: {v:5.1f}" for E, v in zip(counts, values, strict=True)),
        sep="   ",
    )
assert measured["everyone"][-1] > 5 * measured["sorted blocks"][-1], "E / k times the work shows"

# %% [markdown]
# **Answer**, in three points. (If other programs run at the same time, the lines are not smooth: run the cell again.)
#
# - *Everyone* rises in proportion to $E$, as derived.
# - *Masks* and *sorted blocks* lie side by side while the experts are few. **In plain NumPy the sort buys little
#   there**: looking through a list of 2,048 numbers takes microseconds. It pays when $E$ passes over the list add up.
# - The sorted blocks stay close to the dotted line: the dispatch is nearly free. But the dotted line rises too! At
#   $E = 256$ a block has 8 rows, so each weight that comes from memory is used 8 times and not 512 times as at $E = 4$.
#   **No dispatch cures that; only more tokens in the batch do.** Lesson 14 comes back to it: a server with few users, and a
#   model with many experts.
#
# ## 6. Compiled *
#
# So what is left for compiled loops to win? Not the products, which are BLAS either way. It is everything beside them
# (bias, ReLU and their backward passes, weighing, adding up) and the cores of your machine: a task is a whole expert
# (gather its rows, product, ReLU, product), and the next free core takes the next task, with a BLAS of one thread each.
# This is only possible because the blocks are contiguous, which is what the sort was for.
#
# **Predict.** Forward and backward, at 8 and at 64 experts: what part of NumPy's time do the compiled loops take on one
# thread? And with all your cores?


# %%
def numpy_pass(params, x, routing):
    """Forward and backward, NumPy. Any gradient will do for a clock: here the output itself."""
    out, cache = sparse_layer.forward_numpy(
        params, x, routing, experts.RELU, routing.demand.shape[1]
    )
    return sparse_layer.backward_numpy(out, cache)


def package_pass(params, x, routing, workspace={}):  # noqa: B006 - arrays of the last call, used again
    out, cache = sparse_layer.forward(params, x, routing, experts.RELU, workspace=workspace)
    return sparse_layer.backward(out, cache)


if kernels.backend() == "numba":
    for E in (8, 64):
        case = problem(N=2048, D=64, H=128, E=E)
        for one, other in zip(
            numpy_pass(*case)[1].values(), package_pass(*case)[1].values(), strict=True
        ):
            np.testing.assert_allclose(
                other, one, rtol=1e-2, atol=1e-2
            )  # the same gradients, up to rounding
        runs = {
            "NumPy": lambda case=case: numpy_pass(*case),
            "compiled": lambda case=case: package_pass(*case),
        }
        alone = least_time(runs)
        cores = least_time({"compiled": runs["compiled"]}, threads=contextlib.nullcontext)
        share = {
            "one thread": alone["compiled"] / alone["NumPy"],
            "all cores": cores["compiled"] / alone["NumPy"],
        }
        print(
            f"E = {E:2d}: compiled takes",
            *(f"{v:.2f} of NumPy's time on {k}" for k, v in share.items()),
            sep="   ",
        )
else:
    print("Numba is not in use here: the NumPy loops do everything, with the same results.")

# %% [markdown]
# If another program uses your cores, these numbers mean little: run the cell again. `moe_np/kernels/sparse_layer.py` is this
# code, beside its NumPy twin in `moe_np/layers/sparse_layer.py`. `python3 run.py moe-np bench` compares both with other
# libraries, at nine sizes and with each contestant in a process of its own.
#
# ## 7. Capacity: blocks of a fixed size
#
# On accelerators each expert gets a buffer of $C$ rows, full or not, because shapes must be known beforehand:
#
# $$ C = \lceil \text{factor} \cdot N \cdot k / E \rceil, \quad\text{at least } 1 $$
#
# What does not fit is *dropped*: it is no row of the list, and gives exactly 0 in the output. The residual connection
# around the layer, which adds the layer's input to its output, keeps the token.
#
# (Lesson 11 has a router with a capacity, Switch.)
#
# **Predict.** A model generates text for one user: one token at a time, $N = 1$. It has 8 experts, $k = 2$, factor
# 1.25. Public code often rounds down, `int(factor * N * k / E)`. What does its layer put out?

# %%
print("tokens   rounded down   rounded up")
for N in (1, 2, 3, 4, 16, 64):
    print(f"{N:6d} {int(1.25 * N * 2 / 8):14d} {contract.capacity(N, 8, 2, 1.25):12d}")
assert int(1.25 * 1 * 2 / 8) == 0 and contract.capacity(1, 8, 2, 1.25) == 1

# 16 tokens that all want expert 3 of four, with room for 5: two ways to say where they go
choice = np.full(16, 3)
fits = contract.within_capacity(choice, 4, contract.capacity(16, 4, 1, 1.25))
mask = np.eye(4)[choice] * fits[:, None]  # one-hot, with the rows of dropped tokens zeroed
read_back = mask.argmax(axis=1)  # wrong: the arg-max of a row of zeros is 0
print(
    "\ntokens of each expert, from the arg-max of the zeroed mask:",
    np.bincount(read_back, minlength=4),
)
print(
    "and from the list without the dropped ones:               ",
    np.bincount(choice[fits], minlength=4),
)
assert np.bincount(read_back, minlength=4)[0] == 11 and fits.sum() == 5

# %% [markdown]
# **Answer.** Zero for every token: its capacity is 0.
#
# > **Seen in public code** (errata 8 and 9). Rounded down, a short batch has no room at all: the layer puts out 0 for
# > every token, the residual hides it, and a model that was good in training on long batches is silently another model
# > when it generates. And a dropped token that is written as a row of zeros is read back as "expert 0" by the next
# > arg-max: expert 0 works on 11 tokens that were not sent to it. Where a dropped token is *no row of the list*, neither
# > can happen. A third form: a layer that passes a dropped token through as a copy, $p \cdot x$, with the residual outside,
# > gives $(1 + p)\,x$.
#
# Whole groups of tokens can also be moved to their places by a product with a one-hot array (N, E, C). That is elegant,
# and costs $N \cdot E \cdot C \cdot D \approx \text{factor} \cdot k N^2 D$ multiplications where the experts themselves
# take $kN \cdot 2DH$: more than the experts as soon as $N > 2H/\text{factor}$. This is why such code cuts a batch into
# groups.
#
# ## 8. Backwards *
#
# Nothing new: where the forward pass gathers, the backward pass adds up, and the other way round. `dout` is gathered
# into the blocks (each row times its weight), every expert does its own backward pass on its block, and `drows` is
# added up token by token, with the same care for twice the same token. The gradient check says whether it is right;
# with the lossy line in place of `combine` it says that too.

# %%
small = {name: p.astype(np.float64) for name, p in few_params.items()}
x64 = few_x.astype(np.float64)
routing64 = few._replace(weight=few.weight.astype(np.float64))
rng = np.random.default_rng(0)
out, cache = sparse_layer.forward(small, x64, routing64, experts.RELU)
dout = rng.normal(size=out.shape)
dx, grads, dweight = sparse_layer.backward(dout, cache)


def loss(p):
    return (sparse_layer.forward(small, p["x"], routing64, experts.RELU)[0] * dout).sum()


order, offsets = sparse_layer.by_expert(routing64.expert, 3)
token, weight = routing64.token[order], routing64.weight[order]
_, kept = experts.RELU.forward(small, x64[token], offsets)
drows, _ = experts.RELU.backward(weight[:, None] * dout[token], kept)
lossy = np.zeros_like(x64)
lossy[token] += drows  # wrong, once more

error = gradient_error(loss, {"x": x64}, {"x": dx}, rng)["x"]
wrong = gradient_error(loss, {"x": x64}, {"x": lossy}, rng)["x"]
print(f"relative error of dx: {error:.1e};  with the lossy line: {wrong:.2f}")
assert error < 1e-7 < 0.01 < wrong

# %% [markdown]
# ## Your turn
#
# Write the counting sort without `np.argsort`: two passes over the list and no comparison of two keys. It takes the
# experts of the assignments and returns `order` (A,) and `offsets` (E + 1,); within an expert, assignments keep their
# order. (In plain Python it is slow; in `moe_np/kernels/machine/tasks.py` the same dozen lines are compiled.)


# %%
def counting_sort(expert, n_experts):
    """expert (A,) whole numbers below n_experts -> (order (A,), offsets (n_experts + 1,))."""
    # your code here
    return None


def cases(rng):
    lists = [rng.integers(0, 5, size=n) for n in (0, 1, 7, 40)] + [np.array([4, 4, 4, 0])]
    return [(expert, 5) for expert in lists]


self_check(counting_sort, sparse_layer.by_expert, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** `sorted_blocks` (section 4) relies on $k$ rows per token, side by side. Make it work for any routing: for
#    Switch with dropped tokens, and for expert choice, where a token has anything from 0 to $E$ rows. Hold it against
#    `by_assignment`.
# 2. **Derive.** Why is `out[token[own]] += ...` right in `masks`, and with it the line of issue 942? What would a
#    router have to do to make it wrong? `sparse_layer.forward` refuses such a routing; make one and read the message.
# 3. **Break it.** Take 256 experts and send every token to the same two. Race `everyone`, `masks` and `sorted_blocks`
#    again, against 256 even loads. Which of them does not change, which gets *faster*, and why would this be a disaster
#    on a machine with one processor per expert?
#
# Solutions: `lessons/solutions/10_dispatch.py`.
#
# Next: 11, the router zoo: seven ways to make the list.
