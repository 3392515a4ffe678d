"""Make bible.xz from the SWORD modules that Debian carries.

    apt-get download sword-text-kjv sword-text-sparv
    dpkg-deb -x sword-text-kjv_*.deb modules
    dpkg-deb -x sword-text-sparv_*.deb modules
    cd modules/usr/share/sword/modules/texts/ztext
    python -m moe_np.data.text.make_bible engKJV2006eb spaRV1909eb bible.xz

sword-text-kjv 14.3 is the King James Bible in the text of 1769, sword-text-sparv 2.60 the
Reina-Valera of 1909, both from eBible.org and both in the public domain: "This work is not
copyrighted" (the `copyright` files of the packages; letters patent restrict the printing of the
King James Bible in the United Kingdom).

A module of the format zText has three files per testament:

    .bzv   one record per verse or heading: block, start, size  (uint32, uint32, uint16)
    .bzs   one record per block: start, size compressed, size   (uint32, uint32, uint32)
    .bzz   the blocks, compressed with zlib; a block is a book as OSIS, a dialect of XML

Notes, titles, tags and paragraph signs are removed. Three faults of the modules are repaired:

    27 tags \\nd of another format stand in the English text
    about 590 spaces are missing around words that the Spanish translators added
    the Spanish verses of 14 passages are divided or numbered in another way, and the module has
    each at its number; here they stand beside the English verses that they translate (REALIGNED)
"""

import itertools
import lzma
import pathlib
import re
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Reference = tuple[str, int, int]  # book, chapter, number of the verse

BOOK_HEADING = re.compile(r'<div canonical="true" osisID="(\w+)" sID="\w+" type="book"')
CHAPTER_HEADING = re.compile(r'<chapter n="(\d+)" osisID="[\w.]+" sID=')


class Realigned(NamedTuple):
    """A passage whose Spanish verses are numbered in another way."""

    first: Reference
    last: Reference
    cuts: tuple[str, ...] = ()  # words at which a Spanish verse is divided
    joins: tuple[str, ...] = ()  # first words of a Spanish verse that belongs to the one before


EAGLE_TO_ANSWER = (  # the module adds Job 39:31-38 of the Spanish Bible to verse 30
    *("Ella habita", "Desde allí acecha", "Sus pollos", "A más de eso respondió"),
    *("¿Es sabiduría", "Y respondió Job", "He aquí que yo soy vil", "Una vez hablé"),
)
REALIGNED = (
    Realigned(("Num", 12, 16), ("Num", 13, 33), ("También vimos allí",)),
    Realigned(("Num", 29, 40), ("Num", 30, 16), ("Estas son las ordenanzas",)),
    Realigned(("1Sam", 23, 29), ("1Sam", 24, 22), ("Entonces David juró",)),
    Realigned(("2Sam", 20, 25), ("2Sam", 20, 26), ("é Ira Jaireo",)),
    Realigned(
        ("1Kgs", 22, 43), ("1Kgs", 22, 53), ("Porque sirvió á Baal",), ("Con todo eso los altos",)
    ),
    Realigned(("1Chr", 1, 30), ("1Chr", 1, 32), ("Jetur, Naphis",), ("Los hijos de Jobsán",)),
    Realigned(
        ("1Chr", 21, 15), ("1Chr", 21, 30), ("Mas David no pudo ir",), ("Y dijo al ángel que",)
    ),
    Realigned(("2Chr", 33, 10), ("2Chr", 33, 25), ("por lo cual Jehová trajo",)),
    Realigned(("Job", 35, 15), ("Job", 35, 16), ("por eso Job abrió",)),
    Realigned(("Job", 38, 39), ("Job", 40, 24), EAGLE_TO_ANSWER),
    Realigned(("Hos", 11, 12), ("Hos", 12, 14), ("Enojado ha Ephraim",)),
    Realigned(("Jonah", 1, 17), ("Jonah", 2, 10), ("Y mandó Jehová al pez",)),
    Realigned(("Acts", 19, 40), ("Acts", 19, 41), ("Y habiendo dicho esto",)),
    Realigned(("2Cor", 13, 12), ("2Cor", 13, 14), ("Todos los santos os saludan",)),
)


# --- a SWORD module -------------------------------------------------------------------------------


def entries(folder: pathlib.Path, testament: str) -> Iterator[str]:
    """The verses and headings of a zText module as OSIS. `testament` is "ot" or "nt"."""
    raw = {end: (folder / f"{testament}.{end}").read_bytes() for end in ("bzv", "bzs", "bzz")}
    blocks = []
    for start, size, _ in struct.iter_unpack("<III", raw["bzs"]):
        blocks.append(zlib.decompress(raw["bzz"][start : start + size]) if size else b"")
    for block, start, size in struct.iter_unpack("<IIH", raw["bzv"]):
        yield blocks[block][start : start + size].decode("utf-8") if size else ""


