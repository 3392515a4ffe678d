"""Eight books of the World English Bible, beside the King James Bible: a paraphrase of each verse.

Two English translations of the same verses, old and modern: .39 million characters in the public
domain. `make_world_english.py` makes `world_english.xz`, a line per verse. The books are those that
`moe_np.data.text.bible` holds out, and Genesis to train on.
"""

import pathlib
from collections.abc import Iterable
from functools import cache

from moe_np.base.checks import InputError
from moe_np.data import shipped_text
from moe_np.data.text import bible
from moe_np.data.text.bible import Verse

FILE = pathlib.Path(__file__).with_name("world_english.xz")
# of the text, not of its compressed form
SHA256 = "13bfcbc1b7a9eee030e06f02c75534a8d8b56a3826b49907f68a9153830f7839"
BOOKS = ("Gen", *bible.VALIDATION, *bible.TEST)


@cache
def texts() -> dict[tuple[str, int, int], str]:
    """{(book, chapter, verse): its modern text}; Romans 16:25 to 27 are empty.

    Raises InputError for a file that is missing, damaged or changed.
    """
    references = [verse[:3] for verse in bible.of_books(BOOKS)]
    lines = shipped_text.read(FILE, SHA256, "eight books").splitlines()
    return dict(zip(references, lines, strict=True))


def modern(verses: Iterable[Verse]) -> tuple[Verse, ...]:
    """The same verses with the modern text as `english`; verses without one are left out.

    Raises InputError for a verse of another book than BOOKS.
    """
    verses = tuple(verses)
    known = texts()
    for verse in verses:
        if verse[:3] not in known:
            raise InputError(f"verses: wanted verses of {', '.join(BOOKS)}; got {verse[:3]}")
    return tuple(verse._replace(english=known[verse[:3]]) for verse in verses if known[verse[:3]])
