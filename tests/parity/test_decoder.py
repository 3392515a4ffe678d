"""The decoder and its checkpoints against Transformers, and against a second statement in PyTorch.

Transformers, float32    random small models of each family that it has: it writes a folder, which
                         is loaded here; logits and the gradient of every parameter are equal to
                         2e-5 of the largest entry. What is saved here it loads, with these logits
PyTorch, float64         tests/support/torch_decoder.py, for all families, among them DeepSeekMoE in
                         the layout of its 16B model, which Transformers does not have: to 1e-12

Inputs whose choice of experts is nearly a tie are left out: rounding would decide.
"""

import itertools
import json

import numpy as np
import pytest

from moe_np.base import params as nested
from moe_np.layers import balance
from moe_np.models import checkpoints, decoder, safetensors
from tests.support.decoders import LAYOUTS, params, text

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", "5.0")
from tests.support import torch_decoder  # noqa: E402

pytestmark = pytest.mark.parity

# the grouped products of experts want sizes in fours
EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}
SIZES = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,  # 2 < Hk < Hq
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    **EAGER,
}
MOE = {"moe_intermediate_size": 11, "num_experts": 6}
CASES = {
    "mixtral": ("Mixtral", {"num_local_experts": 6, "intermediate_size": 11}),
    "mixtral, tied, window, wide heads": (
        "Mixtral",
        {
            "num_local_experts": 5,
            "intermediate_size": 11,
            "sliding_window": 5,
            "head_dim": 6,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e4},
            "num_experts_per_tok": 3,
        },
    ),
    "olmoe": ("Olmoe", {"num_experts": 7, "intermediate_size": 11, "num_experts_per_tok": 3}),
    "olmoe, renormalised, tied": (
        "Olmoe",
        {
            "num_experts": 7,
            "intermediate_size": 11,
            "num_experts_per_tok": 3,
            "norm_topk_prob": True,
            "tie_word_embeddings": True,
        },
    ),
    "olmoe, clipped": (
        "Olmoe",
        {"num_experts": 7, "intermediate_size": 11, "num_experts_per_tok": 3, "clip_qkv": 0.7},
    ),
    "qwen2_moe": ("Qwen2Moe", {**MOE, "shared_expert_intermediate_size": 13}),
    "qwen2_moe, every other layer, window": (
        "Qwen2Moe",
        {
            **MOE,
            "shared_expert_intermediate_size": 13,
            "decoder_sparse_step": 2,
            "intermediate_size": 17,
            "num_hidden_layers": 4,
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 3,
            "norm_topk_prob": True,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2_moe, no biases": (
        "Qwen2Moe",
        {**MOE, "shared_expert_intermediate_size": 13, "qkv_bias": False, "norm_topk_prob": True},
    ),
    "qwen3_moe": ("Qwen3Moe", {**MOE, "head_dim": 6, "norm_topk_prob": True}),
    "qwen3_moe, dense layers, tied, window": (
        "Qwen3Moe",
        {
            **MOE,
            "head_dim": 8,
            "mlp_only_layers": [1],
            "intermediate_size": 17,
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 6,
            "tie_word_embeddings": True,
        },
    ),
}
every_case = pytest.mark.parametrize("name", CASES)
DEFAULTS = {"num_hidden_layers": 2, "num_experts_per_tok": 2}


def model_of(name, seed=0):
    """A model of Transformers with random parameters, none of them at its initial value."""
    family, sizes = CASES[name]
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **DEFAULTS, **sizes})
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim == 1 else 1.2 / parameter.shape[-1] ** 0.5
            center = 1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0
            parameter.copy_(center + scale * torch.randn_like(parameter))
    return model


def largest_error(result, expected):
    return np.abs(result - expected).max() / np.abs(expected).max()


def far_from_ties(p, ids, config):
    """The smallest distance of the last chosen probability from the first that is not."""
    gaps = []
    for block in decoder.forward(p, ids, config)[1].blocks:
        routing = block.mixture.routing
        if routing.logits is not None:
            falling = -np.sort(-routing.probs, axis=1)
            k = config.options["k"]
            gaps.append((falling[:, k - 1] - falling[:, k]).min())
    return min(gaps) > 1e-4


def ids_without_ties(p, config, B=3, T=13):
    for seed in range(30):
        ids, targets = text(config, B=B, T=T, seed=seed)
        if far_from_ties(p, ids, config):
            return ids, targets
    raise AssertionError("every input is near a tie")


