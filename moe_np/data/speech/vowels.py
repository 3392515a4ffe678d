"""The vowels of Peterson and Barney (1952): 76 speakers, ten vowels, each spoken twice.

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
import pathlib
from typing import NamedTuple

import numpy as np

from moe_np.base.checks import InputError, choice, integer

FILE = pathlib.Path(__file__).with_name("peterson_barney.csv")
SHA256 = "158d1f9b1e3de52503f23ba69a45b94cce34a862f222f3a0259d5e6636fbf05e"  # of the text with \n line ends

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
RANGES = {
    "F0": (60, 400),
    "F1": (150, 1500),
    "F2": (500, 4000),
    "F3": (1000, 5000),
}  # Hz; outside is a misprint


class VowelTable(NamedTuple):
    """Columns of the table, one entry a token, 1520 in all. Frequencies in Hz."""

    speaker: np.ndarray  # 1 to 76
    type: np.ndarray  # "m" man, "f" woman, "c" child
    sex: np.ndarray  # "m", "f"
    arpabet: np.ndarray  # "IY", ...
    ipa: np.ndarray
    word: np.ndarray
    repetition: np.ndarray  # 1, 2
    F0: np.ndarray
    F1: np.ndarray
    F2: np.ndarray
    F3: np.ndarray


def peterson_barney(path=None):
    """Read and check the table of Peterson and Barney (1952).

    path    another copy of the table; None means the one in the package, whose checksum is compared as well
    Returns a VowelTable of arrays (1520,).
    Raises InputError that names the file and, where there is one, the line.
    """
    source = FILE if path is None else pathlib.Path(path)
    try:
        raw = source.read_bytes().replace(b"\r\n", b"\n")
        rows = list(csv.reader(io.StringIO(raw.decode("utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{source}: wanted the Peterson and Barney table as UTF-8 CSV, got {error}"
        ) from None
    if not rows or tuple(rows[0]) != VowelTable._fields:
        got = ",".join(rows[0]) if rows else "an empty file"
        raise InputError(
            f"{source}, line 1: wanted the columns {','.join(VowelTable._fields)}; got {got[:100]}"
        )
    tokens = [_token(source, line, row) for line, row in enumerate(rows[1:], start=2)]
    if len(tokens) != 2 * SPEAKERS * len(VOWELS):
        raise InputError(
            f"{source}: wanted {2 * SPEAKERS * len(VOWELS)} rows after the heading, got {len(tokens)}"
        )
    if path is None and hashlib.sha256(raw).hexdigest() != SHA256:
        raise InputError(
            f"{source}: the table was changed since it was published; wanted SHA-256 {SHA256}"
        )
    return VowelTable(*(np.array(column) for column in zip(*tokens, strict=True)))


def _token(source, line, row):
    """Check one row: the right cells in the right place, every frequency a sensible number, F0 ≤ F1
    ≤ F2 ≤ F3.
    """
    where = f"{source}, line {line}"
    if len(row) != len(VowelTable._fields):
        raise InputError(f"{where}: wanted {len(VowelTable._fields)} cells, got {len(row)}")
    speaker, place = divmod(
        line - 2, 20
    )  # each speaker's 20 rows stand together, the vowels in the order of VOWELS
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
    """Four vowels, two formants, a training and a test set of speakers who do not overlap."""

    x_train: np.ndarray  # (400, 2) F1 and F2 in kHz
    d_train: np.ndarray  # (400, C) wanted outputs, C = 1, or 4 if one-hot
    x_test: np.ndarray  # (200, 2)
    d_test: np.ndarray  # (200, C)
    vowel_train: np.ndarray  # (400,) index into FOUR
    vowel_test: np.ndarray  # (200,)


def vowel_task(table=None, *, coding="IY+AH", drop=1, split="file order", seed=0):
    """The task of Jacobs, Jordan, Nowlan and Hinton (1991): F1 and F2 of [i], [ɪ], [ɑ], [ʌ], two
    tokens a speaker.

    coding  what the outputs should be, which the paper does not say: "IY+AH" one output, 1 for [i] and [ʌ], 0 for
            the others; so "IY+AA" and "IY+IH"; "one-hot" an output for each vowel
    drop    the speaker to leave out: the paper has 75 speakers, 32 of them men; the table has 33 men
    split   "file order": the first 50 speakers train, the other 25 test, as the paper says; "random": 50 are drawn
            with `seed`
    Returns a VowelTask. Raises InputError for an unknown coding, split or speaker.
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
    train, test = (
        np.isin(table.speaker, part) & (vowel >= 0) for part in (speakers[:50], speakers[50:])
    )
    d = code[vowel]
    return VowelTask(formants[train], d[train], formants[test], d[test], vowel[train], vowel[test])
