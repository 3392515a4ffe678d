"""Which contestants take part."""

import pytest

from moe_np.experiments.layer_speed import contestants
from moe_np.experiments.layer_speed.contestants import CONTESTANTS, installed


def test_a_contestant_takes_part_where_its_libraries_are_installed(monkeypatch):
    missing = set()

    def find_spec(name):
        return None if name in missing else "here"

    monkeypatch.setattr(contestants.importlib.util, "find_spec", find_spec)
    assert installed("swiglu") == list(CONTESTANTS)
    assert installed("relu") == [n for n in CONTESTANTS if n != "transformers_mixtral"]
    missing |= {"transformers", "numba"}
    assert "torch_loop" in installed("swiglu") and "products_alone" not in installed("swiglu")
    missing.add("torch")
    assert installed("swiglu") == ["moe_np", "dense_numpy", "numpy_mask_loop"]


@pytest.mark.parametrize("name", ["moe_np", "dense_numpy"])
def test_the_bench_cannot_do_without(name):
    assert CONTESTANTS[name].libraries == ()
