"""Nested parameters: the arrays of a model by name, as one vector, and leaf by leaf.

Parameters are a dict whose values are arrays, or dicts and lists of these in turn; the arrays are
the leaves. A leaf's path joins the keys and list positions on the way to it by dots:

    {"gate": {"U": U}, "blocks": [{"W": W0}, {"W": W1}]}

has the leaves "gate.U", "blocks.0.W" and "blocks.1.W", in this order. Gradients and the running
means of an optimiser have the same structure.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import Array

Vector = Annotated[np.ndarray, "n"]  # all numbers of the parameters, leaf after leaf


def leaves(params: Any) -> dict[str, Array]:
    """{path: array} of all leaves, in the order of the dicts and lists. The arrays are not copied.

    Raises InputError for a key that is no string or has a dot, since two leaves could then have one
    path, and for a value that is neither an array nor a dict or list.
    """
    arrays = {}
    _collect(params, (), arrays)
    return arrays


def _collect(node, keys, arrays):
    if isinstance(node, dict):
        for key, child in node.items():
            if not isinstance(key, str) or "." in key:
                path = ".".join((*keys, repr(key)))
                raise InputError(f"params: wanted names without dots as keys, got {path}")
            _collect(child, (*keys, key), arrays)
    elif isinstance(node, (list, tuple)):
        for number, child in enumerate(node):
            _collect(child, (*keys, str(number)), arrays)
    elif isinstance(node, (np.ndarray, np.generic)):
        arrays[".".join(keys)] = node
    else:
        where = f"params[{'.'.join(keys)!r}]" if keys else "params"
        raise InputError(f"{where}: wanted an array, a dict or a list, got {type(node).__name__}")


def nest(arrays: Mapping[str, Any]) -> Any:
    """The parameters whose leaves these are, {path: leaf}: the inverse of `leaves`. Keys that are
    0, 1, ... make a list, whatever their order here.
    """
    root: dict[str, Any] = {}
    for path in arrays:
        *parents, name = path.split(".")
        node = root
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = arrays[path]
    return _with_lists(root)


def _with_lists(node):
    if not isinstance(node, dict):
        return node
    children = {name: _with_lists(child) for name, child in node.items()}
    numbers = [str(n) for n in range(len(children))]
    if children and set(children) == set(numbers):
        return [children[n] for n in numbers]
    return children


def map_leaves(function: Callable[..., Any], params: Any, *more_params: Any) -> Any:
    """A structure like `params` with function(leaf of `params`, leaf of the next, ...) as leaves.

    Raises InputError where one of `more_params` has other keys or another length.
    """
    return _map(function, params, more_params, ())


def _map(function, node, partners, keys):
    if isinstance(node, dict):
        for partner in partners:
            if not isinstance(partner, dict) or set(partner) != set(node):
                raise InputError(_other_structure(keys, list(node), partner))
        return {
            key: _map(function, child, [partner[key] for partner in partners], (*keys, key))
            for key, child in node.items()
        }
    if isinstance(node, (list, tuple)):
        for partner in partners:
            if not isinstance(partner, (list, tuple)) or len(partner) != len(node):
                raise InputError(_other_structure(keys, f"a list of {len(node)}", partner))
        return [
            _map(function, child, [partner[number] for partner in partners], (*keys, str(number)))
            for number, child in enumerate(node)
        ]
    for partner in partners:
        if isinstance(partner, (dict, list, tuple)):
            raise InputError(_other_structure(keys, "an array", partner))
    return function(node, *partners)


def _other_structure(keys, wanted, node):
    where = f"params[{'.'.join(keys)!r}]" if keys else "params"
    got = list(node) if isinstance(node, dict) else type(node).__name__
    got = f"a list of {len(node)}" if isinstance(node, (list, tuple)) else got
    return f"{where}: wanted the structure of the first ({wanted}), got {got}"


def add(a: Any, b: Any) -> Any:
    """a + b, leaf by leaf: for example the gradients of two losses."""
    return map_leaves(np.add, a, b)


def flatten(params: Any, like: Any = None) -> Vector:
    """All numbers of `params` as one vector (n,), leaf after leaf.

    like    parameters with the same leaves whose order is used; None: the order of `params`

    Raises InputError where `params` and `like` do not have the same leaves.
    """
    arrays = leaves(params)
    order = arrays if like is None else leaves(like)
    if set(order) != set(arrays):
        raise InputError(f"params: wanted the leaves {list(order)}, got {list(arrays)}")
    if not arrays:
        return np.zeros(0)
    return np.concatenate([arrays[path].ravel() for path in order])


def unflatten(vector: Vector, like: Any) -> Any:
    """The inverse of `flatten`: the structure and shapes of `like`, the numbers of `vector` (n,).

    The arrays are views of the vector and have its dtype. Raises InputError for a vector of another
    length than `like` has numbers.
    """
    size = sum(leaf.size for leaf in leaves(like).values())
    if np.shape(vector) != (size,):
        raise InputError(f"vector: wanted shape ({size},), got {np.shape(vector)}")
    place = 0

    def cut(leaf):
        nonlocal place
        place += leaf.size
        return vector[place - leaf.size : place].reshape(leaf.shape)

    return map_leaves(cut, like)
