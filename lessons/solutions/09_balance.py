# %% [markdown]
# # 09 · Solutions

# %%
import numpy as np

from moe_np.base import numerics
from moe_np.coursework import self_check
from moe_np.layers import balance, diagnostics
from moe_np.models import associative_memory
from moe_np.models.associative_memory import RouterSetup
from moe_np.routing import bias_balanced, contract, top_k

TOP2 = {"k": 2, "renormalise": True}


def routed(logits, k):
    return top_k.route({"w": np.eye(logits.shape[1])}, logits, k=k, renormalise=False)[0]


# %% [markdown]
# ## Hints
#
# 1. The three lines of section 3: $f$ from a count, $P$ from the mean of the softmax, and the gradient with $f$ held.
#    `np.bincount` counts.
# 2. `f = np.bincount(choice.ravel(), minlength=E) / (k * N)` with `choice` the first $k$ columns of
#    `np.argsort(-logits, axis=1, kind="stable")`. For the gradient, $\sum_j f_j p_{nj}$ is one number per token: `(f
#    * p).sum(axis=1, keepdims=True)`.

# %% [markdown]
# ## Your turn


# %%
def switch_loss(logits, k):
    N, E = logits.shape
    p = numerics.softmax(logits)
    f = np.bincount(contract.top_k(logits, k).ravel(), minlength=E) / (
        k * N
    )  # a count: no gradient
    value = E * (f * p.mean(axis=0)).sum()
    return value, E / N * p * (f - (f * p).sum(axis=1, keepdims=True))


def reference(logits, k):
    loss = balance.switch(routed(logits, k))
    return loss.value, loss.dlogits


def cases(rng):
    for N, E, k in ((6, 4, 1), (5, 3, 2), (8, 5, 3)):
        yield rng.normal(size=(N, E)) + np.arange(E), k


assert self_check(switch_loss, reference, cases)

# %% [markdown]
# ## 1. How much is enough
#
# The larger $\alpha$, the more even the loads. The perplexity is best in between, near $\alpha$ = .1. Below it, experts lie
# idle. Above it balance costs something: the gate has less freedom to choose for each token what is good for it.


# %%
def train_and_measure(alpha):
    setup = RouterSetup(
        top_k, TOP2, losses=lambda forward: [(alpha, balance.switch(forward.routing))]
    )
    task, initialisation, order = (np.random.default_rng([0, i]) for i in range(3))
    keys, labels = associative_memory.associations(task, 512, 16, 32, common=6.0)
    params = associative_memory.init(initialisation, setup, keys, 32, n_experts=16, hidden=4)
    for step in associative_memory.train(
        setup, params, keys, labels, epochs=100, batch=128, lr=0.05, rng=order
    ):
        params = step.params
    return associative_memory.measure(setup, params, keys, labels, batch=len(keys))


cv, perplexity = {}, {}
for alpha in (0.001, 0.01, 0.1, 1.0, 10.0):
    measured = train_and_measure(alpha)
    cv[alpha], perplexity[alpha] = measured["cv"], measured["perplexity"]
    print(f"α = {alpha:<6g} CV of the load {cv[alpha]:.2f}   perplexity {perplexity[alpha]:.1f}")
assert cv[0.001] > cv[0.1] > cv[10.0]
assert perplexity[0.1] < min(perplexity[0.001], perplexity[10.0])

# %% [markdown]
# ## 2. A gate that is sure
#
# With $p = (1, 0, \dots)$: for expert 0, $p_0 (f_0 - \sum_j f_j p_j) = 1 \cdot (f_0 - f_0) = 0$; for the others
# $p_i = 0$. So the gradient is 0 whatever $f$ is: Switch's loss **cannot** rescue a gate that has collapsed and is
# sure. It has to be there from the start (and noise, small initial weights or the z-loss keep the gate from
# becoming sure early). A bias compares counts and does not care how sure anyone is.

# %%
logits = np.tile([20.0, 0.0], (10, 1))
loss = balance.switch(routed(logits, 1))
print(f"value {loss.value:.2f}, largest gradient {np.abs(loss.dlogits).max():.0e}")
assert loss.value > 1.99 and np.abs(loss.dlogits).max() < 1e-8

params, x = (
    {"w": np.eye(2), "bias": np.zeros(2)},
    logits + 0.01 * np.random.default_rng(0).normal(size=(10, 2)),
)
loads = []
for _ in range(100):
    routing, _ = bias_balanced.route(params, x, k=1, renormalise=False)
    loads.append(diagnostics.load(routing)[0])
    params = bias_balanced.update_bias(params, routing, speed=0.01)
print("tokens of expert 0 while the bias moves:", loads[::10])
assert loads[0] == 10 and min(loads) < 10

# %% [markdown]
# ## 3. f after capacity
#
# All eight tokens ask for expert 0, which keeps two. From the demand $f$ = (1, 0, 0, 0), and the value is $4 P_0$,
# near its maximum. From what is kept $f$ = (¼, 0, 0, 0), what a perfectly balanced expert would have, and the value
# is $P_0$, *below* 1: better than perfect. The gradient has the right sign and a quarter of the size; at the point
# where it matters most the loss is the weakest.

# %%
N, E = 8, 4
logits = np.tile([2.0, 0.0, 0.0, 0.0], (N, 1))
p, expert = numerics.softmax(logits), np.zeros(N, int)
kept = contract.within_capacity(expert, E, N // E)
gradients = {}
for name, f in (
    ("asked for", np.bincount(expert, minlength=E) / N),
    ("kept", np.bincount(expert[kept], minlength=E) / N),
):
    value = E * (f * p.mean(axis=0)).sum()
    gradients[name] = E / N * p * (f - (f * p).sum(axis=1, keepdims=True))
    print(
        f"f from what is {name:9} {f}: value {value:.2f}, gradient at expert 0 {gradients[name][0, 0]:.4f}"
    )
assert np.allclose(gradients["asked for"], balance.switch(routed(logits, 1)).dlogits)
assert np.allclose(gradients["kept"], gradients["asked for"] / E)
