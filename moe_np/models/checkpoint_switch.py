"""Published checkpoints of the Switch Transformer: config.json and names, and the Config of the
encoder-decoder.

    file                                            here
    shared.weight                                   embed.w
    lm_head.weight                                  head.w, where it is not tied
    encoder.final_layer_norm                        encoder.norm
    encoder.block.i.layer.0                         encoder.layers.i: norm1, attention
    encoder.block.0.layer.0.SelfAttention.relative_attention_bias      encoder.position
    encoder.block.i.layer.1                         norm2, router and experts
    decoder.block.i.layer.1, layer.2                norm_cross and cross; norm2 and the rest

Every layer of a stack uses the position bias of its block 0. Files may have the embedding several
times (`COPIES`); encoder and decoder have one here, so these have to be equal.

The capacity in config.json, `expert_capacity`, is a number of tokens per expert and sequence, which
Transformers applies in evaluation too. The router here counts over all sequences, by a factor: what
is read has no capacity, and gives other outputs than Transformers where that drops tokens. What is
written has a capacity that drops none.
"""

from collections.abc import Mapping
from typing import Any

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.models import checkpoint_names, checkpoint_settings
from moe_np.models.checkpoint_names import Piece, Row
from moe_np.models.encoder_decoder_config import STACKS, Config, is_dense, layers_of

EXTRAS = ("dropout", "expert_dropout", "context")  # fields that config.json does not have so

# --- config.json ----------------------------------------------------------------------------------

SIZES = {
    "vocabulary": "vocab_size",
    "d_model": "d_model",
    "encoder_layers": "num_layers",
    "decoder_layers": "num_decoder_layers",
    "heads": "num_heads",
    "d_head": "d_kv",
    "experts": "num_experts",
    "hidden": "d_ff",
    "buckets": "relative_attention_num_buckets",
    "max_distance": "relative_attention_max_distance",
}
FIXED = {
    "router_bias": False,
    "router_dtype": "float32",
    "is_gated_act": False,
    "is_encoder_decoder": True,
}


def config_of(settings: Mapping[str, Any]) -> Config:
    """The Config of a config.json. Raises InputError for a key that is missing, and for what no
    Config can say.
    """
    for key, value in FIXED.items():
        if settings.get(key, value) != value:
            got = checks.text(settings[key])
            raise InputError(
                f"config.json: wanted {key} = {value} for {checkpoint_settings.SWITCH}, got {got}"
            )
    fields: dict[str, Any] = {
        name: checkpoint_settings.size(settings, key) for name, key in SIZES.items()
    }
    expert = checks.choice(
        "config.json: dense_act_fn",
        checkpoint_settings.need(settings, "dense_act_fn"),
        ("relu", "gelu"),
    )
    eps = checkpoint_settings.need(settings, "layer_norm_epsilon")
    jitter = checks.number(
        "config.json: router_jitter_noise", settings.get("router_jitter_noise", 0), minimum=0
    )
    start = settings.get("decoder_start_token_id")
    rate = checks.number("config.json: dropout_rate", settings.get("dropout_rate", 0), minimum=0)
    return Config(
        **fields,
        options={"jitter": jitter} if jitter else {},
        expert=expert,
        encoder_dense=_dense_layers(settings, "encoder", fields["encoder_layers"]),
        decoder_dense=_dense_layers(settings, "decoder", fields["decoder_layers"]),
        eps=checks.number("config.json: layer_norm_epsilon", eps, minimum=0),
        tied=bool(settings.get("tie_word_embeddings", True)),
        start=checkpoint_settings.need(settings, "pad_token_id") if start is None else start,
        dropout=rate,
        expert_dropout=rate,
    )


def _dense_layers(settings, stack, n_layers):
    """All but every n-th: those of the remainder 1 have experts, for n = 1 all, for 0 none."""
    step = settings.get(f"{stack}_sparse_step")
    if step is None:
        sparse = checkpoint_settings.need(settings, f"num_sparse_{stack}_layers")
        step = n_layers // sparse if sparse else n_layers
    step = checks.integer(f"config.json: {stack}_sparse_step", step, minimum=0)
    sparse = _sparse_layers(step, n_layers)
    return tuple(i for i in range(n_layers) if i not in sparse)


def _sparse_layers(step, n_layers):
    return [i for i in range(n_layers) if step == 1 or (step and i % step == 1)]


def settings_of(config: Config) -> dict[str, Any]:
    """The config.json of a Config; it may say less than the Config does."""
    settings: dict[str, Any] = {"model_type": checkpoint_settings.SWITCH}
    settings["architectures"] = ["SwitchTransformersForConditionalGeneration"]
    settings |= {key: getattr(config, name) for name, key in SIZES.items()}
    for stack in STACKS:
        n_layers = layers_of(config, stack)
        sparse = [i for i in range(n_layers) if not is_dense(config, stack, i)]
        steps = (step for step in range(n_layers + 1) if _sparse_layers(step, n_layers) == sparse)
        settings[f"{stack}_sparse_step"] = next(steps, 0)
        settings[f"num_sparse_{stack}_layers"] = len(sparse)
    settings |= {"dense_act_fn": config.expert, "layer_norm_epsilon": config.eps}
    settings |= {"router_jitter_noise": config.options.get("jitter", 0.0)}
    settings |= {"expert_capacity": config.context, "dropout_rate": config.dropout}
    settings |= {"tie_word_embeddings": config.tied, "decoder_start_token_id": config.start}
    settings |= {"pad_token_id": config.start, "eos_token_id": None}
    return settings | FIXED


