"""The vowels of Peterson and Barney (1952): 76 speakers say ten vowels twice each.

G. E. Peterson and H. L. Barney (1952), Control methods used in a study of the vowels, Journal of
the Acoustical Society of America 24:175-184. They read the frequencies of the voice (F0) and of the
first three resonances of the mouth (the formants F1 to F3) off spectrograms of 33 men, 28 women and
15 children saying heed, hid, head, had, hud, hod, hawed, hood, who'd, heard.

`peterson_barney.csv` is the table that Praat carries ("Create formant table (Peterson & Barney
1952)"), with the vowels' words and IPA signs written out. `make_peterson_barney.py` makes it again,
byte for byte, from the PyPI package praat-parselmouth.
"""

import csv
import hashlib
import io
import os
import pathlib
from typing import NamedTuple

import numpy as np

from moe_np.base.checks import InputError, choice, integer
from moe_np.base.types import ArrayN, ArrayNC, ArrayND

FILE = pathlib.Path(__file__).with_name("peterson_barney.csv")
# of the text with \n line ends
SHA256 = "158d1f9b1e3de52503f23ba69a45b94cce34a862f222f3a0259d5e6636fbf05e"

# ARPAbet -> (IPA, the word that was spoken), in the order in which every speaker's rows stand
VOWELS = {
    "IY": ("i", "heed"),
    "IH": ("ɪ", "hid"),
    "EH": ("ɛ", "head"),
    "AE": ("æ", "had"),
    "AH": ("ʌ", "hud"),
    "AA": ("ɑ", "hod"),
    "AO": ("ɔ", "hawed"),
    "UH": ("ʊ", "hood"),
    "UW": ("u", "who'd"),
    "ER": ("ɝ", "heard"),
}
SPEAKERS = 76  # numbered men 1-33, women 34-61, children 62-76
# Hz; a frequency outside is a misprint
RANGES = {"F0": (60, 400), "F1": (150, 1500), "F2": (500, 4000), "F3": (1000, 5000)}
ROWS = 2 * SPEAKERS * len(VOWELS)


class VowelTable(NamedTuple):
    """Columns of the table, one entry per token, 1520 in all. Frequencies in Hz."""

    speaker: ArrayN  # 1 to 76
    type: ArrayN  # "m" man, "f" woman, "c" child
    sex: ArrayN  # "m", "f"
    arpabet: ArrayN  # "IY", ...
    ipa: ArrayN
    word: ArrayN
    repetition: ArrayN  # 1, 2
    F0: ArrayN
    F1: ArrayN
    F2: ArrayN
    F3: ArrayN


