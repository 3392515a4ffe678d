"""Checkpoints: folders with the configuration and the parameters of a model.

    config, params = checkpoints.load("Mixtral-8x7B-v0.1")
    logits, cache = decoder.forward(params, ids, config)
    checkpoints.save("mine", config, params)

A folder is one of Hugging Face: `config.json`, and the arrays in `model.safetensors`, or in several
`.safetensors` files that `model.safetensors.index.json` lists. The families that are known are in
`moe_np.models.checkpoint_settings`; a folder of the Switch Transformer gives a Config of
`moe_np.models.encoder_decoder` (`moe_np.models.checkpoint_switch`). A model that no family has
(another router, other experts) is stored in the same files with the names used here and the
model_type "moe_np_decoder" or "moe_np_encoder_decoder"; so are all models with that `family`.

Every array of the files is used, and every leaf is filled: names that are missing, that nothing
here is made of, or whose shapes are others, are one error that lists them. With `lazy=True` the
experts stay in their files, and each is read when a token has chosen it, so a model that is larger
than memory opens.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from moe_np.base import checks, files
from moe_np.base import params as nested
from moe_np.base.checks import InputError
from moe_np.base.types import Array, DType
from moe_np.models import (
    checkpoint_files,
    checkpoint_names,
    checkpoint_settings,
    checkpoint_switch,
    decoder_config,
    encoder_decoder_config,
    parameter_shapes,
)
from moe_np.models.checkpoint_files import CONFIG, Arrays
from moe_np.models.checkpoint_names import Piece
from moe_np.models.decoder_config import Config, Tree
from moe_np.models.stored_experts import StoredExperts

# the model_type of a folder with the names used here
NATIVE = "moe_np_decoder"
NATIVE_ENCODER_DECODER = "moe_np_encoder_decoder"
NATIVES = {NATIVE: decoder_config, NATIVE_ENCODER_DECODER: encoder_decoder_config}

AnyConfig = Config | encoder_decoder_config.Config


# --- loading --------------------------------------------------------------------------------------


def load(
    folder: str | os.PathLike, *, dtype: DType = np.float32, lazy: bool = False
) -> tuple[Any, Tree]:
    """The Config (of `decoder` or of `encoder_decoder`) and the parameters of a folder.

    dtype   of the parameters; float16 and bfloat16 in the files become it too
    lazy    whether routed experts stay in the files until a token chooses one. Such a model can be
            run, but not trained

    Raises InputError for a folder without the files, an unknown family, a setting that is missing
    or that no Config can say, damaged files, and names that are missing, unexpected or misshapen.
    """
    folder = pathlib.Path(folder)
    dtype = checks.float_type("dtype", dtype)
    settings = checkpoint_files.read_json(folder / CONFIG)
    if not isinstance(settings, dict):
        raise InputError(f"folder: {folder / CONFIG} is no JSON object")
    arrays = Arrays(folder)
    if str(settings.get("model_type")) in NATIVES:
        return _load_native(settings, arrays, dtype, lazy)
    return _load_published(settings, arrays, dtype, lazy)


def _load_published(settings, arrays, dtype, lazy):
    shapes = arrays.shapes()
    config, parts, copies = _described(settings, shapes)
    expected = {piece.name: piece.shape for some in parts.values() for piece in some}
    _check_copies(copies, arrays, shapes)
    _check_names(arrays.folder, expected, shapes)
    routers = [leaf.removesuffix("router.w") for leaf in parts if leaf.endswith("router.w")]
    stored = [f"{layer}experts" for layer in routers] if lazy else []
    leaves: dict[str, Any] = {
        leaf: _leaf(arrays, some, dtype)
        for leaf, some in parts.items()
        if leaf.rpartition(".")[0] not in stored
    }
    for path in stored:
        of_layer = {
            leaf.rpartition(".")[2]: p for leaf, p in parts.items() if leaf.startswith(f"{path}.")
        }
        leaves[path] = StoredExperts(arrays, of_layer, config.experts, dtype)
    return config, nested.nest(leaves)


def _described(settings, shapes):
    """-> the Config, {leaf: what it is made of}, {name: the array of which it is a copy}."""
    if settings.get("model_type") == checkpoint_settings.SWITCH:
        config = checkpoint_switch.config_of(settings)
        config = _with_extras(config, settings, checkpoint_switch.EXTRAS)
        encoder_decoder_config.check(config)
        return config, checkpoint_switch.parts(config), checkpoint_switch.copies(config)
    family, config = checkpoint_settings.config_of(settings)
    config = _with_extras(config, settings, EXTRAS)
    decoder_config.check(config)
    fused = any(name.endswith("mlp.experts.gate_up_proj") for name in shapes)
    experts = checkpoint_names.FUSED_EXPERTS if fused else family.experts
    copies = {"lm_head.weight": "model.embed_tokens.weight"} if config.tied else {}
    return config, checkpoint_names.parts(config, experts, family.shared), copies


def _leaf(arrays, some, dtype):
    first = some[0].of(arrays.read(some[0].name))
    if some[0].expert is None:
        return np.ascontiguousarray(first, dtype)
    leaf = np.empty((len(some), *first.shape), dtype)
    for piece in some:
        leaf[piece.expert] = first if piece is some[0] else piece.of(arrays.read(piece.name))
    return leaf


def _check_copies(copies, arrays, shapes):
    """Some files have the head of a tied model too: it must be the embedding, and is left out."""
    for name, original in copies.items():
        if name in shapes and original in shapes:
            if not np.array_equal(arrays.read(name), arrays.read(original)):
                reason = "there is one embedding in this model"
                if name == "lm_head.weight":
                    reason = "tie_word_embeddings is true"
                raise InputError(f"folder: {reason}, but {name} is not {original}")
            del shapes[name]


def _check_names(folder, expected, shapes):
    """One error that lists all names that do not fit."""
    lists = {
        "missing": [name for name in expected if name not in shapes],
        "unexpected": [name for name in shapes if name not in expected],
        "misshapen": [
            f"{name} {list(shapes[name])} (wanted {list(shape)})"
            for name, shape in expected.items()
            if name in shapes and shapes[name] != shape
        ],
    }
    texts = [f"{len(names)} {what}: {_some(names)}" for what, names in lists.items() if names]
    if texts:
        raise InputError(
            f"folder: the arrays of {folder} are not those of its {CONFIG}; " + "; ".join(texts)
        )


def _some(names):
    return ", ".join(sorted(names)[:20]) + (", ..." if len(names) > 20 else "")


# --- the names used here --------------------------------------------------------------------------

EXTRAS = ("dropout", "expert_dropout")  # of training; the families' config.json has no such keys


def _with_extras(config, settings, names):
    extras = checks.mapping(f"{CONFIG}: moe_np", settings.get("moe_np", {}))
    return config._replace(**{name: extras[name] for name in names if name in extras})


def _load_native(settings, arrays, dtype, lazy):
    fields = settings.get("config")
    module = NATIVES[settings["model_type"]]
    if not isinstance(fields, dict) or not set(fields) <= set(module.Config._fields):
        name = "decoder" if module is decoder_config else "encoder_decoder"
        raise InputError(f"folder: {CONFIG} has no 'config' with the fields of {name}.Config")
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    try:
        config = module.Config(**fields)
    except TypeError as error:
        raise InputError(f"folder: 'config' in {CONFIG}: {error}") from None
    wanted = parameter_shapes.shapes(config)
    _check_names(arrays.folder, wanted, arrays.shapes())
    routers = {name.rpartition("router.")[0] for name in wanted if ".router." in name}
    stored = {f"{layer}experts" for layer in routers} if lazy else set()
    leaves: dict[str, Any] = {}
    for name in wanted:
        if name.rpartition(".")[0] not in stored:
            array = arrays.read(name)
            leaves[name] = array.astype(dtype, copy=False) if array.dtype.kind == "f" else array
    for path in sorted(stored):
        names = [name for name in wanted if name.startswith(f"{path}.")]
        parts = {name.rpartition(".")[2]: [_as_stored(name, wanted[name])] for name in names}
        leaves[path] = StoredExperts(arrays, parts, config.experts, dtype)
    return config, nested.nest(leaves)


def _as_stored(name, shape):
    """The piece of a file that has a leaf as it is."""
    return Piece(name, shape, None, slice(None), slice(None), is_matrix=False)


# --- saving ---------------------------------------------------------------------------------------


def family_of(config: AnyConfig) -> str:
    """The model_type of the family whose config.json can say all of a Config, or else that of the
    names used here.
    """
    if isinstance(config, encoder_decoder_config.Config):
        encoder_decoder_config.check(config)
        fits = checkpoint_switch.fits(config)
        return checkpoint_settings.SWITCH if fits else NATIVE_ENCODER_DECODER
    decoder_config.check(config)
    wanted = _canonical(config)
    for name in checkpoint_settings.FAMILIES if config.experts > 1 else ():
        try:
            _, read_back = checkpoint_settings.config_of(
                checkpoint_settings.settings_of(name, config)
            )
        except InputError:
            continue
        if _canonical(read_back) == wanted:
            return name
    return NATIVE


def _canonical(config):
    """Equal for equal models: what has no effect, and what training alone uses, is left out."""
    dense = any(decoder_config.is_dense(config, i) for i in range(config.layers))
    return config._replace(
        options=dict(config.options),
        init_options=None,
        dense_layers=tuple(sorted(config.dense_layers)),
        full_layers=tuple(sorted(config.full_layers)) if config.window else (),
        dense_hidden=(config.dense_hidden or config.hidden) if dense else None,
        shared_hidden=(config.shared_hidden or config.hidden) if config.shared else None,
        theta=float(config.theta),
        dropout=0.0,
        expert_dropout=0.0,
    )


def save(
    folder: str | os.PathLike,
    config: AnyConfig,
    params: Tree,
    *,
    family: str | None = None,
    dtype: DType | str | None = None,
    shard_bytes: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write a folder that `load` reads, and Transformers, where it has the family.

    family        a model_type; None: the first that can say all of the config
    dtype         "float32", "float16", "bfloat16"; None: that of the parameters
    shard_bytes   the most bytes in one file; None: one file
    settings      more keys of config.json, for example eos_token_id

    Each file is written atomically, config.json first. Raises InputError for a family that cannot
    say all of the config, parameters that do not fit it, and a folder that cannot be written.
    """
    fits = family_of(config)
    model_type = fits if family is None else family
    native = NATIVE if isinstance(config, Config) else NATIVE_ENCODER_DECODER
    if model_type not in (fits, native):
        raise InputError(f"family: wanted {fits} or {native} for this config, got {model_type}")
    leaves = nested.leaves(params)
    arrays = leaves if model_type == native else _in_files(model_type, config, leaves)
    facts = {"model_type": native, "config": config._asdict()}
    if model_type != native:
        facts = _facts(model_type, config)
    facts["dtype"] = str(next(iter(leaves.values())).dtype if dtype is None else dtype)
    folder = files.writable_folder(folder)
    text = json.dumps({**facts, **(settings or {})}, indent=2) + "\n"
    checkpoint_files.write(folder, arrays, text, dtype=dtype, shard_bytes=shard_bytes)


