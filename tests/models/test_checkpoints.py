"""Checkpoints: what is saved is loaded, which family says what, and folders that do not fit."""

import json
import os

import numpy as np
import pytest

from moe_np import accounting
from moe_np.base import params as nested
from moe_np.base.checks import InputError
from moe_np.models import (
    checkpoint_files,
    checkpoint_names,
    checkpoint_settings,
    checkpoints,
    decoder,
    decoder_config,
    safetensors,
)
from tests.support.decoders import LAYOUTS, ROUTERS, SMALL, params, text, with_router

FAMILY = {
    "mixtral": "mixtral",
    "deepseek": "deepseek",
    "olmoe": "olmoe",
    "clipped": "olmoe",
    "qwen2": "qwen2_moe",
    "qwen3": "qwen3_moe",
    "glam": checkpoints.NATIVE,
    "dense": checkpoints.NATIVE,
    "switch": checkpoints.NATIVE,
}
PUBLISHED = [name for name, family in FAMILY.items() if family != checkpoints.NATIVE]
MODELS = {**LAYOUTS, **{name: with_router(name) for name in ROUTERS}}
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
published = pytest.mark.parametrize("layout", PUBLISHED)


def saved(folder, layout="mixtral", **options):
    config = LAYOUTS[layout]
    p = params(config)
    checkpoints.save(folder, config, p, **options)
    return config, p


def equal(p, other):
    first, second = nested.leaves(p), nested.leaves(other)
    assert set(first) == set(second)
    for path, a in first.items():
        np.testing.assert_array_equal(second[path], a, err_msg=path)


# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shard_bytes", [None, 4000])
def test_what_is_saved_is_loaded(name, shard_bytes, tmp_path):
    config = MODELS[name]._replace(dropout=0.1, expert_dropout=0.2)
    p = params(config)
    checkpoints.save(tmp_path, config, p, shard_bytes=shard_bytes)
    loaded, found = checkpoints.load(tmp_path, dtype=np.float64)
    equal(p, found)
    assert loaded.dropout == 0.1 and loaded.expert_dropout == 0.2
    ids, _ = text(config)
    np.testing.assert_array_equal(
        decoder.forward(found, ids, loaded)[0], decoder.forward(p, ids, config)[0]
    )
    files = {path.name for path in tmp_path.iterdir()}
    assert ("model.safetensors" in files) == (shard_bytes is None)


@every_layout
def test_which_family_says_it(layout, tmp_path):
    config, p = saved(tmp_path, layout)
    assert checkpoints.family_of(config) == FAMILY[layout]
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["model_type"] == FAMILY[layout]
    checkpoints.save(tmp_path, config, p, family=checkpoints.NATIVE)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["d_model"] == 12
    loaded, arrays = checkpoints.load(tmp_path, dtype=np.float64)
    assert loaded == config
    equal(p, arrays)


@published
def test_types_of_the_numbers(layout, tmp_path):
    for dtype, digits in (("float16", 2**-11), ("bfloat16", 2**-8), ("float32", 2**-24)):
        _, p = saved(tmp_path, layout, dtype=dtype)
        _, found = checkpoints.load(tmp_path)
        for path, a in nested.leaves(found).items():
            assert a.dtype == np.float32 and a.flags.c_contiguous, path
            np.testing.assert_allclose(a, nested.leaves(p)[path], rtol=digits, atol=1e-7)


