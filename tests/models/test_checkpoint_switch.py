"""Checkpoints of the Switch Transformer: names, settings, copies of the embedding, errors."""

import json

import numpy as np
import pytest

from moe_np.base import params as nested
from moe_np.base.checks import InputError
from moe_np.models import checkpoint_switch, checkpoints, encoder_decoder, safetensors
from tests.support.encoder_decoders import LAYOUTS, SMALL, TOP_K, pairs, params

FAMILY = {
    "switch": "switch_transformers",
    "switch, untied, capacity": checkpoints.NATIVE_ENCODER_DECODER,
    "dense": "switch_transformers",
    "biases": checkpoints.NATIVE_ENCODER_DECODER,
    "swiglu": checkpoints.NATIVE_ENCODER_DECODER,
}
UNTIED = SMALL._replace(tied=False, encoder_dense=(), options={"jitter": 0.02}, eps=1e-5)
DELETED = object()


def saved(folder, config, **options):
    p = params(config)
    checkpoints.save(folder, config, p, **options)
    return p


def setting(folder, **changes):
    settings = json.loads((folder / "config.json").read_text())
    settings = {key: value for key, value in {**settings, **changes}.items() if value != DELETED}
    (folder / "config.json").write_text(json.dumps(settings))


def arrays_of(folder):
    reader = safetensors.Reader(folder / "model.safetensors")
    return {name: reader.read(name) for name in reader}


def logits_of(config, p):
    source, targets = pairs(config)
    inputs = encoder_decoder.shift_right(targets, config.start)
    return encoder_decoder.forward(p, source, inputs, config)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_saved_is_loaded(layout, tmp_path):
    config = LAYOUTS[layout]._replace(dropout=0.1, expert_dropout=0.2, context=20)
    assert checkpoints.family_of(config) == FAMILY[layout]
    for folder, options in [
        (tmp_path / "a", {}),
        (tmp_path / "b", {"family": checkpoints.NATIVE_ENCODER_DECODER, "shard_bytes": 4000}),
    ]:
        p = saved(folder, config, **options)
        read, loaded = checkpoints.load(folder, dtype=np.float64)
        assert nested.leaves(loaded).keys() == nested.leaves(p).keys()
        for path, a in nested.leaves(p).items():
            np.testing.assert_array_equal(nested.leaves(loaded)[path], a, err_msg=path)
        assert read[:8] == config[:8]
        assert (read.dropout, read.expert_dropout, read.context) == (0.1, 0.2, 20)
        np.testing.assert_array_equal(logits_of(read, loaded), logits_of(config, p))
        loaded["encoder"]["layers"][0]["norm1"]["g"][0] += 1  # its own array


def test_settings_and_names_of_the_files(tmp_path):
    saved(tmp_path, UNTIED._replace(dropout=0.3))
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["encoder_sparse_step"] == 1 and settings["num_sparse_encoder_layers"] == 2
    assert settings["decoder_sparse_step"] == 2 and settings["num_sparse_decoder_layers"] == 1
    assert settings["router_jitter_noise"] == 0.02 and settings["layer_norm_epsilon"] == 1e-5
    assert settings["expert_capacity"] == UNTIED.context, "nothing is dropped"
    assert settings["decoder_start_token_id"] == 2 and settings["dropout_rate"] == 0.3
    arrays = arrays_of(tmp_path)
    p = params(UNTIED)
    block = "decoder.block.1.layer."
    second = p["decoder"]["layers"][1]
    for name, a in {
        "shared.weight": p["embed"]["w"],
        "lm_head.weight": p["head"]["w"].T,
        "encoder.embed_tokens.weight": p["embed"]["w"],
        "decoder.embed_tokens.weight": p["embed"]["w"],
        "encoder.final_layer_norm.weight": p["encoder"]["norm"]["g"],
        block + "0.SelfAttention.q.weight": second["attention"]["wq"].T,
        block + "1.EncDecAttention.o.weight": second["cross"]["wo"].T,
        block + "1.layer_norm.weight": second["norm_cross"]["g"],
        block + "2.layer_norm.weight": second["norm2"]["g"],
        block + "2.mlp.router.classifier.weight": second["router"]["w"].T,
        block + "2.mlp.experts.expert_3.wi.weight": second["experts"]["w1"][3].T,
        block + "2.mlp.experts.expert_3.wo.weight": second["experts"]["w2"][3].T,
        "decoder.block.0.layer.2.mlp.wi.weight": p["decoder"]["layers"][0]["experts"]["w1"][0].T,
    }.items():
        np.testing.assert_array_equal(arrays[name], a, err_msg=name)
    biases = [name for name in arrays if "relative_attention_bias" in name]
    place = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    assert sorted(biases) == [f"decoder.{place}", f"encoder.{place}"], "of block 0 alone"
    np.testing.assert_array_equal(arrays[f"encoder.{place}"], p["encoder"]["position"]["w"])


@pytest.mark.parametrize(
    "change",
    [
        TOP_K,
        {"router": "top_k", "options": {"k": 2, "renormalise": True}},
        {"options": {"capacity_factor": 1.25}},
        {"dense_hidden": 9},
        {"encoder_layers": 4, "encoder_dense": (1, 2, 3)},
        {"encoder_layers": 4, "encoder_dense": (0, 1)},
    ],
)
def test_what_the_family_cannot_say_has_the_names_used_here(change, tmp_path):
    config = SMALL._replace(**change)
    assert checkpoints.family_of(config) == checkpoints.NATIVE_ENCODER_DECODER
    p = saved(tmp_path, config)
    read, loaded = checkpoints.load(tmp_path, dtype=np.float64)
    np.testing.assert_array_equal(logits_of(read, loaded), logits_of(config, p))
    with pytest.raises(InputError, match="family: wanted moe_np_encoder_decoder"):
        checkpoints.save(tmp_path, config, p, family="switch_transformers")