def save_as(model, folder, **options):
    model.save_pretrained(folder, **options)
    return folder


@pytest.mark.usefixtures("backend")
@every_case
def test_logits_and_gradients_are_those_of_transformers(name, tmp_path):
    model = model_of(name)
    folder = save_as(model, tmp_path / "model", max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2, "several shards"
    config, p = checkpoints.load(folder)
    assert config.kv_heads == 4 and (config.experts, config.tied) == (
        getattr(model.config, "num_experts", None) or model.config.num_local_experts,
        model.config.tie_word_embeddings,
    )
    ids, targets = ids_without_ties(p, config)
    assert config.clip_qkv == getattr(model.config, "clip_qkv", None)
    expected = model(torch.tensor(ids)).logits
    logits, _ = decoder.forward(p, ids, config)
    assert largest_error(logits, expected.detach().numpy()) < 2e-5

    loss, grads = decoder.loss_and_grads(p, ids, targets, config, losses=())
    flat = torch.tensor(np.where(targets < 0, -100, targets)).ravel()
    task = torch.nn.functional.cross_entropy(expected.reshape(len(flat), -1), flat)
    assert loss.task == pytest.approx(task.item(), rel=1e-5)
    task.backward()
    with torch.no_grad():  # the gradients in the places of the parameters, through the same files
        for parameter in model.parameters():
            gradient = parameter.grad
            parameter.copy_(torch.zeros_like(parameter) if gradient is None else gradient)
    _, expected_grads = checkpoints.load(save_as(model, tmp_path / "gradients"))
    compare(nested.leaves(grads), nested.leaves(expected_grads), 2e-5)


def compare(grads, expected, tolerance):
    assert set(grads) == set(expected) and len(grads) > 18
    for path, g in expected.items():
        assert np.abs(g).max() > 0, path
        assert largest_error(grads[path], g) < tolerance, path


@every_case
def test_fused_files_are_the_same(name, tmp_path):
    model = model_of(name)
    config, p = checkpoints.load(save_as(model, tmp_path / "apart"))
    same, fused = checkpoints.load(save_as(model, tmp_path / "f", save_original_format=False))
    assert config == same
    names = safetensors.Reader(tmp_path / "f" / "model.safetensors")
    assert any(key.endswith("gate_up_proj") for key in names)
    for path, a in nested.leaves(p).items():
        np.testing.assert_array_equal(a, nested.leaves(fused)[path])


@pytest.mark.parametrize(
    ("name", "dtype"), zip(CASES, itertools.cycle(["bfloat16", "float16", "float32"]), strict=False)
)
def test_transformers_loads_what_is_saved(name, dtype, tmp_path):
    config, p = checkpoints.load(save_as(model_of(name), tmp_path / "a"))
    checkpoints.save(tmp_path / "b", config, p, dtype=dtype, shard_bytes=9000)
    again, stored = checkpoints.load(tmp_path / "b")
    assert again == config
    family, _ = CASES[name]
    model, info = getattr(transformers, f"{family}ForCausalLM").from_pretrained(
        tmp_path / "b", output_loading_info=True, dtype=torch.float32, **EAGER
    )
    problems = {key: names for key, names in info.items() if names}
    assert not problems, problems
    ids, _ = ids_without_ties(stored, config)
    logits, _ = decoder.forward(stored, ids, config)
    assert largest_error(logits, model.eval()(torch.tensor(ids)).logits.detach().numpy()) < 2e-5
    if dtype == "bfloat16":
        assert largest_error(nested.flatten(stored), nested.flatten(p)) < 2**-8


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe"])
def test_the_pooled_balance_loss_of_transformers(name, tmp_path):
    """It pools the tokens of all layers into one product and counts choices per token, so that it
    is k at balance, and opposite imbalances cancel (errata 27). Here it is one term per layer.
    """
    model = model_of(name)
    config, p = checkpoints.load(save_as(model, tmp_path))
    ids, _ = ids_without_ties(p, config)
    result = model(torch.tensor(ids), labels=torch.tensor(ids), output_router_logits=True)
    loss = decoder.loss(p, ids, ids, config, losses=((1.0, balance.switch),))
    demand = np.concatenate([routing.demand for routing in loss.routings])
    probs = np.concatenate([routing.probs for routing in loss.routings])
    pooled = config.experts * (demand.mean(axis=0) * probs.mean(axis=0)).sum()
    assert result.aux_loss.item() == pytest.approx(pooled, rel=1e-5)
    k = config.options["k"]
    assert abs(k * np.mean(loss.balance) - pooled) > 0.01 * pooled


# --- the second statement -------------------------------------------------------------------------


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "switch"])
def test_the_second_statement_to_nine_digits(layout):
    config = LAYOUTS[layout]
    p = params(config, seed=4)
    for seed in range(30):
        ids, targets = text(config, seed=seed)
        if config.experts == 1 or far_from_ties(p, ids, config):
            break
    tensors = {path: torch.tensor(a, requires_grad=True) for path, a in nested.leaves(p).items()}
    expected = torch_decoder.logits(tensors.__getitem__, torch.tensor(ids), config)
    logits, _ = decoder.forward(p, ids, config)
    assert largest_error(logits, expected.detach().numpy()) < 1e-12
    loss, grads = decoder.loss_and_grads(p, ids, targets, config, losses=())
    flat = torch.tensor(np.where(targets < 0, -100, targets)).ravel()
    task = torch.nn.functional.cross_entropy(expected.reshape(len(flat), -1), flat)
    task.backward()
    assert loss.task == pytest.approx(task.item(), rel=1e-12)
    compare(nested.leaves(grads), {path: t.grad.numpy() for path, t in tensors.items()}, 1e-12)


