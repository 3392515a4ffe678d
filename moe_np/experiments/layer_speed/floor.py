"""The floor: the time that the machine cannot beat, from its best product and its best copy."""

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moe_np.base.machine import cores
from moe_np.experiments.layer_speed.problem import Shape, least_time

MATRICES = {"swiglu": 3, "relu": 2}  # of an expert


class Peaks(NamedTuple):
    flops: float  # operations per second of a float32 matrix product on all cores
    bandwidth: float  # bytes read and written per second by a copy on all cores


def measure_peaks() -> Callable[[], Peaks]:
    """A function that measures the peaks; its arrays are made once."""
    a = np.random.default_rng(0).standard_normal((2048, 2048), np.float32)
    out = np.empty_like(a)
    source = np.ones(1 << 26, np.float32)
    target = np.zeros(1 << 26, np.float32)

    def copy():
        parts = zip(np.array_split(target, cores()), np.array_split(source, cores()), strict=True)
        copiers = [threading.Thread(target=np.copyto, args=part) for part in parts]
        for thread in copiers:
            thread.start()
        for thread in copiers:
            thread.join()

    copy()  # the first copy waits until the memory is there

    def measure():
        product = least_time(np.matmul, a, a, out, at_least=0.2)
        return Peaks(2 * 2048**3 / product, 2 * source.nbytes / least_time(copy, at_least=0.2))

    return measure


def floor(kind: str, shape: Shape, backward: bool, peaks: Peaks) -> float:
    """Seconds that router and experts take at least, in float32.

    The larger of active operations / peak of products, and bytes of weights and tokens that have to
    move / peak of copies. With the backward pass there are three times the operations; the weights
    are read twice, and their gradient is written.
    """
    N, d, E, k = shape
    matrices = MATRICES[kind]
    operations = 2 * N * k * matrices * d * shape.hidden + 2 * N * d * E
    weights = matrices * min(E, N * k) * d * shape.hidden
    tokens = 2 * N * d
    passes = 3 if backward else 1
    moved = 4 * (passes * weights + (2 if backward else 1) * tokens)
    return max(passes * operations / peaks.flops, moved / peaks.bandwidth)
