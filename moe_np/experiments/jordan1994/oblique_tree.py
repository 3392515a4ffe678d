"""Regression trees whose splits may be oblique: CART with linear combinations, as far as known.

L. Breiman, J. H. Friedman, R. A. Olshen and C. J. Stone (1984), Classification and regression
trees: squared error, a constant in every leaf, grown large and then pruned by the cost-complexity
rule. A node is split on one input or on a linear combination of all inputs. The search for that
combination in the book is not repeated here: a node is split along the least squares fit of y on x
in the node, or along one input, wherever the sum of squares falls most.

    here         shape      meaning
    direction    (M, D)     node m sends a case to the left if x · direction ≤ threshold
    threshold    (M,)
    left, right  (M,)       numbers of the children, −1 in a leaf
    value        (M,)       mean of y in the node
    error        (M,)       Σ (y − value)² in the node
"""

from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import ArrayN, ArrayND

ArrayM = Annotated[np.ndarray, "M"]


class Tree(NamedTuple):
    """A binary tree. Node 0 is the root, and children have larger numbers than their parents."""

    direction: Annotated[np.ndarray, "M, D"]
    threshold: ArrayM
    left: ArrayM
    right: ArrayM
    value: ArrayM
    error: ArrayM


# --- Growing --------------------------------------------------------------------------------------


def grow(x: ArrayND, y: ArrayN, *, oblique: bool = True, min_leaf: int = 5) -> Tree:
    """The tree of all splits that lower the error and leave at least `min_leaf` cases on each side.

    Raises InputError for bad arguments.
    """
    x = checks.array("x", x, ("N", "D"))
    y = checks.array("y", y, (len(x),))
    if not len(x):
        raise checks.InputError("x: wanted at least one case, got none")
    min_leaf = checks.integer("min_leaf", min_leaf)
    nodes = []
    children = []
    waiting = [(np.arange(len(x)), None)]  # (cases, (parent, side))
    while waiting:
        cases, place = waiting.pop()
        target = y[cases]
        split = _best_split(x[cases], target, oblique, min_leaf)
        direction, threshold, goes_left = split or (np.zeros(x.shape[1]), 0.0, None)
        error = ((target - target.mean()) ** 2).sum()
        number = len(nodes)
        nodes.append((direction, threshold, target.mean(), error))
        children.append([-1, -1])
        if place is not None:
            parent, side = place
            children[parent][side] = number
        if split:
            waiting += [(cases[~goes_left], (number, 1)), (cases[goes_left], (number, 0))]
    direction, threshold, value, error = (np.array(column) for column in zip(*nodes, strict=True))
    left, right = np.array(children).T
    return Tree(direction, threshold, left, right, value, error)


def _best_split(x, y, oblique, min_leaf):
    """(direction, threshold, goes left (n,)) of the largest fall of the sum of squares, or None."""
    n, D = x.shape
    if n < 2 * min_leaf or np.ptp(y) == 0:
        return None
    z = x.T
    if oblique and n > 2 * D:
        slope = _least_squares(x, y)
        z = np.vstack([z, slope @ x.T])
    order = np.argsort(z, axis=1)
    z = np.take_along_axis(z, order, axis=1)
    # sums of y over the first 1, 2, ..., n − 1 cases; those of the other cases are minus these
    left = np.cumsum((y - y.mean())[order], axis=1)[:, :-1]
    size = np.arange(1, n)
    gain = left**2 * (1 / size + 1 / (n - size))
    gain[:, : min_leaf - 1] = gain[:, n - min_leaf :] = 0
    gain[z[:, 1:] <= z[:, :-1]] = 0
    column, last = np.unravel_index(gain.argmax(), gain.shape)
    if not gain[column, last] > 1e-12 * ((y - y.mean()) ** 2).sum():
        return None
    threshold = 0.5 * (z[column, last] + z[column, last + 1])
    goes_left = np.zeros(n, bool)
    goes_left[order[column, : last + 1]] = True
    return slope if column == D else np.eye(D)[column], threshold, goes_left


def _least_squares(x, y):
    """The slopes of y on x as a direction. A very small ridge decides between collinear inputs."""
    x = x - x.mean(axis=0)
    a = x.T @ x
    a[np.diag_indices_from(a)] += 1e-9 * np.trace(a) + 1e-300
    slope = np.linalg.solve(a, x.T @ (y - y.mean()))
    length = np.linalg.norm(slope)
    return slope / length if length > 0 else slope


def from_sklearn(tree: Any, x: ArrayND, y: ArrayN) -> Tree:
    """A fitted `sklearn.tree.DecisionTreeRegressor` of x, y as a Tree."""
    nodes = tree.tree_
    feature = nodes.feature
    direction = np.eye(x.shape[1])[np.maximum(feature, 0)] * (feature >= 0)[:, None]
    error = nodes.impurity * nodes.n_node_samples
    children = (nodes.children_left, nodes.children_right)
    return Tree(direction, nodes.threshold, *children, nodes.value[:, 0, 0], error)