@pytest.mark.parametrize("dense", [(), (0,), (1,), (0, 2), (1, 3), (0, 2, 3), (0, 1, 2, 3), (2,)])
def test_layers_that_a_step_can_say(dense):
    config = SMALL._replace(encoder_layers=4, encoder_dense=dense)
    sayable = [(), (0, 2), (0, 2, 3), (0, 1, 2, 3)]
    assert checkpoint_switch.fits(config) == (dense in sayable)


def test_lazy_experts(tmp_path):
    p = saved(tmp_path, SMALL)
    config, lazy = checkpoints.load(tmp_path, dtype=np.float64, lazy=True)
    stored = lazy["decoder"]["layers"][1]["experts"]
    assert isinstance(stored, checkpoints.StoredExperts) and len(stored) == 4
    assert isinstance(lazy["decoder"]["layers"][0]["experts"], dict)
    np.testing.assert_allclose(logits_of(config, lazy), logits_of(SMALL, p), rtol=1e-12)


def test_files_may_have_the_embedding_several_times(tmp_path):
    p = saved(tmp_path, SMALL)
    arrays = arrays_of(tmp_path)
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    copies = dict.fromkeys(names, p["embed"]["w"])
    safetensors.write(tmp_path / "model.safetensors", arrays | copies)
    _, loaded = checkpoints.load(tmp_path, dtype=np.float64)
    assert nested.leaves(loaded).keys() == nested.leaves(p).keys()
    for name, reason in zip(names, ("one embedding", "one embedding", "tie_word"), strict=True):
        different = {**copies, name: p["embed"]["w"] + 1}
        safetensors.write(tmp_path / "model.safetensors", arrays | different)
        with pytest.raises(InputError, match=f"{reason}.*, but {name} is not shared.weight"):
            checkpoints.load(tmp_path)


def test_names_that_do_not_fit_are_listed(tmp_path):
    saved(tmp_path, SMALL)
    arrays = arrays_of(tmp_path)
    missing = arrays.pop("encoder.block.1.layer.1.mlp.experts.expert_2.wi.weight")
    arrays["encoder.block.1.layer.1.mlp.experts.expert_9.wi.weight"] = missing
    arrays["decoder.final_layer_norm.weight"] = np.ones(5)
    safetensors.write(tmp_path / "model.safetensors", arrays)
    with pytest.raises(InputError) as error:
        checkpoints.load(tmp_path)
    assert "1 missing: encoder.block.1.layer.1.mlp.experts.expert_2.wi.weight" in str(error.value)
    assert "1 unexpected: encoder.block.1.layer.1.mlp.experts.expert_9" in str(error.value)
    assert r"decoder.final_layer_norm.weight [5] (wanted [12])" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": DELETED}, "wanted the key num_experts"),
        ({"num_experts": "8"}, "num_experts: wanted"),
        ({"d_ff": -1}, "d_ff: wanted"),
        ({"layer_norm_epsilon": DELETED}, "wanted the key layer_norm_epsilon"),
        ({"dense_act_fn": "gated-gelu"}, "dense_act_fn: wanted"),
        ({"router_bias": True}, "wanted router_bias = False for switch_transformers, got True"),
        ({"router_dtype": "bfloat16"}, "wanted router_dtype = float32"),
        ({"decoder_start_token_id": 17}, "config.start: wanted"),
        ({"encoder_sparse_step": "two"}, "encoder_sparse_step: wanted"),
        ({"dropout_rate": None}, "dropout_rate: wanted"),
    ],
)
def test_bad_settings(changes, message, tmp_path):
    saved(tmp_path, SMALL)
    setting(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        checkpoints.load(tmp_path)


def test_the_published_settings():
    """google/switch-base-8 and what older files leave out."""
    config = checkpoint_switch.config_of(SWITCH_BASE_8)
    assert config.encoder_dense == config.decoder_dense == (0, 2, 4, 6, 8, 10)
    assert config.tied and config.start == 0 and config.options == {"jitter": 0.01}
    assert config.dropout == config.expert_dropout == 0.1
    of_files = checkpoint_switch.parts(config)
    shapes = {piece.name: piece.shape for some in of_files.values() for piece in some}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 619_339_008
    older = {key: v for key, v in SWITCH_BASE_8.items() if not key.endswith("_sparse_step")}
    older["decoder_start_token_id"] = None
    assert checkpoint_switch.config_of(older) == config


SWITCH_BASE_8 = {
    "model_type": "switch_transformers",
    "d_ff": 3072,
    "d_kv": 64,
    "d_model": 768,
    "decoder_sparse_step": 2,
    "decoder_start_token_id": 0,
    "dense_act_fn": "relu",
    "dropout_rate": 0.1,
    "encoder_sparse_step": 2,
    "expert_capacity": 64,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "num_decoder_layers": 12,
    "num_experts": 8,
    "num_heads": 12,
    "num_layers": 12,
    "num_sparse_decoder_layers": 6,
    "num_sparse_encoder_layers": 6,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "router_bias": False,
    "router_dtype": "float32",
    "router_jitter_noise": 0.01,
    "vocab_size": 32128,
}
