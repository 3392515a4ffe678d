# %% [markdown]
# # 11 · Solutions

# %%
import numpy as np

from moe_np.base.numerics import softmax
from moe_np.coursework import self_check
from moe_np.layers import balance, diagnostics
from moe_np.routing import contract, expert_choice, switch, top_k, top_p
from moe_np.routing.contract import Routing

N, V, D, E = 40, 12, 6, 4
rng = np.random.default_rng(3)
words = rng.normal(size=(V, D))
frequency = 1 / np.arange(1, V + 1)
ids = rng.choice(V, size=N, p=frequency / frequency.sum())
x = words[ids] + 0.3 * rng.normal(size=(N, D))
w = top_k.init(rng, D, E, scale=1.5)

# %% [markdown]
# ## Hints
#
# 1. Sort each column, largest first. Which kind of sort leaves equal values in their order?
# 2. `np.argsort(-scores, axis=0, kind="stable")[:C]` has the C tokens of every expert. `np.put_along_axis` writes
#    True at these places of an array of False.

# %% [markdown]
# ## Your turn


# %%
def experts_pick(scores, C):
    order = np.argsort(-scores, axis=0, kind="stable")  # stable: the earlier token wins a tie
    taken = np.zeros(scores.shape, bool)
    np.put_along_axis(taken, order[:C], True, axis=0)
    return taken


def cases(rng):
    for tokens, n_experts, C in ((6, 3, 2), (9, 4, 3), (5, 2, 5), (1, 4, 1)):
        yield rng.normal(size=(tokens, n_experts)), C
    yield np.ones((4, 2)), 2


assert self_check(experts_pick, expert_choice.pick, cases)

# %% [markdown]
# ## 1. The most probable first
#
# `within_capacity` gives out places in the order in which it sees the tokens, so show them by falling probability. The
# dropped ones are now the least sure, which sounds like an improvement, and the router leaks: a late token that is very
# sure takes the place of an early one.


# %%
def prioritised(x):
    logits = x @ w["w"]
    probs = softmax(logits)
    choice = probs.argmax(axis=1)
    order = np.argsort(-probs.max(axis=1), kind="stable")
    fits = np.empty(len(x), bool)
    fits[order] = contract.within_capacity(choice[order], E, contract.capacity(len(x), E, 1, 1.25))
    token = np.flatnonzero(fits)
    demand = contract.demand_of(choice[:, None], E)
    return Routing(token, choice[token], probs[token, choice[token]], logits, probs, demand)


def dropped_mean(routing):
    dropped = np.setdiff1d(np.arange(N), routing.token)
    return routing.probs[dropped].max(axis=1).mean()


in_order, _ = switch.route(w, x, capacity_factor=1.25)
best_first = prioritised(x)
print(
    f"mean probability of the dropped: {dropped_mean(in_order):.2f} in order, {dropped_mean(best_first):.2f} best first"
)
assert len(in_order.token) == len(best_first.token) and dropped_mean(best_first) < dropped_mean(
    in_order
)

before, reach = set(best_first.token) - {N - 1}, 0
for _ in range(40):
    other = x.copy()
    other[-1] = words[rng.integers(V)] + 0.3 * rng.normal(size=D)
    reach += set(prioritised(other).token) - {N - 1} != before
print(reach, "of 40 changes of the last token reach back")
assert reach > 0

# %% [markdown]
# ## 2. How many experts per token gets that knows nothing
#
# The smallest $j$ with $j/E \ge p$, so $\lceil pE \rceil$: 4 of 8 experts, 26 of 64. At the start all tokens are near
# this, so the first steps cost several times what the last ones do. The entropy loss, which is *added*, makes each
# token surer of its choice, so the number falls.

# %%
for n_experts in (8, 64):
    routing, _ = top_p.route({"w": np.zeros((D, n_experts))}, x, p=0.4)
    assert len(routing.token) / N == np.ceil(0.4 * n_experts)
    print(f"E = {n_experts}: {len(routing.token) / N:.0f} experts per token")

params, experts_a_token = {"w": 0.1 * w["w"]}, []
for _ in range(300):  # descend the entropy loss alone
    routing, cache = top_p.route(params, x, p=0.4)
    experts_a_token.append(len(routing.token) / N)
    dlogits = balance.token_entropy(routing).dlogits
    _, grads = top_p.route_backward(np.zeros(len(routing.token)), dlogits, cache)
    params = {"w": params["w"] - 0.5 * grads["w"]}
print(
    f"experts per token while the entropy falls: {experts_a_token[0]:.2f} to {experts_a_token[-1]:.2f}"
)
assert experts_a_token[-1] < experts_a_token[0]

# %% [markdown]
# ## 3. One token at a time
#
# With $N = 1$ there is no competition: $C = \min(\lceil 1/4 \rceil, 1) = 1$, and every expert takes the only token
# there is. In the batch it had between none and two. The model that writes is not the model that was measured: a
# perplexity taken in batches says little about it.

# %%
alone = [len(expert_choice.route(w, x[n : n + 1], capacity_factor=1)[0].token) for n in range(N)]
batch, _ = expert_choice.route(w, x, capacity_factor=1)
print(
    "experts of a token alone:",
    set(alone),
    " in the batch:",
    set(np.bincount(batch.token, minlength=N).tolist()),
)
assert set(alone) == {E} and diagnostics.unserved_share(batch) > 0
