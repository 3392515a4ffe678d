# %% [markdown]
# # 10 · Solutions

# %%
import time

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.machine import one_blas_thread
from moe_np.coursework import self_check
from moe_np.layers import diagnostics, experts, sparse_layer
from moe_np.routing import expert_choice, switch, top_k


def problem(N, D, H, E, k=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)).astype(np.float32)
    params = experts.RELU.init(rng, D, E, H, dtype=np.float32)
    routing, _ = top_k.route(top_k.init(rng, D, E, dtype=np.float32), x, k=k, renormalise=True)
    return params, x, routing


def one_expert(params, m, rows):
    h = np.maximum(rows @ params["w1"][m] + params["b1"][m], 0)
    return h @ params["w2"][m] + params["b2"][m]


def by_assignment(params, x, routing):
    out = np.zeros_like(x)
    for n, m, weight in zip(routing.token, routing.expert, routing.weight, strict=True):
        out[n] += weight * one_expert(params, m, x[n])
    return out


# %% [markdown]
# ## Hints
#
# 1. First pass: how many assignments does each expert have? Their running sum, with a 0 in front, is `offsets`.
# 2. Second pass: keep one number per expert, the next free place of its block; it begins at `offsets[m]`. Walk
#    through the list in its order, write `order[free[m]] = a`, and add 1 to `free[m]`. Nothing else is needed for a
#    stable order.

# %% [markdown]
# ## Your turn


# %%
def counting_sort(expert, n_experts):
    count = np.zeros(n_experts, int)
    for m in expert:  # first pass: how many
        count[m] += 1
    offsets = np.concatenate([[0], np.cumsum(count)])
    order, free = np.empty(len(expert), int), offsets[:-1].copy()
    for a, m in enumerate(expert):  # second pass: each into the next free place of its block
        order[free[m]] = a
        free[m] += 1
    return order, offsets


def cases(rng):
    lists = [rng.integers(0, 5, size=n) for n in (0, 1, 7, 40)] + [np.array([4, 4, 4, 0])]
    return [(expert, 5) for expert in lists]


assert self_check(counting_sort, sparse_layer.by_expert, cases)

# %% [markdown]
# ## 1. Any routing
#
# Add up expert by expert: within a block no token comes up twice, so `+=` is safe, and it does not matter how many rows
# a token has. A token with none keeps its zeros.


# %%
def sorted_blocks(params, x, routing):
    order, offsets = sparse_layer.by_expert(routing.expert, routing.demand.shape[1])
    token, weight = routing.token[order], routing.weight[order]
    rows, out = x[token], np.zeros_like(x)
    for m in range(len(offsets) - 1):
        own = slice(offsets[m], offsets[m + 1])
        out[token[own]] += weight[own, None] * one_expert(params, m, rows[own])
    return out


params, x, routing = problem(N=64, D=8, H=16, E=4)
router = top_k.init(np.random.default_rng(1), 8, 4, dtype=np.float32)
dropping, _ = switch.route(router, x, capacity_factor=1.0)
picked, _ = expert_choice.route(router, x, capacity_factor=2)
assert (
    diagnostics.dropped_share(dropping) > 0
    and len(set(np.bincount(picked.token, minlength=64))) > 2
)
for one in (routing, dropping, picked):
    np.testing.assert_allclose(
        sorted_blocks(params, x, one), by_assignment(params, x, one), rtol=1e-4, atol=1e-6
    )

# %% [markdown]
# ## 2. Why it is right inside the loop
#
# `own` are the assignments of one expert, and a token chooses an expert at most once. So `token[own]` has no number
# twice, and `+=` loses nothing. It would be wrong for a router that names the same expert twice for one token; whoever
# wants that has to add up the two weights first.

# %%
twice = routing._replace(
    token=np.array([0, 0]),
    expert=np.array([3, 3]),
    weight=np.array([0.5, 0.5], np.float32),
    demand=routing.demand,
)
try:
    sparse_layer.forward(params, x, twice, experts.RELU)
except InputError as error:
    print(error)
else:
    raise AssertionError("it should have been refused")

# %% [markdown]
# ## 3. Everybody to the same two
#
# `everyone` does the same work whatever the routing says. The other two get *faster*: two products of 512 rows are the
# best thing that can happen to one processor. With one expert per processor, 254 processors would wait while two do all
# the work: the time is that of the fullest expert, `max_over_mean` times the even one, here 128 times. What balance is
# worth depends on the machine.


# %%
def everyone(params, x, routing):
    out, dense_weight = np.zeros_like(x), np.zeros(routing.demand.shape, x.dtype)
    dense_weight[routing.token, routing.expert] = routing.weight
    for m in range(dense_weight.shape[1]):
        out += dense_weight[:, m, None] * one_expert(params, m, x)
    return out


def masks(params, x, routing):
    out = np.zeros_like(x)
    for m in range(routing.demand.shape[1]):
        own = routing.expert == m
        out[routing.token[own]] += routing.weight[own, None] * one_expert(
            params, m, x[routing.token[own]]
        )
    return out


def seconds(way, *case):
    times = []
    with one_blas_thread():
        for _ in range(4):
            start = time.perf_counter()
            way(*case)
            times.append(time.perf_counter() - start)
    return min(times)


params, x, even = problem(N=512, D=64, H=128, E=256)
demand = np.zeros_like(even.demand)
demand[:, :2] = True
same_two = even._replace(expert=np.tile([0, 1], 512), demand=demand)
for way in (everyone, masks, sorted_blocks):
    ratio = seconds(way, params, x, same_two) / seconds(way, params, x, even)
    print(f"{way.__name__:14s} takes {ratio:.2f} of the time with even loads")
assert diagnostics.max_over_mean(diagnostics.load(same_two)) == 128
