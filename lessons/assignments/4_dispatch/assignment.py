# %% [markdown]
# # Assignment 4: dispatch, from a loop to a compiled kernel
#
# You write a sparse layer three times: as the sum that it is, as sorted blocks, and as buffers that a compiled kernel
# fills; and its backward pass once. In the end you race your own layers against each other and against this package's.
# It follows lesson 10; allow three to four hours.
#
# **What to do.** Seven functions have a body to write, where it says `# YOUR CODE HERE`. Keep their names and
# arguments. The cell under each holds visible checks: run it, and no error means they pass. All checks at once, as
# in grading: `moe-np coursework check 4_dispatch.ipynb`.
#
# **What is graded.** Each function by itself, on other inputs than you see here, drawn anew for each grading: other
# shapes, lists with holes and in no order, experts that nobody wants, large numbers. 20 points: the loop 2, overflow
# 3, sorting 2, adding up 2, blocks 4, backward 4, places 3. A question gives points in proportion to the hidden inputs
# that are answered right, in half points, and none below half of them. Results count as right within a relative 1e-4
# (1e-3 in questions 1, 5 and 6), so float32 will do. A function must not change its inputs, and must answer within
# seconds (gradients by differences of the loss would take minutes).
#
# **Speed.** Questions 5 and 7 are raced against a plain loop, in turns, on the machine that grades. You have to be 4
# and 5 times as fast, the best of several tries counts, and what we have in mind is 10 times and more: the race is not
# close. An answer that is right and too slow gets nothing.
#
# **What may be imported.** NumPy, Numba, SciPy, Matplotlib, and of this package `moe_np.base.checks` and
# `moe_np.base.gradcheck`. Nothing else of `moe_np` exists where your work is graded. Each function is graded alone, so
# if you call one of your own functions from another, a mistake in it costs both. (Helpers of your own belong into the
# answer cell that uses them, or into a cell that you add.)
#
# | symbol | code | shape | meaning |
# |---|---|---|---|
# | $x_n$ | `x` | (N, D) | N tokens |
# | | `params["w1"]`, `["w3"]` | (E, D, H) | first layer of E experts, and the layer beside it |
# | | `params["w2"]` | (E, H, D) | second layer |
# | $\text{token}_a$ | `token` | (A,) | the list of assignments: this row of `x` ... |
# | $\text{expert}_a$ | `expert` | (A,) | ... goes to this expert ... |
# | $\text{weight}_a$ | `weight` | (A,) | ... whose output is multiplied by this number |
#
# **The list** is all that the layer knows of the router. It may be in any order. A token stands in it as many times as
# it has experts: k times, fewer where some were dropped, or not at all; but never twice with the same expert. An expert
# may have no row at all. The number of experts is `len(params["w1"])`, and not the largest entry of `expert`.

# %% given="setup"
import time

import numpy as np

from moe_np.base.gradcheck import gradient_error

try:
    from numba import config, njit

    compiled = not config.DISABLE_JIT
except ImportError:  # Numba is not installed; question 7 says what to do
    compiled = False

    def njit(function):
        """The function as it is."""
        return function


def seconds(run, rounds=3):
    """The least time that `run()` took."""
    least = np.inf
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        least = min(least, time.perf_counter() - start)
    return least


# %% [markdown]
# ## 1. The loop (2 points)
#
# $$\text{out}_n = \sum_{a:\ \text{token}_a = n} \text{weight}_a\, f_{\text{expert}_a}(x_n)$$
#
# Lesson 10 had experts with a ReLU. These are Mixtral's (SwiGLU, without biases):
#
# $$f_m(x) = \big(\mathrm{silu}(x W^1_m) \odot x W^3_m\big)\, W^2_m, \qquad \mathrm{silu}(z) = z\,\sigma(z),
# \qquad \sigma(z) = \frac{1}{1 + e^{-z}}.$$
#
# ($W^1, W^2, W^3$ are names, as in `params`, and no powers.) Write the sum as it stands, one assignment after the other.
# It will be slow. It is what all the rest is held against.


