"""The rows of Tables 1 and 2 of Jordan and Jacobs (1994): every learner as passes over the data.

A learner is `learner(spec, task, rng)`, a generator of functions from inputs to answers: after 0
passes over the training set, after 1, 2, ... Those that are done after one pass end there. `spec`
has the settings: `Config` in jordan1994.py says which.
"""

import functools
import importlib.util
import itertools

import numpy as np

from moe_np.base.optim import momentum
from moe_np.experiments.jordan1994 import oblique_tree
from moe_np.mixtures import hme, hme_em, hme_online, irls, jacobs1991

# --- Batch ----------------------------------------------------------------------------------------


def linear(spec, task, rng):
    """Least squares: the best there is, in one pass."""
    coef = irls.weighted_least_squares(task.x_train, task.y_train, np.ones((len(task.x_train), 1)))[
        0
    ]
    yield lambda x: x @ coef[:-1] + coef[-1]


def backprop(spec, task, rng):
    """A net 12-60-4, logistic hidden units, linear outputs; gradient of the mean error, momentum,
    in float32.
    """
    x, y = task.x_train.astype(np.float32), task.y_train.astype(np.float32)
    start = jacobs1991.init_net(
        rng, spec["hidden"], x.shape[1], y.shape[1], spread=spec["net_spread"]
    )
    params, velocity = {name: value.astype(np.float32) for name, value in start.items()}, None
    share = np.full(len(x), 1 / len(x), np.float32)
    while True:
        yield functools.partial(net_predict, params)
        _, cache = jacobs1991.net_forward(params, x, y, "linear")
        grads = jacobs1991.net_backward(share, cache)[1]
        params, velocity = momentum(
            params, grads, velocity, lr=np.float32(spec["lr"]), beta=np.float32(spec["beta"])
        )


def net_predict(params, x):
    return jacobs1991.predict(params, x.astype(params["W"].dtype), "linear")


def tree_start(spec, task, rng):
    D, C = task.x_train.shape[1], task.y_train.shape[1]
    return hme.init(rng, spec["tree"], D, C, spread=spec["spread"], like=spec["covariance"])


def em(spec, task, rng, gates):
    """EM: Algorithm 1 (gates "irls") or 2 ("least squares")."""
    options = {"gates": gates, "irls_steps": spec["irls_steps"], "clip": spec["clip"]}
    for step in hme_em.train(tree_start(spec, task, rng), task.x_train, task.y_train, **options):
        yield functools.partial(hme.predict, step.params)


def cart(spec, task, rng, slanted):
    """A tree for each output: grown on 4/5 to choose how far to prune, then on all. Straight ones
    by scikit-learn.
    """
    y = task.y_train
    trees = [
        _pruned(task.x_train, y[:, c], _grower(spec["min_leaf"], slanted))
        for c in range(y.shape[1])
    ]
    yield lambda x: np.column_stack([oblique_tree.predict(tree, x) for tree in trees])


def _grower(min_leaf, slanted):
    if slanted:
        return lambda x, y: oblique_tree.grow(x, y, min_leaf=min_leaf)
    from sklearn.tree import DecisionTreeRegressor

    def grow(x, y):
        x = x.astype(
            np.float32
        )  # as it will anyway; a case is then on the side where its rounded input is
        return oblique_tree.from_sklearn(
            DecisionTreeRegressor(min_samples_leaf=min_leaf, random_state=0).fit(x, y), x, y
        )

    return grow


def _pruned(x, y, grow):
    cut = len(x) * 4 // 5
    alpha = oblique_tree.choose_alpha(grow(x[:cut], y[:cut]), x[cut:], y[cut:])
    return oblique_tree.prune(
        grow(x, y), alpha * len(x) / cut
    )  # errors are sums: more cases, more error


def has_sklearn():
    return importlib.util.find_spec("sklearn") is not None


# --- On-line --------------------------------------------------------------------------------------


