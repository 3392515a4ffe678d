"""The Bibles: complete, aligned, held out by whole books; a damaged file is refused."""

import collections
import lzma
import os
import pathlib
import re

import pytest

from moe_np.base.checks import InputError
from moe_np.data.text import bible, make_bible


@pytest.fixture
def other_file(tmp_path, monkeypatch):
    """Another file in the place of the shipped one: a function of its bytes."""

    def write(content):
        path = tmp_path / "bible.xz"
        path.write_bytes(content)
        monkeypatch.setattr(bible, "FILE", path)
        bible.verses.cache_clear()

    yield write
    bible.verses.cache_clear()


def test_all_verses_are_there():
    verses = bible.verses()
    assert len(verses) == 31_102
    assert tuple(dict.fromkeys(verse.book for verse in verses)) == bible.BOOKS
    assert all(verse.english and verse.spanish for verse in verses)
    assert verses[0].english.startswith("In the beginning God created")
    assert verses[0].spanish == "EN el principio crió Dios los cielos y la tierra."
    assert verses[-1][:3] == ("Rev", 22, 21)
    chapters = collections.Counter(verse.book for verse in verses if verse.number == 1)
    assert chapters["Ps"] == 150 and sum(chapters.values()) == 1189


def test_the_file_is_small():
    assert bible.FILE.stat().st_size < 2_000_000


def test_no_marks_of_the_modules_are_left():
    for verse in bible.verses():
        for text in (verse.english, verse.spanish):
            assert not re.search(r"[<>\\¶\n\t]|  |^ | $", text), verse


def test_words_that_were_grown_together_are_apart():
    spanish = {verse[:3]: verse.spanish for verse in bible.verses()}
    assert "su ejército se llamaba Sísara" in spanish["Judg", 4, 2]
    assert "díjole Dios: Pide lo que quisieres que" in spanish["1Kgs", 3, 5]
    assert "Josué los circuncidó" in spanish["Josh", 5, 4]
    assert not [r for r, text in spanish.items() if re.search("[a-záéíóúñ][A-Z]", text)]


@pytest.mark.parametrize(
    ("reference", "english", "spanish"),
    [  # of every passage that is numbered in another way, its last verses
        (("Num", 13, 33), "we saw the giants", "vimos allí gigantes"),
        (("Num", 30, 16), "These are the statutes", "Estas son las ordenanzas"),
        (("1Sam", 24, 22), "David sware", "David juró"),
        (("2Sam", 20, 26), "Ira also the Jairite", "Ira Jaireo"),
        (("1Kgs", 22, 43), "the high places", "los altos"),
        (("1Kgs", 22, 53), "served Baal", "sirvió á Baal"),
        (("1Chr", 1, 31), "Jetur, Naphish", "Jetur, Naphis"),
        (("1Chr", 1, 32), "Jokshan; Sheba", "Jobsán: Seba"),
        (("1Chr", 21, 30), "But David could not", "Mas David no pudo"),
        (("2Chr", 33, 25), "slew all them", "hirió á todos"),
        (("Job", 35, 16), "open his mouth", "abrió su boca"),
        (("Job", 39, 30), "suck up blood", "chupan la sangre"),
        (("Job", 40, 24), "pierceth through snares", "armadijos"),
        (("Hos", 12, 14), "Ephraim provoked", "Enojado ha Ephraim"),
        (("Jonah", 2, 10), "unto the fish", "al pez"),
        (("Acts", 19, 41), "dismissed the assembly", "despidió la concurrencia"),
        (("2Cor", 13, 13), "All the saints", "Todos los santos"),
    ],
)
def test_verses_that_spanish_numbers_otherwise_are_aligned(reference, english, spanish):
    (verse,) = (verse for verse in bible.verses() if verse[:3] == reference)
    assert english in verse.english and spanish in verse.spanish


@pytest.mark.slow
def test_names_stand_in_the_same_verses():
    """A verse that is one off would not have them. Names are written alike in both languages."""
    for name in ("Moab", "Baal", "Abner", "Beth-el", "Pilat", "Jerusalem", "Ephraim", "Job"):
        both = either = 0
        for verse in bible.verses():
            first, second = (
                bool(re.search(rf"\b{name}", t)) for t in (verse.english, verse.spanish)
            )
            both += first and second
            either += first or second
        assert both > 0.93 * either > 40, name


def test_whole_books_are_held_out():
    parts = bible.split()
    names = [{verse.book for verse in part} for part in parts]
    assert names[1:] == [set(bible.VALIDATION), set(bible.TEST)]
    assert set().union(*names) == set(bible.BOOKS) and sum(map(len, names)) == 66
    assert sum(map(len, parts)) == 31_102
    words = [sum(len(verse.english.split()) for verse in part) for part in parts]
    assert words[1] / sum(words) == pytest.approx(0.026, abs=0.001)
    assert words[2] / sum(words) == pytest.approx(0.023, abs=0.001)


