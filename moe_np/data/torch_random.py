"""PyTorch's CPU random numbers without PyTorch, to the bit.

Both libraries sit on the same generator, MT19937, seeded the same way from one integer; they differ
in how they turn its 32-bit words into numbers. So a `numpy.random.RandomState` is the stream here,
and each function takes from it the words that its namesake in PyTorch takes, in that order:

    rand            one word a number       (word mod 2²⁴) · 2⁻²⁴
    uniform         one word a number       low + (high − low) · rand, rounded once to float32
    conv1d          weights, then biases    uniform on ±√3 · √(1/3) / √fan_in, then on ±1 / √fan_in
    normal          one word a number       (from 16 numbers on; 16 more if their count is no multiple of 16)
    randperm        n − 1 words             swap place i with place i + word mod (n − i), for i = 0, 1, ...

Everything is float32, PyTorch's default type.
"""

import math

import numpy as np

from moe_np.base.checks import integer

_WORDS = 2**32


def manual_seed(seed):
    """The stream that `torch.manual_seed(seed)` starts; only the low 32 bits of a longer seed
    count, as there.
    """
    return np.random.RandomState(integer("seed", seed, minimum=0) % _WORDS)


def words(stream, count):
    """The next `count` 32-bit words, uint32 (count,)."""
    return stream.randint(0, _WORDS, size=count, dtype=np.uint32)


def rand(stream, *shape):
    """`torch.rand(*shape)`: float32 on [0, 1), every value a multiple of 2⁻²⁴."""
    low = words(stream, math.prod(shape))
    low &= 0xFFFFFF
    out = low.view(np.int32).astype(
        np.float32
    )  # 24 bits: exact; signed, because that conversion is the fast one
    out *= np.float32(2**-24)
    return out.reshape(shape)


def uniform(stream, low, high, *shape):
    """`torch.empty(*shape).uniform_(low, high)`: a multiplication and an addition with one rounding
    at the end.
    """
    low, high = np.float32(low), np.float32(high)
    # in float64 the product of two float32 numbers is exact, so only the last conversion rounds
    return (
        rand(stream, *shape).astype(np.float64) * np.float64(high - low) + np.float64(low)
    ).astype(np.float32)


def conv1d(stream, filters, fan_in):
    """Default start of `torch.nn.Conv1d`: weights (filters, fan_in) and biases (filters,), drawn in
    this order.

    Kaiming uniform with a = √5: the gain √(2 / (1 + a²)) makes the bound of the weights equal to
    that of the biases, up to rounding.
    """
    gain = math.sqrt(2 / (1 + 5))
    bound = math.sqrt(3) * (gain / math.sqrt(fan_in))
    weight = uniform(stream, -bound, bound, filters, fan_in)
    bound = 1 / math.sqrt(fan_in)
    return weight, uniform(stream, -bound, bound, filters)


def skip_normal(stream, count):
    """Take the words that `torch.normal` takes for `count` numbers (at least 16), and give nothing
    back.

    The numbers themselves would be a Box-Müller transform whose last bits depend on the processor.
    """
    count = integer("count", count, minimum=16)
    words(stream, count + (16 if count % 16 else 0))


def randperms(stream, count, n):
    """`count` calls of `torch.randperm(n)` one after the other: int64 (count, n)."""
    perm = np.tile(np.arange(n), (integer("count", count, minimum=0), 1))
    word = words(stream, count * (n - 1)).reshape(count, n - 1).astype(np.int64)
    rows = np.arange(count)
    for i in range(n - 1):
        j = i + word[:, i] % (n - i)
        perm[rows, j], perm[:, i] = perm[:, i].copy(), perm[rows, j]
    return perm
