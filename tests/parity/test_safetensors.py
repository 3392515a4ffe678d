"""The file format safetensors against its library: the same bytes, and the same arrays."""

import numpy as np
import pytest

from moe_np.models import safetensors

library = pytest.importorskip("safetensors.numpy")
torch = pytest.importorskip("torch")
torch_library = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.parity


def arrays():
    rng = np.random.default_rng(0)
    return {
        "w": rng.normal(size=(3, 4)).astype(np.float32),
        "layers.10.b": rng.normal(size=5),
        "layers.9.b": rng.normal(size=5).astype(np.float16),
        "ids": rng.integers(0, 9, 7),
        "small": rng.integers(0, 9, 7).astype(np.int8),
        "mask": rng.random(3) < 0.5,
        "none": np.zeros((0, 4), np.float32),
        "ε": np.array(2.5, np.float32),
    }


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_the_bytes_are_those_of_the_library(tmp_path, metadata):
    safetensors.write(tmp_path / "a", arrays(), metadata=metadata)
    assert (tmp_path / "a").read_bytes() == library.save(arrays(), metadata)


def test_the_library_reads_what_is_written(tmp_path):
    safetensors.write(tmp_path / "a", arrays())
    for name, array in library.load_file(tmp_path / "a").items():
        np.testing.assert_array_equal(array, arrays()[name], strict=True)


def test_what_the_library_writes_is_read(tmp_path):
    library.save_file(arrays(), tmp_path / "a")
    reader = safetensors.Reader(tmp_path / "a")
    for name, array in arrays().items():
        np.testing.assert_array_equal(reader[name], array, strict=True)


def test_bfloat16_both_ways(tmp_path):
    x = torch.tensor(np.random.default_rng(0).normal(size=(50, 40)), dtype=torch.float32)
    torch_library.save_file({"x": x.to(torch.bfloat16)}, tmp_path / "theirs")
    safetensors.write(tmp_path / "ours", {"x": x.numpy()}, dtype="bfloat16")
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()
    expected = x.to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(safetensors.Reader(tmp_path / "theirs")["x"], expected)
