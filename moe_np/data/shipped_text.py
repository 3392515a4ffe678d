"""Texts that the package ships, each compressed as an xz file and held against its SHA-256."""

import hashlib
import lzma
import pathlib

from moe_np.base.checks import InputError


def read(file: pathlib.Path, sha256: str, contents: str) -> str:
    """The text of an xz file.

    sha256     of the text, not of its compressed form
    contents   what should be in the file, in words, for the message

    Raises InputError for a file that is missing, damaged or changed.
    """
    try:
        raw = lzma.decompress(file.read_bytes())
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise InputError(f"{file}: wanted {contents} in an xz file, got {error}") from None
    if (got := hashlib.sha256(raw).hexdigest()) != sha256:
        raise InputError(f"{file}: wanted the text with the SHA-256 {sha256}, got {got}")
    return raw.decode("utf-8")
