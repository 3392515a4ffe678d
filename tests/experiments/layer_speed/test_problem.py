"""What contestants get: the same data for the same arguments."""

import time

import numpy as np

from moe_np.experiments.layer_speed.problem import Shape, least_time, problem


def test_the_same_arguments_give_the_same_data():
    a, b = (problem("swiglu", Shape(7, 4, 3)) for _ in range(2))
    assert np.array_equal(a.x, b.x) and np.array_equal(a.router["w"], b.router["w"])
    assert set(a.params) == {"w1", "w3", "w2"} and a.params["w1"].shape == (3, 4, 16)
    assert a.x.dtype == a.params["w1"].dtype == np.float32
    assert np.array_equal(problem("relu", Shape(7, 4, 3), np.float64).x, a.x)


def test_least_time_calls_until_the_time_has_passed():
    calls = []

    def call(seconds):
        calls.append(seconds)
        time.sleep(seconds)

    assert 0.002 <= least_time(call, 0.002, at_least=0.02) < 0.2
    assert 2 <= len(calls) <= 10
    calls.clear()
    least_time(call, 0.01, at_least=0.0)
    assert len(calls) == 1