def linear_online(spec, task, rng):
    """The delta rule, case by case: the gradient for a tree that has one expert and variance 1."""
    params = hme.init(
        rng, (1,), task.x_train.shape[1], task.y_train.shape[1], spread=spec["spread"]
    )
    return _tree_online(params, task, rng, spec["lr"], hme_online.Options(hold=True))


def hme_rls(spec, task, rng):
    """Recursive least squares for experts and gates."""
    options = hme_online.Options(spec["forget"], spec["nearer"], spec["every"], spec["clip"])
    return _tree_online(tree_start(spec, task, rng), task, rng, None, options)


def hme_gradient(spec, task, rng):
    """The gradient of the likelihood, case by case, variance 1."""
    params = tree_start({**spec, "covariance": "shared"}, task, rng)
    return _tree_online(params, task, rng, spec["lr"], hme_online.Options(hold=True))


def _tree_online(params, task, rng, lr, options):
    mem = hme_online.memory(params)
    while True:
        yield functools.partial(hme.predict, params)
        order = rng.permutation(len(task.x_train))
        params, mem, _ = hme_online.one_pass(
            params, mem, task.x_train, task.y_train, order, lr, options
        )


def backprop_online(spec, task, rng):
    """The net of `backprop`, a step after every case."""
    params = jacobs1991.init_net(
        rng, spec["hidden"], task.x_train.shape[1], task.y_train.shape[1], spread=spec["net_spread"]
    )
    while True:
        yield functools.partial(net_predict, params)
        params = net_pass(
            params, task.x_train, task.y_train, rng.permutation(len(task.x_train)), spec["lr"]
        )


def net_pass(params, x, y, order, lr):
    """One pass of back-propagation case by case: new parameters. Compiled where Numba is."""
    from moe_np import kernels

    if kernels.backend() == "numba":
        W = np.vstack([params["W"], params["b"]])
        V = np.ascontiguousarray(np.vstack([params["V"], params["c"]]).T)
        kernels.hme_online.net_epoch(
            np.column_stack([x, np.ones(len(x))]), np.ascontiguousarray(y), order, W, V, float(lr)
        )
        return {"W": W[:-1], "b": W[-1], "V": V[:, :-1].T.copy(), "c": V[:, -1].copy()}
    return net_pass_numpy(params, x, y, order, lr)


def net_pass_numpy(params, x, y, order, lr):
    for i in order:
        _, cache = jacobs1991.net_forward(params, x[i : i + 1], y[i : i + 1], "linear")
        grads = jacobs1991.net_backward(np.ones(1), cache)[1]
        params = {name: value - lr * grads[name] for name, value in params.items()}
    return params


# --- All of them ----------------------------------------------------------------------------------

LEARNERS = {
    "linear": linear,
    "backprop": backprop,
    "HME, Algorithm 1": functools.partial(em, gates="irls"),
    "HME, Algorithm 2": functools.partial(em, gates="least squares"),
    "CART": functools.partial(cart, slanted=False),
    "CART, linear": functools.partial(cart, slanted=True),
    "linear, on-line": linear_online,
    "backprop, on-line": backprop_online,
    "HME, on-line": hme_rls,
    "HME, gradient": hme_gradient,
}
ONE_PASS = (
    "linear",
    "CART",
    "CART, linear",
)  # there is nothing before the first pass, nor after it


def warm_up(spec, task):
    """Two passes over three cases: what the learner needs is compiled and imported, and does not
    count as learning.
    """
    few = task._replace(x_train=task.x_train[:3], y_train=task.y_train[:3])
    for _ in itertools.islice(LEARNERS[spec["system"]](spec, few, np.random.default_rng(0)), 2):
        pass


def passes(spec, task, rng):
    """(number, predict) after each pass: from 0, or 1 alone for learners that are done with it."""
    first = 1 if spec["system"] in ONE_PASS else 0
    return zip(itertools.count(first), LEARNERS[spec["system"]](spec, task, rng), strict=False)
