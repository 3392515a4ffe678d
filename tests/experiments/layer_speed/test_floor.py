"""The floor of the machine, worked by hand."""

import pytest

from moe_np.experiments.layer_speed.floor import Peaks, floor, measure_peaks
from moe_np.experiments.layer_speed.problem import Shape


def test_the_floor_by_hand():
    shape = Shape(100, 10, 4)  # hidden 40, k 2
    products = Peaks(1e6, 1e30)
    copies = Peaks(1e30, 1e6)
    # two matrices: 2 operations · 100 tokens · 2 experts · 2 matrices · 10 · 40, and the router's
    # 2 · 100 · 10 · 4
    assert floor("relu", shape, False, products) == pytest.approx(0.320 + 0.008)
    assert floor("swiglu", shape, True, products) == pytest.approx(3 * (0.480 + 0.008))
    # 4 bytes · (4 experts · 2 matrices · 400 + x and out of 1,000 each); training: weights three
    # times, dout and dx as well
    assert floor("relu", shape, False, copies) == pytest.approx(4e-6 * (3200 + 2000))
    assert floor("relu", shape, True, copies) == pytest.approx(4e-6 * (9600 + 4000))
    few = Shape(1, 10, 64)  # one token reaches 2 of 64 experts
    assert floor("relu", few, False, copies) == pytest.approx(4e-6 * (1600 + 20))


@pytest.mark.slow
def test_the_peaks_of_this_machine():
    peaks = measure_peaks()()
    assert peaks.flops > 1e9 and peaks.bandwidth > 1e8
