"""A decoder in a folder that is to be changed, and the changed one in another folder.

Folders are those of `moe-np train` and of Hugging Face. What is written has the format of Hugging
Face where a family of it can say the new config, else that of `moe_np.models.checkpoints`; it has
the number type of the source, its tokeniser, and its tokens that begin and end a text.
"""

import hashlib
import json
import os
import pathlib
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.adapt import layer_parts
from moe_np.base import checks, files
from moe_np.base.checks import InputError
from moe_np.base.params import leaves
from moe_np.base.types import Array
from moe_np.language import model_files
from moe_np.models import checkpoints, decoder
from moe_np.models.decoder_config import Config, Tree

ENDS = ("bos_token_id", "eos_token_id", "pad_token_id", "add_bos_token")
LONGEST = 128  # tokens of a window on which experts are looked at


class Source(NamedTuple):
    """A decoder that was read."""

    folder: pathlib.Path
    config: Config
    params: Tree
    dtype: str | None  # of the numbers in the files
    ends: dict[str, Any]  # tokens that begin and end a text, as in config.json


def load(folder: str | os.PathLike) -> Source:
    """Read a decoder. Raises InputError for another model, and where there is none."""
    folder = pathlib.Path(folder)
    model = model_files.load(folder)
    if not isinstance(model.config, Config):
        name = type(model.config).__module__.rpartition(".")[2]
        raise InputError(f"{folder}: wanted a decoder, got a model of {name}")
    layer_parts.check(model.config, model.params)
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dtype = described.get("dtype") or described.get("torch_dtype")
    ends = {name: described[name] for name in ENDS if described.get(name) is not None}
    return Source(folder, model.config, model.params, dtype, ends)


def out_folder(source: Source, out: str | os.PathLike) -> pathlib.Path:
    """The folder of the result. Raises InputError for that of the source."""
    folder = files.writable_folder(out)
    if folder.resolve() == source.folder.resolve():
        raise InputError(f"--out: wanted another folder than that of the model, got {out}")
    return folder


def save(source: Source, out: str | os.PathLike, config: Config, params: Tree) -> str:
    """Write the changed model, and return the model_type of its format.

    Raises InputError for the folder of the source, and for one with a training run.
    """
    folder = out_folder(source, out)
    if (folder / "run.json").exists():
        raise InputError(f"--out: wanted a folder without a training run, got {out}")
    dtype = source.dtype if source.dtype in ("float32", "float16", "bfloat16") else None
    checkpoints.save(folder, config, params, dtype=dtype, settings=source.ends)
    model_files.copy_tokeniser(source.folder, folder)
    return checkpoints.family_of(config)


def digest(config: Config, params: Tree) -> str:
    """A hash of a model, by which a run knows that it goes on with the same one."""
    total = hashlib.sha256(json.dumps(config._asdict(), sort_keys=True).encode())
    for path, p in leaves(params).items():
        total.update(f"{path} {p.dtype} {p.shape}".encode())
        total.update(np.ascontiguousarray(p).tobytes())
    return total.hexdigest()


def windows_of(
    source: Source, text: str, *, tokens: int
) -> tuple[Annotated[Array, "B, T"], Annotated[Array, "B, T"]]:
    """The first tokens of a text in rows, each with the token that follows: ids, targets.

    Raises InputError for a text of less than two tokens.
    """
    tokens = checks.integer("--tokens", tokens, minimum=1)
    beginning = text[: 20 * (tokens + 1)]  # a token has fewer characters
    ids = model_files.tokeniser(source.folder).encode(beginning)[: tokens + 1]
    if len(ids) < 2:
        raise InputError(f"--text: wanted at least two tokens, got {len(ids)}")
    length = min(LONGEST, source.config.context, len(ids) - 1)
    rows = (len(ids) - 1) // length
    shape = (rows, length)
    return ids[: rows * length].reshape(shape), ids[1 : rows * length + 1].reshape(shape)


def change_of_logits(before: Source, config: Config, params: Tree) -> float:
    """The largest change of a logit on random tokens."""
    length = min(LONGEST, config.context)
    ids = np.random.default_rng(0).integers(0, config.vocabulary, (2, length))
    old = decoder.forward(before.params, ids, before.config)[0]
    return float(np.abs(decoder.forward(params, ids, config)[0] - old).max())
