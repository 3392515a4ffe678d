"""The rows of Tables 1 and 2 of Jordan and Jacobs (1994): every learner as passes over the data.

A learner is a function `learner(spec, task, rng)` that yields a predictor, a function from inputs
to outputs, after 0, 1, 2, ... passes over the training set. A learner that needs one pass only
yields one predictor. `spec` has the settings of `Config` in runs.py.
"""

import functools
import importlib.util
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from moe_np import kernels
from moe_np.base.optim import gradient_descent, momentum
from moe_np.base.types import ArrayN, ArrayNC, ArrayND, Params, Rng
from moe_np.data.arm import ArmTask
from moe_np.experiments.common.experiment import Spec
from moe_np.experiments.jordan1994 import oblique_tree
from moe_np.mixtures import hme, hme_em, hme_online, jacobs1991
from moe_np.mixtures.least_squares import weighted_least_squares

Predictor = Callable[[ArrayND], ArrayNC]
Grow = Callable[[ArrayND, ArrayN], oblique_tree.Tree]

# --- Batch ----------------------------------------------------------------------------------------


def linear(spec: Spec, task: ArmTask, rng: Rng) -> Iterator[Predictor]:
    """Least squares: the best linear map, in one pass."""
    weight = np.ones((len(task.x_train), 1))
    coef = weighted_least_squares(task.x_train, task.y_train, weight)[0]
    yield lambda x: x @ coef[:-1] + coef[-1]


def backprop(spec: Spec, task: ArmTask, rng: Rng) -> Iterator[Predictor]:
    """Backpropagation in a net 12-60-4 with logistic hidden and linear output units: the gradient
    of the mean error over all cases, with momentum, in float32.
    """
    x = task.x_train.astype(np.float32)
    y = task.y_train.astype(np.float32)
    params = {name: p.astype(np.float32) for name, p in init_net(spec, task, rng).items()}
    velocity = None
    dloss = np.full(len(x), 1 / len(x), np.float32)
    options = {"lr": np.float32(spec["lr"]), "beta": np.float32(spec["beta"])}
    while True:
        yield functools.partial(net_predict, params)
        _, cache = jacobs1991.net_forward(params, x, y, "linear")
        _, grads = jacobs1991.net_backward(dloss, cache)
        params, velocity = momentum(params, grads, velocity, **options)


def init_net(spec: Spec, task: ArmTask, rng: Rng) -> Params:
    """The initial weights of the net, uniform in ± `net_spread`."""
    D = task.x_train.shape[1]
    C = task.y_train.shape[1]
    return jacobs1991.init_net(rng, spec["hidden"], D, C, init_range=spec["net_spread"])


def net_predict(params: Params, x: ArrayND) -> ArrayNC:
    """The outputs of the net, in the precision of its weights."""
    return jacobs1991.predict(params, x.astype(params["W"].dtype), "linear")


def init_tree(spec: Spec, task: ArmTask, rng: Rng, **changes: object) -> Params:
    """The initial weights of a tree of experts, uniform in ± `spread`; `changes` of the spec."""
    spec = {**spec, **changes}
    D = task.x_train.shape[1]
    C = task.y_train.shape[1]
    options = {"init_range": spec["spread"], "covariance": spec["covariance"]}
    return hme.init(rng, spec["tree"], D, C, **options)


def em(spec: Spec, task: ArmTask, rng: Rng, gates: str) -> Iterator[Predictor]:
    """EM of a tree of experts: Algorithm 1 (gates "irls") or 2 ("least squares")."""
    options = {"gates": gates, "irls_steps": spec["irls_steps"], "clip": spec["clip"]}
    for step in hme_em.train(init_tree(spec, task, rng), task.x_train, task.y_train, **options):
        yield functools.partial(hme.predict, step.params)


def cart(spec: Spec, task: ArmTask, rng: Rng, oblique: bool) -> Iterator[Predictor]:
    """A regression tree per output, by scikit-learn unless its splits are oblique.

    Each tree is grown on 4/5 of the cases to choose how far to prune, and then on all.
    """
    grow = cart_grower(spec["min_leaf"], oblique)
    trees = [_pruned(task.x_train, y, grow) for y in task.y_train.T]
    yield lambda x: np.column_stack([oblique_tree.predict(tree, x) for tree in trees])


def cart_grower(min_leaf: int, oblique: bool) -> Grow:
    """A function (x, y) -> Tree that grows a tree with at least `min_leaf` cases per leaf."""
    if oblique:
        return functools.partial(oblique_tree.grow, min_leaf=min_leaf)
    from sklearn.tree import DecisionTreeRegressor

    def grow(x, y):
        # scikit-learn splits float32 inputs; a case must lie on the side of its rounded input
        x = x.astype(np.float32)
        tree = DecisionTreeRegressor(min_samples_leaf=min_leaf, random_state=0).fit(x, y)
        return oblique_tree.from_sklearn(tree, x, y)

    return grow