def test_deepseek_files_by_their_names(tmp_path):
    """The 16B layout: the files of a model whose arrays are named by hand."""
    config = LAYOUTS["deepseek"]
    p = params(config)
    arrays, settings = deepseek_files(p, config)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    safetensors.write(tmp_path / "model.safetensors", arrays)
    loaded, found = checkpoints.load(tmp_path, dtype=np.float64)
    for path, a in nested.leaves(p).items():
        np.testing.assert_array_equal(nested.leaves(found)[path], a, err_msg=path)
    ids, _ = text(config)
    logits, _ = decoder.forward(found, ids, loaded)
    tensors = {path: torch.tensor(a) for path, a in nested.leaves(p).items()}
    expected = torch_decoder.logits(tensors.__getitem__, torch.tensor(ids), config).numpy()
    assert largest_error(logits, expected) < 1e-12


def deepseek_files(p, config):
    arrays = {
        "model.embed_tokens.weight": p["embed"]["w"],
        "model.norm.weight": p["norm"]["g"],
        "lm_head.weight": p["head"]["w"].T,
    }
    names = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
    for i, layer in enumerate(p["layers"]):
        path = f"model.layers.{i}."
        arrays[path + "input_layernorm.weight"] = layer["norm1"]["g"]
        arrays[path + "post_attention_layernorm.weight"] = layer["norm2"]["g"]
        for letter in "qkvo":
            arrays[f"{path}self_attn.{letter}_proj.weight"] = layer["attention"]["w" + letter].T
        if i == 0:
            for name, w in names.items():
                arrays[f"{path}mlp.{name}.weight"] = layer["experts"][w][0].T
            continue
        arrays[path + "mlp.gate.weight"] = layer["router"]["w"].T
        for name, w in names.items():
            for e in range(config.experts):
                arrays[f"{path}mlp.experts.{e}.{name}.weight"] = layer["experts"][w][e].T
            axis = 1 if w == "w2" else 0  # two shared experts are one network of twice the width
            both = np.concatenate([layer["shared"][w][j].T for j in range(2)], axis=axis)
            arrays[f"{path}mlp.shared_experts.{name}.weight"] = both
    settings = {
        "model_type": "deepseek",
        "attention_bias": False,
        "first_k_dense_replace": 1,
        "hidden_act": "silu",
        "hidden_size": 12,
        "intermediate_size": 9,
        "max_position_embeddings": 32,
        "moe_intermediate_size": 7,
        "moe_layer_freq": 1,
        "n_routed_experts": 5,
        "n_shared_experts": 2,
        "norm_topk_prob": False,
        "num_attention_heads": 6,
        "num_experts_per_tok": 3,
        "num_hidden_layers": 3,
        "num_key_value_heads": 3,
        "head_dim": 4,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000,
        "scoring_func": "softmax",
        "tie_word_embeddings": False,
        "vocab_size": 19,
    }
    return arrays, settings
