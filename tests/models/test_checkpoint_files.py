"""The files of a checkpoint: how arrays are divided among them, and what is in two of them."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.models import checkpoint_files, safetensors


@pytest.mark.parametrize(
    ("shard_bytes", "wanted"),
    [
        (None, [["a", "b", "c", "d"]]),
        (136, [["a", "b", "c", "d"]]),  # all of them have 136 bytes
        (135, [["a", "b", "c"], ["d"]]),
        (48, [["a", "b"], ["c"], ["d"]]),
        (47, [["a"], ["b"], ["c"], ["d"]]),
        (1, [["a"], ["b"], ["c"], ["d"]]),
    ],
)
def test_a_file_has_at_most_so_many_bytes_or_one_array(shard_bytes, wanted, tmp_path):
    arrays = {"a": np.ones(2), "b": np.ones(4), "c": np.ones(10), "d": np.ones(1)}
    (tmp_path / "model-00001-of-00009.safetensors").write_bytes(b"an earlier one")
    checkpoint_files.write(tmp_path, arrays, "{}", shard_bytes=shard_bytes)
    readers = [safetensors.Reader(path) for path in sorted(tmp_path.glob("*.safetensors"))]
    assert [sorted(reader) for reader in readers] == wanted
    read = checkpoint_files.Arrays(tmp_path)
    assert read.shapes() == {name: array.shape for name, array in arrays.items()}


def test_a_name_in_two_files_is_refused(tmp_path):
    arrays = {"a": np.ones(2), "b": np.ones(4)}
    checkpoint_files.write(tmp_path, arrays, "{}", shard_bytes=1)
    safetensors.write(tmp_path / "model-00002-of-00002.safetensors", arrays)
    with pytest.raises(InputError, match=r"folder: .* has a in two files"):
        checkpoint_files.Arrays(tmp_path)