def test_another_cut_leaves_no_file_behind(tmp_path):
    saved(tmp_path, shard_bytes=4000)
    many = len(list(tmp_path.iterdir()))
    (tmp_path / "tokenizer.json").write_text("{}")
    _, p = saved(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"} and many > 5
    equal(p, checkpoints.load(tmp_path, dtype=np.float64)[1])


def test_more_settings(tmp_path):
    saved(tmp_path, settings={"eos_token_id": 2})
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 2


# --- experts that stay in the files ---------------------------------------------------------------


@published
def test_lazy_experts(layout, tmp_path, monkeypatch):
    config, p = saved(tmp_path, layout)
    loaded, lazy = checkpoints.load(tmp_path, dtype=np.float64, lazy=True)
    names = []
    read = safetensors.Reader.read
    monkeypatch.setattr(
        safetensors.Reader,
        "read",
        lambda self, name, index=None: names.append((name, index)) or read(self, name, index),
    )
    ids, _ = text(config, B=1, T=1)
    logits, cache = decoder.forward(lazy, ids, loaded)
    np.testing.assert_allclose(logits, decoder.forward(p, ids, config)[0], rtol=1e-9)
    sparse = [b.mixture.routing for b in cache.blocks if b.mixture.router is not None]
    assert len(names) == sum(3 * len(set(routing.expert)) for routing in sparse)
    with pytest.raises(InputError, match="got StoredExperts"):
        nested.leaves(lazy)


@pytest.mark.parametrize("is_fused", [False, True])
def test_where_an_expert_lies_in_the_files(is_fused, tmp_path):
    """The numbers from the first byte on are those of the parameter."""
    config, p = saved(tmp_path / "apart")
    folder = tmp_path / ("fused" if is_fused else "apart")
    if is_fused:
        fuse(tmp_path / "apart", folder, config, p)
    _, lazy = checkpoints.load(folder, dtype=np.float64, lazy=True)
    for number in range(config.experts):
        sources = lazy["layers"][1]["experts"].sources(number)
        assert sources.keys() == p["layers"][1]["experts"].keys()
        for leaf, (path, kind, shape, start, piece) in sources.items():
            count, dtype = int(np.prod(shape)), safetensors.DTYPES[kind]
            stored = np.fromfile(path, dtype, count, offset=start).reshape(shape)
            wanted = p["layers"][1]["experts"][leaf][number]
            np.testing.assert_array_equal(piece.of(stored), wanted)


@pytest.mark.parametrize("layout", ["glam", "switch"])
def test_lazy_experts_of_native_files(layout, tmp_path):
    """The experts of the layers that have a router stay in the files, and no others."""
    config, p = saved(tmp_path, layout)
    loaded, lazy = checkpoints.load(tmp_path, dtype=np.float64, lazy=True)
    for layer, whole in zip(lazy["layers"], p["layers"], strict=True):
        assert isinstance(layer["experts"], dict) == ("router" not in whole)
    ids, _ = text(config)
    np.testing.assert_allclose(
        decoder.forward(lazy, ids, loaded)[0], decoder.forward(p, ids, config)[0], rtol=1e-9
    )


def test_lazy_experts_of_fused_files(tmp_path):
    config, p = saved(tmp_path / "apart")
    fuse(tmp_path / "apart", tmp_path / "fused", config, p)
    loaded, whole = checkpoints.load(tmp_path / "fused", dtype=np.float64)
    equal(p, whole)
    _, lazy = checkpoints.load(tmp_path / "fused", dtype=np.float64, lazy=True)
    ids, _ = text(config)
    np.testing.assert_allclose(
        decoder.forward(lazy, ids, loaded)[0], decoder.forward(p, ids, config)[0], rtol=1e-9
    )
    some = lazy["layers"][1]["experts"].read(np.array([3, 1]))
    np.testing.assert_array_equal(some["w3"], p["layers"][1]["experts"]["w3"][[3, 1]])


def fuse(folder, target, config, p):
    """The files as Transformers 5 has the experts in memory."""
    arrays = dict(safetensors.Reader(folder / "model.safetensors"))
    arrays = {name: a for name, a in arrays.items() if "block_sparse_moe" not in name}
    for i, layer in enumerate(p["layers"]):
        path = f"model.layers.{i}.mlp."
        arrays[path + "gate.weight"] = layer["router"]["w"].T
        w1, w3, w2 = (layer["experts"][name].swapaxes(1, 2) for name in ("w1", "w3", "w2"))
        arrays[path + "experts.gate_up_proj"] = np.concatenate([w1, w3], axis=1)
        arrays[path + "experts.down_proj"] = w2
    safetensors.write(target / "model.safetensors", arrays)
    (target / "config.json").write_text((folder / "config.json").read_text())


# --- names that do not fit ------------------------------------------------------------------------


def rewrite(folder, change):
    arrays = dict(safetensors.Reader(folder / "model.safetensors"))
    change(arrays)
    safetensors.write(folder / "model.safetensors", arrays)


def test_errata_31_one_error_lists_all_names(tmp_path):
    saved(tmp_path)

    def change(arrays):
        del arrays["model.norm.weight"]
        del arrays["model.layers.1.block_sparse_moe.experts.4.w3.weight"]
        arrays["model.layers.0.mlp.extra"] = np.zeros(2)
        name = "model.layers.0.self_attn.k_proj.weight"
        arrays[name] = arrays[name][:, :5]

    rewrite(tmp_path, change)
    with pytest.raises(InputError) as error:
        checkpoints.load(tmp_path)
    message = str(error.value)
    assert "2 missing: model.layers.1.block_sparse_moe.experts.4.w3.weight, model.norm" in message
    assert "1 unexpected: model.layers.0.mlp.extra" in message
    assert (
        "1 misshapen: model.layers.0.self_attn.k_proj.weight [12, 5] (wanted [12, 12])" in message
    )


def test_another_number_of_layers(tmp_path):
    saved(tmp_path)
    setting(tmp_path, num_hidden_layers=1)
    with pytest.raises(InputError, match=r"22 unexpected: .*, \.\.\.$"):
        checkpoints.load(tmp_path)
    setting(tmp_path, num_hidden_layers=3)
    with pytest.raises(InputError, match="22 missing"):
        checkpoints.load(tmp_path)


def test_the_head_of_a_tied_model(tmp_path):
    _, p = saved(tmp_path, "qwen2")
    rewrite(tmp_path, lambda a: a.update({"lm_head.weight": a["model.embed_tokens.weight"]}))
    equal(p, checkpoints.load(tmp_path, dtype=np.float64)[1])
    rewrite(tmp_path, lambda a: a.update({"lm_head.weight": 2 * a["model.embed_tokens.weight"]}))
    with pytest.raises(InputError, match="tie_word_embeddings is true"):
        checkpoints.load(tmp_path)


def test_angles_in_old_files_are_left_out(tmp_path):
    _, p = saved(tmp_path)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(tmp_path, lambda a: a.update({name: np.ones(2)}))
    equal(p, checkpoints.load(tmp_path, dtype=np.float64)[1])


# --- config.json ----------------------------------------------------------------------------------


def setting(folder, **changes):
    path = folder / "config.json"
    settings = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in settings.items() if v is not DELETED}))