# %% answer="q1_loop"
def by_assignment(params, x, token, expert, weight):
    """The sparse layer as a sum over assignments. -> out (N, D)

    x (N, D); token, expert, weight (A,)
    A token that is not in the list gets exactly 0. Numbers in x W¹ may be in the thousands, of
    either sign.
    """
    ### BEGIN SOLUTION
    out = np.zeros_like(x)
    for n, m, share in zip(token, expert, weight, strict=True):
        z = x[n] @ params["w1"][m]
        with np.errstate(over="ignore"):  # exp(1000) is infinite, and z / infinity is 0: right
            h = z / (1 + np.exp(-z)) * (x[n] @ params["w3"][m])
        out[n] += share * (h @ params["w2"][m])
    return out
    ### END SOLUTION


# %% test="q1_loop"
# visible checks of q1_loop
small = {"w1": np.array([[[1.0]], [[1.0]]]), "w3": np.array([[[3.0]], [[1.0]]])}
small["w2"] = np.array([[[0.5]], [[1.0]]])
x = np.array([[2.0], [-1.0]])  # D = H = 1, two experts
out = by_assignment(small, x, np.array([0]), np.array([0]), np.array([0.5]))
assert out is not None, "by_assignment returned nothing"
assert np.shape(out) == (2, 1), f"wanted the shape of x, (2, 1), got {np.shape(out)}"
message = "silu(2) = 1.7615942; times 2 · 3, times 0.5, and the weight is 0.5"
assert np.isclose(out[0][0], 2.6423912), message
assert out[1][0] == 0, "token 1 is not in the list"
twice = by_assignment(small, x, np.array([0, 0]), np.array([0, 1]), np.array([0.5, 1.0]))
assert np.isclose(twice[0][0], 2.6423912 + 3.5231883), "a token with two experts gets the sum"
assert np.array_equal(x, [[2], [-1]]), "x was changed"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("4_dispatch", "q1_loop", by_assignment)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. More than fit (3 points)
#
# Every expert takes at most $C$ tokens,
#
# $$C = \lceil \text{factor} \cdot N k / E \rceil, \quad\text{at least } 1,$$
#
# where factor is the capacity factor, $N$ the number of tokens in the batch and $k$ the number of experts that each token
# may ask for, however long the list is. Who stands earlier in the list comes first. What does not fit is **dropped**: it is no row of the new list.


# %% answer="q2_overflow"
def drop_overflow(token, expert, weight, n_tokens, n_experts, k, factor):
    """Leave out the assignments to an expert that is full. -> token, expert, weight, shorter

    token, expert, weight (A,); factor, the capacity factor, is a number above 0, such as 1.25
    The rows that are kept stay in their order.
    """
    ### BEGIN SOLUTION
    capacity = max(1, int(np.ceil(factor * n_tokens * k / n_experts)))
    taken = [0] * n_experts
    fits = np.zeros(len(expert), bool)
    for a, m in enumerate(expert):
        fits[a] = taken[m] < capacity
        taken[m] += 1
    return token[fits], expert[fits], weight[fits]
    ### END SOLUTION


