"""The config.json of published checkpoints, family by family, and the decoder's Config.

    model_type    family                         names of the experts' arrays in a layer
    mixtral       Mixtral                        block_sparse_moe.experts.e.{w1,w3,w2}, .gate
    olmoe         OLMoE                          mlp.experts.e.{gate,up,down}_proj, mlp.gate
    qwen2_moe     Qwen1.5-MoE, Qwen2-MoE         the same, mlp.shared_expert, mlp.shared_expert_gate
    qwen3_moe     Qwen3-MoE                      the same without shared experts
    deepseek      DeepSeekMoE, the 16B layout    the same, mlp.shared_experts side by side in one

What the arrays cannot contradict (whether weights are renormalised, the base of the angles, ε, the
window) is read and never guessed: a wrong value would load without an error. Only OLMoE's clip_qkv
may be missing, as in Transformers: nothing is clipped then. The encoder-decoder has its tables in
`moe_np.models.checkpoint_switch`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.models import checkpoint_names as names
from moe_np.models.checkpoint_names import Row
from moe_np.models.decoder_config import Config, is_dense

Settings = Mapping[str, Any]  # config.json
SWITCH = "switch_transformers"  # the model_type of `moe_np.models.checkpoint_switch`


class Family(NamedTuple):
    """One family: its tables, and how its config.json and a Config become each other."""

    architecture: str  # the class of Transformers
    experts: tuple[Row, ...]
    shared: tuple[Row, ...]
    keys: dict[str, str]  # field of Config -> key of config.json, beside COMMON
    config_of: Callable[[Settings], dict[str, Any]]  # the fields that are no mere key
    settings_of: Callable[[Config], dict[str, Any]]  # the same, back
    fixed: dict[str, Any]  # settings that must have this value where they are present


# --- config.json ----------------------------------------------------------------------------------

COMMON = {
    "vocabulary": "vocab_size",
    "d_model": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "context": "max_position_embeddings",
}
PLAIN = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}


def config_of(settings: Settings) -> tuple[Family, Config]:
    """The family and the Config of a config.json. Raises InputError for an unknown family, a key
    that is missing, and for what no Config can say.
    """
    model_type = settings.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join([*FAMILIES, SWITCH])
        raise InputError(
            f"config.json: wanted a model_type of {known}; got {checks.text(model_type)}"
        )
    family = FAMILIES[model_type]
    for key, value in {**PLAIN, **family.fixed}.items():
        if settings.get(key, value) != value:
            got = checks.text(settings[key])
            raise InputError(f"config.json: wanted {key} = {value} for {model_type}, got {got}")
    fields: dict[str, Any] = {
        name: size(settings, key) for name, key in {**COMMON, **family.keys}.items()
    }
    fields["eps"] = checks.number("config.json: rms_norm_eps", need(settings, "rms_norm_eps"))
    fields |= {"theta": _theta(settings), "tied": bool(settings.get("tie_word_embeddings", False))}
    head = settings.get("head_dim") or fields["d_model"] // fields["heads"]
    return family, Config(**{**fields, "d_head": head, **family.config_of(settings)})


def settings_of(model_type: str, config: Config) -> dict[str, Any]:
    """The config.json of a Config in a family; it may say less than the Config does."""
    family = FAMILIES[model_type]
    settings = {"model_type": model_type, "architectures": [family.architecture]}
    settings |= {key: getattr(config, name) for name, key in {**COMMON, **family.keys}.items()}
    settings |= {"hidden_act": "silu", "head_dim": config.d_head, "rms_norm_eps": config.eps}
    settings |= {"tie_word_embeddings": config.tied, "rope_theta": config.theta}
    settings |= {"rope_parameters": {"rope_type": "default", "rope_theta": config.theta}}
    settings |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    return settings | family.fixed | family.settings_of(config)


def need(settings: Settings, key: str) -> Any:
    """The value of a key. Raises InputError where it is missing: it is not guessed."""
    if key not in settings:
        raise InputError(f"config.json: wanted the key {key}, it is missing and not guessed")
    return settings[key]


def size(settings: Settings, key: str) -> int:
    """The value of a key that is a size, as `need` has it."""
    return checks.size(f"config.json: {key}", need(settings, key))


def _theta(settings):
    """The base of the rotary angles; a key of its own until Transformers 4, in a dict from 5 on."""
    angles = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    checks.mapping("config.json: rope_parameters", angles)
    kind = angles.get("rope_type", angles.get("type", "default"))
    if kind != "default" or angles.get("partial_rotary_factor", 1) != 1:
        got = checks.text(angles)
        raise InputError(f"config.json: wanted rotary angles of type default, got {got}")
    theta = angles["rope_theta"] if "rope_theta" in angles else need(settings, "rope_theta")
    return checks.number("config.json: rope_theta", theta, greater_than=0)


def _gate(settings):
    renormalise = need(settings, "norm_topk_prob")
    return {"options": {"k": size(settings, "num_experts_per_tok"), "renormalise": renormalise}}


def _gate_back(config):
    options = config.options
    return {
        "num_experts_per_tok": options.get("k"),
        "norm_topk_prob": options.get("renormalise"),
    }


def _mixtral(settings):
    options = {"k": size(settings, "num_experts_per_tok"), "renormalise": True}
    return {"options": options, "window": need(settings, "sliding_window")}


def _mixtral_back(config):
    return {"num_experts_per_tok": config.options.get("k"), "sliding_window": config.window}


def _olmoe(settings):
    return {**_gate(settings), "qk_norm": "whole", "clip_qkv": settings.get("clip_qkv")}


def _olmoe_back(config):
    return {"clip_qkv": config.clip_qkv, **_gate_back(config)}


def _sparse_step(settings):
    """Layers without experts: named ones, and all but every n-th."""
    step = size(settings, "decoder_sparse_step")
    named = settings.get("mlp_only_layers") or []
    layers = range(size(settings, "num_hidden_layers"))
    dense = tuple(i for i in layers if i in named or (i + 1) % step)
    return {"dense_layers": dense, **_dense_hidden(settings, dense)}


def _dense_hidden(settings, dense):
    return {"dense_hidden": size(settings, "intermediate_size") if dense else None}


def _sparse_step_back(config):
    dense = config.dense_hidden or config.hidden
    layers = list(config.dense_layers)
    return {"decoder_sparse_step": 1, "mlp_only_layers": layers, "intermediate_size": dense}


def _qwen2(settings):
    fields = {**_gate(settings), **_sparse_step(settings)}
    fields |= {"shared": 1, "shared_gate": True, "biases": bool(settings.get("qkv_bias", True))}
    if need(settings, "use_sliding_window"):
        kinds = list(need(settings, "layer_types"))
        full = tuple(i for i, kind in enumerate(kinds) if kind != "sliding_attention")
        fields |= {"window": need(settings, "sliding_window"), "full_layers": full}
    return fields


def _qwen2_back(config):
    window = config.window is not None
    full = set(config.full_layers) if window else range(config.layers)
    kinds = [f"{'full' if i in full else 'sliding'}_attention" for i in range(config.layers)]
    settings = {**_gate_back(config), **_sparse_step_back(config), "qkv_bias": config.biases}
    settings |= {"shared_expert_intermediate_size": config.shared_hidden or config.hidden}
    settings |= {"use_sliding_window": window, "sliding_window": config.window}
    return settings | {"layer_types": kinds, "max_window_layers": config.layers}


def _qwen3(settings):
    key = "num_local_experts" if "num_local_experts" in settings else "num_experts"  # 5, 4
    window = need(settings, "sliding_window") if need(settings, "use_sliding_window") else None
    fields = {**_gate(settings), **_sparse_step(settings), "qk_norm": "head", "window": window}
    return {**fields, "experts": size(settings, key)}


def _qwen3_back(config):
    settings = {**_gate_back(config), **_sparse_step_back(config), "num_experts": config.experts}
    window = config.window is not None
    return settings | {"use_sliding_window": window, "sliding_window": config.window}


def _deepseek(settings):
    layers = range(size(settings, "num_hidden_layers"))
    step = size(settings, "moe_layer_freq")
    first = checks.integer(
        "config.json: first_k_dense_replace", need(settings, "first_k_dense_replace"), minimum=0
    )
    dense = tuple(i for i in layers if i < first or i % step)
    shared = need(settings, "n_shared_experts") or 0
    fields = {**_gate(settings), **_dense_hidden(settings, dense)}
    return {**fields, "dense_layers": dense, "shared": shared}


def _deepseek_back(config):
    first = next((i for i in range(config.layers) if not is_dense(config, i)), config.layers)
    dense = config.dense_hidden or config.hidden
    settings = {**_gate_back(config), "first_k_dense_replace": first, "moe_layer_freq": 1}
    return settings | {"n_shared_experts": config.shared or None, "intermediate_size": dense}


FAMILIES: dict[str, Family] = {
    "mixtral": Family(
        "MixtralForCausalLM",
        names.MIXTRAL_EXPERTS,
        (),
        {"experts": "num_local_experts", "hidden": "intermediate_size"},
        _mixtral,
        _mixtral_back,
        {},
    ),
    "olmoe": Family(
        "OlmoeForCausalLM",
        names.MLP_EXPERTS,
        (),
        {"experts": "num_experts", "hidden": "intermediate_size"},
        _olmoe,
        _olmoe_back,
        {},
    ),
    "qwen2_moe": Family(
        "Qwen2MoeForCausalLM",
        names.MLP_EXPERTS,
        names.QWEN_SHARED,
        {
            "experts": "num_experts",
            "hidden": "moe_intermediate_size",
            "shared_hidden": "shared_expert_intermediate_size",
        },
        _qwen2,
        _qwen2_back,
        {},
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        names.MLP_EXPERTS,
        (),
        {"hidden": "moe_intermediate_size"},
        _qwen3,
        _qwen3_back,
        {},
    ),
    "deepseek": Family(
        "DeepseekForCausalLM",
        names.MLP_EXPERTS,
        names.DEEPSEEK_SHARED,
        {"experts": "n_routed_experts", "hidden": "moe_intermediate_size"},
        _deepseek,
        _deepseek_back,
        {"scoring_func": "softmax"},
    ),
}