DELETED = object()


@pytest.mark.parametrize(
    ("layout", "keys"),
    [
        ("mixtral", ["num_local_experts", "num_experts_per_tok", "sliding_window"]),
        ("olmoe", ["norm_topk_prob", "num_experts"]),
        ("qwen2", ["norm_topk_prob", "decoder_sparse_step", "use_sliding_window"]),
        ("qwen3", ["norm_topk_prob", "num_experts", "use_sliding_window"]),
        ("deepseek", ["norm_topk_prob", "n_shared_experts", "first_k_dense_replace"]),
    ],
)
def test_errata_31_nothing_is_guessed(layout, keys, tmp_path):
    saved(tmp_path, layout)
    before = (tmp_path / "config.json").read_text()
    for key in [*keys, "rms_norm_eps", "vocab_size", "num_key_value_heads"]:
        setting(tmp_path, **{key: DELETED})
        with pytest.raises(InputError, match=f"wanted the key {key}, it is missing"):
            checkpoints.load(tmp_path)
        (tmp_path / "config.json").write_text(before)
    setting(tmp_path, rope_theta=DELETED, rope_parameters=DELETED)
    with pytest.raises(InputError, match="wanted the key rope_theta"):
        checkpoints.load(tmp_path)


def test_keys_of_both_versions(tmp_path):
    config, _ = saved(tmp_path, "qwen3")
    setting(tmp_path, rope_parameters=DELETED, rope_theta=1e6)
    assert checkpoints.load(tmp_path)[0].theta == 1e6
    setting(tmp_path, rope_parameters={"rope_theta": 5.0, "rope_type": "default"})
    assert checkpoints.load(tmp_path)[0].theta == 5.0
    setting(tmp_path, num_experts=DELETED, num_local_experts=5)
    assert checkpoints.load(tmp_path)[0].experts == config.experts


