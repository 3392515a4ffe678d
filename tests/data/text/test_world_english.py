"""The World English Bible: beside the verses of the King James Bible; made from its table."""

import csv
import gzip
import lzma
import re

import pytest

from moe_np.base.checks import InputError
from moe_np.data.text import bible, make_world_english, world_english


def test_every_verse_has_its_paraphrase():
    known = world_english.texts()
    verses = bible.of_books(world_english.BOOKS)
    assert list(known) == [verse[:3] for verse in verses]
    assert [key for key, text in known.items() if not text] == [
        ("Rom", 16, n) for n in (25, 26, 27)
    ]
    assert known["Ruth", 2, 1].startswith("Naomi had a kinsman of her husband's")
    assert not [text for text in known.values() if re.search(r"[{}<>]|  |^ | $", text)]
    sizes = [bible.FILE.stat().st_size, world_english.FILE.stat().st_size]
    assert sum(sizes) < 2_000_000


def test_old_and_modern_share_names():
    """A verse shifted by one would share hardly more than its smallest words."""
    verses = bible.of_books(["Gen"])
    pairs = list(zip(verses, world_english.modern(verses), strict=True))
    same, shifted = (
        sum(len(names(a.english) & names(b.english)) for a, b in chosen)
        for chosen in (pairs, zip(verses, world_english.modern(verses)[1:], strict=False))
    )
    assert same > 1.5 * shifted


def names(text):
    return set(re.findall(r"(?<=[a-z] )[A-Z]\w+", text))


def test_modern_verses_keep_all_but_their_english():
    verses = bible.of_books(["Rom"])
    modern = world_english.modern(verses)
    assert len(modern) == len(verses) - 3
    assert [v._replace(english="") for v in modern[:9]] == [
        v._replace(english="") for v in verses[:9]
    ]
    with pytest.raises(InputError, match=r"verses: wanted verses of Gen, .*got \('Exod', 1, 1\)"):
        world_english.modern(bible.of_books(["Exod"]))


@pytest.fixture
def other_file(tmp_path, monkeypatch):
    monkeypatch.setattr(world_english, "FILE", tmp_path / "other.xz")
    world_english.texts.cache_clear()
    yield tmp_path / "other.xz"
    world_english.texts.cache_clear()


def test_a_damaged_file_is_refused(other_file):
    with pytest.raises(InputError, match=r"other\.xz: wanted eight books"):
        world_english.texts()
    other_file.write_bytes(lzma.compress(b"In the beginning\n"))
    with pytest.raises(InputError, match=r"other\.xz: wanted the text with the SHA-256"):
        world_english.texts()


def test_the_file_is_made_from_the_table(tmp_path, monkeypatch):
    table = tmp_path / "table.csv.gz"
    with gzip.open(table, "wt", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["field"] * 5)
        for number, verse in enumerate(bible.of_books(["Ruth"])):
            text = f"verse {number}{{a note}} of  Ruth"
            rows.writerow(["", 1 + bible.BOOKS.index("Ruth"), verse.chapter, verse.number, text])
    monkeypatch.setattr(make_world_english, "BOOKS", ("Ruth",))
    target = tmp_path / "made.xz"
    assert make_world_english.main([str(table), str(target)]) == 0
    lines = lzma.decompress(target.read_bytes()).decode().splitlines()
    assert lines[:2] == ["verse 0 of Ruth", "verse 1 of Ruth"]
    assert len(lines) == 85
    assert make_world_english.main([]) == 2
