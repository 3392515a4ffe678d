"""Constants of the compiled loops can be measured again."""

import numpy as np
import pytest

from moe_np.experiments.layer_speed import thresholds
from moe_np.experiments.layer_speed.thresholds import Comparison

kernel = pytest.importorskip("moe_np.kernels.sparse_layer", exc_type=ImportError)


def test_a_constant_gets_another_value(monkeypatch):
    monkeypatch.setattr(kernel, "STEP", kernel.STEP)
    thresholds.set_constant("sparse_layer.STEP", "33")
    assert kernel.STEP == 33 and isinstance(kernel.STEP, int)


@pytest.mark.parametrize(
    "name",
    ["STEP", "sparse_layer.NOTHING", "nowhere.STEP", "sparse_layer.Plan", "machine.blas.SMALL"],
)
def test_a_bad_name_is_refused(name, capsys):
    with pytest.raises(SystemExit):
        thresholds.main([name, "3"])
    assert "NAME: wanted" in capsys.readouterr().err


def test_tables():
    text = thresholds.table("sparse_layer.STEP", {"32": (0.001, 0.002), "96": (0.0005, 0.0015)})
    assert "| 32 | 1.000 | 2.000 |\n| 96 | 0.500 | 1.500 |" in text
    comparisons = [
        Comparison("ab", "float32", (1, 2, n), r) for n, r in ((3, 0.5), (4, 1.1), (5, 0.7))
    ]
    assert "| ab | float32 | 3 | 0.50 | 0.70 | 1.10, (1, 2, 4) |" in thresholds.table_of_pieces(
        comparisons
    )


@pytest.mark.slow
def test_pieces_are_compared(monkeypatch, capsys):
    monkeypatch.setattr(thresholds, "ROWS", (8,))
    monkeypatch.setattr(thresholds, "WIDTHS", (256, 1024))
    try:
        comparisons = thresholds.compare_pieces()
    except thresholds.InputError:
        pytest.skip("NumPy has no OpenBLAS of its own")
    assert {c.op for c in comparisons} == {"ab", "aᵀb", "abᵀ"}
    assert all(np.isfinite(c.ratio) and c.ratio > 0 for c in comparisons)


# at night a constant of compiled code, which is compiled for each value
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("routing.linear_map.LARGE", "numpy"),
        pytest.param("sparse_layer.STEP", "numba", marks=pytest.mark.nightly),
    ],
)
def test_the_layer_is_timed_for_each_value(name, kernels, monkeypatch, capsys):
    monkeypatch.setenv("MOE_NP_KERNELS", kernels)
    thresholds.main([name, "32", "96", "--shape", "64,16,4"])
    out = capsys.readouterr().out
    assert "| 32 |" in out and "| 96 |" in out