def verses(folder: pathlib.Path) -> dict[Reference, str]:
    """{(book, chapter, verse): its OSIS}. A heading opens every book and every chapter."""
    osis: dict[Reference, str] = {}
    for testament in ("ot", "nt"):
        book = ""
        numbers = None
        for entry in entries(folder, testament):
            if heading := BOOK_HEADING.search(entry):
                book = heading[1]
                numbers = None
            elif heading := CHAPTER_HEADING.search(entry):
                chapter = int(heading[1])
                numbers = itertools.count(1)
            elif numbers is not None:
                osis[book, chapter, next(numbers)] = entry
    return osis


# --- from OSIS to text ----------------------------------------------------------------------------

# words before an added pronoun that are no verbs: the pronoun is a word of the next verb then
NO_VERBS = "y|no|que|os|como|Como|cuánto|ellos|gentes|Jehová|Dios|Josué"
ENCLITIC = re.compile(
    rf"\b(?!(?:{NO_VERBS})<)(\w+)</w><transChange[^>]*>(las?|les?|los?|me|nos|os|te)</transChange>"
)


def plain_text(osis: str) -> str:
    """The words of a verse: no notes, titles, tags or paragraph signs, single spaces."""
    text = re.sub(r"<(note|title)\b.*?</\1>", "", osis, flags=re.DOTALL)
    text = ENCLITIC.sub(r"\1\2</w>", text)  # díjo + le is one word
    text = re.sub(r"</w>(?=<transChange)|</transChange>(?=<w)|</w>(?=<w)", " ", text)
    text = re.sub(r"<[^>]*>", "", text).replace("\\nd ", "").replace("¶", "")
    return " ".join(text.split())


def realigned(texts: dict[Reference, str], passage: Realigned) -> dict[Reference, str]:
    """The Spanish verses of a passage beside the English ones: cut, joined, and numbered anew."""
    references = list(texts)
    start = references.index(passage.first)
    references = references[start : references.index(passage.last) + 1]
    pieces = [texts[reference] for reference in references if texts[reference]]
    for words in passage.cuts:
        (place,) = (i for i, piece in enumerate(pieces) if words in piece)
        before, after = pieces[place].split(words)
        pieces[place : place + 1] = [before.strip(), words + after]
    for words in passage.joins:
        (place,) = (i for i, piece in enumerate(pieces) if piece.startswith(words))
        pieces[place - 1 : place + 1] = [" ".join(pieces[place - 1 : place + 1])]
    return dict(zip(references, pieces, strict=True))


def text_file(english: dict[Reference, str], spanish: dict[Reference, str]) -> str:
    """The text of bible.xz: a line per book, a line per English verse, a line per Spanish verse."""
    if list(english) != list(spanish):
        raise ValueError("the two modules have other verses")
    chapters: dict[str, list[int]] = {}
    for (book, chapter), group in itertools.groupby(english, key=lambda reference: reference[:2]):
        chapters.setdefault(book, []).append(sum(1 for _ in group))
        if len(chapters[book]) != chapter:
            raise ValueError(f"{book}: chapter {chapter} is at another place")
    books = [f"{book} {' '.join(map(str, counts))}" for book, counts in chapters.items()]
    return "\n".join([*books, *english.values(), *spanish.values()]) + "\n"


def compressed(text: str) -> bytes:
    """`text` as an xz file. The filter is one for text: four bits of context, no alignment."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "pb": 0}]
    return lzma.compress(text.encode("utf-8"), filters=filters)


def bible_text(english_folder: pathlib.Path, spanish_folder: pathlib.Path) -> str:
    """The text of bible.xz from the folders of the two modules."""
    english, spanish = (
        {reference: plain_text(osis) for reference, osis in verses(folder).items()}
        for folder in (english_folder, spanish_folder)
    )
    for passage in REALIGNED:
        spanish |= realigned(spanish, passage)
    return text_file(english, spanish)


def main(arguments: Sequence[str]) -> int:
    """Write the file that the last argument names; return an exit status."""
    if len(arguments) != 3:
        wanted = "ENGLISH_FOLDER SPANISH_FOLDER FILE.xz"
        print(f"usage: python -m moe_np.data.text.make_bible {wanted}", file=sys.stderr)
        return 2
    english, spanish, target = map(pathlib.Path, arguments)
    target.write_bytes(compressed(bible_text(english, spanish)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