# %% test="q2_overflow"
# visible checks of q2_overflow
token, expert = np.array([0, 1, 2, 3]), np.array([1, 1, 0, 1])
weight = np.array([0.9, 0.3, 0.5, 0.8])
got = drop_overflow(token, expert, weight, 4, 2, 1, 1.0)
assert got is not None, "drop_overflow returned nothing"
lengths = [len(part) for part in got]
assert lengths == [3, 3, 3], f"C = 2, three rows for expert 1: one is dropped, got {got}"
assert np.array_equal(got[0], [0, 1, 2]), f"token 3 came too late, got {got}"
assert np.array_equal(got[1], [1, 1, 0]), f"token 3 came too late, got {got}"
assert np.allclose(got[2], [0.9, 0.3, 0.5]), "the weights stay with their rows"
got = drop_overflow(np.array([0, 0]), np.array([5, 2]), np.array([0.6, 0.4]), 1, 8, 2, 1.0)
assert len(got[0]) == 2, "one token, 8 experts, k = 2: C = 2/8, rounded up; no row is dropped"
got = drop_overflow(np.arange(4), np.array([1, 1, 1, 1]), np.ones(4), 5, 2, 1, 1.0)
assert len(got[0]) == 3, f"5 tokens in the batch, 2 experts: C = 5/2, rounded up, got {got}"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("4_dispatch", "q2_overflow", drop_overflow)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Sort once (2 points)
#
# Sorted by expert, the list falls into one block for each expert, and within its block the assignments keep their
# order. Three arrays of whole numbers say all about it:
#
# - `order` (A,): the assignment that stands at each place,
# - `offsets` (E + 1,): expert m has the places from `offsets[m]` up to, and without, `offsets[m + 1]`,
# - `place` (A,): the place at which each assignment stands.
#
# A counting sort and a sort of NumPy's are both fine.


# %% answer="q3_sort"
def sort_by_expert(expert, n_experts):
    """Sort a list by expert. -> (order (A,), offsets (E + 1,), place (A,))

    expert (A,) whole numbers below n_experts
    The list may be empty, and so may blocks, the last ones too.
    """
    ### BEGIN SOLUTION
    order = np.argsort(expert, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(expert, minlength=n_experts))])
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return order, offsets, place
    ### END SOLUTION


# %% test="q3_sort"
# visible checks of q3_sort
expert = np.array([2, 0, 2, 0, 0])
got = sort_by_expert(expert, 4)
assert got is not None, "sort_by_expert returned nothing"
order, offsets, place = got
message = f"expert 0 has the assignments 1, 3 and 4, expert 2 has 0 and 2; got {order}"
assert np.array_equal(order, [1, 3, 4, 0, 2]), message
assert np.array_equal(offsets, [0, 3, 3, 5, 5]), f"experts 1 and 3 have empty blocks, got {offsets}"
message = f"assignment a stands at place[a], got {place}"
assert np.array_equal(np.asarray(order)[place], range(5)), message
order, _, _ = sort_by_expert(np.arange(40) % 2, 2)
message = f"40 assignments in turn to two experts keep their order in each block, got {order}"
assert np.array_equal(order, [*range(0, 40, 2), *range(1, 40, 2)]), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("4_dispatch", "q3_sort", sort_by_expert)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Add up (2 points)
#
# The way back: every row belongs to a token, and each token wants the sum of its rows. Here the rows are in no
# particular order, and nothing is known of how many a token has.


# %% answer="q4_combine"
def combine(rows, token, n_tokens):
    """out_n = Σ of the rows whose token is n, 0 if there are none. -> (n_tokens, D)

    rows (A, D), token (A,)
    """
    ### BEGIN SOLUTION
    out = np.zeros((n_tokens, rows.shape[1]), rows.dtype)
    np.add.at(out, token, rows)
    return out
    ### END SOLUTION


# %% test="q4_combine"
# visible checks of q4_combine
out = combine(np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]), np.array([1, 0, 1]), 4)
assert out is not None, "combine returned nothing"
message = f"four tokens, rows of two numbers: wanted the shape (4, 2), got {np.shape(out)}"
assert np.shape(out) == (4, 2), message
message = f"token 1 has two rows, 1 + 4 and 10 + 40; got {out}"
assert np.allclose(out[:2], [[2, 20], [5, 50]]), message
assert not np.any(out[2:]), "tokens 2 and 3 have no rows"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("4_dispatch", "q4_combine", combine)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Blocks (4 points)
#
# Now the layer of question 1 again, with the same arguments and the same result, but with one set of products for each
# *expert*: sort, gather the rows, work block by block, put each row back with its weight. It is raced against the loop
# with 8,192 tokens, 128 experts and k = 2, and has to be at least **4 times as fast**.
#
# (When all is sorted, so must the weights be. And do not take it for granted that each token has k rows.)


