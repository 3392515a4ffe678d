"""A model in a folder comes back as it was, whichever it is."""

import json

import numpy as np
import pytest

from moe_np.base.params import leaves
from moe_np.language import model_files, objectives
from moe_np.models import decoder, encoder_decoder, lstm_moe

DECODER = decoder.Config(
    *(30, 8, 2, 2, 1, 4, 3, 8), router="switch", options={"capacity_factor": 2.0}, expert="relu"
)
SWITCH = encoder_decoder.Config(30, 8, 2, 2, 2, 4, experts=3, hidden=8)._replace(
    encoder_dense=(0,), decoder_dense=(0,)
)
LSTM = lstm_moe.Config(vocabulary=30, d_model=8, experts=4, expert_hidden=8, options={"k": 2})


@pytest.mark.parametrize(
    ("module", "config"), [(decoder, DECODER), (encoder_decoder, SWITCH), (lstm_moe, LSTM)]
)
def test_a_model_comes_back_with_its_bits(tmp_path, module, config):
    params = module.init(np.random.default_rng(0), config)
    model_files.save(tmp_path, module, config, params)
    model = model_files.load(tmp_path)
    assert model.module is module
    assert json.dumps(model.config._asdict()) == json.dumps(config._asdict())
    assert set(leaves(model.params)) == set(leaves(params))
    for path, leaf in leaves(params).items():
        np.testing.assert_array_equal(leaves(model.params)[path], leaf)
    ids = np.arange(6).reshape(1, 6)
    here = objectives.logits_and_targets(module, params, ids, ids, config)[0]
    read = objectives.logits_and_targets(module, model.params, ids, ids, model.config)[0]
    np.testing.assert_array_equal(read, here)


def described(**values):
    """The config.json of an LSTM with other values."""
    config = {**LSTM._asdict(), **values}
    return json.dumps({"model_type": "moe_np", "model": "lstm_moe", "config": config})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "wanted JSON"),
        ('{"model_type": "moe_np", "model": "gpt"}', "model: wanted"),
        ('{"model_type": "moe_np", "model": "lstm_moe", "config": {"deep": 1}}', "wanted values"),
        ('{"model_type": "moe_np", "model": "lstm_moe", "config": 3}', "config: wanted"),
        ('{"model_type": "moe_np", "model": "lstm_moe", "config": {}}', "config: .* missing 4"),
        (described(options=3), "config options: wanted a dict"),
        (described(options={}), "config.options: .* of noisy_top_k, k .needed.*; got {}"),
        ("[" * 100_000, "wanted JSON"),
    ],
)
def test_a_damaged_config_is_named(tmp_path, config, message):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=f"config.json.*{message}"):
        model_files.load(tmp_path)


def test_a_folder_without_a_tokeniser_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"wanted a tokeniser\.json or tokenizer\.json"):
        model_files.tokeniser(tmp_path)
    (tmp_path / "tokeniser.json").write_text(json.dumps({"kind": "bytes"}))
    with pytest.raises(ValueError, match=r"tokeniser\.json"):
        model_files.tokeniser(tmp_path)
