"""The text that a language model is trained on, with the part that is held out."""

import hashlib
import pathlib
from typing import NamedTuple

from moe_np.base.checks import InputError
from moe_np.data.text import bible

HELD_OUT = 0.1  # of a file: its end, from the beginning of a line


class Corpus(NamedTuple):
    """A text for training, and another for validation."""

    name: str
    train: str
    validation: str

    def digest(self) -> str:
        """A hash of both texts, by which a run knows that it goes on with the same text."""
        both = f"{len(self.train)} {self.train}{self.validation}"
        return hashlib.sha256(both.encode("utf-8")).hexdigest()


def shipped() -> Corpus:
    """The King James Bible; whole books are held out (`moe_np.data.text.bible` says why)."""
    split = bible.split()
    train = bible.running_text(split.train)
    return Corpus("King James Bible", train, bible.running_text(split.validation))


def of_file(path: str | pathlib.Path) -> Corpus:
    """A text file (UTF-8), whose last tenth is held out.

    Raises InputError for a file that cannot be read, is no UTF-8, or is too short to be divided.
    """
    text = read(path)
    cut = text.rfind("\n", 0, int(len(text) * (1 - HELD_OUT))) + 1
    cut = cut or int(len(text) * (1 - HELD_OUT))  # a text of one line is cut within it
    if min(cut, len(text) - cut) < 1:
        raise InputError(f"--text: wanted a text to divide in two, got {len(text)} characters")
    return Corpus(pathlib.Path(path).name, text[:cut], text[cut:])


def read(path: str | pathlib.Path) -> str:
    """The text of a file. Raises InputError where it cannot be read or is no UTF-8."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"--text: wanted a text file, got {path} ({error.strerror})") from None
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is none"
        raise InputError(f"--text: wanted UTF-8, got {path}, whose {where}") from None
