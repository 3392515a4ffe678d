"""The language model that comes with the package: a small Mixtral, trained on the King James Bible.

    model, tokeniser = shipped_model.load()
    moe-np generate shipped --prompt "And God said"

Four layers of width 64, 2 of 8 experts per token, 1,024 byte pairs, half a million parameters in
bfloat16 (1 MB). `make_small_mixtral.py` makes it. Held out were Esther, Ecclesiastes and Romans for
the choice of the checkpoint, and four books more (`moe_np.data.text.bible`).
"""

import functools
import hashlib
from typing import Any

from moe_np.base.checks import InputError
from moe_np.language import model_files
from moe_np.language.model_files import Model

FOLDER = model_files.SHIPPED_FOLDER
FILES = ("config.json", "model.safetensors", "tokeniser.json")
SHA256 = "11ae1065188fb7af20877e072a5429e2899aadf6f86c5830cb7d64b83d10dce8"  # of the three files


def digest() -> str:
    """A hash of the files, as they lie in the folder."""
    total = hashlib.sha256()
    for name in FILES:
        content = (FOLDER / name).read_bytes()
        if name.endswith(".json"):
            content = content.replace(b"\r\n", b"\n")
        total.update(f"{name} {len(content)} ".encode() + content)
    return total.hexdigest()


@functools.cache
def load() -> tuple[Model, Any]:
    """The model and its tokeniser. Raises InputError where the files are damaged or changed."""
    if (got := digest()) != SHA256:
        raise InputError(f"{FOLDER}: wanted files with the SHA-256 {SHA256}, got {got}")
    return model_files.load(FOLDER), model_files.tokeniser(FOLDER)
