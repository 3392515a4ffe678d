"""Processes of contestants: their environment, digests, and an end that is noticed."""

import os

import numpy as np
import pytest

from moe_np.experiments.layer_speed import processes
from moe_np.experiments.layer_speed.numpy_contestants import moe_layer, numpy_mask_loop
from moe_np.experiments.layer_speed.problem import Shape, problem
from moe_np.experiments.layer_speed.processes import Runner


def test_the_blas_settings_are_lifted_and_come_back(monkeypatch):
    for name in processes.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    with processes.unpinned() as settings:
        assert settings == {"OPENBLAS_CORETYPE": "Haswell"}
        assert "OPENBLAS_CORETYPE" not in os.environ
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"


def test_digests_are_equal_for_equal_results_and_differ_for_others():
    p = problem("relu", Shape(50, 6, 5), np.float64)
    result = moe_layer(p)(True)
    numbers = processes.digest(result)
    expected = processes.digest(numpy_mask_loop(p)(True))
    assert set(numbers) == {"out", "x", "router", *p.params}
    for name, value in numbers.items():
        assert value == pytest.approx(expected[name], rel=1e-6, abs=1e-6)
    out, dx, grads = result
    swapped = {**grads, "w1": grads["w1"][::-1]}
    different = processes.digest((out, -dx, swapped))
    assert abs(different["x"] - numbers["x"]) > 0.02
    assert abs(different["w1"] - numbers["w1"]) > 0.02
    assert different["out"] == numbers["out"]


def test_the_machine_has_a_name():
    machine = processes.machine()
    assert machine["processor"] and machine["blas"] and machine["numpy"] == np.__version__


@pytest.mark.slow
def test_a_runner_asks_and_notices_the_end_of_a_process():
    with Runner(["dense_numpy"]) as runner:
        numbers = runner.ask("dense_numpy", "prepare", "relu", Shape(9, 4, 3), True)
        assert set(numbers) == {"out", "x", "w1", "b1", "w2", "b2"}
        assert runner.ask("dense_numpy", "prepare", "relu", Shape(9, 4, 3), False) is None
        assert 0 < runner.ask("dense_numpy", "time", True, 0.01) < 1
        with pytest.raises(ChildProcessError, match="dense_numpy: its process ended"):
            runner.ask("dense_numpy", "prepare", "cubic", Shape(9, 4, 3), False)
