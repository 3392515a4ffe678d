"""Random problems for mixtures of experts and for trees: what several tests of mixtures share."""

import numpy as np
import pytest

from moe_np.mixtures import em, hme

# --- Mixtures (EM) --------------------------------------------------------------------------------

FAMILIES = {
    "fixed": em.Gaussian("fixed", variance=0.5),
    "shared": em.Gaussian("shared"),
    "expert": em.Gaussian("expert"),
    "full": em.Gaussian("full"),
    "labels": em.Categorical(3),
}
each_family = pytest.mark.parametrize("name", FAMILIES)


def random_data(name, seed=0, N=60, D=2, C=2):
    """x and y for the family of that name, read-only."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D))
    if name == "labels":
        is_outside = (np.abs(x[:, 0]) > 0.7).astype(int)
        y = is_outside + (x.sum(axis=1) + 0.5 * rng.normal(size=N) > 0).astype(int)
    else:
        y = np.abs(x @ rng.normal(size=(D, C))) + 0.3 * rng.normal(size=(N, C))
    x.flags.writeable = False
    y.flags.writeable = False
    return x, y


def random_params(rng, name, E=3, D=2, C=2, gate_size=1.0):
    """Parameters for the family of that name, none of them zero."""
    C = 3 if name == "labels" else C
    params = {"W": rng.normal(size=(E, D, C)), "b": rng.normal(size=(E, C))}
    params |= {"U": gate_size * rng.normal(size=(D, E)), "c": gate_size * rng.normal(size=E)}
    if name == "full":
        root = rng.normal(size=(E, C, C)) + 2 * np.eye(C)
        params["var"] = root @ root.swapaxes(1, 2)
    elif name != "labels":
        params["var"] = rng.uniform(0.5, 2, E) if name == "expert" else np.array(0.5)
    return params


def with_ones(x):
    """x with a last column of ones."""
    return np.column_stack([x, np.ones(len(x))])


# --- Trees (HME) ----------------------------------------------------------------------------------

N, D, C = 11, 3, 2
TREES = [(2,), (5,), (2, 2), (3, 2), (2, 3, 2), (2, 2, 2, 2), (1, 3), (3, 1)]
COVARIANCES = ["shared", "expert", "full", None]  # None: categorical experts
each_covariance = pytest.mark.parametrize("covariance", COVARIANCES)


def random_tree(tree, covariance="shared", seed=0, N=N, D=D, C=C):
    """Parameters of a tree, none of which is zero, inputs, and targets or labels."""
    rng = np.random.default_rng(seed)
    params = hme.init(rng, tree, D, C, init_range=1.0, covariance=covariance)
    if covariance == "expert":
        params["var"] = rng.uniform(0.3, 2, params["var"].shape)
    if covariance == "full":
        root = rng.normal(size=params["var"].shape)
        params["var"] = root @ root.transpose(0, 2, 1) + 0.5 * np.eye(C)
    y = rng.normal(size=(N, C)) if covariance else rng.integers(C, size=N)
    return params, rng.normal(size=(N, D)), y


BAD_EM_OPTIONS = (
    ({"gates": "newton"}, "gates: wanted one of irls, least squares; got 'newton'"),
    ({"ridge": -1.0}, "ridge: wanted a finite number of at least 0, got -1"),
    ({"irls_steps": 0}, "irls_steps: wanted a whole number of at least 1"),
    ({"clip": 0}, "clip: wanted a finite number above 0"),
    ({"hold": ("w",)}, "hold: wanted one of U1"),
)