# %% answer="q5_blocks"
def sparse_forward(params, x, token, expert, weight):
    """The sparse layer of question 1, fast. x (N, D); token, expert, weight (A,) -> out (N, D)"""
    ### BEGIN SOLUTION
    w1, w3, w2 = params["w1"], params["w3"], params["w2"]
    order = np.argsort(expert, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(expert, minlength=len(w1)))])
    token, weight = token[order], weight[order, None]
    rows = x[token]
    out = np.zeros_like(x)
    for m in range(len(w1)):
        block = slice(offsets[m], offsets[m + 1])
        z = rows[block] @ w1[m]
        with np.errstate(over="ignore"):
            h = z / (1 + np.exp(-z)) * (rows[block] @ w3[m])
        out[token[block]] += weight[block] * (h @ w2[m])  # a token is in a block at most once
    return out
    ### END SOLUTION


# %% test="q5_blocks"
# visible checks of q5_blocks
rng = np.random.default_rng(0)
small = {"w1": np.array([[[1.0]], [[1.0]]]), "w3": np.array([[[3.0]], [[1.0]]])}
small["w2"] = np.array([[[0.5]], [[1.0]]])
x = np.array([[2.0], [-1.0], [2.0]])
token, expert, weight = np.array([2, 0, 2]), np.array([1, 0, 0]), np.array([1.0, 0.5, 0.5])
out = sparse_forward(small, x, token, expert, weight)
assert out is not None, "sparse_forward returned nothing"
wanted = [[2.6423912], [0], [2.6423912 + 3.5231883]]
message = f"token 0 has one expert, token 1 none, token 2 both: wanted {wanted}, got {out}"
assert np.allclose(out, wanted), message
N, E, D, H = 2048, 32, 8, 8
shapes = {"w1": (E, D, H), "w3": (E, D, H), "w2": (E, H, D)}
many = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
x = rng.normal(size=(N, D)).astype(np.float32)
token = np.repeat(np.arange(N), 2)
expert = np.stack([rng.integers(0, 16, N), rng.integers(16, 32, N)], axis=1).ravel()
weight = rng.uniform(0.1, 1, 2 * N).astype(np.float32)
out = sparse_forward(many, x, token, expert, weight)
other = rng.permutation(2 * N)
out_other = sparse_forward(many, x, token[other], expert[other], weight[other])
message = "the same list in another order is the same layer"
assert np.allclose(out, out_other, rtol=1e-3, atol=1e-3), message


def products_one_by_one():
    """A part of the loop of question 1: three products of one row with a matrix, A times."""
    for n, m in zip(token, expert, strict=True):
        (x[n] @ many["w1"][m] + x[n] @ many["w3"][m]) @ many["w2"][m]


least = seconds(lambda: sparse_forward(many, x, token, expert, weight), 2)
ratio = seconds(products_one_by_one) / least
message = f"right, but slow: a part of the loop takes {ratio:.1f} times as long; wanted at least 2"
assert ratio > 2, message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("4_dispatch", "q5_blocks", sparse_forward)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Backwards (4 points)
#
# Somebody hands you `dout`, the gradient of a loss with respect to `out`. Find, on paper, the gradients with respect to
# `x`, to all parameters, and to the weights of the list, which the router will want. For one row, with $a = x W^1$,
# $b = x W^3$ and $h = \mathrm{silu}(a) \odot b$, all that is not a product of matrices is
#
# $$\mathrm{silu}'(a) = \sigma(a)\,\big(1 + a\,(1 - \sigma(a))\big).$$
#
# A token with two experts gets two contributions to its `dx`, one with none gets 0; an expert without rows gets
# gradients of 0. `dweight` is in the order of the list. Speed does not count here, but the loop over blocks is also
# the shortest text.


