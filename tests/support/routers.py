"""The cases under which the common tests run every router.

tests/routing/test_NAME.py holds the CASES of the router NAME; they are collected here by walking,
when `CASES` is first asked for.
"""

import functools
import importlib
from types import ModuleType
from typing import NamedTuple

import numpy as np

from moe_np import routing


class Case(NamedTuple):
    router: ModuleType
    options: dict  # for route; an option that is a function gets x and returns the value
    init: dict = {}  # noqa: RUF012 - options for init, never changed
    causal: bool = True  # a token's assignments do not depend on later tokens
    learned: bool = True  # has logits, and the gradient of its weights
    linear: bool = True  # its matrices are multiplied with x, and with nothing else
    noisy: bool = False  # draws random numbers in training
    full: bool = True  # every token gets its k experts (no capacity, no choice by the experts)
    fewest: int = 1  # experts needed


@functools.cache
def cases():
    """All cases by name, in the order of the routers."""
    collected = {}
    for name in routing.routers():
        module = importlib.import_module(f"tests.routing.test_{name}")
        assert not set(module.CASES) & set(collected), f"a name of {name} is taken"
        collected |= module.CASES
    return collected


def __getattr__(name):
    if name == "CASES":
        return cases()
    raise AttributeError(f"module 'tests.support.routers' has no attribute {name!r}")


def setup(case, seed=0, n_tokens=12, d_model=5, n_experts=4, dtype=np.float64):
    """Parameters away from zero and tokens without ties: (params, x)."""
    rng = np.random.default_rng(seed)
    params = case.router.init(rng, d_model, n_experts, **case.init)
    params = {
        name: (p + 0.3 * rng.normal(size=p.shape)).astype(dtype) if p.dtype.kind == "f" else p
        for name, p in params.items()
    }
    return params, rng.normal(size=(n_tokens, d_model)).astype(dtype)


def options(case, x):
    """The options of `route` for these tokens."""
    return {name: v(x) if callable(v) else v for name, v in case.options.items()}


def route(case, params, x, seed=None, valid=None):
    """`seed` freezes the noise of a noisy router; None is evaluation, or what the case says."""
    rng = None if seed is None or not case.noisy else np.random.default_rng(seed)
    return case.router.route(params, x, **options(case, x), valid=valid, rng=rng)
