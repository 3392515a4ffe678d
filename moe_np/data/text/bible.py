"""Two Bibles, verse beside verse: the King James Bible and the Reina-Valera of 1909.

4.1 million characters of English and 3.9 million of Spanish in 31,102 pairs of verses, both in the
public domain: text for language models, and parallel text for translation. `make_bible.py` makes
`bible.xz` from two packages of Debian, and says what it repairs. The file has a line per book (its
name, and how many verses each chapter has), then a line per English verse, then a line per Spanish
verse. A few neighbouring verses are divided at another word in Spanish (Judges 14:18 and 19).

Held out are whole books, not random verses. Books tell the same story in the same words (Kings and
Chronicles, the first three Gospels, Isaiah 36 to 39 and 2 Kings 18 to 20), so a random verse often
stands in the training set too: of all sequences of eight words of 2 Kings, 14 % occur in another
book, of Matthew 9 %. The held-out books were chosen because they share few (at most 0.8 %), and
because they are of three kinds, a narrative, poetry or wisdom, and a letter:

    VALIDATION    Esther, Ecclesiastes, Romans                              2.6 % of the words
    TEST          Ruth, Song of Solomon, Lamentations, 1 Corinthians        2.3 %
"""

import pathlib
from collections.abc import Collection, Iterable
from functools import cache
from typing import NamedTuple

from moe_np.base.checks import InputError, choice, text
from moe_np.data import shipped_text

FILE = pathlib.Path(__file__).with_name("bible.xz")
# of the text, not of its compressed form
SHA256 = "fa38f699a967e0da68a7f7a2a8a683ed5022fbd56739794bac3f9099c95ae411"

BOOKS = (  # in the order of the Bible
    *("Gen", "Exod", "Lev", "Num", "Deut", "Josh", "Judg", "Ruth", "1Sam", "2Sam", "1Kgs", "2Kgs"),
    *("1Chr", "2Chr", "Ezra", "Neh", "Esth", "Job", "Ps", "Prov", "Eccl", "Song", "Isa", "Jer"),
    *("Lam", "Ezek", "Dan", "Hos", "Joel", "Amos", "Obad", "Jonah", "Mic", "Nah", "Hab", "Zeph"),
    *("Hag", "Zech", "Mal", "Matt", "Mark", "Luke", "John", "Acts", "Rom", "1Cor", "2Cor", "Gal"),
    *("Eph", "Phil", "Col", "1Thess", "2Thess", "1Tim", "2Tim", "Titus", "Phlm", "Heb", "Jas"),
    *("1Pet", "2Pet", "1John", "2John", "3John", "Jude", "Rev"),
)
LANGUAGES = ("english", "spanish")
VALIDATION = ("Esth", "Eccl", "Rom")
TEST = ("Ruth", "Song", "Lam", "1Cor")


class Verse(NamedTuple):
    """A verse in both languages."""

    book: str  # one of BOOKS
    chapter: int  # from 1
    number: int  # from 1
    english: str
    spanish: str


class Split(NamedTuple):
    """Verses for training, for choices (when to stop, which rate), and for the final number."""

    train: tuple[Verse, ...]
    validation: tuple[Verse, ...]
    test: tuple[Verse, ...]


@cache
def verses() -> tuple[Verse, ...]:
    """All 31,102 verses in their order.

    Raises InputError for a file that is missing, damaged or changed.
    """
    lines = shipped_text.read(FILE, SHA256, "two Bibles").splitlines()
    references = [
        (book, chapter, number)
        for book, *counts in map(str.split, lines[: len(BOOKS)])
        for chapter, count in enumerate(counts, start=1)
        for number in range(1, int(count) + 1)
    ]
    english = lines[len(BOOKS) :][: len(references)]
    spanish = lines[len(BOOKS) + len(references) :]
    rows = zip(references, english, spanish, strict=True)
    return tuple(Verse(*reference, *languages) for reference, *languages in rows)


def split(*, validation: Collection[str] = VALIDATION, test: Collection[str] = TEST) -> Split:
    """Training, validation and test set: the books named, and all others for training.

    Raises InputError for an unknown book, and for a book that is named in both.
    """
    validation = books("validation", validation)
    test = books("test", test)
    if both := validation & test:
        raise InputError(f"test: wanted other books than validation, got {', '.join(sorted(both))}")
    train = frozenset(BOOKS) - validation - test
    return Split(*(of_books(names) for names in (train, validation, test)))


def of_books(names: Collection[str]) -> tuple[Verse, ...]:
    """The verses of some books, in the order of the Bible. Raises InputError for an unknown one."""
    names = books("names", names)
    return tuple(verse for verse in verses() if verse.book in names)


def books(name: str, value: Collection[str]) -> frozenset[str]:
    """`value` as a set of books. Raises InputError that names the argument for an unknown one."""
    if isinstance(value, str) or not isinstance(value, Collection):
        raise InputError(f"{name}: wanted a list of books, got {text(value)}")
    return frozenset(choice(name, book, BOOKS) for book in value)


def running_text(selected: Iterable[Verse], language: str = "english") -> str:
    """The verses as one text: a line per verse, and an empty line before every chapter but the
    first. Raises InputError for an unknown language.
    """
    choice("language", language, LANGUAGES)
    lines: list[str] = []
    for verse in selected:
        if verse.number == 1 and lines:
            lines.append("")
        lines.append(getattr(verse, language))
    return "".join(f"{line}\n" for line in lines)


def pairs(selected: Iterable[Verse]) -> list[tuple[str, str]]:
    """(English, Spanish) of each verse, for translation."""
    return [(verse.english, verse.spanish) for verse in selected]
