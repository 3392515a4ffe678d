"""Regression trees whose splits may be slanted: CART with linear combinations, as far as one can
say what that is.

Breiman, Friedman, Olshen and Stone (1984), Classification and regression trees: squared error, a
constant in every leaf, grown large and then pruned by the cost-complexity rule. A node is split
either on one input, or on a linear combination of all of them. Their search for that combination is
not repeated here. Ours is the least squares fit of y on x in the node itself: a node is split where
the sum of squares falls most, along that direction or along one input.

    here         shape      meaning
    direction    (M, D)     node m sends a case left if x · direction ≤ threshold
    threshold    (M,)
    left, right  (M,)       numbers of the children, −1 in a leaf
    value        (M,)       mean of y in the node
    error        (M,)       Σ (y − value)² in the node
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks


class Tree(NamedTuple):
    direction: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    error: np.ndarray


def grow(x, y, *, slanted=True, min_leaf=5):
    """x (N, D), y (N,) -> Tree, split until no leaf can be split into two of at least `min_leaf`
    cases.
    """
    x = checks.array("x", x, ("N", "D"))
    y = checks.array("y", y, (len(x),))
    if not len(x):
        raise checks.InputError("x: wanted at least one case, got none")
    min_leaf = checks.integer("min_leaf", min_leaf)
    nodes, waiting = [], [(np.arange(len(x)), None)]  # (cases, (parent, side))
    links = []
    while waiting:
        cases, place = waiting.pop()
        own = y[cases]
        split = _best_split(x[cases], own, slanted, min_leaf)
        direction, threshold, goes_left = split if split else (np.zeros(x.shape[1]), 0.0, None)
        nodes.append((direction, threshold, own.mean(), ((own - own.mean()) ** 2).sum()))
        links.append([-1, -1])
        if place is not None:
            links[place[0]][place[1]] = len(nodes) - 1
        if split:
            waiting += [
                (cases[~goes_left], (len(nodes) - 1, 1)),
                (cases[goes_left], (len(nodes) - 1, 0)),
            ]
    direction, threshold, value, error = (np.array(column) for column in zip(*nodes, strict=True))
    left, right = np.array(links).T
    return Tree(direction, threshold, left, right, value, error)


def _best_split(x, y, slanted, min_leaf):
    """(direction, threshold, goes left (n,)) of the largest fall of the sum of squares, or None."""
    n, D = x.shape
    if n < 2 * min_leaf or np.ptp(y) == 0:
        return None
    z = x.T
    if slanted and n > 2 * D:
        w = _least_squares(x, y)
        z = np.vstack([z, w @ x.T])
    order = np.argsort(z, axis=1)
    z = np.take_along_axis(z, order, axis=1)
    left = np.cumsum((y - y.mean())[order], axis=1)[
        :, :-1
    ]  # of the first 1, 2, ..., n − 1; the rest sum to minus that
    size = np.arange(1, n)
    gain = left**2 * (1 / size + 1 / (n - size))
    gain[:, : min_leaf - 1] = gain[:, n - min_leaf :] = 0
    gain[z[:, 1:] <= z[:, :-1]] = 0
    column, at = np.unravel_index(gain.argmax(), gain.shape)
    if not gain[column, at] > 1e-12 * ((y - y.mean()) ** 2).sum():
        return None
    threshold = 0.5 * (z[column, at] + z[column, at + 1])
    goes_left = np.zeros(n, bool)
    goes_left[order[column, : at + 1]] = True
    return w if column == D else np.eye(D)[column], threshold, goes_left


def _least_squares(x, y):
    """The slopes of y on x, as a direction. A trace of ridge decides where inputs are collinear."""
    x = x - x.mean(axis=0)
    a = x.T @ x
    a[np.diag_indices_from(a)] += 1e-9 * np.trace(a) + 1e-300
    w = np.linalg.solve(a, x.T @ (y - y.mean()))
    length = np.linalg.norm(w)
    return w / length if length > 0 else w


def from_sklearn(tree, x, y):
    """A grown `sklearn.tree.DecisionTreeRegressor`, with the errors of its training cases, as a
    Tree.
    """
    t, D = tree.tree_, x.shape[1]
    direction = np.eye(D)[np.maximum(t.feature, 0)] * (t.feature >= 0)[:, None]
    return Tree(
        direction,
        t.threshold,
        t.children_left,
        t.children_right,
        t.value[:, 0, 0],
        t.impurity * t.n_node_samples,
    )


def walk(tree, x):
    """The nodes that each case comes through, by depth: [(N,)], leaves repeated."""
    node, out = np.zeros(len(x), int), []
    while True:
        out.append(node)
        inner = tree.left[node] >= 0
        if not inner.any():
            return out
        left = np.einsum("nd,nd->n", x, tree.direction[node]) <= tree.threshold[node]
        node = np.where(inner, np.where(left, tree.left[node], tree.right[node]), node)


def predict(tree, x):
    """The mean of the leaf that each case falls into, (N,)."""
    return tree.value[walk(tree, x)[-1]]


# --- Pruning --------------------------------------------------------------------------------------


def weakest_links(tree):
    """(node, alpha) in the order in which the cost-complexity rule makes leaves of nodes (chapter 3
    of the book).

    The next to go is the node whose branch lowers the error least for each leaf it costs; alpha is
    that much.
    """
    M = len(tree.value)
    parent = np.full(M, -1)
    for children in (tree.left, tree.right):
        inner = np.flatnonzero(children >= 0)
        parent[children[inner]] = inner
    leaves, branch = (tree.left < 0).astype(int), np.where(tree.left < 0, tree.error, 0.0)
    for m in range(M - 1, 0, -1):  # children stand behind their parents
        leaves[parent[m]] += leaves[m]
        branch[parent[m]] += branch[m]
    alive, out = tree.left >= 0, []
    strength = np.where(alive, (tree.error - branch) / np.maximum(leaves - 1, 1), np.inf)
    alpha = 0.0
    while alive.any():
        m = int(strength.argmin())
        alpha = max(alpha, strength[m])
        out.append((m, alpha))
        fewer, more = leaves[m] - 1, tree.error[m] - branch[m]
        below = [m]
        while below:
            one = below.pop()
            if alive[one]:
                alive[one], strength[one] = False, np.inf
                below += [tree.left[one], tree.right[one]]
        while m >= 0:
            leaves[m] -= fewer
            branch[m] += more
            if alive[m]:
                strength[m] = (tree.error[m] - branch[m]) / max(leaves[m] - 1, 1)
            m = parent[m]
    return out


def prune(tree, alpha):
    """The tree in which every node whose alpha is at most `alpha` is a leaf."""
    gone = [m for m, own in weakest_links(tree) if own <= alpha]
    left, right = tree.left.copy(), tree.right.copy()
    left[gone] = right[gone] = -1
    return tree._replace(left=left, right=right)


def choose_alpha(tree, x, y):
    """The alpha whose pruned tree errs least on cases that it was not grown on; of equals the
    smallest tree.
    """
    own = np.zeros(len(tree.value))
    path = walk(tree, x)
    for depth, node in enumerate(path):
        new = node != path[depth - 1] if depth else np.ones(len(x), bool)
        np.add.at(own, node[new], (y[new] - tree.value[node[new]]) ** 2)
    branch = np.where(tree.left < 0, own, 0.0)
    parent = np.full(len(own), -1)
    for children in (tree.left, tree.right):
        inner = np.flatnonzero(children >= 0)
        parent[children[inner]] = inner
    for m in range(len(own) - 1, 0, -1):
        branch[parent[m]] += branch[m]
    best, best_alpha = branch[0], 0.0
    for m, alpha in weakest_links(tree):
        change, up = own[m] - branch[m], m
        while up >= 0:
            branch[up] += change
            up = parent[up]
        if branch[0] <= best:
            best, best_alpha = branch[0], alpha
    return best_alpha
