# %% [markdown]
# # Assignment 7: experts on many ranks
#
# A model whose experts do not fit into one machine is divided among many. You write what happens then to one layer: who
# sends what to whom, how the outputs and the gradients come back, what a capacity drops, and what all that costs. No
# messages are sent: a rank is one place in a list. It follows lesson 22; allow four to five hours.
#
# **What to do.** Seven functions have a body to write, where it says `# YOUR CODE HERE`. Keep their names and
# arguments. The cell under each holds visible checks: run it, and no error means they pass. All checks at once, as
# in grading: `moe-np coursework check 7_ranks.ipynb`. The eighth answer is text, and is marked by hand.
#
# **What is graded.** Each function by itself, on other inputs than you see here, drawn anew for each grading: ranks
# without tokens, without experts or without rows, experts in any order on the ranks, more than two experts per token.
# 23 points: counts 2, dispatch 3, combine 3, gradients at home 3, gradients of all 3, capacity 3, cost 3, in words 3.
# A question gives points in proportion to the hidden inputs that are answered right, in half points, and none below
# half of them. Results count as right within a relative 1e-4, so float32 will do, but in question 4, which is about
# the last bit. A function must not change its inputs, and must answer within seconds.
#
# **What may be imported.** NumPy, Matplotlib, and of this package `moe_np.base.checks` and `moe_np.base.gradcheck`.
# Nothing else of `moe_np` exists where your work is graded. Each function is graded alone, so if you call one of your own
# functions from another, a mistake in it costs both. (Helpers of your own belong into the answer cell that uses them, or
# into a cell that you add.)
#
# | code | shape | meaning |
# |---|---|---|
# | `x` | list of R arrays (N_r, D) | the tokens of each rank; N_r may differ, and be 0 |
# | `token`, `expert`, `weight` | lists of R arrays (A_r,) | each rank's list of assignments: this row of its `x`, to this expert, with this weight |
# | `owner` | (E,) | the rank that has each expert |
#
# **The lists** may be in any order, as in assignment 4. A token stands in its list as many times as it has experts, and
# never twice with the same. A rank may have no tokens, tokens but no assignments, several experts that do not
# follow each other, or no expert. An answer that is a list of arrays has R of them, also empty ones: for a rank that gets
# no rows an array of the shape (0, D).

# %% given="setup"
import numpy as np

# %% [markdown]
# ## 1. Counts (2 points)
#
# Before a rank can receive rows it has to know how many will come. That is the first exchange of a layer: each rank counts
# its assignments for every expert, and tells each rank about the experts there.


# %% answer="q1_counts"
def count_rows(expert, owner):
    """How many rows go where. -> for_experts (R, E), sent (R, R)

    expert         list of R arrays (A_r,) of expert numbers; owner (E,) the rank of each expert
    for_experts    [r, m]: how many rows rank r has for expert m
    sent           [r, s]: how many rows rank r sends to rank s; those that stay are sent, too
    """
    ### BEGIN SOLUTION
    R, E = len(expert), len(owner)
    for_experts = np.array([np.bincount(m, minlength=E) for m in expert])
    sent = np.zeros((R, R), int)
    for s in range(R):
        sent[:, s] = for_experts[:, owner == s].sum(axis=1)
    return for_experts, sent
    ### END SOLUTION


# %% test="q1_counts"
# visible checks of q1_counts
expert = [np.array([0, 2, 0]), np.array([2, 1, 1])]
got = count_rows(expert, np.array([1, 0, 1, 0]))  # rank 0 has experts 1 and 3
assert got is not None, "count_rows returned nothing"
for_experts, sent = got
message = (
    f"rank 0 has two rows for expert 0 and one for 2; nobody wants expert 3; got {for_experts}"
)
assert np.array_equal(for_experts, [[2, 0, 1, 0], [0, 2, 1, 0]]), message
message = f"experts 0 and 2 are on rank 1: rank 0 sends three rows there; got {sent}"
assert np.array_equal(sent, [[0, 3], [2, 1]]), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("7_ranks", "q1_counts", count_rows)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Dispatch (3 points)
#
# Now the rows travel. On each rank they have to be in an order that does not depend on which message was faster, or the
# results would differ from run to run: **by expert, then by sender, then as the sender's list has them**. With tokens
# divided in contiguous shares this is the order that one process would have, so that the expert's products are those of one
# process to the last bit.


