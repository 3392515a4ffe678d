"""What a decoder is made of: its configuration, the parameters of a new model, and the checks of
both. The model itself is `moe_np.models.decoder`.

    model          its values of Config
    Mixtral        the defaults (Jiang et al. 2024, arXiv 2401.04088)
    GLaM           dense_layers: every other (Du et al. 2021, arXiv 2112.06905), expert="gelu"
    DeepSeekMoE    dense_layers=(0,), shared=2, not renormalised (Dai et al. 2024, arXiv 2401.06066)
    OLMoE          qk_norm="whole", clip_qkv where it is set, not renormalised (Muennighoff et al.
                   2024, arXiv 2409.02060)
    Qwen2-MoE      biases, shared=1 with shared_gate, not renormalised (arXiv 2407.10671)
    Qwen3-MoE      qk_norm="head"
    dense          experts=1

All of them are values of `Config`. The parameters are nested (`moe_np.base.params`): a layer is
{"norm1", "attention", "norm2"} and what `moe_np.layers.mixture_layer` has, {"experts"} and, as far
as the model has them, "router", "shared" and "shared_gate". The model is {"embed", "layers": [...],
"norm", "head"}; without "head" it is tied.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from moe_np.accounting import Transformer
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import DType, Options, Rng
from moe_np.layers import attention, embedding, mixture_layer, norms, router_options

Tree = dict[str, Any]  # nested parameters, or their gradients
MIXTRAL_GATE: Options = {"k": 2, "renormalise": True}


class Config(NamedTuple):
    """Which model it is. All values are numbers, texts, and lists or dicts of them."""

    vocabulary: int  # V
    d_model: int  # D
    layers: int  # L
    heads: int  # Hq
    kv_heads: int  # Hk: heads/kv_heads queries share a key
    d_head: int
    experts: int  # E; 1: a dense model
    hidden: int  # H, the hidden units of an expert
    router: str = "top_k"  # a module of moe_np.routing
    options: Options = MIXTRAL_GATE  # of the router's `route`
    init_options: Options | None = None  # of the router's `init`
    expert: str = "swiglu"  # or "gelu", "relu"
    dense_layers: Sequence[int] = ()  # layers with one feed-forward network and no router
    dense_hidden: int | None = None  # its hidden units; None: `hidden`
    shared: int = 0  # experts that every token passes
    shared_hidden: int | None = None  # hidden units of each of them; None: `hidden`
    shared_gate: bool = False  # whether σ(h·w) multiplies them
    biases: bool = False  # of queries, keys and values
    qk_norm: str = "none"  # of queries and keys: of the "whole" projection, of each "head"
    clip_qkv: float | None = None  # largest absolute value of queries, keys and values; None: any
    window: int | None = None  # a token attends to itself and window − 1 tokens before it
    full_layers: Sequence[int] = ()  # layers that attend to all tokens in spite of the window
    theta: float = 10000.0  # base of the rotary angles
    eps: float = 1e-5  # of the norms
    context: int = 2048  # the longest sequence
    tied: bool = False  # whether the head is the embedding, transposed
    dropout: float = 0.0  # of what attention and experts add to x, in training
    expert_dropout: float = 0.0  # of the hidden units of experts, one mask per assignment


def is_dense(config: Config, layer: int) -> bool:
    """Whether a layer has one feed-forward network in place of router and experts."""
    return config.experts == 1 or layer in config.dense_layers


def window_of(config: Config, layer: int) -> int | None:
    """The window of a layer; None: it attends to all tokens before."""
    return None if layer in config.full_layers else config.window


def check(config: Config) -> None:
    """Raise InputError for a config whose values do not fit, or whose router is not causal."""
    if not isinstance(config, Config):
        raise InputError(f"config: wanted a decoder.Config, got {checks.text(config)}")
    for name in ("vocabulary", "d_model", "layers", "heads", "kv_heads", "d_head", "experts"):
        checks.size(f"config.{name}", getattr(config, name))
    checks.size("config.hidden", config.hidden)
    checks.size("config.context", config.context)
    for name in ("tied", "biases", "shared_gate"):
        checks.boolean(f"config.{name}", getattr(config, name))
    checks.integer("config.shared", config.shared, minimum=0)
    for name in ("dense_hidden", "shared_hidden", "window"):
        if getattr(config, name) is not None:
            checks.size(f"config.{name}", getattr(config, name))
    for name in ("dropout", "expert_dropout"):
        checks.number(f"config.{name}", getattr(config, name), minimum=0, less_than=1)
    if config.d_head % 2:  # the rotation turns pairs
        raise InputError(f"config.d_head: wanted an even number, got {config.d_head}")
    if config.heads % config.kv_heads:
        wanted = f"a multiple of {config.kv_heads} key heads"
        raise InputError(f"config.heads: wanted {wanted}, got {config.heads}")
    checks.choice("config.qk_norm", config.qk_norm, ("none", "whole", "head"))
    if config.clip_qkv is not None:
        checks.number("config.clip_qkv", config.clip_qkv, greater_than=0)
    checks.choice("config.expert", config.expert, tuple(mixture_layer.KINDS))
    kinds = {"dense_layers": (list, tuple), "full_layers": (list, tuple), "options": Mapping}
    for name, kind in kinds.items():
        if not isinstance(getattr(config, name), kind):
            wanted = "a dict" if kind is Mapping else "a list of layers"
            got = checks.text(getattr(config, name))
            raise InputError(f"config.{name}: wanted {wanted}, got {got}")
    for layer in (*config.dense_layers, *config.full_layers):
        checks.integer("config: the number of a layer", layer, minimum=0, maximum=config.layers - 1)
    if config.experts > 1:
        mixture_layer.causal_router(config.router)
        router_options.check(config.router, config.options, config.init_options)


def architecture(config: Config) -> Transformer:
    """The sizes for `accounting.count`: parameters, active ones, operations of a token.

    The biases of "relu" and "gelu" experts are left out. A router without k counts one expert.
    """
    check(config)
    dense = sum(is_dense(config, i) for i in range(config.layers))
    gains = {"none": 0, "whole": config.heads + config.kv_heads, "head": 2}[config.qk_norm]
    return Transformer(
        vocab=config.vocabulary,
        d_model=config.d_model,
        decoder_layers=config.layers,
        heads=config.heads,
        d_head=config.d_head,
        kv_heads=config.kv_heads,
        d_ff=(config.dense_hidden or config.hidden) if dense else 0,
        gated=config.expert == "swiglu",
        tied=config.tied,
        moe_layers=config.layers - dense,
        experts=config.experts,
        k=config.options.get("k", 1),
        shared=config.shared,
        d_expert=config.hidden,
        gated_experts=config.expert == "swiglu",
        query_biases=config.biases,
        query_gains=gains * config.d_head,
        d_shared=config.shared_hidden or 0,
        shared_gate=config.shared_gate,
    )


# --- initialisation -------------------------------------------------------------------------------


def init(rng: Rng, config: Config, *, dtype: DType = np.float32) -> Tree:
    """The parameters of a new model.

    Matrices are normal with standard deviation 1/√(number of inputs). What writes into the residual
    stream, `wo` and `w2`, has 1/√(2L) of that, because 2L of them add up (Radford et al. 2019,
    section 2.3). The head, or the tied embedding, has .02: the first distribution is nearly
    uniform. Gains are 1, biases 0.
    """
    check(config)
    V, D = config.vocabulary, config.d_model
    scale = 0.02 if config.tied else 1.0
    params: Tree = {"embed": embedding.init(rng, V, D, scale=scale, dtype=dtype)}
    params["layers"] = [_init_layer(rng, config, i, dtype) for i in range(config.layers)]
    params["norm"] = norms.rms_init(D, dtype=dtype)
    if not config.tied:
        params["head"] = {"w": (0.02 * rng.normal(size=(D, V))).astype(dtype)}
    return params


def _init_layer(rng, config, i, dtype):
    shape = {"heads": config.heads, "kv_heads": config.kv_heads, "d": config.d_head}
    kinds = {"biases": config.biases, "norm": config.qk_norm}
    layer: Tree = {"norm1": norms.rms_init(config.d_model, dtype=dtype)}
    layer["attention"] = attention.init(rng, config.d_model, **shape, **kinds, dtype=dtype)
    layer["norm2"] = norms.rms_init(config.d_model, dtype=dtype)
    dense = is_dense(config, i)
    layer |= mixture_layer.init(
        rng,
        config.d_model,
        1 if dense else config.experts,
        (config.dense_hidden if dense else None) or config.hidden,
        kind=config.expert,
        router=None if dense else config.router,
        init_options=config.init_options,
        shared=0 if dense else config.shared,
        shared_hidden=config.shared_hidden,
        shared_gate=config.shared_gate and not dense,
        vocabulary=config.vocabulary,
        dtype=dtype,
    )
    outputs = [(part, name) for part, name in OUTPUTS if part in layer]
    for part, name in outputs:
        layer[part][name] = layer[part][name] * np.dtype(dtype).type((2 * config.layers) ** -0.5)
    return layer


OUTPUTS = (("attention", "wo"), ("experts", "w2"), ("shared", "w2"))


# --- checks of parameters ------------------------------------------------------------------------


def check_params(params: Tree, config: Config) -> None:
    """Check what the layers cannot: that all parts are there, and as many as the config says."""
    checks.mapping("params", params, ("embed", "layers", "norm"))
    if len(params["layers"]) != config.layers:
        got = len(params["layers"])
        raise InputError(f"params['layers']: wanted {config.layers} layers, got {got}")
    if config.tied == ("head" in params):
        wanted = "no 'head'" if config.tied else "a 'head'"
        raise InputError(f"params: wanted {wanted} with config.tied={config.tied}")
    axes = (config.vocabulary, config.d_model)
    checks.array("params['embed']['w']", params["embed"]["w"], axes, finite=False)
    if not config.tied:
        checks.array("params['head']['w']", params["head"]["w"], axes[::-1], finite=False)