def fits(config: Config) -> bool:
    """Whether a config.json can say all of a Config but for `EXTRAS`."""
    try:
        return _canonical(config_of(settings_of(config))) == _canonical(config)
    except InputError:
        return False


def _canonical(config):
    """Equal for equal models: what has no effect, and what training alone uses, is left out."""
    dense = {
        f"{stack}_dense": tuple(
            i for i in range(layers_of(config, stack)) if is_dense(config, stack, i)
        )
        for stack in STACKS
    }
    options = dict(config.options)
    if not options.get("jitter", 1):
        del options["jitter"]
    same_width = config.dense_hidden in (None, config.hidden)
    return config._replace(
        options=options,
        init_options=None,
        decoder_init_options=None,
        dense_hidden=None if same_width or not any(dense.values()) else config.dense_hidden,
        eps=float(config.eps),
        **dense,
        **dict.fromkeys(EXTRAS, 0),
    )


# --- names ----------------------------------------------------------------------------------------

EMBED = (Row("embed.w", "shared.weight", "V D", "rows"),)
HEAD = (Row("head.w", "lm_head.weight", "V D"),)
POSITION = Row("position.w", "block.0.layer.0.SelfAttention.relative_attention_bias.weight", "b h")
NORM = Row("norm.g", "final_layer_norm.weight", "D")
ATTENTION = (  # behind "layers.i." and "block.i."
    Row("norm1.g", "layer.0.layer_norm.weight", "D"),
    Row("attention.wq", "layer.0.SelfAttention.q.weight", "Q D"),
    Row("attention.wk", "layer.0.SelfAttention.k.weight", "Q D"),
    Row("attention.wv", "layer.0.SelfAttention.v.weight", "Q D"),
    Row("attention.wo", "layer.0.SelfAttention.o.weight", "D Q"),
)
CROSS = (
    Row("norm_cross.g", "layer.1.layer_norm.weight", "D"),
    Row("cross.wq", "layer.1.EncDecAttention.q.weight", "Q D"),
    Row("cross.wk", "layer.1.EncDecAttention.k.weight", "Q D"),
    Row("cross.wv", "layer.1.EncDecAttention.v.weight", "Q D"),
    Row("cross.wo", "layer.1.EncDecAttention.o.weight", "D Q"),
)
DENSE = (  # behind the number of the layer as well
    Row("norm2.g", "layer_norm.weight", "D"),
    Row("experts.w1", "mlp.wi.weight", "F D", "cut"),
    Row("experts.w2", "mlp.wo.weight", "D F", "cut"),
)
SPARSE = (
    Row("norm2.g", "layer_norm.weight", "D"),
    Row("router.w", "mlp.router.classifier.weight", "E D"),
    Row("experts.w1", "mlp.experts.expert_{}.wi.weight", "H D", "stack"),
    Row("experts.w2", "mlp.experts.expert_{}.wo.weight", "D H", "stack"),
)


def rows(config: Config) -> list[Row]:
    """All rows of a model."""
    every = [*EMBED, *(() if config.tied else HEAD)]
    for stack in STACKS:
        every += _behind(f"{stack}.", f"{stack}.", (POSITION._replace(kind="rows"), NORM))
        for i in range(layers_of(config, stack)):
            places = (f"{stack}.layers.{i}.", f"{stack}.block.{i}.")
            every += _behind(*places, ATTENTION + (CROSS if stack == "decoder" else ()))
            last = f"{places[1]}layer.{2 if stack == 'decoder' else 1}."
            every += _behind(places[0], last, DENSE if is_dense(config, stack, i) else SPARSE)
    return every


def _behind(leaf, name, some):
    return [row._replace(leaf=leaf + row.leaf, name=name + row.name) for row in some]


def parts(config: Config) -> dict[str, list[Piece]]:
    """{leaf: what it is made of}"""
    letters = {"V": config.vocabulary, "D": config.d_model, "E": config.experts}
    letters |= {"Q": config.heads * config.d_head, "b": config.buckets, "h": config.heads}
    letters |= {"H": config.hidden, "F": config.dense_hidden or config.hidden}
    return {row.leaf: checkpoint_names.pieces(row, letters) for row in rows(config)}


def copies(config: Config) -> dict[str, str]:
    """{name: name of the array that it has to be equal to}"""
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    names += ("lm_head.weight",) if config.tied else ()
    return dict.fromkeys(names, "shared.weight")
