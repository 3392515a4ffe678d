"""The bench of the training step: what is timed is the same step, and its table."""

import itertools

import numpy as np
import pytest

from moe_np.data.clusters import Clusters
from moe_np.experiments.chen2022 import bench
from moe_np.models import patch_cnn


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4, 50)).astype(np.float32)
    return Clusters(x, rng.integers(2, size=60), rng.integers(4, size=60), None, None)


def test_both_backends_take_the_same_steps(data, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setenv("MOE_NP_KERNELS", "as it was")
    params = patch_cnn.init(np.random.default_rng(1), 8, 8, 50, scale=0.1, dtype=np.float32)
    steps = [bench.our_steps(params, data, "cubic", name) for name in ("numpy", "numba")]
    first, second = (list(itertools.islice(iterator, 4)) for iterator in steps)
    np.testing.assert_allclose(first, second, rtol=1e-5)
    assert len({loss for loss, _ in first}) == 4, "the parameters move"
    assert bench.os.environ["MOE_NP_KERNELS"] == "as it was"


def test_every_contestant_is_timed(data, monkeypatch):
    monkeypatch.setattr(bench, "notebook_clusters", lambda setting, n_test: (data, None))
    least = bench.measure("linear", rounds=2, warm=1)
    assert {"NumPy"} <= set(least) <= {"NumPy", "Numba", "PyTorch"}
    assert all(0 < ms < 1e4 for ms in least.values())


def test_the_table_compares_with_pytorch_where_there_is_one():
    text = bench.table(
        {
            ("cubic", 1): {"NumPy": 40.0, "Numba": 10.0, "PyTorch": 60.0},
            ("linear", 2): {"NumPy": 5.0},
        }
    )
    assert "| cubic | 1 | 40.00 | 10.00 | 60.00 | 1.5 | 6.0 |" in text
    assert "| linear | 2 | 5.00 | – | – | – | – |" in text
