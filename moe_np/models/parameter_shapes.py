"""The shapes of all parameters of a decoder or an encoder-decoder, from its Config: of what `init`
makes, without making it. So the files of a model can be held against its configuration, however
large it is.

    decoder            embed.w, layers.i.(layer), norm.g; head.w where it is not tied
    encoder-decoder    embed.w, encoder.(stack), decoder.(stack); head.w where it is not tied
    stack              position.w, layers.i.(layer), norm.g
    layer              norm1.g, attention.(attention), norm2.g, and what `layers.mixture_layer` has;
                       with cross attention norm_cross.g and cross.(attention) before norm2.g
    attention          what `layers.attention` has

What a router has, only its `init` says. It is called once per model or stack: a router is small.
"""

import numpy as np

from moe_np.layers import mixture_layer
from moe_np.models import decoder_config, encoder_decoder_config

Shape = tuple[int, ...]


def shapes(config: decoder_config.Config | encoder_decoder_config.Config) -> dict[str, Shape]:
    """{path of a leaf: its shape}, in the order of the leaves of `init`. Raises InputError where
    the `check` of the model does.
    """
    of_layers = _decoder if isinstance(config, decoder_config.Config) else _encoder_decoder
    layers = of_layers(config)  # after a check of the config
    V, D = config.vocabulary, config.d_model
    model = {"embed.w": (V, D), **layers}
    return model if config.tied else {**model, "head.w": (D, V)}


def _decoder(config):
    decoder_config.check(config)
    D = config.d_model
    dense = [decoder_config.is_dense(config, i) for i in range(config.layers)]
    sparse = {} if all(dense) else _sparse(config, config.router, config.init_options)
    if config.shared:
        sparse |= _experts(config, "shared", config.shared, config.shared_hidden or config.hidden)
        sparse |= {"shared_gate.w": (D, 1)} if config.shared_gate else {}
    attention = _attention("attention", config, config.kv_heads, config.biases, config.qk_norm)
    layers = [
        {"norm1.g": (D,), **attention, "norm2.g": (D,), **(_dense(config) if d else sparse)}
        for d in dense
    ]
    return {**_numbered(layers), "norm.g": (D,)}


def _encoder_decoder(config):
    encoder_decoder_config.check(config)
    model = {}
    for stack in encoder_decoder_config.STACKS:
        model |= {f"{stack}.{path}": shape for path, shape in _stack(config, stack).items()}
    return model


def _stack(config, stack):
    D = config.d_model
    n_layers = encoder_decoder_config.layers_of(config, stack)
    dense = [encoder_decoder_config.is_dense(config, stack, i) for i in range(n_layers)]
    router, _, options = encoder_decoder_config.router_of(config, stack)
    sparse = {} if all(dense) else _sparse(config, router, options)
    attention = {"norm1.g": (D,), **_attention("attention", config, config.heads)}
    if stack == "decoder":
        attention |= {"norm_cross.g": (D,), **_attention("cross", config, config.heads)}
    biases = () if config.biases or config.expert == "swiglu" else ("experts.b1", "experts.b2")
    layers = []
    for is_dense in dense:
        layer = {**attention, "norm2.g": (D,), **(_dense(config) if is_dense else sparse)}
        layers.append({path: shape for path, shape in layer.items() if path not in biases})
    return {"position.w": (config.buckets, config.heads), **_numbered(layers), "norm.g": (D,)}


def _numbered(layers):
    return {
        f"layers.{i}.{path}": shape
        for i, layer in enumerate(layers)
        for path, shape in layer.items()
    }


def _attention(name, config, kv_heads, biases=False, norm="none"):
    D, d = config.d_model, config.d_head
    parts = {}
    for letter, heads in (("q", config.heads), ("k", kv_heads), ("v", kv_heads)):
        parts[f"w{letter}"] = (D, heads * d)
        if biases:
            parts[f"b{letter}"] = (heads * d,)
        if norm != "none" and letter != "v":
            parts[f"{letter}_norm.g"] = (heads * d if norm == "whole" else d,)
    parts["wo"] = (config.heads * d, D)
    return {f"{name}.{path}": shape for path, shape in parts.items()}


def _dense(config):
    return _experts(config, "experts", 1, config.dense_hidden or config.hidden)


def _sparse(config, router, options):
    params = mixture_layer.init_router(
        *(np.random.default_rng(0), config.d_model, config.experts),
        router=router,
        init_options=options,
        vocabulary=config.vocabulary,
    )
    routed = {f"router.{name}": p.shape for name, p in params.items()}
    return {**routed, **_experts(config, "experts", config.experts, config.hidden)}


def _experts(config, name, n_experts, hidden):
    sizes = {"D": config.d_model, "H": hidden, "D_out": config.d_model}
    return {
        f"{name}.{leaf}": (n_experts, *(sizes[axis] for axis in axes))
        for leaf, axes in mixture_layer.KINDS[config.expert].axes.items()
        if leaf != "x"  # the input
    }
