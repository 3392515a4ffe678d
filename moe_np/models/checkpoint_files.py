"""The files of a checkpoint's folder: config.json, and arrays in one or several safetensors files.

config.json
model.safetensors                       or
model-00001-of-00003.safetensors, ...   with
model.safetensors.index.json            {"weight_map": {name of an array: file}}
"""

import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from moe_np.base import checks, files
from moe_np.base.checks import InputError
from moe_np.base.types import Array, DType
from moe_np.models import safetensors

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
NO_PARAMETER = re.compile(r".*\.rotary_emb\.inv_freq")  # in old files; computed here


class Arrays:
    """The arrays of all files of a folder by name."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._readers = {}
        for path in _paths(folder):
            reader = safetensors.Reader(path)
            for name in reader:
                if name in self._readers:
                    raise InputError(f"folder: {folder} has {name} in two files")
                self._readers[name] = reader

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{name: shape} of what the files have, but for what is no parameter."""
        every = {name: reader.entries[name].shape for name, reader in self._readers.items()}
        return {name: shape for name, shape in every.items() if not NO_PARAMETER.fullmatch(name)}

    def read(self, name: str, index: int | None = None) -> Array:
        """The array of this name, or its entry along axis 0."""
        return self._readers[name].read(name, index)

    def place(self, name: str, index: int | None = None) -> tuple[str, str, tuple[int, ...], int]:
        """The file of an array, or of its entry along axis 0, and its `Reader.place` there."""
        return (self._readers[name].path, *self._readers[name].place(name, index))


def _paths(folder):
    """The safetensors files of a folder."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise InputError(f"folder: wanted {SINGLE} or {INDEX} in {folder}, got neither")
    index = read_json(folder / INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise InputError(f"folder: {folder / INDEX} has no weight_map of names and files")
    outside = [
        name for name in places.values() if pathlib.PurePath(name).name != name or "\0" in name
    ]
    if outside:
        raise InputError(f"folder: {folder / INDEX} names a file elsewhere, {outside[0]!r}")
    return [folder / name for name in sorted(set(places.values()))]


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file. Raises InputError where it cannot be read or is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"folder: {path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"folder: {path} is no JSON: {checks.text(str(error))[1:-1]}") from None


def write(
    folder: pathlib.Path,
    arrays: Mapping[str, Array],
    config: str,
    *,
    dtype: DType | str | None = None,
    shard_bytes: int | None = None,
) -> None:
    """Write config.json and the arrays, in files of at most shard_bytes; None: in one.

    Files of an earlier checkpoint that was cut in another way are removed.
    """
    shards = _shards(arrays, shard_bytes)
    names = [SINGLE]
    if len(shards) > 1:
        n = len(shards)
        names = [f"model-{i:05d}-of-{n:05d}.safetensors" for i in range(1, n + 1)]
    files.write_atomically(folder / CONFIG, config)
    for name, shard in zip(names, shards, strict=True):
        safetensors.write(folder / name, shard, dtype=dtype, metadata={"format": "pt"})
    written = set(names)
    if len(shards) > 1:
        places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        size = sum(a.nbytes for a in arrays.values())
        index = {"metadata": {"total_size": size}, "weight_map": places}
        files.write_atomically(folder / INDEX, json.dumps(index, indent=2) + "\n")
        written.add(INDEX)
    for path in folder.iterdir():  # of an earlier checkpoint with another number of files
        old = re.fullmatch(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?", path.name)
        if old and path.name not in written:
            path.unlink()


def _shards(arrays, shard_bytes):
    """The arrays in groups of at most shard_bytes, in their order; one may be larger alone."""
    most = math.inf if shard_bytes is None else checks.integer("shard_bytes", shard_bytes)
    groups: list[dict[str, Array]] = [{}]
    size = 0
    for name, array in arrays.items():
        if size + array.nbytes > most and groups[-1]:
            groups.append({})
            size = 0
        groups[-1][name] = array
        size += array.nbytes
    return groups
