"""The files of a checkpoint: how arrays are divided among them, and what is in two of them."""

import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.models import checkpoint_files, checkpoints, decoder_config, safetensors


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


def test_a_zero_byte_in_the_name_of_a_file_is_refused(tmp_path):
    index = {"weight_map": {"a": "model\0.safetensors"}}
    (tmp_path / checkpoint_files.INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match="names a file elsewhere"):
        checkpoint_files.Arrays(tmp_path)


@pytest.mark.parametrize("value", [3, None, True])
def test_extras_of_training_that_are_no_dict_are_refused(tmp_path, value):
    config = decoder_config.Config(10, 8, 1, 2, 1, 4, 2, 8)
    params = decoder_config.init(np.random.default_rng(0), config)
    checkpoints.save(tmp_path, config, params)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "moe_np": value}))
    with pytest.raises(ValueError, match=r"config.json: moe_np: wanted a dict"):
        checkpoints.load(tmp_path)


def test_a_model_type_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": [1]}')
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="wanted a model_type of mixtral"):
        checkpoints.load(tmp_path)