def peterson_barney(path: str | os.PathLike | None = None) -> VowelTable:
    """Read and check the table of Peterson and Barney (1952).

    path    another copy of the table; None: the one in the package, whose checksum is compared too

    Returns a VowelTable of arrays (1520,). Raises InputError that names the file and, where there
    is one, the line.
    """
    source = FILE if path is None else pathlib.Path(path)
    try:
        raw = source.read_bytes().replace(b"\r\n", b"\n")
        rows = list(csv.reader(io.StringIO(raw.decode("utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        wanted = "the Peterson and Barney table as UTF-8 CSV"
        raise InputError(f"{source}: wanted {wanted}, got {error}") from None
    if not rows or tuple(rows[0]) != VowelTable._fields:
        got = ",".join(rows[0]) if rows else "an empty file"
        wanted = ",".join(VowelTable._fields)
        raise InputError(f"{source}, line 1: wanted the columns {wanted}; got {got[:100]}")
    tokens = [_token(source, line, row) for line, row in enumerate(rows[1:], start=2)]
    if len(tokens) != ROWS:
        raise InputError(f"{source}: wanted {ROWS} rows after the heading, got {len(tokens)}")
    if path is None and (got := hashlib.sha256(raw).hexdigest()) != SHA256:
        raise InputError(f"{source}: wanted the table with the SHA-256 {SHA256}, got {got}")
    return VowelTable(*(np.array(column) for column in zip(*tokens, strict=True)))


def _token(source, line, row):
    """Check one row: its cells, the range of every frequency, and F0 ≤ F1 ≤ F2 ≤ F3."""
    where = f"{source}, line {line}"
    if len(row) != len(VowelTable._fields):
        raise InputError(f"{where}: wanted {len(VowelTable._fields)} cells, got {len(row)}")
    # each speaker's 20 rows stand together, the vowels in the order of VOWELS
    speaker, place = divmod(line - 2, 20)
    vowel = list(VOWELS)[place // 2 % 10]
    group = "m" if speaker < 33 else "f" if speaker < 61 else "c"
    sex = row[2] if group == "c" and row[2] in ("m", "f") else "f" if group == "f" else "m"
    wanted = [str(speaker + 1), group, sex, vowel, *VOWELS[vowel], str(place % 2 + 1)]
    for name, cell, want in zip(VowelTable._fields, row, wanted, strict=False):
        if cell != want:
            raise InputError(f"{where}: {name}: wanted {want}, got {cell!r}")
    hertz = [_hertz(where, name, cell) for name, cell in zip(RANGES, row[7:], strict=True)]
    if hertz != sorted(hertz):
        raise InputError(f"{where}: wanted F0 ≤ F1 ≤ F2 ≤ F3, got {', '.join(row[7:])}")
    return (int(row[0]), *row[1:6], int(row[6]), *hertz)


def _hertz(where, name, cell):
    low, high = RANGES[name]
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise InputError(f"{where}: {name}: wanted {low} to {high} Hz, got {cell!r}")
    return value


FOUR = ("IY", "IH", "AA", "AH")  # the vowels of Jacobs et al. 1991
CODINGS = ("IY+AH", "IY+AA", "IY+IH", "one-hot")


class VowelTask(NamedTuple):
    """Four vowels, two formants; no speaker is in both the training and the test set."""

    x_train: ArrayND  # (400, 2) F1 and F2 in kHz
    d_train: ArrayNC  # (400, C) wanted outputs, C = 1, or 4 if one-hot
    x_test: ArrayND  # (200, 2)
    d_test: ArrayNC  # (200, C)
    vowel_train: ArrayN  # (400,) index into FOUR
    vowel_test: ArrayN  # (200,)


def vowel_task(
    table: VowelTable | None = None,
    *,
    coding: str = "IY+AH",
    drop: int = 1,
    split: str = "file order",
    seed: int = 0,
) -> VowelTask:
    """The task of Jacobs, Jordan, Nowlan and Hinton (1991): F1 and F2 of [i], [ɪ], [ɑ], [ʌ].

    Two tokens per speaker and vowel.

    coding  of the outputs, which the paper does not give: "IY+AH" one output, 1 for [i] and [ʌ] and
            0 for the others; "IY+AA" and "IY+IH" likewise; "one-hot" one output per vowel
    drop    the speaker to leave out: the paper has 75 speakers, 32 of them men; the table has 33
    split   "file order": the first 50 speakers train and the other 25 test, as in the paper;
            "random": 50 are drawn with `seed`

    Raises InputError for an unknown coding, split or speaker.
    """
    choice("coding", coding, CODINGS)
    choice("split", split, ("file order", "random"))
    integer("drop", drop, maximum=SPEAKERS)
    table = peterson_barney() if table is None else table
    speakers = np.setdiff1d(np.arange(1, SPEAKERS + 1), drop)
    if split == "random":
        speakers = np.random.default_rng(seed).permutation(speakers)
    vowel = np.select([table.arpabet == v for v in FOUR], range(4), default=-1)
    if coding == "one-hot":
        code = np.eye(4)
    else:
        code = np.array([[float(v in coding.split("+"))] for v in FOUR])
    formants = np.stack([table.F1, table.F2], axis=1) / 1000
    train = np.isin(table.speaker, speakers[:50]) & (vowel >= 0)
    test = np.isin(table.speaker, speakers[50:]) & (vowel >= 0)
    d = code[vowel]
    return VowelTask(formants[train], d[train], formants[test], d[test], vowel[train], vowel[test])
