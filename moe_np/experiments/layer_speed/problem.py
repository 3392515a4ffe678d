"""What every contestant of the bench gets: the same tokens, router and experts for one shape."""

import time
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np

from moe_np.base.types import ArrayND, DType, Params
from moe_np.layers import experts
from moe_np.routing import top_k

EXPERTS = {"swiglu": experts.SWIGLU, "relu": experts.RELU}


class Shape(NamedTuple):
    """Tokens, width, experts and choices per token; a hidden layer is four times as wide."""

    tokens: int
    d: int
    experts: int
    k: int = 2

    @property
    def hidden(self) -> int:
        """H, the hidden units of an expert."""
        return 4 * self.d

    def __str__(self) -> str:
        return f"{self.tokens} tokens, d {self.d}, {self.experts} experts"


class Problem(NamedTuple):
    kind: str  # of expert: swiglu or relu
    shape: Shape
    router: Params
    params: Params
    x: ArrayND
    dout: ArrayND


# backward -> out (N, D), or with the backward pass (out, dx, {name: gradient})
Step: TypeAlias = Callable[[bool], Any]
Prepare: TypeAlias = Callable[[Problem], Step]


def problem(kind: str, shape: Shape, dtype: DType = np.float32) -> Problem:
    """The same data for the same arguments, in whatever process."""
    rng = np.random.default_rng(0)
    size = (shape.tokens, shape.d)
    x, dout = (rng.standard_normal(size, np.float32).astype(dtype) for _ in range(2))
    router = top_k.init(rng, shape.d, shape.experts, dtype=dtype)
    params = EXPERTS[kind].init(rng, shape.d, shape.experts, shape.hidden, dtype=dtype)
    return Problem(kind, shape, router, params, x, dout)


def least_time(call: Callable, *arguments: Any, at_least: float) -> Annotated[float, "seconds"]:
    """The least time of a call, repeated until `at_least` seconds have passed."""
    least = np.inf
    start = time.perf_counter()
    while least == np.inf or time.perf_counter() - start < at_least:
        before = time.perf_counter()
        call(*arguments)
        least = min(least, time.perf_counter() - before)
    return least
