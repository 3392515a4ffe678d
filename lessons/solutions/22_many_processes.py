# %% [markdown]
# # 22 · Solutions

# %%
import numpy as np

from moe_np.coursework import self_check
from moe_np.layers import experts
from moe_np.parallel import cost, in_process
from moe_np.parallel.exchanges import Gather, RankError, shares
from moe_np.routing import top_k

# %% [markdown]
# ## Hints
#
# 1. Do it with an explicit list first: for each row that arrived, in its order, write down the expert that it is for.
# 2. The rows of sender s for expert j begin at `counts.ravel()[: s * m + j].sum()`. Loop over the experts outside and
#    over the senders inside, and append the range of each pair.

# %% [markdown]
# ## Your turn
#
# Number the rows as they arrived and cut the numbers into a piece per (sender, expert). Then take the
# pieces expert by expert.


# %%
def by_expert_then_sender(counts):
    arrived = np.arange(counts.sum())
    pieces = np.split(arrived, np.cumsum(counts.ravel())[:-1])  # by sender, then by expert
    R, m = counts.shape
    return np.concatenate([pieces[s * m + j] for j in range(m) for s in range(R)])


def reference(counts):
    expert = np.repeat(np.tile(np.arange(counts.shape[1]), len(counts)), counts.ravel())
    return np.argsort(expert, kind="stable")


def cases(rng):
    tables = [rng.integers(0, 4, size=(R, m)) for R, m in ((1, 3), (2, 2), (3, 2), (4, 5))]
    return [(table,) for table in (np.array([[2, 1], [1, 2]]), *tables, np.zeros((3, 2), int))]


assert self_check(by_expert_then_sender, reference, cases)

# %% [markdown]
# ## 1. Experts in turn
#
# Two lines: `rank_of`, and the loop over a rank's own experts. The bits are still equal. Rule 1 asks for
# contiguous shares of *experts* only to make one thing simple: the order of arrival is then the order of
# the experts' numbers. The lesson's `over_ranks` does not use that: rows of an expert are taken by
# its number (rule 2, only the senders' order matters), and the sum at home goes by number as well
# (rule 3). So any placement gives the same bits, which is what `moe_np.parallel.placement` relies on.


# %%
def all_to_all(sent):
    return [list(column) for column in zip(*sent, strict=True)]


def one_expert(params, m, rows):
    h = np.maximum(rows @ params["w1"][m] + params["b1"][m], 0)
    return h @ params["w2"][m] + params["b2"][m]


def in_one_process(params, x, routing):
    out = np.zeros_like(x)
    for m in range(routing.demand.shape[1]):
        chosen = routing.expert == m
        token, weight = routing.token[chosen], routing.weight[chosen]
        out[token] += weight[:, None] * one_expert(params, m, x[token])
    return out


def over_ranks(params, x, routing, R):
    E = routing.demand.shape[1]
    tokens = shares(len(x), R)
    rank_of = np.arange(E) % R  # in turn
    here = [(tokens[s] <= routing.token) & (routing.token < tokens[s + 1]) for s in range(R)]
    token = [routing.token[here[s]] - tokens[s] for s in range(R)]
    expert = [routing.expert[here[s]] for s in range(R)]
    weight = [routing.weight[here[s]] for s in range(R)]
    x_of = [x[tokens[s] : tokens[s + 1]] for s in range(R)]
    to = [[rank_of[expert[s]] == r for r in range(R)] for s in range(R)]
    rows = all_to_all([[x_of[s][token[s][to[s][r]]] for r in range(R)] for s in range(R)])
    numbers = all_to_all([[expert[s][to[s][r]] for r in range(R)] for s in range(R)])
    pieces = []
    for r in range(R):
        arrived, number = np.concatenate(rows[r]), np.concatenate(numbers[r])
        y = np.empty_like(arrived)
        for m in range(r, E, R):  # the experts of rank r
            y[number == m] = one_expert(params, m, arrived[number == m])
        pieces.append(np.split(y, np.cumsum([len(part) for part in rows[r]])[:-1]))
    returned = all_to_all(pieces)
    out = []
    for s in range(R):
        y = np.empty((len(token[s]), x.shape[1]), x.dtype)
        for r in range(R):
            y[to[s][r]] = returned[s][r]
        total = np.zeros_like(x_of[s])
        for m in range(E):
            chosen = expert[s] == m
            total[token[s][chosen]] += weight[s][chosen, None] * y[chosen]
        out.append(total)
    return np.concatenate(out)


rng = np.random.default_rng(0)
x = rng.normal(size=(96, 16)).astype(np.float32)
params = experts.RELU.init(rng, 16, 6, 32, dtype=np.float32)
router = top_k.init(rng, 16, 6, dtype=np.float32)
routing, _ = top_k.route(router, x, k=3, renormalise=True)
for R in (2, 3, 4, 6):
    assert np.array_equal(over_ranks(params, x, routing, R), in_one_process(params, x, routing))
print("in turn: equal to one process, to the bit")

# %% [markdown]
# ## 2. Messages over computing
#
# Per row that travels: four trips of $D$ numbers, $4 D b / \beta$ seconds. Computing: $2 \cdot 2 D H$
# operations forward with two matrices, three times as many with the backward pass, $12 D H / F$.
# The ratio is $4 b F / (12 H \beta)$: half as much again as for three matrices, because there is less to
# compute per row.
#
# In inference a row makes two trips, $2 D b / \beta$, for the $6 D H / F$ of a SwiGLU. The ratio is
# $2 b F / (6 H \beta)$, again one and a half times that of training: the backward pass computes twice as
# much as the forward pass, but sends only as much.
#
# For 10 %: $H = 4 b F / (18 \cdot 0.1\,\beta)$, some 22,000 hidden units.

# %%
machine = cost.Machine()
F, beta, b = machine.flops, machine.bandwidth, 2
two_matrices = 4 * b * F / (12 * 2048 * beta)
assert np.isclose(two_matrices, cost.wire_share(2048, machine, matrices=2))
assert np.isclose(two_matrices / cost.wire_share(2048, machine, matrices=3), 1.5)
training, inference = 4 / 18, 2 / 6
assert np.isclose(inference / training, 1.5)
H = 4 * b * F / (18 * 0.1 * beta)
print(f"10 % at H = {H:,.0f}")
assert np.isclose(cost.wire_share(round(H), machine), 0.1, rtol=1e-3)

# %% [markdown]
# ## 3. A rank that is not there
#
# `in_process.run` compares what the ranks want at each exchange, and names the one that differs. Under
# MPI nobody compares: ranks 0 and 2 wait for rank 1 until somebody ends them. That is why every
# exchange is made by all ranks, with 0 rows if need be, why `moe_np.parallel.launch` has a time limit,
# and why the exchange of counts carries "I failed" as a number below 0.


# %%
def sum_over_ranks(rank):
    if rank == 1:
        return 0.0  # nothing to send
    gathered = yield Gather(np.array([10.0**rank]), "numbers")
    return sum(float(array[0]) for array in gathered)


try:
    in_process.run([sum_over_ranks(rank) for rank in range(3)])
except RankError as error:
    print(error)
    assert error.rank == 1
else:
    raise AssertionError("it should have been named")
