"""Bach's four-part chorales as grids of pitches: 364 chorales, 39,690 eighth notes.

J. S. Bach, four-part chorales, by their numbers in the catalogue of his works (BWV). A grid has a
row per voice (soprano, alto, tenor, bass) and a column per eighth note, and in it the MIDI number
of the pitch that sounds at the beginning of this eighth note, 0 for a rest. The rest is left out:
shorter notes between two columns, fermatas, text; and a repeated note looks like a held one.
`make_chorales.py` makes `chorales.xz` from the scores of the package music21.

Two forms for a language model. As ids, a vocabulary of 48 and four ids per column, soprano first:
0 is a rest, 1 to 46 the pitches C2 to A5, 47 the end of a chorale. As text, a line per column, for
a tokeniser that has other texts too:

    A4 F4 C4 F3
    A4 E4 - F3

Held out are whole families of melodies. Bach set many a melody several times, so a random chorale
often has its melody in the training set. Two chorales are of a family if their sopranos share 14
successive intervals, in any key; of ten families one is for validation and one for the test.
"""

import pathlib
import re
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError, integer
from moe_np.base.types import ArrayN
from moe_np.data import shipped_text

FILE = pathlib.Path(__file__).with_name("chorales.xz")
# of the text, not of its compressed form
SHA256 = "90454a2a86e1d416b996dbd392427ed720246b57e5b835a4df3ee464880b3d76"

VOICES = ("soprano", "alto", "tenor", "bass")
LOWEST = 36  # C2
HIGHEST = 81  # A5
REST = 0
END = HIGHEST - LOWEST + 2
SIZE = END + 1  # of the vocabulary
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

Grid = Annotated[np.ndarray, "4, T"]  # MIDI numbers, 0 for a rest


class Chorale(NamedTuple):
    """One chorale."""

    name: str  # "bwv66.6"
    family: int  # of melodies
    grid: Grid  # (4, T) int64


class Split(NamedTuple):
    """Chorales for training, for choices, and for the final number."""

    train: tuple[Chorale, ...]
    validation: tuple[Chorale, ...]
    test: tuple[Chorale, ...]


@cache
def chorales() -> tuple[Chorale, ...]:
    """All 364 chorales in the order of their numbers. The arrays are read-only.

    Raises InputError for a file that is missing, damaged or changed.
    """
    lines = shipped_text.read(FILE, SHA256, "chorales").splitlines()
    entries = []
    for heading, *voices in zip(*(lines[i::5] for i in range(5)), strict=True):
        name, family = heading.split()
        pitches = np.array([list(bytes.fromhex(voice)) for voice in voices], np.int64)
        pitches.flags.writeable = False
        entries.append(Chorale(name, int(family), pitches))
    return tuple(entries)


def split(*, validation: int = 9, test: int = 4) -> Split:
    """Training, validation and test set by the last digit of the family's number.

    Raises InputError unless both are digits and differ.
    """
    integer("validation", validation, minimum=0, maximum=9)
    integer("test", test, minimum=0, maximum=9)
    if test == validation:
        raise InputError(f"test: wanted another digit than validation, got {test}")
    parts: dict[int, list[Chorale]] = {validation: [], test: [], -1: []}
    for chorale in chorales():
        parts.get(chorale.family % 10, parts[-1]).append(chorale)
    return Split(tuple(parts[-1]), tuple(parts[validation]), tuple(parts[test]))


def transposed(grid: Grid, semitones: int) -> Grid:
    """A grid some semitones higher; rests stay. Raises InputError if a pitch leaves C2 to A5."""
    grid = checked(grid)
    semitones = integer("semitones", semitones, minimum=LOWEST - HIGHEST, maximum=HIGHEST - LOWEST)
    return checked(np.where(grid == REST, REST, grid + semitones))


# --- as ids ---------------------------------------------------------------------------------------


def encode(grid: Grid) -> ArrayN:
    """Grid (4, T) -> ids (4·T,), column by column. END is put in by the caller."""
    grid = checked(grid)
    return np.where(grid == REST, REST, grid - LOWEST + 1).T.ravel()


def decode(ids: Iterable[int]) -> Grid:
    """Ids -> grid, up to the first END; voices that are missing in the last column rest.

    Raises InputError for a wrong id.
    """
    numbers = [integer("ids", number, minimum=0, maximum=END) for number in ids]
    numbers = numbers[: numbers.index(END)] if END in numbers else numbers
    columns = np.array(numbers + [REST] * (-len(numbers) % 4), np.int64).reshape(-1, 4)
    return np.where(columns == REST, REST, columns + LOWEST - 1).T


# --- as text --------------------------------------------------------------------------------------


def to_text(grid: Grid) -> str:
    """A line per column: four notes such as C#5 (A4 is 440 Hz), "-" for a rest."""
    lines = (" ".join(map(note_name, column)) for column in checked(grid).T.tolist())
    return "".join(f"{line}\n" for line in lines)


def from_text(text: str) -> Grid:
    """The grid of `to_text`. Raises InputError that names the line."""
    if not isinstance(text, str):
        raise InputError(f"text: wanted lines of four notes, got {checks.text(text)}")
    columns = []
    for i, line in enumerate(text.splitlines(), start=1):
        notes = line.split()
        if len(notes) != 4:
            raise InputError(f"text, line {i}: wanted four notes, got {checks.text(line)}")
        columns.append([midi_number(f"text, line {i}", note) for note in notes])
    return checked(np.array(columns, np.int64).reshape(-1, 4).T)


def note_name(number: int) -> str:
    """60 -> "C4", 0 -> "-"."""
    return "-" if number == REST else f"{NAMES[number % 12]}{number // 12 - 1}"


def midi_number(name: str, note: str) -> int:
    """ "C4" -> 60, "-" -> 0. Raises InputError, with `name` in it, for what is no note."""
    if note == "-":
        return REST
    parts = re.fullmatch(r"([A-G]#?)([0-9])", note)
    if not parts or parts[1] not in NAMES:
        raise InputError(f"{name}: wanted a note such as C#5, or -, got {checks.text(note)}")
    return NAMES.index(parts[1]) + 12 * (int(parts[2]) + 1)


def checked(grid: Any) -> Grid:
    """`grid` as int64. Raises InputError unless it is (4, T) with rests and pitches of C2 to A5."""
    grid = checks.array("grid", grid, (4, "T"), kind="i")
    outside = grid[(grid != REST) & ((grid < LOWEST) | (grid > HIGHEST))]
    if outside.size:
        wanted = f"pitches from {LOWEST} to {HIGHEST}, or 0 for a rest"
        raise InputError(f"grid: wanted {wanted}; got {outside[0]}")
    return grid