def test_clipping_is_a_key_of_olmoe_alone(tmp_path):
    saved(tmp_path, "olmoe")
    assert json.loads((tmp_path / "config.json").read_text())["clip_qkv"] is None
    for value, clip in ((8, 8), (None, None), (DELETED, None)):
        setting(tmp_path, clip_qkv=value)
        assert checkpoints.load(tmp_path)[0].clip_qkv == clip
    clipped = LAYOUTS["mixtral"]._replace(clip_qkv=8.0)
    assert checkpoints.family_of(clipped) == checkpoints.NATIVE
    checkpoints.save(tmp_path, clipped, params(clipped))
    assert checkpoints.load(tmp_path)[0].clip_qkv == 8


BAD_SETTINGS = {
    "family": ({"model_type": "llama"}, "wanted a model_type of mixtral, olmoe"),
    "no family": ({"model_type": DELETED}, "wanted a model_type"),
    "activation": ({"hidden_act": "gelu"}, "wanted hidden_act = silu"),
    "biases": ({"attention_bias": True}, "wanted attention_bias = False"),
    "angles": (
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}},
        "rotary angles of type default",
    ),
    "angles of version 4": (
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2}},
        "rotary angles of type default",
    ),
    "angles as a number": ({"rope_parameters": 3}, "rope_parameters: wanted a dict"),
    "text": ({"hidden_size": "12"}, "config.json: hidden_size"),
    "nothing": ({"vocab_size": None}, "config.json: vocab_size"),
    "epsilon": ({"rms_norm_eps": "small"}, "config.json: rms_norm_eps"),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings(name, tmp_path):
    saved(tmp_path)
    changes, message = BAD_SETTINGS[name]
    setting(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("olmoe", {"clip_qkv": 0}, "config.clip_qkv: wanted a finite number above 0, got 0"),
        ("olmoe", {"clip_qkv": "8"}, "config.clip_qkv: wanted a finite number above 0, got '8'"),
        ("deepseek", {"scoring_func": "sigmoid"}, "wanted scoring_func = softmax"),
        ("qwen2", {"decoder_sparse_step": 0}, "decoder_sparse_step"),
        ("qwen2", {"use_sliding_window": True, "layer_types": DELETED}, "layer_types"),
        ("qwen2", {"qkv_bias": False}, "6 unexpected"),
        ("qwen3", {"mlp_only_layers": [0]}, "missing"),
    ],
)
def test_bad_settings_of_a_family(layout, changes, message, tmp_path):
    saved(tmp_path, layout)
    setting(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        checkpoints.load(tmp_path)


def test_the_settings_of_published_models():
    """What their config.json says, as far as it matters: the numbers of the articles come out."""
    _, mixtral = checkpoint_settings.config_of(MIXTRAL_8X7B)
    assert mixtral.options == {"k": 2, "renormalise": True} and mixtral.d_head == 128
    assert numbers(mixtral) == 46_702_792_704
    counts = accounting.count(decoder_config.architecture(mixtral))
    assert (counts.total, counts.active) == (46_702_792_704, 12_879_925_248)
    assert counts.parts == accounting.count("mixtral-8x7b").parts
    _, deepseek = checkpoint_settings.config_of(DEEPSEEK_16B)
    assert deepseek.dense_layers == (0,) and deepseek.dense_hidden == 10944
    assert deepseek.options == {"k": 6, "renormalise": False}
    assert numbers(deepseek) == 16_375_728_128
    counts = accounting.count(decoder_config.architecture(deepseek))
    assert counts.parts == accounting.count("deepseekmoe-16b").parts


def numbers(config):
    """The parameters of a model, from the shapes of its arrays; none of them is made."""
    family = checkpoint_settings.FAMILIES[checkpoints.family_of(config)]
    parts = checkpoint_names.parts(config, family.experts, family.shared)
    shapes = {piece.name: piece.shape for some in parts.values() for piece in some}
    return sum(int(np.prod(shape)) for shape in shapes.values())


MIXTRAL_8X7B = {
    "model_type": "mixtral",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
DEEPSEEK_16B = {
    "model_type": "deepseek",
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "max_position_embeddings": 4096,
    "moe_intermediate_size": 1408,
    "moe_layer_freq": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 28,
    "num_key_value_heads": 16,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000,
    "scoring_func": "softmax",
    "tie_word_embeddings": False,
    "vocab_size": 102400,
}


# --- folders that do not fit ----------------------------------------------------------------------


def test_folders_without_the_files(tmp_path):
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        checkpoints.load(tmp_path / "none")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="is no JSON object"):
        checkpoints.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="is no JSON"):
        checkpoints.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"wanted model\.safetensors or model\.safetensors\.index"):
        checkpoints.load(tmp_path)