# %% answer="q2_dispatch"
def dispatch(x, token, expert, owner):
    """Send each row to the rank of its expert. -> rows, numbers

    x          list of R arrays (N_r, D); token, expert: lists of R arrays (A_r,); owner (E,)
    rows       list of R arrays (B_s, D): what rank s has then, in the order of the text
    numbers    list of R arrays (B_s,): the expert of each of these rows
    """
    ### BEGIN SOLUTION
    rows, numbers = [], []
    for s in range(len(x)):
        parts = [x[0][:0]]
        here = [np.empty(0, int)]
        for m in np.flatnonzero(owner == s):
            for r in range(len(x)):
                parts.append(x[r][token[r][expert[r] == m]])
                here.append(np.full(len(parts[-1]), m))
        rows.append(np.concatenate(parts))
        numbers.append(np.concatenate(here))
    return rows, numbers
    ### END SOLUTION


# %% test="q2_dispatch"
# visible checks of q2_dispatch
x = [np.array([[1.0, 10.0], [2.0, 20.0]]), np.array([[3.0, 30.0]])]
token = [np.array([1, 0, 0, 1]), np.array([0, 0])]
expert = [np.array([2, 0, 2, 1]), np.array([2, 0])]
got = dispatch(x, token, expert, np.array([1, 0, 1]))  # rank 1 has experts 0 and 2
assert got is not None, "dispatch returned nothing"
rows, numbers = got
lengths = [len(part) for part in rows]
assert lengths == [1, 5], (
    f"one row for expert 1 on rank 0, five for 0 and 2 on rank 1, got {lengths}"
)
message = f"rank 1: expert 0 has token 0 of rank 0, then that of rank 1; got {rows[1]}"
assert np.allclose(np.asarray(rows[1])[:2], [[1, 10], [3, 30]]), message
message = (
    f"then expert 2: tokens 1 and 0 of rank 0, as its list has them, then rank 1's; got {rows[1]}"
)
assert np.allclose(np.asarray(rows[1])[2:], [[2, 20], [1, 10], [3, 30]]), message
assert np.allclose(rows[0], [[2, 20]]), f"rank 0 has expert 1, which token 1 wants, got {rows[0]}"
message = f"the experts of these rows: wanted [1] and [0, 0, 2, 2, 2], got {numbers}"
assert np.array_equal(numbers[0], [1]) and np.array_equal(numbers[1], [0, 0, 2, 2, 2]), message
rows, numbers = dispatch(x, token, expert, np.array([0, 0, 0]))
shapes = np.shape(rows[1]), np.shape(numbers[1])
message = f"rank 1 has no expert: wanted arrays of the shapes (0, 2) and (0,), got {shapes}"
assert shapes == ((0, 2), (0,)) or rows[1] in ([], ()), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("7_ranks", "q2_dispatch", dispatch)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Combine (3 points)
#
# The experts have made an output of each row, in the order of question 2. The outputs go home, to the rank and the token from
# which the rows came, and are added there with their weights:
#
# $$\text{out}_n = \sum_{a:\ \text{token}_a = n} \text{weight}_a\, y_a.$$
#
# Weights do not travel: they are at home. A token without an assignment gets 0.


# %% answer="q3_combine"
def combine(y, token, expert, weight, owner, n_tokens):
    """Bring the outputs home and add them up. -> list of R arrays (N_r, P)

    y                        list of R arrays (B_s, P): outputs on rank s, in the order of question 2
    token, expert, weight    lists of R arrays (A_r,); owner (E,)
    n_tokens                 list of R numbers N_r
    """
    ### BEGIN SOLUTION
    out = [np.zeros((n, y[0].shape[1])) for n in n_tokens]
    used = np.zeros(len(y), int)  # rows of each rank that are home
    for m, s in enumerate(owner):
        for r in range(len(y)):
            a = np.flatnonzero(expert[r] == m)
            block = y[s][used[s] : used[s] + len(a)]
            out[r][token[r][a]] += weight[r][a, None] * block
            used[s] += len(a)
    return out
    ### END SOLUTION


