"""A model in a folder: `config.json` and `model.safetensors`.

A decoder or encoder-decoder has the layout of Hugging Face (`moe_np.models.checkpoints`), and
Transformers loads it where it has the family. Every other model has the layout of this file: the
paths of its parameters are the names of the arrays, and config.json has

    {"model_type": "moe_np", "model": "lstm_moe", "config": {...}}
"""

import importlib
import json
import os
import pathlib
from types import ModuleType
from typing import Any, NamedTuple

from moe_np.base import checks, files
from moe_np.base.checks import InputError
from moe_np.base.params import leaves, nest
from moe_np.data.text import hugging_face, tokenisers
from moe_np.language import kinds
from moe_np.models import checkpoints, decoder, encoder_decoder, safetensors

OURS = "moe_np"  # the model_type of this file's layout
MODELS = ("lstm_moe",)  # modules of moe_np.models with this layout
TOKENISER_FILES = (
    *("tokeniser.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "generation_config.json"),
)


SHIPPED = "shipped"  # in place of a folder: the model that comes with the package
SHIPPED_FOLDER = pathlib.Path(__file__).with_name("small_mixtral")


class Model(NamedTuple):
    """A model that was read: its module, and what its functions take."""

    module: ModuleType  # with forward(params, ids, config)
    config: Any
    params: Any


def save(folder: str | os.PathLike, module: ModuleType, config: Any, params: Any) -> None:
    """Write a model into a folder; each file is the old one or the whole new one.

    Raises InputError for a folder that cannot be written.
    """
    folder = files.writable_folder(folder)
    if module in (decoder, encoder_decoder):
        checkpoints.save(folder, config, params)
        return
    name = checks.choice("model", module.__name__.rpartition(".")[2], MODELS)
    described = {"model_type": OURS, "model": name, "config": config._asdict()}
    safetensors.write(folder / "model.safetensors", leaves(params))
    files.write_atomically(folder / "config.json", json.dumps(described, indent=1) + "\n")


def path_of(folder: str | os.PathLike) -> pathlib.Path:
    """The path of a model's folder; that of the shipped model for "shipped", unless there is a
    folder of this name.
    """
    path = pathlib.Path(folder)
    return SHIPPED_FOLDER if str(folder) == SHIPPED and not path.exists() else path


def load(folder: str | os.PathLike) -> Model:
    """Read a model of this package or of Hugging Face.

    Raises InputError for a folder without a model, a damaged file, and an unknown kind of model.
    """
    folder = path_of(folder)
    path = folder / "config.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        begun = (folder / "run.json").exists()
        got = "a run without a checkpoint yet" if begun else error.strerror
        raise InputError(f"{folder}: wanted a folder with a model, got {got}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: wanted JSON, got {error}") from None
    if not isinstance(described, dict) or described.get("model_type") != OURS:
        config, params = checkpoints.load(folder)
        module = decoder if isinstance(config, decoder.Config) else encoder_decoder
        return Model(module, config, params)
    name = checks.choice(f"{path}: model", described.get("model"), MODELS)
    module = importlib.import_module(f"moe_np.models.{name}")
    values = checks.mapping(f"{path}: config", described.get("config"))
    unknown = set(values) - set(module.Config._fields)
    if unknown:
        raise InputError(f"{path}: wanted values of {module.Config._fields}, got {unknown}")
    kinds.check_containers(module.Config, dict(values), f"{path}: config")
    try:
        config = module.Config(**values)
    except TypeError as error:
        raise InputError(f"{path}: config: {error}") from None
    try:
        module.check(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Model(module, config, nest(safetensors.Reader(folder / "model.safetensors")))


def tokeniser(folder: str | os.PathLike) -> Any:
    """The tokeniser of a model's folder: `tokeniser.json`, or Hugging Face's `tokenizer.json`,
    which needs the library `tokenizers`. Raises InputError where there is none.
    """
    folder = path_of(folder)
    if (folder / "tokeniser.json").exists():
        return tokenisers.load(folder / "tokeniser.json")
    if (folder / "tokenizer.json").exists():
        return hugging_face.load(folder / "tokenizer.json")
    raise InputError(f"{folder}: wanted a tokeniser.json or tokenizer.json, there is none")


def copy_tokeniser(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Copy the tokeniser of a model's folder into another, and what belongs to it."""
    for name in TOKENISER_FILES:
        path = pathlib.Path(source) / name
        if path.exists():
            with files.atomic_file(pathlib.Path(target) / name) as file:
                file.write(path.read_bytes())
