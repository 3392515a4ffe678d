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


def test_least_time_calls_until_the_time_has_passed(monkeypatch):
    """By a clock that only the calls move."""
    clock = [0.0]
    calls = []
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def call(*seconds):
        calls.append(seconds)
        clock[0] += seconds[len(calls) % 2]

    assert least_time(call, 3.0, 2.0, at_least=20.0) == 2
    assert len(calls) == 8  # 2 + 3 + 2 + ... = 20
    calls.clear()
    assert least_time(call, 5.0, 7.0, at_least=0.0) == 7
    assert len(calls) == 1