# %% test="q3_combine"
# visible checks of q3_combine
token = [np.array([1, 0, 0]), np.array([0, 0])]
expert = [np.array([2, 0, 2]), np.array([2, 0])]
weight = [np.array([1.0, 0.5, 0.25]), np.array([2.0, 1.0])]
owner = np.array([1, 0, 1])  # all five rows are on rank 1; expert 1 on rank 0 has none
y = [np.empty((0, 2)), np.array([[4.0, 1.0], [5.0, 1.0], [6.0, 1.0], [8.0, 1.0], [7.0, 1.0]])]
out = combine(y, token, expert, weight, owner, [3, 1])
assert out is not None, "combine returned nothing"
shapes = [np.shape(part) for part in out]
assert shapes == [(3, 2), (1, 2)], f"wanted (3, 2) and (1, 2), got {shapes}"
message = f"rank 0, token 0: 0.5 · 4 of expert 0 and 0.25 · 8 of expert 2, got {out[0][0]}"
assert np.allclose(out[0][0], [4, 0.75]), message
message = f"rank 0, token 1: row 2 of rank 1, the first of expert 2, got {out[0][1]}"
assert np.allclose(out[0][1], [6, 1]), message
assert not np.any(out[0][2]), "rank 0, token 2 is not in the list"
assert np.allclose(out[1][0], [19, 3]), f"rank 1, token 0: 1 · 5 and 2 · 7, got {out[1][0]}"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("7_ranks", "q3_combine", combine)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Gradients at home, in one order (3 points)
#
# Backwards, the gradients of the rows come home as the outputs did. `drows` has the weights in it already, since the
# output's gradient was multiplied by them before it left. Two sums are left to do there, on one rank:
#
# - `dx`: a token gets the sum of the gradients of its rows;
# - `dweight`: $\text{dout}_n \cdot y_a$ for assignment $a$ of token $n$. Nothing has to travel: `y` is at home already.
#
# Computers add with rounding: $(a + b) + c$ is not $a + (b + c)$. Two numbers can be swapped, so with k = 2 any order gives
# the same; from $k = 3$ on the order counts. If rows were added as they arrive, a run on 8 ranks would differ
# from one on 4, and no error could be found by comparing. So the order is fixed: **a token's rows are added from the lowest
# number of the expert to the highest**, whatever order the list has. Here float64 is needed, and `dx` has to be right to
# the last bit.


# %% answer="q4_home"
def gradients_at_home(drows, y, dout, token, expert):
    """Sums on one rank, after the last exchange. -> dx (N, D), dweight (A,)

    drows (A, D), gradients of the rows; y (A, P), outputs of the experts; both as the list has them
    dout (N, P); token, expert (A,)
    """
    ### BEGIN SOLUTION
    dx = np.zeros((len(dout), drows.shape[1]))
    order = np.argsort(expert, kind="stable")
    np.add.at(dx, token[order], drows[order])
    return dx, (dout[token] * y).sum(axis=1)
    ### END SOLUTION


# %% test="q4_home"
# visible checks of q4_home
token, expert = np.array([1, 0, 1, 1]), np.array([4, 2, 0, 1])
drows = np.array([[-1e16, 1.0], [0.1, 50.0], [1.0, 1e16], [1e16, -1e16]])
y = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
dout = np.array([[1.0, 0.5], [2.0, 1.0], [9.0, 9.0]])
got = gradients_at_home(drows, y, dout, token, expert)
assert got is not None, "gradients_at_home returned nothing"
dx, dweight = got
assert np.shape(dx) == (3, 2), f"wanted the shape (3, 2), got {np.shape(dx)}"
assert np.array_equal(dx[0], [0.1, 50]), f"token 0 has one row, which is float64, got {dx[0]}"
message = "token 1: expert 0, then 1, then 4: (1 + 1e16) − 1e16 = 0 and (1e16 − 1e16) + 1 = 1"
assert np.array_equal(dx[1], [0, 1]), f"{message}, got {dx[1]}"
assert not np.any(dx[2]), "token 2 has no rows"
message = f"dout of the token times y: wanted [4, 5, 16, 22], got {dweight}"
assert np.allclose(dweight, [4, 5, 16, 22]), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("7_ranks", "q4_home", gradients_at_home)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Gradients of all (3 points)
#
# The loss is the mean over **all** tokens of **all** ranks. Each rank has the gradients of the *sum* of losses:
#
# - of what every rank has a copy of (`shared`: the router, the norms, attention), from its own tokens;
# - of the experts that it holds (`experts`), from all rows that came to it, from whatever rank.
#
# So a shared gradient is to be added over the ranks, and an expert's gradient is complete where the expert is. But an
# expert that everybody wants may have copies on several ranks (replicas), each of which has seen other rows.


