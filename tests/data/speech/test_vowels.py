"""The vowel table and the task of 1991: a damaged table is refused, splits keep speakers apart."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.data import peterson_barney, vowel_task
from moe_np.data.speech.vowels import FILE, FOUR


def test_the_table_is_complete():
    table = peterson_barney()
    assert all(column.shape == (1520,) for column in table)
    speakers, count = np.unique(table.speaker, return_counts=True)
    assert list(speakers) == list(range(1, 77)) and (count == 20).all()
    men, women, children = (len(np.unique(table.speaker[table.type == t])) for t in "mfc")
    assert (men, women, children) == (33, 28, 15)
    assert table.F1.dtype == np.float64
    # their table II has these means for men who say heed: 136, 270, 2290 Hz
    men_heed = (table.type == "m") & (table.word == "heed")
    means = [getattr(table, f)[men_heed].mean() for f in ("F0", "F1", "F2")]
    np.testing.assert_allclose(means, [136, 270, 2290], rtol=0.02)


def corrupted(tmp_path, change):
    lines = FILE.read_text(encoding="utf-8").splitlines()
    change(lines)
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def replaced(row, old, new):
    """A change of the table: in one row a text for another."""
    return lambda t: t.__setitem__(row, t[row].replace(old, new))


def with_row(row, text):
    """A change of the table: one row in full."""
    return lambda t: t.__setitem__(row, text)


CORRUPTIONS = {
    "line 1: wanted the columns": replaced(0, "F1", "Fone"),
    "line 3: F1: wanted 150 to 1500 Hz, got '2800'": replaced(2, ",280,", ",2800,"),
    "line 3: F1: wanted 150 to 1500 Hz, got 'x'": replaced(2, ",280,", ",x,"),
    "line 3: F1: wanted 150 to 1500 Hz, got 'nan'": replaced(2, ",280,", ",nan,"),
    "line 3: wanted 11 cells, got 10": lambda t: t.__setitem__(2, t[2].rpartition(",")[0]),
    "line 3: wanted 11 cells, got 0": with_row(2, ""),
    "line 9: arpabet: wanted AE, got 'IH'": replaced(8, "AE", "IH"),
    "line 9: sex: wanted m, got 'f'": replaced(8, ",m,m,", ",m,f,"),
    "line 9: repetition: wanted 2, got": lambda t: t.__setitem__(8, t[7]),
    "line 9: wanted F0 ≤ F1 ≤ F2 ≤ F3": with_row(8, "1,m,m,AE,æ,had,2,180,630,2600,2550"),
    "line 1201: speaker: wanted 60, got '61'": replaced(1200, "60,", "61,"),
    "wanted 1520 rows after the heading, got 1519": lambda t: t.pop(),
}


@pytest.mark.parametrize("message", CORRUPTIONS)
def test_a_corrupted_table_is_refused_with_its_line(tmp_path, message):
    path = corrupted(tmp_path, CORRUPTIONS[message])
    with pytest.raises(InputError) as caught:
        peterson_barney(path)
    text = str(caught.value)
    assert message in text and str(path) in text and "\n" not in text


def test_other_line_ends_are_read(tmp_path):
    path = tmp_path / "crlf.csv"
    path.write_bytes(FILE.read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(peterson_barney(path).F2, peterson_barney().F2)


def test_a_changed_number_in_the_shipped_table_is_refused(tmp_path, monkeypatch):
    path = corrupted(tmp_path, lambda t: t.__setitem__(2, t[2].replace(",280,", ",281,")))
    assert peterson_barney(path).F1[1] == 281  # another copy may differ
    monkeypatch.setattr("moe_np.data.speech.vowels.FILE", path)
    with pytest.raises(InputError, match="SHA-256"):
        peterson_barney()


@pytest.mark.parametrize("case", ["missing", "folder", "binary"])
def test_not_a_table(tmp_path, case):
    path = tmp_path if case == "folder" else tmp_path / "table.csv"
    if case == "binary":
        path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="wanted the Peterson and Barney table"):
        peterson_barney(path)


def test_the_task_of_1991():
    table = peterson_barney()
    task = vowel_task()
    assert task.x_train.shape == (400, 2) and task.d_train.shape == (400, 1)
    assert task.x_test.shape == (200, 2)
    assert (np.bincount(task.vowel_train) == 100).all()
    assert (np.bincount(task.vowel_test) == 50).all()
    wanted = np.isin(np.array(FOUR)[task.vowel_train], ["IY", "AH"])
    np.testing.assert_array_equal(task.d_train[:, 0], wanted)
    first = (table.speaker == 2) & (table.arpabet == "IY")
    np.testing.assert_array_equal(task.x_train[:2], np.stack([table.F1, table.F2], 1)[first] / 1000)
    np.testing.assert_array_equal(vowel_task(coding="one-hot").d_test.argmax(1), task.vowel_test)


def test_splits_keep_speakers_apart():
    task, different, same = (vowel_task(split="random", seed=s, drop=5) for s in (1, 2, 1))
    assert len(task.x_train) == 400 and (task.x_train != different.x_train).any()
    np.testing.assert_array_equal(task.x_train, same.x_train)

    def rows(task):
        return sorted(map(tuple, np.concatenate([task.x_train, task.x_test])))

    assert rows(task) == rows(vowel_task(drop=5))


@pytest.mark.parametrize(
    "bad", [{"coding": "two-hot"}, {"split": "odd"}, {"drop": 0}, {"drop": 77}, {"drop": 1.5}]
)
def test_bad_arguments(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        vowel_task(**bad)


def test_the_script_makes_the_shipped_table():
    pytest.importorskip("parselmouth")
    from moe_np.data.speech.make_peterson_barney import csv_text, praat_rows

    assert csv_text(praat_rows()).encode() == FILE.read_bytes().replace(b"\r\n", b"\n")
