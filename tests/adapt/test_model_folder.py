"""A decoder of a folder is read, and written back in the format that can say it."""

import json

import numpy as np
import pytest

from moe_np.adapt import model_folder, removing, upcycling
from moe_np.base.checks import InputError
from moe_np.base.params import leaves
from moe_np.language import model_files
from moe_np.models import checkpoints, lstm_moe
from tests.support.adapted_folders import CONFIG, TEXT, folder_of

HF = CONFIG._replace(d_head=6, theta=1e6)


def test_a_mixtral_folder_stays_one(tmp_path):
    ends = {"eos_token_id": 2, "bos_token_id": 1}
    folder = folder_of(tmp_path / "old", HF, dtype="bfloat16", settings=ends)
    source = model_folder.load(folder)
    assert source.dtype == "bfloat16" and source.ends == ends
    new = removing.remove(source.config, source.params, [[0, 2], [1, 3]])
    assert model_folder.save(source, tmp_path / "new", *new) == "mixtral"
    described = json.loads((tmp_path / "new" / "config.json").read_text())
    assert described["model_type"] == "mixtral" and described["num_local_experts"] == 2
    assert described["eos_token_id"] == 2 and described["dtype"] == "bfloat16"
    again = model_folder.load(tmp_path / "new")
    assert again.config.experts == 2
    for path, p in leaves(new[1]).items():
        np.testing.assert_array_equal(leaves(again.params)[path], p, err_msg=path)
    texts = [model_files.tokeniser(path).encode(TEXT[:50]) for path in (folder, tmp_path / "new")]
    np.testing.assert_array_equal(*texts)


def test_an_upcycled_dense_folder_becomes_mixtral(tmp_path):
    source = model_folder.load(folder_of(tmp_path / "old", CONFIG._replace(experts=1)))
    rng = np.random.default_rng(0)
    new = upcycling.upcycle(source.config, source.params, experts=4, rng=rng)
    assert model_folder.change_of_logits(source, *new) < 1e-4
    assert model_folder.save(source, tmp_path / "new", *new) == "mixtral"
    other = upcycling.upcycle(
        source.config, source.params, experts=4, rng=rng, router="switch", options={}
    )
    assert model_folder.save(source, tmp_path / "switch", *other) == checkpoints.NATIVE
    assert model_folder.load(tmp_path / "switch").config.router == "switch"


def test_windows_have_the_next_tokens_as_targets(tmp_path):
    source = model_folder.load(folder_of(tmp_path / "old"))
    ids, targets = model_folder.windows_of(source, TEXT, tokens=100)
    assert ids.shape == (6, 16)
    np.testing.assert_array_equal(ids.ravel()[1:], targets.ravel()[:-1])
    short, _ = model_folder.windows_of(source, "abc", tokens=100)
    assert short.shape[0] == 1


def test_the_digest_is_that_of_all_numbers_and_of_the_config(tmp_path):
    source = model_folder.load(folder_of(tmp_path / "old"))
    digest = model_folder.digest(source.config, source.params)
    assert digest == model_folder.digest(source.config, source.params)
    source.params["layers"][1]["experts"]["w2"][3, 0, 0] += 1e-3
    assert digest != model_folder.digest(source.config, source.params)
    assert digest != model_folder.digest(source.config._replace(eps=1e-6), source.params)


def test_refusals(tmp_path):
    folder = folder_of(tmp_path / "old")
    source = model_folder.load(folder)
    with pytest.raises(InputError, match="another folder than that of the model"):
        model_folder.save(source, folder, source.config, source.params)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="without a training run"):
        model_folder.save(source, tmp_path / "run", source.config, source.params)
    with pytest.raises(InputError, match="at least two tokens, got 0"):
        model_folder.windows_of(source, "", tokens=10)
    config = lstm_moe.Config(30, 8, experts=4, expert_hidden=8)
    params = lstm_moe.init(np.random.default_rng(0), config)
    model_files.save(tmp_path / "lstm", lstm_moe, config, params)
    with pytest.raises(InputError, match="wanted a decoder, got a model of lstm_moe"):
        model_folder.load(tmp_path / "lstm")
