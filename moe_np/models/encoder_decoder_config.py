"""What an encoder-decoder is made of: its configuration, the parameters of a new model, and the
checks of both. The model itself is `moe_np.models.encoder_decoder`.

    model                 its values of Config
    Switch Transformer    the defaults (Fedus et al. 2021, arXiv 2101.03961)
    T5                    experts=1 (Raffel et al. 2020, arXiv 1910.10683)
    T5 1.1                the same with tied=False, but for its gated feed-forward layers

The parameters are nested (`moe_np.base.params`):

    {"embed": {"w"}, "encoder": stack, "decoder": stack, "head": {"w": (D, V)}}   no "head": tied
    stack   {"position": {"w": (buckets, heads)}, "layers": [layer, ...], "norm": {"g"}}
    layer   {"norm1", "attention", "norm2"} and what `moe_np.layers.mixture_layer` has, "experts"
            and, where the layer is sparse, "router"; in the decoder also "norm_cross", "cross"

There is one position bias per stack, which all of its layers share (in files it lies in block 0),
and one embedding for encoder and decoder. Feed-forward layers have no biases, as in T5, unless
`biases` is set: then "experts" has "b1" and "b2" too.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from moe_np.accounting import Transformer
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import DType, Options, Rng
from moe_np.layers import (
    attention,
    embedding,
    mixture_layer,
    norms,
    position_bias,
    router_options,
)

Tree = dict[str, Any]  # nested parameters, or their gradients
STACKS = ("encoder", "decoder")
NO_OPTIONS: Options = {}


class Config(NamedTuple):
    """Which model it is. All values are numbers, texts, and lists or dicts of them."""

    vocabulary: int  # V, of source and targets
    d_model: int  # D
    encoder_layers: int
    decoder_layers: int
    heads: int  # Hq = Hk
    d_head: int
    experts: int  # E; 1: a dense model
    hidden: int  # H, the hidden units of an expert
    router: str = "switch"  # of the encoder, a module of moe_np.routing
    options: Options = NO_OPTIONS  # of its `route`, as {"capacity_factor": 1.25}
    init_options: Options | None = None  # of its `init`
    decoder_router: str | None = None  # a causal one; None: that of the encoder, and its options
    decoder_options: Options | None = None
    decoder_init_options: Options | None = None
    expert: str = "relu"  # or "gelu", "swiglu"
    biases: bool = False  # of feed-forward layers; T5 has none
    encoder_dense: Sequence[int] | None = None  # layers without experts; None: 0, 2, 4, ...
    decoder_dense: Sequence[int] | None = None
    dense_hidden: int | None = None  # hidden units of those; None: `hidden`
    buckets: int = 32  # of the position bias
    max_distance: int = 128  # all keys further away share a bucket
    eps: float = 1e-6  # of the norms
    context: int = 512  # the longest sequence, of source and targets each
    tied: bool = True  # whether the head is the embedding, transposed
    start: int = 0  # the token before the first target
    dropout: float = 0.0  # of embeddings, of what a sublayer adds to x, of the last norm
    expert_dropout: float = 0.0  # of the hidden units of experts, one mask per assignment


def layers_of(config: Config, stack: str) -> int:
    """The number of layers of the "encoder" or the "decoder"."""
    return config.encoder_layers if stack == "encoder" else config.decoder_layers


def is_dense(config: Config, stack: str, layer: int) -> bool:
    """Whether a layer has one feed-forward network in place of router and experts."""
    dense = config.encoder_dense if stack == "encoder" else config.decoder_dense
    return config.experts == 1 or (layer % 2 == 0 if dense is None else layer in dense)


def router_of(config: Config, stack: str) -> tuple[str, Options, Options | None]:
    """The router of a stack by name, its options in `route`, and in `init`."""
    if stack == "encoder" or config.decoder_router is None:
        return config.router, config.options, config.init_options
    options = NO_OPTIONS if config.decoder_options is None else config.decoder_options
    return config.decoder_router, options, config.decoder_init_options


def check(config: Config) -> None:
    """Raise InputError for values that do not fit, and for a decoder's router that is not causal.

    The encoder has its whole input before it: there every router is allowed.
    """
    if not isinstance(config, Config):
        raise InputError(f"config: wanted an encoder_decoder.Config, got {checks.text(config)}")
    for name in ("vocabulary", "d_model", "encoder_layers", "decoder_layers", "heads", "d_head"):
        checks.size(f"config.{name}", getattr(config, name))
    for name in ("experts", "hidden", "buckets", "context"):
        checks.size(f"config.{name}", getattr(config, name))
    for name in ("tied", "biases"):
        checks.boolean(f"config.{name}", getattr(config, name))
    checks.choice("config.expert", config.expert, tuple(mixture_layer.KINDS))
    checks.integer("config.start", config.start, minimum=0, maximum=config.vocabulary - 1)
    checks.number("config.dropout", config.dropout, minimum=0, less_than=1)
    checks.number("config.expert_dropout", config.expert_dropout, minimum=0, less_than=1)
    for stack in STACKS:
        last = layers_of(config, stack) - 1
        for layer in getattr(config, f"{stack}_dense") or ():
            checks.integer(f"config.{stack}_dense", layer, minimum=0, maximum=last)
    if config.decoder_router is None and config.decoder_options is not None:
        raise InputError("config.decoder_options: wanted a decoder_router with them, got None")
    if config.experts > 1:
        mixture_layer.router_of(config.router)
        mixture_layer.causal_router(router_of(config, "decoder")[0])
        router_options.check(*router_of(config, "encoder"))
        if config.decoder_router is not None:
            router_options.check(*router_of(config, "decoder"), "config.decoder_")


def architecture(config: Config) -> Transformer:
    """The sizes for `accounting.count`: parameters, active ones, operations of a token read and
    one written.

    The biases of feed-forward layers are left out. A router without k counts one expert. Raises
    InputError where the routers of encoder and decoder have another k.
    """
    check(config)
    layers = config.encoder_layers + config.decoder_layers
    dense = sum(is_dense(config, s, i) for s in STACKS for i in range(layers_of(config, s)))
    encoder_k, k = (router_of(config, stack)[1].get("k", 1) for stack in STACKS)
    if encoder_k != k:
        raise InputError(f"config.options: wanted one k in both stacks, got {encoder_k} and {k}")
    return Transformer(
        vocab=config.vocabulary,
        d_model=config.d_model,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        heads=config.heads,
        kv_heads=config.heads,
        d_head=config.d_head,
        d_ff=(config.dense_hidden or config.hidden) if dense else 0,
        gated=config.expert == "swiglu",
        tied=config.tied,
        moe_layers=layers - dense,
        experts=config.experts,
        k=k,
        d_expert=config.hidden,
        gated_experts=config.expert == "swiglu",
        position_buckets=config.buckets,
    )


# --- initialisation -------------------------------------------------------------------------------


def init(rng: Rng, config: Config, *, scale: float = 0.1, dtype: DType = np.float32) -> Tree:
    """The parameters of a new model.

    Matrices are normal with variance s / (number of inputs); those of queries have 1/d_head of
    that, in place of the factor 1/√d_head of the scores, which T5 leaves out. Embeddings have the
    variance 1, since a tied head multiplies by 1/√D, and a head of its own has the variance 1/D.
    Gains are 1.

    scale   s of Switch, section 2.4: 0.1, with which training is more stable than with T5's 1
    """
    check(config)
    scale = checks.number("scale", scale, minimum=0)
    V, D = config.vocabulary, config.d_model
    params: Tree = {"embed": embedding.init(rng, V, D, dtype=dtype)}
    for stack in STACKS:
        layers = [
            _init_layer(rng, config, stack, i, scale**0.5, dtype)
            for i in range(layers_of(config, stack))
        ]
        sizes = (config.buckets, config.heads)
        position = position_bias.init(rng, *sizes, scale=(scale / D) ** 0.5, dtype=dtype)
        params[stack] = {"position": position, "layers": layers}
        params[stack]["norm"] = norms.rms_init(D, dtype=dtype)
    if not config.tied:
        params["head"] = {"w": (rng.normal(size=(D, V)) / np.sqrt(D)).astype(dtype)}
    return params


def _init_layer(rng, config, stack, i, factor, dtype):
    D = config.d_model
    layer: Tree = {"norm1": norms.rms_init(D, dtype=dtype)}
    layer["attention"] = _init_attention(rng, config, factor, dtype)
    if stack == "decoder":
        layer["norm_cross"] = norms.rms_init(D, dtype=dtype)
        layer["cross"] = _init_attention(rng, config, factor, dtype)
    layer["norm2"] = norms.rms_init(D, dtype=dtype)
    dense = is_dense(config, stack, i)
    router, _, options = router_of(config, stack)
    if router == "switch":
        options = {"scale": factor, **(options or {})}
    mixture = mixture_layer.init(
        rng,
        D,
        1 if dense else config.experts,
        (config.dense_hidden if dense else None) or config.hidden,
        kind=config.expert,
        router=None if dense else router,
        init_options=options,
        vocabulary=config.vocabulary,
        dtype=dtype,
    )
    kept = config.biases or config.expert == "swiglu"
    mixture["experts"] = {
        name: p * np.dtype(dtype).type(factor)
        for name, p in mixture["experts"].items()
        if kept or name not in ("b1", "b2")
    }
    return layer | mixture


def _init_attention(rng, config, factor, dtype):
    sizes = {"heads": config.heads, "kv_heads": config.heads, "d": config.d_head}
    params = attention.init(rng, config.d_model, **sizes, dtype=dtype)
    factors = {"wq": factor * config.d_head**-0.5}
    return {name: p * np.dtype(dtype).type(factors.get(name, factor)) for name, p in params.items()}


# --- checks of parameters ------------------------------------------------------------------------


def check_params(params: Tree, config: Config) -> None:
    """Check what the layers cannot: that all parts are there, and as many as the config says."""
    checks.mapping("params", params, ("embed", *STACKS))
    if config.tied == ("head" in params):
        wanted = "no 'head'" if config.tied else "a 'head'"
        raise InputError(f"params: wanted {wanted} with config.tied={config.tied}")
    axes = (config.vocabulary, config.d_model)
    checks.array("params['embed']['w']", params["embed"]["w"], axes, finite=False)
    if not config.tied:
        checks.array("params['head']['w']", params["head"]["w"], axes[::-1], finite=False)
    for stack in STACKS:
        parts = checks.mapping(f"params[{stack!r}]", params[stack], ("position", "layers", "norm"))
        wanted = layers_of(config, stack)
        if len(parts["layers"]) != wanted:
            got = len(parts["layers"])
            raise InputError(f"params[{stack!r}]['layers']: wanted {wanted} layers, got {got}")
        for i, layer in enumerate(parts["layers"]):
            name = f"params[{stack!r}]['layers'][{i}]"
            names = ["norm1", "attention", "norm2", "experts"]
            names += ["norm_cross", "cross"] if stack == "decoder" else []
            names += [] if is_dense(config, stack, i) else ["router"]
            checks.mapping(name, layer, names)
            unknown = set(layer) - set(names)
            if unknown:
                raise InputError(f"{name}: wanted no other keys, got {', '.join(sorted(unknown))}")
        shape = (config.buckets, config.heads)
        name = f"params[{stack!r}]['position']['w']"
        checks.array(name, parts["position"]["w"], shape, finite=False)