def _pruned(x, y, grow):
    cut = len(x) * 4 // 5
    alpha = oblique_tree.choose_alpha(grow(x[:cut], y[:cut]), x[cut:], y[cut:])
    # errors are sums over the cases, so with more cases the same tree has a larger alpha
    return oblique_tree.prune(grow(x, y), alpha * len(x) / cut)


def has_sklearn() -> bool:
    """Whether scikit-learn is installed."""
    return importlib.util.find_spec("sklearn") is not None


# --- On-line --------------------------------------------------------------------------------------


def linear_online(spec: Spec, task: ArmTask, rng: Rng) -> Iterator[Predictor]:
    """The delta rule, case by case: the gradient of a tree with one expert and variance 1."""
    params = init_tree(spec, task, rng, tree=(1,), covariance="shared")
    options = hme_online.Options(hold_variance=True)
    return _tree_online(params, task, rng, spec["lr"], options)


def hme_rls(spec: Spec, task: ArmTask, rng: Rng) -> Iterator[Predictor]:
    """Recursive least squares of experts and gates."""
    options = hme_online.Options(spec["forget"], spec["nearer"], spec["every"], spec["clip"])
    return _tree_online(init_tree(spec, task, rng), task, rng, None, options)


def hme_gradient(spec: Spec, task: ArmTask, rng: Rng) -> Iterator[Predictor]:
    """The gradient of the likelihood, case by case, variance 1."""
    params = init_tree(spec, task, rng, covariance="shared")
    options = hme_online.Options(hold_variance=True)
    return _tree_online(params, task, rng, spec["lr"], options)


def _tree_online(params, task, rng, lr, options):
    x = task.x_train
    y = task.y_train
    memory = hme_online.init_memory(params)
    while True:
        yield functools.partial(hme.predict, params)
        order = rng.permutation(len(x))
        params, memory, _ = hme_online.run_pass(params, memory, x, y, order, lr, options)


def backprop_online(spec: Spec, task: ArmTask, rng: Rng) -> Iterator[Predictor]:
    """The net of `backprop` with an update after every case."""
    params = init_net(spec, task, rng)
    while True:
        yield functools.partial(net_predict, params)
        order = rng.permutation(len(task.x_train))
        params = net_pass(params, task.x_train, task.y_train, order, spec["lr"])


def net_pass(params: Params, x: ArrayND, y: ArrayNC, order: ArrayN, lr: float) -> Params:
    """One pass of backpropagation, case by case: new parameters. Compiled with Numba."""
    if kernels.backend() != "numba":
        return net_pass_numpy(params, x, y, order, lr)
    W = np.vstack([params["W"], params["b"]])
    V = np.ascontiguousarray(np.vstack([params["V"], params["c"]]).T)
    inputs = np.column_stack([x, np.ones(len(x))])
    kernels.hme_online.net_epoch(inputs, np.ascontiguousarray(y), order, W, V, float(lr))
    return {"W": W[:-1], "b": W[-1], "V": V[:, :-1].T.copy(), "c": V[:, -1].copy()}


def net_pass_numpy(params: Params, x: ArrayND, y: ArrayNC, order: ArrayN, lr: float) -> Params:
    """`net_pass` in NumPy."""
    for i in order:
        _, cache = jacobs1991.net_forward(params, x[i : i + 1], y[i : i + 1], "linear")
        _, grads = jacobs1991.net_backward(np.ones(1), cache)
        params = gradient_descent(params, grads, lr=lr)
    return params


# --- All of them ----------------------------------------------------------------------------------

LEARNERS = {
    "linear": linear,
    "backprop": backprop,
    "HME, Algorithm 1": functools.partial(em, gates="irls"),
    "HME, Algorithm 2": functools.partial(em, gates="least squares"),
    "CART": functools.partial(cart, oblique=False),
    "CART, linear": functools.partial(cart, oblique=True),
    "linear, on-line": linear_online,
    "backprop, on-line": backprop_online,
    "HME, on-line": hme_rls,
    "HME, gradient": hme_gradient,
}
ONE_PASS = ("linear", "CART", "CART, linear")  # there is no predictor before their only pass


def warm_up(spec: Spec, task: ArmTask) -> None:
    """Two passes over three cases: what the learner needs is compiled and imported, and does not
    count as learning.
    """
    few = task._replace(x_train=task.x_train[:3], y_train=task.y_train[:3])
    for _ in itertools.islice(LEARNERS[spec["system"]](spec, few, np.random.default_rng(0)), 2):
        pass


def passes(spec: Spec, task: ArmTask, rng: Rng) -> Iterator[tuple[int, Predictor]]:
    """(number, predictor) after each pass: from 0 on, or 1 alone for learners of ONE_PASS."""
    first = 1 if spec["system"] in ONE_PASS else 0
    return zip(itertools.count(first), LEARNERS[spec["system"]](spec, task, rng), strict=False)