# --- Prediction -----------------------------------------------------------------------------------


def paths(tree: Tree, x: ArrayND) -> list[ArrayN]:
    """The node of each case at every depth, [(N,)]; a case that is in a leaf stays there."""
    node = np.zeros(len(x), int)
    out = []
    while True:
        out.append(node)
        inner = tree.left[node] >= 0
        if not inner.any():
            return out
        left = np.einsum("nd,nd->n", x, tree.direction[node]) <= tree.threshold[node]
        node = np.where(inner, np.where(left, tree.left[node], tree.right[node]), node)


def predict(tree: Tree, x: ArrayND) -> ArrayN:
    """The mean of the leaf that each case falls into, (N,)."""
    return tree.value[paths(tree, x)[-1]]


# --- Pruning --------------------------------------------------------------------------------------


def weakest_links(tree: Tree) -> list[tuple[int, float]]:
    """[(node, alpha)] in the order in which the cost-complexity rule makes leaves of nodes (chapter
    3 of the book).

    The next one is the node whose branch lowers the error least per leaf; alpha is that decrease,
    (error of the node − error of its branch) / (leaves of its branch − 1), and never falls.
    """
    parent = _parents(tree)
    is_leaf = tree.left < 0
    leaves = _branch_sums(is_leaf.astype(int), parent)
    branch = _branch_sums(np.where(is_leaf, tree.error, 0.0), parent)
    strength = (tree.error - branch) / np.maximum(leaves - 1, 1)
    strength[is_leaf] = np.inf
    out = []
    alpha = 0.0
    while np.isfinite(strength).any():
        m = int(strength.argmin())
        alpha = max(alpha, strength[m])
        out.append((m, alpha))
        strength[_inner_nodes_below(tree, strength, m)] = np.inf
        lost_leaves = leaves[m] - 1
        gained_error = tree.error[m] - branch[m]
        while m >= 0:
            leaves[m] -= lost_leaves
            branch[m] += gained_error
            if np.isfinite(strength[m]):
                strength[m] = (tree.error[m] - branch[m]) / max(leaves[m] - 1, 1)
            m = parent[m]
    return out


def _inner_nodes_below(tree, strength, m):
    """The nodes of the branch of m, itself among them, that are no leaves yet."""
    nodes = []
    waiting = [m]
    while waiting:
        node = waiting.pop()
        if np.isfinite(strength[node]):
            nodes.append(node)
            waiting += [tree.left[node], tree.right[node]]
    return nodes


def _parents(tree):
    """The parent of each node (M,), −1 for the root."""
    parent = np.full(len(tree.value), -1)
    for children in (tree.left, tree.right):
        inner = np.flatnonzero(children >= 0)
        parent[children[inner]] = inner
    return parent


def _branch_sums(values, parent):
    """For each node the sum of `values` (M,) over its branch."""
    sums = values.copy()
    for m in range(len(sums) - 1, 0, -1):  # children have larger numbers than their parents
        sums[parent[m]] += sums[m]
    return sums


def prune(tree: Tree, alpha: float) -> Tree:
    """The tree in which every node with an alpha of at most `alpha` is a leaf."""
    pruned = [m for m, alpha_of_node in weakest_links(tree) if alpha_of_node <= alpha]
    left = tree.left.copy()
    right = tree.right.copy()
    left[pruned] = right[pruned] = -1
    return tree._replace(left=left, right=right)


def choose_alpha(tree: Tree, x: ArrayND, y: ArrayN) -> float:
    """The alpha whose pruned tree has the lowest error on cases that the tree was not grown on; of
    equal ones that of the smallest tree.
    """
    error = _node_errors(tree, x, y)
    parent = _parents(tree)
    branch = _branch_sums(np.where(tree.left < 0, error, 0.0), parent)
    lowest = branch[0]
    best_alpha = 0.0
    for m, alpha in weakest_links(tree):
        change = error[m] - branch[m]
        while m >= 0:
            branch[m] += change
            m = parent[m]
        if branch[0] <= lowest:
            lowest = branch[0]
            best_alpha = alpha
    return best_alpha


def _node_errors(tree, x, y):
    """Σ (y − value)² of the cases that come through each node, (M,)."""
    error = np.zeros(len(tree.value))
    node_before = None
    for node in paths(tree, x):
        new = np.ones(len(x), bool) if node_before is None else node != node_before
        np.add.at(error, node[new], (y[new] - tree.value[node[new]]) ** 2)
        node_before = node
    return error
