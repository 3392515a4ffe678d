# %% [markdown]
# # 00 · Set-up: how to read, how to step, how to check
#
# Afterwards you can open a lesson, read the shapes in it, walk through a computation forward and back, and test
# whether a gradient is right without knowing how it was derived.
#
# You need Python, matrices and the chain rule. The lessons build a mixture of experts from nothing; each takes less
# than half an hour, the exercises aside, if you stop at every **Predict** and write your answer down *before* you run
# the cell. That is where the learning is: a surprise that you did not commit to is soon forgotten.
#
# ```
# python3 run.py lab          # the lessons in JupyterLab; makes its own environment at the first call
# ```
#
# Open the `.ipynb` files. (The `.py` beside each is the same lesson as plain text.) Run a cell with Shift+Enter.

# %%
import numpy as np

from moe_np.base import gradcheck
from moe_np.base.numerics import softmax, softmax_backward
from moe_np.coursework import self_check
from moe_np.layers import experts, sparse_layer
from moe_np.routing import top_k
from moe_np.show import walk
from moe_np.show.steps import Steps, state
from moe_np.show.view import view

print("ready, with NumPy", np.__version__)

# %% [markdown]
# ## 1. The letters
#
# Three words first. An *expert* is a model, often a small one. A *gate*, in sparse layers called *router*, looks at an
# input and says how much each expert counts for it. The experts' answers, added up with these weights, are the answer
# of the *mixture*.
#
# An array is written with the names of its axes. They are the same in all lessons and in the code.
#
# | letter | stands for |
# |---|---|
# | N | tokens or cases: the rows of the data |
# | D | features of a token, the inputs |
# | E | experts |
# | k | how many experts a token goes to |
# | C | outputs of an expert, or the capacity of an expert (which, is said) |
# | H | hidden units |
# | A | assignments: pairs of a token and an expert that works on it |
#
# | name | shape | what it is |
# |---|---|---|
# | `x` | (N, D) | the tokens |
# | `logits`, `probs` | (N, E) | a router's or gate's totals, and their softmax (`s` and `p` in lessons 02 to 04) |
# | `resp` | (N, E) | responsibilities: how much each expert is to be believed once the answer is known |
# | `token`, `expert`, `weight` | (A,) | a routing, one row an assignment |
# | `dname` | as `name` | the gradient of the loss with respect to `name` |
#
# Functions come in pairs: `thing_forward(params, x) -> (out, cache)` and `thing_backward(dout, cache) -> (dx, grads)`.
# `params` is a dict of arrays, `grads` one with the same keys and shapes; the cache holds what the way back needs,
# under the names of the equations.
#
# ## 2. A mixture in ten lines
#
# Six tokens, four experts, two experts a token. The router has one matrix `w` (D, E); a token goes to the two experts
# with its largest logits, and their weights are the softmax of these two alone (`renormalise=True`). `SWIGLU` is one
# kind of expert, a small net; which, does not matter here.
#
# **Predict.** `k = 2` and N = 6. How many assignments are there, and what do the weights of one token add up to?

# %%
rng = np.random.default_rng(0)
N, D, E, H = 6, 3, 4, 5
x = rng.normal(size=(N, D))
router = top_k.init(rng, D, E)
params = experts.SWIGLU.init(rng, D, E, H)

routing, router_cache = top_k.route(router, x, k=2, renormalise=True)
out, cache = sparse_layer.forward(params, x, routing, experts.SWIGLU)
print("token ", routing.token, "\nexpert", routing.expert, "\nweight", routing.weight.round(2))
assert len(routing.token) == 2 * N and np.allclose(np.bincount(routing.token, routing.weight), 1)

# %% [markdown]
# ## 3. Stepping
#
# Every computation in this package can be walked through, one operation at a time. A *walk* is made by a function of
# `moe_np.show.walk`. `next(steps)` makes one step; the state that it returns prints itself. Names of arrays that are new or
# have changed come with their values, the rest is folded away.

# %%
steps = walk.route(top_k, router, x, k=2, renormalise=True)
next(steps)

# %% [markdown]
# Run the next cell several times.

# %%
next(steps)

# %% [markdown]
# `steps.back()` goes back, `steps.goto(3)` to state 3, `steps.now` is where you are; an array of a state is
# `steps.now["logits"]`. At the end `next` raises `StopIteration`, as any iterator does: then go back.
#
# **Predict.** State 3 is the selection: for each token the two largest logits. What will `demand` (N, E) look like,
# which says who was asked by whom?

# %%
steps.goto(3)