def test_a_damaged_index(tmp_path):
    saved(tmp_path, shard_bytes=4000)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    for change, message in [
        ("[]", "has no weight_map"),
        (json.dumps({"weight_map": {"a": 1}}), "has no weight_map"),
        (json.dumps({"weight_map": {"a": "../a.safetensors"}}), "names a file elsewhere"),
        (json.dumps({"weight_map": {"a": "/etc/passwd"}}), "names a file elsewhere"),
        (json.dumps({"weight_map": {"a": "none.safetensors"}}), "No such file"),
    ]:
        index.write_text(change)
        with pytest.raises(InputError, match=message):
            checkpoints.load(tmp_path)
    index.write_text(json.dumps(content))
    shard = sorted(tmp_path.glob("model-*"))[1]
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(InputError, match="is damaged"):
        checkpoints.load(tmp_path)


def test_a_name_in_two_files(tmp_path):
    saved(tmp_path, shard_bytes=4000)
    first, second = sorted(tmp_path.glob("model-*"))[:2]
    safetensors.write(second, dict(safetensors.Reader(first)))
    with pytest.raises(InputError, match="in two files"):
        checkpoints.load(tmp_path)


def test_what_cannot_be_saved(tmp_path):
    config, p = LAYOUTS["mixtral"], params(LAYOUTS["mixtral"])
    with pytest.raises(InputError, match="family: wanted mixtral or moe_np_decoder"):
        checkpoints.save(tmp_path, config, p, family="olmoe")
    with pytest.raises(InputError, match="leaves of the config; differing: head"):
        checkpoints.save(tmp_path, config, {k: v for k, v in p.items() if k != "head"})
    bad = {**p, "embed": {"w": p["embed"]["w"][:5]}}
    with pytest.raises(InputError, match=r"params\['embed.w'\]: wanted shape"):
        checkpoints.save(tmp_path, config, bad)
    with pytest.raises(InputError, match="dtype"):
        checkpoints.save(tmp_path, config, p, dtype="int8")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="wanted a folder that can be written"):
        checkpoints.save(tmp_path / "file", config, p)
    assert not list(tmp_path.glob("*.safetensors"))


def test_native_settings_that_do_not_fit(tmp_path):
    saved(tmp_path, "switch")
    setting(tmp_path, config={"layers": 2})
    with pytest.raises(InputError, match="'config' in config"):
        checkpoints.load(tmp_path)
    setting(tmp_path, config={"colour": 2})
    with pytest.raises(InputError, match="has no 'config' with the fields"):
        checkpoints.load(tmp_path)
    fields = LAYOUTS["switch"]._replace(hidden=8)._asdict()
    setting(tmp_path, config=fields)
    with pytest.raises(InputError, match="misshapen"):
        checkpoints.load(tmp_path)
    setting(tmp_path, config={**fields, "hidden": 10**9})  # more than any memory: nothing is drawn
    with pytest.raises(InputError, match=r"experts.w1 .* \(wanted \[5, 12, 1000000000\]\)"):
        checkpoints.load(tmp_path)
    for changes, words in (
        ({"qk_norm": "both"}, "config.qk_norm: wanted"),
        ({"biases": 1}, "config.biases: wanted True or False"),
        ({"kv_heads": 4}, "config.heads: wanted a multiple of 4 key heads, got 6"),
    ):
        setting(tmp_path, config={**fields, **changes})
        with pytest.raises(InputError, match=words):
            checkpoints.load(tmp_path)
    assert SMALL.experts == 5 and checkpoint_files.CONFIG == "config.json"


def test_sizes_decide_about_the_family_only_where_they_have_an_effect():
    without_shared = LAYOUTS["mixtral"]._replace(shared_hidden=5)
    assert checkpoints.family_of(without_shared) == "mixtral"
    shared = LAYOUTS["deepseek"]  # its config.json has no size for the shared experts alone
    for size, family in ((None, "deepseek"), (shared.hidden, "deepseek"), (5, checkpoints.NATIVE)):
        assert checkpoints.family_of(shared._replace(shared_hidden=size)) == family