# %% answer="q6_backward"
def sparse_backward(params, x, token, expert, weight, dout):
    """Gradients of Σ dout · out. -> (dx (N, D), {"w1", "w3", "w2"} as in params, dweight (A,))

    x, dout (N, D); token, expert, weight (A,)
    """
    ### BEGIN SOLUTION
    dx = np.zeros_like(x)
    dweight = np.zeros_like(weight)
    grads = {name: np.zeros_like(w) for name, w in params.items()}
    for m in range(len(params["w1"])):
        w1, w3, w2 = params["w1"][m], params["w3"][m], params["w2"][m]
        block = np.flatnonzero(expert == m)
        rows = x[token[block]]
        drows = dout[token[block]]
        a = rows @ w1
        b = rows @ w3
        s = 1 / (1 + np.exp(-a))
        h = a * s * b
        dweight[block] = (drows * (h @ w2)).sum(axis=1)
        dy = weight[block, None] * drows
        dh = dy @ w2.T
        da = dh * b * s * (1 + a * (1 - s))
        db = dh * a * s
        grads["w1"][m] = rows.T @ da
        grads["w3"][m] = rows.T @ db
        grads["w2"][m] = h.T @ dy
        dx[token[block]] += da @ w1.T + db @ w3.T
    return dx, grads, dweight
    ### END SOLUTION


# %% test="q6_backward"
# visible checks of q6_backward
rng = np.random.default_rng(1)
shapes = {"w1": (1, 3, 4), "w3": (1, 3, 4), "w2": (1, 4, 3)}
single = {name: rng.normal(size=shape) for name, shape in shapes.items()}
x, dout, weight = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.uniform(0.2, 1, 5)
token, expert = np.array([3, 1, 0, 4, 2]), np.zeros(5, int)


def loss_of_one_expert(p):
    """Σ dout · out where a single expert gets every token: all but the dispatch."""
    a, b = p["x"][token] @ p["w1"][0], p["x"][token] @ p["w3"][0]
    y = (a / (1 + np.exp(-a)) * b) @ p["w2"][0]
    return (dout[token] * p["weight"][:, None] * y).sum()


got = sparse_backward(single, x, token, expert, weight, dout)
assert got is not None, "sparse_backward returned nothing"
dx, grads, dweight = got
inputs = {**single, "x": x, "weight": weight}
all_grads = {**grads, "x": dx, "weight": dweight}
errors = gradient_error(loss_of_one_expert, inputs, all_grads, rng)
assert max(errors.values()) < 1e-4, f"the gradient check, one expert: relative errors {errors}"

# the dispatch: an expert's rows, by themselves, are a layer of one expert; token 2 is not in the list
several = {name: rng.normal(size=(3, *shape[1:])) for name, shape in shapes.items()}
token2, expert2 = np.array([0, 3, 1, 4, 0, 1, 3]), np.array([2, 0, 0, 2, 0, 2, 2])
weight2 = rng.uniform(0.2, 1, 7)
dx2, grads2, dweight2 = sparse_backward(several, x, token2, expert2, weight2, dout)
total = np.zeros((5, 3))
for m in (0, 2):
    rows = expert2 == m
    part = {name: w[m : m + 1] for name, w in several.items()}
    no_other = np.zeros(rows.sum(), int)
    got = sparse_backward(part, x, token2[rows], no_other, weight2[rows], dout)
    total += np.asarray(got[0])
    message = f"expert {m} learns from its own rows"
    same = [np.allclose(grads2[name][m], got[1][name][0], atol=1e-5) for name in several]
    assert all(same), f"{message}, got {dict(zip(several, same, strict=True))}"
    message = f"dweight in the order of the list, where expert is {m}"
    assert np.allclose(np.asarray(dweight2)[rows], got[2], atol=1e-5), message