def _facts(model_type, config):
    """The config.json of a family, with what it has no keys for."""
    if model_type == checkpoint_settings.SWITCH:
        facts = checkpoint_switch.settings_of(config)
        return facts | {
            "moe_np": {name: getattr(config, name) for name in checkpoint_switch.EXTRAS}
        }
    extras = {name: getattr(config, name) for name in EXTRAS if getattr(config, name)}
    facts = checkpoint_settings.settings_of(model_type, config)
    return facts | ({"moe_np": extras} if extras else {})


def _in_files(model_type, config, leaves):
    """{name: array} as the files of a family have them."""
    copies = {}
    if model_type == checkpoint_settings.SWITCH:
        wanted = checkpoint_switch.parts(config)
        copies = {} if config.tied else checkpoint_switch.copies(config)
    else:
        family = checkpoint_settings.FAMILIES[model_type]
        wanted = checkpoint_names.parts(config, family.experts, family.shared)
    missing = sorted(set(wanted) ^ set(leaves))
    if missing:
        raise InputError(f"params: wanted the leaves of the config; differing: {_some(missing)}")
    arrays: dict[str, Array] = {}
    for leaf, some in wanted.items():
        for piece in some:
            if piece.name not in arrays:
                arrays[piece.name] = np.empty(piece.shape, leaves[leaf].dtype)
            place = leaves[leaf] if piece.expert is None else leaves[leaf][piece.expert]
            target = piece.of(arrays[piece.name])
            checks.array(f"params[{leaf!r}]", place, target.shape, finite=False)
            target[...] = place  # a view of the file's array
    return arrays | {name: arrays[original] for name, original in copies.items()}