# %% answer="q5_all"
def gradients_of_all(shared, experts, held, n_tokens, n_experts):
    """Gradients of the mean loss. -> shared, a dict of arrays; experts (E, D, H)

    shared       list of R dicts of arrays: gradients of the sum of the losses of a rank's tokens
    experts      list of R arrays (E_r, D, H): gradients of the experts that rank r holds
    held         list of R arrays (E_r,): which these are. Each expert is held at least once
    n_tokens     list of R numbers of tokens, not all 0; n_experts: E
    """
    ### BEGIN SOLUTION
    total = sum(n_tokens)
    mean = {name: sum(part[name] for part in shared) / total for name in shared[0]}
    of_experts = np.zeros((n_experts, *experts[0].shape[1:]))
    for grads, numbers in zip(experts, held, strict=True):
        for g, m in zip(grads, numbers, strict=True):
            of_experts[m] += g / total
    return mean, of_experts
    ### END SOLUTION


# %% test="q5_all"
# visible checks of q5_all
shared = [{"router": np.array([1.0, 2.0]), "g": np.array([4.0, 0.0])}]
shared += [{"router": np.array([7.0, 10.0]), "g": np.array([0.0, 8.0])}]
experts = [np.array([[[8.0]], [[4.0]]]), np.array([[[12.0]], [[2.0]]])]
held = [np.array([0, 1]), np.array([2, 1])]  # expert 1 has two replicas
got = gradients_of_all(shared, experts, held, [3, 1], 3)
assert got is not None, "gradients_of_all returned nothing"
mean, of_experts = got
assert set(mean) == {"router", "g"}, f"wanted the keys router and g, got {sorted(mean)}"
message = f"(1 + 7)/4 and (2 + 10)/4, since there are four tokens; got {mean['router']}"
assert np.allclose(mean["router"], [2, 3]), message
assert np.allclose(mean["g"], [1, 2]), f"(4 + 0)/4 and (0 + 8)/4, got {mean['g']}"
assert np.shape(of_experts) == (3, 1, 1), f"wanted the shape (3, 1, 1), got {np.shape(of_experts)}"
message = f"8/4, the sum of the replicas (4 + 2)/4, and 12/4; got {np.ravel(of_experts)}"
assert np.allclose(np.ravel(of_experts), [2, 1.5, 3]), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("7_ranks", "q5_all", gradients_of_all)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Capacity per rank (3 points)
#
# With a capacity, an expert takes at most so many rows. To count the rows of all ranks one more exchange would be needed,
# so each rank is a **group** of its own (as in GShard): of the tokens of rank r an expert takes at most
#
# $$C_r = \lceil \text{factor} \cdot N_r\, k / E \rceil, \quad\text{at least } 1.$$
#
# Who stands earlier in the rank's list comes first; the rest is dropped. $N_r$ is the number of tokens of the rank, however
# long its list is. How unevenly the experts are used within a rank then matters, not only over all.


# %% answer="q6_capacity"
def keep_by_rank(expert, n_tokens, n_experts, k, factor):
    """What each rank keeps. -> kept, dropped

    expert     list of R arrays (A_r,); n_tokens: list of R numbers N_r
    kept       list of R arrays (A_r,) of bool
    dropped    the share of all assignments of all ranks that is dropped, 0 if there are none
    """
    ### BEGIN SOLUTION
    kept = []
    for numbers, n in zip(expert, n_tokens, strict=True):
        capacity = max(1, int(np.ceil(factor * n * k / n_experts)))
        taken = [0] * n_experts
        fits = np.zeros(len(numbers), bool)
        for a, m in enumerate(numbers):
            fits[a] = taken[m] < capacity
            taken[m] += 1
        kept.append(fits)
    everything = np.concatenate(kept)
    return kept, (~everything).sum() / max(len(everything), 1)
    ### END SOLUTION