assert np.allclose(dx2, total, atol=1e-5), "dx of a token is the sum over its experts"
assert not np.any(dx2[2]), "token 2 is not in the list: its dx is 0"
assert not any(np.any(g[1]) for g in grads2.values()), "expert 1 has no rows: its gradients are 0"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("4_dispatch", "q6_backward", sparse_backward)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. A second chance, compiled (3 points)
#
# On accelerators an expert reads a *buffer* of $C$ rows, and the tokens have to find their places in it. Dropping those
# who come late is a pity where the next expert stands idle. *No token left behind* (Fedus, Zoph and Shazeer 2022,
# appendix) lets them try again. Each token brings a list of its K favourite experts, best first, and asks for one:
#
# - **Round 1.** All tokens, in their order, ask for their first choice. An expert that has taken $C$ tokens is full.
# - **Round 2.** Those who were refused, in their order, ask for their second choice.
# - And so on, K rounds. Nobody's second choice comes before everybody's first. Who has no place then is dropped: −1.
#
# Whether a token finds a place depends on all tokens before it. Such a thing is a loop, and a loop over single numbers
# takes some 100 nanoseconds per step in Python and about 1 when it is *compiled*. This is all that Numba needs:
#
# ```python
# @njit
# def last_seen(expert, n_experts):
#     out = np.full(n_experts, -1)
#     for a in range(len(expert)):
#         out[expert[a]] = a
#     return out
# ```
#
# The first call with arrays of a new type compiles the function, for a second or so; from then on it runs as C would.
# Inside, keep to numbers, arrays, loops and simple NumPy functions (`np.zeros`, `np.full`, `np.empty`); a variable
# keeps one type. A wrong index is not noticed: take `@njit` away while you look for a mistake. `cache=True`
# does no harm and saves nothing in grading: each notebook is compiled anew.
#
# The race is with the rule as it stands above, in plain Python, for 50,000 tokens, 16 experts and 8 choices; you have to
# be **5 times as fast**. There is also a way in NumPy that is fast enough (each round at once, with the ideas of
# question 3); take `@njit` away for it. Where Numba is not installed, `njit` does nothing, and where it is not
# installed on the machine that grades, speed is not asked for.


# %% answer="q7_places"
@njit
def find_places(choice, n_experts, capacity):
    """Places in the experts' buffers. -> (expert (N,), row (N,))

    choice   (N, K), whole numbers, best first
    expert   which expert takes each token, −1 if none does
    row      the row of that expert's buffer, 0, 1, ... in the order of arrival, −1 if there is none
    """
    ### BEGIN SOLUTION
    N, K = choice.shape
    expert = np.full(N, -1)
    row = np.full(N, -1)
    filled = np.zeros(n_experts, np.int64)
    for j in range(K):
        for n in range(N):
            m = choice[n, j]
            if expert[n] < 0 and filled[m] < capacity:
                expert[n] = m
                row[n] = filled[m]
                filled[m] += 1
    return expert, row
    ### END SOLUTION


# %% test="q7_places"
# visible checks of q7_places
got = find_places(np.array([[0, 1], [0, 1], [1, 0], [0, 1]]), 2, 2)
assert got is not None, "find_places returned nothing"
message = f"expert 0 is full when token 3 asks, expert 1 is not; got {got[0]}"
assert np.array_equal(got[0], [0, 0, 1, 1]), message
assert np.array_equal(got[1], [0, 1, 0, 1]), f"the first two rows of both buffers; got {got[1]}"
got = find_places(np.array([[0, 1], [0, 1], [1, 0]]), 2, 1)
message = f"expert 1 is for token 2, whose first choice it is; got {got[0]}"
assert np.array_equal(got[0], [0, -1, 1]), message
assert np.array_equal(got[1], [0, -1, 0]), f"a token without a place has no row; got {got[1]}"
logits = np.random.default_rng(2).normal(size=(4096, 8)) + np.linspace(1, 0, 8)
choice = np.argsort(logits, axis=1).astype(np.int16)


def read_all_choices():
    """A part of what a loop in Python does: to read every choice."""
    return sum(choice[n, j] >= 0 for j in range(8) for n in range(4096))


find_places(choice, 8, 512)
ratio = seconds(read_all_choices) / seconds(lambda: find_places(choice, 8, 512), 2)
message = f"right, but slow: to read all choices takes {ratio:.1f} times as long; wanted at least 2"
assert ratio > 2 or not compiled, message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("4_dispatch", "q7_places", find_places)
### END HIDDEN TESTS

