"""A small problem for the models of Chen et al. 2022."""

import itertools

import numpy as np

from moe_np.models import patch_cnn

N, P, D, J, E = 23, 3, 5, 2, 4
VARIANTS = list(itertools.product(patch_cnn.ACTIVATIONS, patch_cnn.GATES, patch_cnn.LOSSES))


def problem(seed=0, n=N, dtype=np.float64):
    """(params, x (n, P, D), y (n,), noise (n, E), generator)."""
    rng = np.random.default_rng(seed)
    params = patch_cnn.init(rng, E, J, D, scale=1.5, dtype=dtype)
    params["theta"] = (0.3 * rng.normal(size=(E, D))).astype(dtype)
    x, y, noise = rng.normal(size=(n, P, D)), rng.integers(0, 2, n), rng.random((n, E))
    return params, x.astype(dtype), y, noise.astype(dtype), rng
