"""The cases under which the common tests run every kind of expert.

tests/layers/experts/test_NAME.py holds the CASES of moe_np/layers/experts/NAME.py; they are
collected here by walking.
"""

import functools
import importlib
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moe_np.layers import experts
from moe_np.layers.experts import Expert


class Case(NamedTuple):
    expert: Expert
    sizes: tuple[int, ...]  # for init, after d_model and n_experts
    one_row: Callable  # (params of one expert, row) -> y, as the paper writes it
    share: tuple[str, ...]  # parameters that the experts have in common in a test
    patches: tuple[int, ...] = ()  # the axes of a row before its features
    d_out: int = 3
    kinks: bool = False  # no derivative where cache.z is 0


@functools.cache
def cases() -> dict[str, Case]:
    """All cases by name."""
    collected = {}
    for path in sorted(pathlib.Path(experts.__file__).parent.glob("*.py")):
        if path.stem not in ("__init__", "expert"):
            module = importlib.import_module(f"tests.layers.experts.test_{path.stem}")
            assert not set(module.CASES) & set(collected), f"a name of {path.stem} is taken"
            collected |= module.CASES
    return collected


def setup(case, seed=0, count=(3, 0, 5, 1), d_model=4, share=(), dtype=np.float64):
    """Parameters away from zero, rows and offsets: `count` rows for each expert."""
    rng = np.random.default_rng(seed)
    params = case.expert.init(rng, d_model, len(count), *case.sizes, share=share)
    params = {k: (p + 0.3 * rng.normal(size=p.shape)).astype(dtype) for k, p in params.items()}
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    rows = rng.normal(size=(offsets[-1], *case.patches, d_model))
    return params, rows.astype(dtype), offsets


def step_without_kink(case, params, rows, offsets):
    """A step for differences within which no unit changes its sign."""
    if not case.kinks:
        return 1e-3
    _, cache = case.expert.forward(params, rows, offsets)
    return min(1e-3, np.abs(cache.z).min(initial=1) / 50)


def check_initialisation(expert, *sizes):
    """Weights have the stated scale, scale/√fan_in; biases are zero."""
    params = expert.init(np.random.default_rng(0), 100, 2, *sizes, scale=0.5, dtype=np.float32)
    for name, p in params.items():
        assert p.dtype == np.float32
        if p.ndim == 2:
            assert (p == 0).all()
        else:
            assert abs(p.std() * np.sqrt(p.shape[1]) / 0.5 - 1) < 0.02, name