# %% [markdown]
# ## The race
#
# Everything together: 4,096 tokens, 128 experts of Mixtral's kind, one expert per token. Below, `buffers` is a third way to
# write the layer, with your `find_places` in it and no loop over experts at all: the tokens go to their places in an array
# (E, C, D), and three batched products do all experts at once. Nothing below is graded.
#
# **Predict.** Who wins? How many tokens are dropped without a second chance, when some experts are everybody's
# favourites? And how far are you from this package's own layer?

# %% tags=["look"]
rng = np.random.default_rng(3)
N, D, H, E, K = 4096, 32, 64, 128, 8
shapes = {"w1": (E, D, H), "w3": (E, D, H), "w2": (E, H, D)}
params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
params = {name: (w / np.sqrt(w.shape[1])).astype(np.float32) for name, w in params.items()}
x = rng.normal(size=(N, D)).astype(np.float32)
logits = (x @ rng.normal(size=(D, E)) / np.sqrt(D) + np.linspace(1, 0, E)).astype(np.float32)
probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
choice = np.argsort(-logits, axis=1)[:, :K].astype(np.int16)
capacity = int(np.ceil(1.25 * N / E))

for rounds in (1, 2, 4, 8):
    expert, row = find_places(choice[:, :rounds], E, capacity)
    print(f"choices: {rounds}   dropped: {100 * np.mean(expert < 0):4.1f} % of the tokens")

# %% tags=["look"]
import matplotlib.pyplot as plt

from moe_np.layers import experts, sparse_layer
from moe_np.routing.contract import Routing

token = np.flatnonzero(expert >= 0)
listed = (token, expert[token], probs[token, expert[token]])


def buffers():
    """Route, fill the buffers, do all experts at once, and bring the rows back."""
    expert, row = find_places(choice, E, capacity)
    n = np.flatnonzero(expert >= 0)
    m, r = expert[n], row[n]
    buffer = np.zeros((E, capacity, D), x.dtype)
    buffer[m, r] = x[n]
    z = buffer @ params["w1"]
    y = (z / (1 + np.exp(-z)) * (buffer @ params["w3"])) @ params["w2"]
    out = np.zeros_like(x)
    out[n] = probs[n, m][:, None] * y[m, r]
    return out


def package():
    """This package's own layer."""
    routing = Routing(*listed, logits, probs, np.eye(E, dtype=bool)[choice[:, 0]])
    return sparse_layer.forward(params, x, routing, experts.SWIGLU)[0]


ways = {
    "the loop (question 1)": lambda: by_assignment(params, x, *listed),
    "sorted blocks (question 5)": lambda: sparse_forward(params, x, *listed),
    "places and buffers (question 7)": buffers,
    "moe_np.layers.sparse_layer": package,
}
wanted = ways["the loop (question 1)"]()
same = all(np.allclose(way(), wanted, atol=1e-4) for way in ways.values())
assert same, "all four are the same layer"
times = {name: 1000 * seconds(way, 5) for name, way in ways.items()}
loop = times["the loop (question 1)"]
for name, ms in times.items():
    print(f"{name:32s} {ms:7.2f} ms   {loop / ms:5.1f} times as fast as the loop")

fig, ax = plt.subplots(figsize=(8, 2.6))
bars = ax.barh(list(times)[::-1], list(times.values())[::-1], color="#0072b2")
ax.bar_label(bars, fmt="%.1f", padding=4)
ax.set(xlabel="milliseconds, 4,096 tokens", xlim=(0, 1.1 * loop))
plt.show()

# %% [markdown]
# When we ran it, the sorted blocks were 11 to 30 times as fast as the loop, and the buffers 20 to 60 times (the loop
# suffers most where other programs are at work), level with the package's own layer. That one also keeps what its
# backward pass will need, takes any list, and drops nothing. So a sort, ten compiled lines and three products are what
# a fast sparse layer is made of, and you have written all three.
#
# To try: `E = 8` (what is left of the differences, and why?); N = 256 tokens on 128 experts (who suffers? lesson 10
# says why); a capacity factor of 4 in place of 1.25 (fewer tokens are dropped: what does it cost?).