# %% test="q6_capacity"
# visible checks of q6_capacity
expert = [np.array([0, 0, 1, 0, 0]), np.array([1, 1]), np.array([], int)]
got = keep_by_rank(expert, [5, 2, 0], 2, 1, 1.0)
assert got is not None, "keep_by_rank returned nothing"
kept, dropped = got
lengths = [len(part) for part in kept]
assert lengths == [5, 2, 0], f"as many as the lists have, 5, 2 and 0, got {lengths}"
message = f"rank 0: C = 5/2, rounded up to 3: its fourth row for expert 0 is dropped, got {kept[0]}"
assert np.array_equal(kept[0], [True, True, True, True, False]), message
assert np.array_equal(kept[1], [True, False]), f"rank 1: C = 1, got {kept[1]}"
assert np.isclose(dropped, 2 / 7), f"two of seven assignments are dropped, got {dropped}"
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("7_ranks", "q6_capacity", keep_by_rank)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. What it costs (3 points)
#
# A message costs $\alpha$ seconds, however short, and each byte $1/\beta$ seconds. $R$ ranks stand in nodes of $m$, which have
# a faster network inside. (If $R < m$, there is one node, and $m$ is $R$ here.) In one exchange a rank sends $b$ bytes, in
# equal parts to all ranks, its own among them:
#
# $$T = \alpha \cdot \text{messages}
#   + \max\Big(\big(1 - \tfrac m R\big) \frac{b}{\beta},\ \frac{m - 1}{R} \frac{b}{\beta_{\text{node}}}\Big),
#   \qquad b = 2\, N k D \text{ bytes},$$
#
# with one message to each rank of the other nodes; if there is one node only, one message to each other rank.
#
# The experts' products: $N k$ rows per rank, each $3 \cdot 2 D H$ operations (SwiGLU has three matrices). But the weights
# have to be read from memory as well, those of the experts that somebody uses (lesson 14, section 5). Of $N R$ tokens that
# choose $k$ of $E$ experts at random, **touched** are
#
# $$E \big(1 - (1 - k/E)^{NR}\big),$$
#
# each $3 D H$ numbers of 2 bytes, divided among the ranks. The longer of both counts:
# $\max(\text{operations}/F,\ \text{bytes}/B)$.


# %% answer="q7_cost"
def layer_cost(N, k, D, H, E, R, m, machine):
    """Seconds of one exchange, experts touched, seconds of the products, each a number

    N, tokens per rank; k of E experts per token; D, H: features and hidden units
    R ranks in nodes of m; m divides R where R is larger
    machine    {"alpha", "beta", "beta_node", "F", "B"}: α in s, β in bytes/s, F and B per second
    """
    ### BEGIN SOLUTION
    m = min(m, R)
    sent = 2 * N * k * D
    messages = R - m if m < R else R - 1
    wire = max((1 - m / R) * sent / machine["beta"], (m - 1) / R * sent / machine["beta_node"])
    touched = E * (1 - (1 - k / E) ** (N * R))
    operations = 6 * N * k * D * H
    read = 6 * touched / R * D * H
    seconds = max(operations / machine["F"], read / machine["B"])
    return machine["alpha"] * messages + wire, touched, seconds
    ### END SOLUTION


# %% test="q7_cost"
# visible checks of q7_cost
machine = {"alpha": 1e-5, "beta": 1e9, "beta_node": 1e11, "F": 1e12, "B": 1e9}
got = layer_cost(500, 2, 100, 50, 8, 16, 4, machine)
assert got is not None, "layer_cost returned nothing"
exchange, touched, products = got
message = f"12 messages of 10 µs, and 3/4 of 200,000 bytes: 120 + 150 µs, got {exchange}"
assert np.isclose(exchange, 270e-6, atol=0), message
assert np.isclose(touched, 8), f"so many tokens touch all 8 experts, got {touched}"
message = f"3e7 operations take 30 µs; to read half an expert, 15,000 bytes, 15 µs; got {products}"
assert np.isclose(products, 30e-6, atol=0), message
exchange, touched, products = layer_cost(1, 2, 100, 50, 8, 2, 4, machine)
message = f"one node: 1 message, and 1/2 of 400 bytes at 1e11 per second, got {exchange}"
assert np.isclose(exchange, 1e-5 + 2e-9, atol=0), message
message = f"two tokens: 8 (1 − 0.75²) = 3.5 experts, got {touched}"
assert np.isclose(touched, 3.5), message
message = f"1.75 experts of 30,000 bytes are read by a rank: 52.5 µs, got {products}"
assert np.isclose(products, 52.5e-6, atol=0), message
### BEGIN HIDDEN TESTS
from moe_np.coursework import hidden_test

hidden_test("7_ranks", "q7_cost", layer_cost)
### END HIDDEN TESTS

# %% [markdown]
# ## 8. In words (3 points)
#
# A model with 64 experts is trained on 8 ranks, one node, with plain gradient descent. Somebody moves it to 64 ranks, eight
# nodes, with the same batch, so that each rank has an eighth of the tokens. The loss of a rank is the sum over its tokens,
# divided by the number of tokens of the whole batch. Three things are reported: the step is hardly faster; with the same
# capacity factor more tokens are dropped, although the experts are used as evenly as before over the whole batch; and
# router and experts learn 8 times as slowly, since "we average all gradients over the ranks, as one does".
#
# Explain each of the three in one or two sentences, and say for each what to do.