@pytest.mark.slow
def test_held_out_books_share_few_sequences_of_eight_words():
    sequences = {}
    for book in bible.BOOKS:
        words = [re.findall(r"\w+", verse.english) for verse in bible.of_books([book])]
        sequences[book] = {tuple(w[i : i + 8]) for w in words for i in range(len(w) - 7)}

    def shared(book):
        rest = set().union(*(sequences[b] for b in bible.BOOKS if b != book))
        return len(sequences[book] & rest) / len(sequences[book])

    assert max(map(shared, bible.VALIDATION + bible.TEST)) < 0.008
    assert shared("2Kgs") > 0.1 and shared("Matt") > 0.08


def test_other_books_can_be_held_out():
    parts = bible.split(validation=["Gen"], test=[])
    assert {verse.book for verse in parts.validation} == {"Gen"} and not parts.test
    assert len(parts.train) == 31_102 - 1533


def test_running_text_and_pairs():
    verses = bible.of_books(["Ruth"])
    lines = bible.running_text(verses, "spanish").split("\n")
    assert lines[:2] == [verses[0].spanish, verses[1].spanish] and lines[-1] == ""
    assert lines.count("") == 3 + 1 and len(lines) == len(verses) + 4
    assert bible.pairs(verses)[5] == (verses[5].english, verses[5].spanish)
    assert bible.running_text([]) == ""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bible.split(validation=["Romans"]), "validation: wanted one of Gen, "),
        (lambda: bible.split(test="Rom"), "test: wanted a list of books, got 'Rom'"),
        (lambda: bible.split(test=None), "test: wanted a list of books, got None"),
        (lambda: bible.split(test=["Rom"]), "test: wanted other books than validation, got Rom"),
        (lambda: bible.of_books([3]), "names: wanted one of Gen"),
        (lambda: bible.running_text([], "latin"), "language: wanted one of english, spanish"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 1000, -7])
def test_a_damaged_file_is_refused(other_file, cut):
    other_file(bible.FILE.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"bible\.xz: wanted "):
        bible.verses()


@pytest.mark.seconds
def test_a_changed_text_is_refused(other_file):
    text = lzma.decompress(bible.FILE.read_bytes())
    other_file(lzma.compress(text.replace(b"beginning", b"end", 1), preset=0))
    with pytest.raises(InputError, match="SHA-256"):
        bible.verses()


def test_a_missing_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(bible, "FILE", tmp_path / "no.xz")
    bible.verses.cache_clear()
    with pytest.raises(InputError, match=r"no\.xz: wanted two Bibles"):
        bible.verses()
    bible.verses.cache_clear()


# --- the script -----------------------------------------------------------------------------------


def test_plain_text():
    osis = (
        '¶ <w lemma="a">God</w><note>n <b>x</b></note> <title>T</title><w>is</w>, the \\nd LORD. '
    )
    assert make_bible.plain_text(osis) == "God is, the LORD."
    added = "<transChange>l{}</transChange>"
    osis = f"<w>y díjo</w>{added.format('e')}<w>Dios</w>: <w>no</w>{added.format('o')}<w>hizo</w>"
    assert make_bible.plain_text(osis) == "y díjole Dios: no lo hizo"


def test_a_passage_is_cut_joined_and_numbered():
    texts = {("A", 1, 1): "a", ("A", 1, 2): "", ("A", 2, 1): "b c", ("A", 2, 2): "d"}
    passage = make_bible.Realigned(("A", 1, 2), ("A", 2, 2), ("c",))
    wanted = {("A", 1, 2): "b", ("A", 2, 1): "c", ("A", 2, 2): "d"}
    assert make_bible.realigned(texts, passage) == wanted
    passage = make_bible.Realigned(("A", 1, 1), ("A", 2, 1), ("c",), ("b",))
    with pytest.raises(ValueError, match="zip"):  # two pieces for three verses
        make_bible.realigned(texts, passage)
    passage = make_bible.Realigned(("A", 2, 1), ("A", 2, 2), ("c",), ("c",))
    assert make_bible.realigned(texts, passage) == {("A", 2, 1): "b c", ("A", 2, 2): "d"}


@pytest.mark.slow
def test_the_script_makes_the_shipped_text():
    """Where MOE_NP_SWORD names the folder with both modules unpacked."""
    folder = os.environ.get("MOE_NP_SWORD")
    if not folder:
        pytest.skip("MOE_NP_SWORD is not set")
    modules = [pathlib.Path(folder, name) for name in ("engKJV2006eb", "spaRV1909eb")]
    text = make_bible.bible_text(*modules)
    assert text.encode() == lzma.decompress(bible.FILE.read_bytes())


def test_usage(capsys):
    assert make_bible.main([]) == 2
    assert "usage" in capsys.readouterr().err
