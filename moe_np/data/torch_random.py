"""PyTorch's CPU random numbers without PyTorch, equal to the bit.

Both libraries use the same generator, MT19937, seeded in the same way from one integer; they differ
in how they turn its 32-bit words into numbers. So a `numpy.random.RandomState` is the stream here,
and each function takes from it the words that the PyTorch function of that name takes, in the same
order:

    rand        one word per number       (word mod 2²⁴) · 2⁻²⁴
    uniform     one word per number       low + (high − low) · rand, rounded once to float32
    conv1d      weights, then biases      uniform on ±√3 · √(1/3) / √fan_in, then on ±1 / √fan_in
    normal      one word per number       from 16 numbers on; 16 words more if their number is not
                                          a multiple of 16
    randperm    n − 1 words               swap place i with place i + word mod (n − i),
                                          for i = 0, 1, ...

Everything is float32, PyTorch's default type.
"""

import math
from typing import Annotated

import numpy as np

from moe_np.base.checks import integer
from moe_np.base.types import Array

Stream = np.random.RandomState

_WORDS = 2**32


def manual_seed(seed: int) -> Stream:
    """The stream that `torch.manual_seed(seed)` starts.

    Of a longer seed only the low 32 bits count, as in PyTorch.
    """
    return np.random.RandomState(integer("seed", seed, minimum=0) % _WORDS)


def words(stream: Stream, count: int) -> Annotated[np.ndarray, "count"]:
    """The next `count` 32-bit words, uint32."""
    return stream.randint(0, _WORDS, size=count, dtype=np.uint32)


def rand(stream: Stream, *shape: int) -> Array:
    """`torch.rand(*shape)`: float32 on [0, 1), every value a multiple of 2⁻²⁴."""
    low_bits = words(stream, math.prod(shape))
    low_bits &= 0xFFFFFF
    # 24 bits are exact in float32; from signed integers, because that conversion is faster
    out = low_bits.view(np.int32).astype(np.float32)
    out *= np.float32(2**-24)
    return out.reshape(shape)


def uniform(stream: Stream, low: float, high: float, *shape: int) -> Array:
    """`torch.empty(*shape).uniform_(low, high)`: low + (high − low) · rand, rounded once."""
    low32 = np.float32(low)
    high32 = np.float32(high)
    # the product of two float32 numbers is exact in float64, so only the last conversion rounds
    product = rand(stream, *shape).astype(np.float64) * np.float64(high32 - low32)
    return (product + np.float64(low32)).astype(np.float32)


def conv1d(stream: Stream, filters: int, fan_in: int) -> tuple[Array, Array]:
    """Default initialisation of `torch.nn.Conv1d`: weights (filters, fan_in), biases (filters,).

    Kaiming uniform with a = √5: the gain √(2 / (1 + a²)) makes the bound of the weights equal to
    that of the biases, up to rounding.
    """
    gain = math.sqrt(2 / (1 + 5))
    bound = math.sqrt(3) * (gain / math.sqrt(fan_in))
    weight = uniform(stream, -bound, bound, filters, fan_in)
    bound = 1 / math.sqrt(fan_in)
    return weight, uniform(stream, -bound, bound, filters)


def skip_normal(stream: Stream, count: int) -> None:
    """Skip the words that `torch.normal` takes for `count` numbers, at least 16.

    The numbers themselves are a Box-Müller transform whose last bits depend on the processor.
    """
    count = integer("count", count, minimum=16)
    words(stream, count + (16 if count % 16 else 0))


def randperms(stream: Stream, count: int, n: int) -> Annotated[np.ndarray, "count, n"]:
    """`count` calls of `torch.randperm(n)`, one after the other: int64."""
    perm = np.tile(np.arange(n), (integer("count", count, minimum=0), 1))
    word = words(stream, count * (n - 1)).reshape(count, n - 1).astype(np.int64)
    rows = np.arange(count)
    for i in range(n - 1):
        j = i + word[:, i] % (n - i)
        perm[rows, j], perm[:, i] = perm[:, i].copy(), perm[rows, j]
    return perm