# %% [markdown] by_hand="q8_words"
# ### BEGIN SOLUTION
# Hardly faster (1 point): the products of a rank are an eighth, but within a node 7 messages went over the fast network,
# and now 56 messages and 7/8 of the bytes go between nodes, at β instead of β_node; and with few tokens per rank the weights
# of the experts still have to be read. Exchange in two steps, within the nodes and then between them (fewer, longer
# messages), overlap messages with computing, or give a rank more tokens.
#
# Dropped (1 point): each rank is a group with a capacity of its own, an eighth of what it was. Among few tokens, which
# come from few and similar documents, the shares of the experts vary more than over the batch, and what one rank has
# left over another cannot use. Shuffle documents over the ranks, use a larger factor, balance within the groups, or exchange
# counts and drop over the whole batch.
#
# Learning (1 point): the losses of the ranks are parts of one sum, which is divided already, so gradients are added and
# not averaged: those of shared parameters and of replicas over the ranks. An expert's gradient is complete on the rank that
# holds it: it has the rows of all ranks. A mean divides all of them once too often, by 64 in place of 8. (It would be
# right, for the experts as well, if the loss of each rank were the mean over its own, equally many, tokens.)
# ### END SOLUTION

# %% [markdown]
# ## The layer, on ranks
#
# Your functions together: the same layer on 1, 2, 4 and 8 ranks. Nothing below is graded.
#
# **Predict.** Is the output the same to the last bit on any number of ranks? What share of the rows travels on 2, 4
# and 8 ranks?

# %% tags=["look"]
rng = np.random.default_rng(0)
N, D, H, E, k = 256, 16, 32, 16, 3
w1, w2 = rng.normal(size=(E, D, H)) / 4, rng.normal(size=(E, H, D)) / 6
batch = rng.normal(size=(N, D))
logits = batch @ rng.normal(size=(D, E))
chosen = np.argsort(-logits, axis=1)[:, :k]
share = np.exp(np.take_along_axis(logits, chosen, axis=1))
share /= share.sum(axis=1, keepdims=True)


def layer_on(R):
    """(the layer's output, the share of the rows that travel) on R ranks."""
    edge = np.linspace(0, N, R + 1).astype(int)
    parts = [slice(edge[r], edge[r + 1]) for r in range(R)]
    x = [batch[part] for part in parts]
    token = [np.repeat(np.arange(len(rows)), k) for rows in x]
    expert = [chosen[part].ravel() for part in parts]
    weight = [share[part].ravel() for part in parts]
    owner = np.arange(E) * R // E
    sent = count_rows(expert, owner)[1]
    rows, numbers = dispatch(x, token, expert, owner)
    y = []
    for here, numbers_here in zip(rows, numbers, strict=True):
        made = np.empty((len(here), D))
        for m in np.unique(numbers_here):
            block = numbers_here == m
            made[block] = np.maximum(here[block] @ w1[m], 0) @ w2[m]
        y.append(made)
    out = combine(y, token, expert, weight, owner, [len(rows) for rows in x])
    return np.concatenate(out), 1 - np.trace(sent) / np.sum(sent)


alone, _ = layer_on(1)
for R in (2, 4, 8):
    out, travels = layer_on(R)
    print(
        f"{R} ranks: equal to the bit: {np.array_equal(out, alone)}; {100 * travels:.0f} % travel"
    )

# %% tags=["look"]
import matplotlib.pyplot as plt

machine = {"alpha": 5e-6, "beta": 25e9, "beta_node": 300e9, "F": 125e12, "B": 1.5e12}
ranks = np.array([1, 2, 4, 8, 16, 32, 64])
costs = [layer_cost(4096, 2, 4096, 14336, 64, int(R), 8, machine) for R in ranks]
fig, ax = plt.subplots(figsize=(6, 3.2))
ax.plot(ranks, [1000 * 2 * c[0] for c in costs], "o-", label="two exchanges")
ax.plot(ranks, [1000 * c[2] for c in costs], "s-", label="the experts' products")
ax.set(xscale="log", xlabel="ranks", ylabel="milliseconds")
ax.set_xticks(ranks, ranks)
ax.legend(frameon=False)
plt.tight_layout()
plt.show()

# %% [markdown]
# The bits are equal because of the two orders: of rows on each expert's rank, and of the sum at home. About $1 - 1/R$ of
# all rows travel. From one node to two the exchange becomes much slower; the products stay what they are.
#
# To try: `E = 256` experts of `H = 2048` (what do many small experts cost?); 64 tokens per rank instead of 4096, as in
# generation (what do the products wait for?).