# %%
chosen = steps.now["choice"]
assert np.array_equal(chosen, np.argsort(-steps.now["logits"], axis=1)[:, :2])
print("still to come:", [s.phase for s in steps])

# %% [markdown]
# `view` is the same with a slider and a picture. Press *forward* until you see dots: a dot is an assignment, its size
# the weight. (Where there are no widgets, `view` prints the state, and `next` does the walking.)

# %%
view(walk.route(top_k, router, x, k=2, renormalise=True))

# %% [markdown]
# A walk can be made of anything. Below, Newton's method for $\sqrt 2$: a generator that yields a `state` after each
# operation. `Steps` adds going back.


# %%
def newton(a, r):
    before = None
    while True:
        arrays = {"r": r, "error": abs(r - a**0.5)}
        before = state("update", r"r \leftarrow \tfrac12 (r + a / r)", arrays, before=before)
        yield before
        r = 0.5 * (r + a / r)


root = Steps(newton(2.0, 1.0))
root.goto(4)

# %% [markdown]
# ## 4. Is this gradient right?
#
# A gradient $g$ of a loss $L(w)$ is a promise: along any direction $v$ the slope of the loss is $\sum g v$. The slope
# can be measured with a few evaluations of the loss. One random direction tests all entries of $g$ at once, since an
# error anywhere in it shows in the sum. That is all that `gradcheck.gradient_error` does. It returns
# $|\text{measured} - \text{promised}|$ over the larger of the two: tiny if $g$ is right, near 1 if it has nothing to
# do with the loss.
#
# The loss here is the mean of the squared output of the layer; its gradient goes back through the experts, through the
# weights, and through the router. Both of them see `x`, so `dx` has two parts.
#
# **Predict.** What will the check say for `w` if the factor 2/(N·D) of the mean is forgotten?


# %%
def loss(p):
    routing, _ = top_k.route({"w": p["w"]}, p["x"], k=2, renormalise=True)
    return (sparse_layer.forward(params, p["x"], routing, experts.SWIGLU)[0] ** 2).mean()


def gradient(scale):
    dx, _, dweight = sparse_layer.backward(scale * out, cache)
    dx_router, grads = top_k.route_backward(dweight, None, router_cache)
    return {"w": grads["w"], "x": dx + dx_router}


at = {"w": router["w"], "x": x}
right = gradcheck.gradient_error(loss, at, gradient(2 / out.size), np.random.default_rng(1))
wrong = gradcheck.gradient_error(loss, at, gradient(1.0), np.random.default_rng(1))
print("right:", {name: f"{e:.0e}" for name, e in right.items()})
print(
    "wrong:",
    {name: round(e, 4) for name, e in wrong.items()},
    " 1 − 2/(N·D) =",
    round(1 - 2 / out.size, 4),
)
assert max(right.values()) < 1e-7
assert all(np.isclose(e, 1 - 2 / out.size) for e in wrong.values())

# %% [markdown]
# The wrong one has the right direction, so training would still go down, at another pace than you think. The check does
# not forgive it. Every backward pass in this package has to pass it, and so will yours.
#
# > **Seen in public code** (errata 16): exactly this, a mean loss with a summed gradient. (The number is that of the
# > list of [34 such mistakes](errata.md), each of which has tests.)
#
# ## Your turn
#
# Each lesson ends like this one: you write a function, and `self_check` tries it on fresh inputs and says `right` or
# `not yet` and what came out. Run the check as it is first, then write the body.


# %%
def softmax_gradient(dp, p):
    """ds (N, E) of p = softmax(s), from dp (N, E) and p (N, E): ds_i = p_i (dp_i − Σ_j p_j dp_j)."""
    # your code here
    return None


# %%
def cases(rng):
    for _ in range(3):
        yield rng.normal(size=(5, 4)), softmax(rng.normal(size=(5, 4)))


self_check(softmax_gradient, softmax_backward, cases)

# %% [markdown]
# ## Exercises
#
# 1. **Change the code.** Route with `renormalise=False`. What do the weights of a token add up to now? Walk to the
#    gradient at the logits (`dlogits`) in both cases: which entries are exactly 0?
# 2. **Derive.** Show from $p_i = e^{s_i} / \sum_j e^{s_j}$ that $\partial p_j / \partial s_i = p_j ([i = j] - p_i)$,
#    and from it the line in the docstring above. Why does every row of `ds` sum to 0?
# 3. **Break it.** Leave `dx_router` out of `gradient`. Which of the two errors notices, and how large is it?
#
# Solutions: `lessons/solutions/00_setup.py`.
#
# Next: 01, why one expert averages.
