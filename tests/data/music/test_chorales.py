"""The chorales: complete, held out by families, and exact as ids and as text."""

import lzma
import os
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from moe_np.base.checks import InputError
from moe_np.data.music import chorales, make_chorales

GRIDS = arrays.arrays(
    np.int64,
    st.tuples(st.just(4), st.integers(0, 9)),
    elements=st.just(0) | st.integers(chorales.LOWEST, chorales.HIGHEST),
)


@pytest.fixture
def other_file(tmp_path, monkeypatch):
    """Another file in the place of the shipped one: a function of its bytes."""

    def write(content):
        path = tmp_path / "chorales.xz"
        path.write_bytes(content)
        monkeypatch.setattr(chorales, "FILE", path)
        chorales.chorales.cache_clear()

    yield write
    chorales.chorales.cache_clear()


def test_all_chorales_are_there():
    entries = chorales.chorales()
    assert len(entries) == len({entry.name for entry in entries}) == 364
    assert sum(entry.grid.shape[1] for entry in entries) == 39_690
    pitches = np.concatenate([entry.grid.ravel() for entry in entries])
    assert pitches[pitches > 0].min() == 36 and pitches.max() == 81
    mean = [np.mean([e.grid[v][e.grid[v] > 0].mean() for e in entries]) for v in range(4)]
    assert mean == sorted(mean, reverse=True)  # the soprano is the highest voice
    assert not entries[0].grid.flags.writeable


def test_a_chorale_that_one_knows():
    """BWV 66.6 begins in F sharp minor: C#5 B4 | A4 B4 C#5 E5."""
    (entry,) = (entry for entry in chorales.chorales() if entry.name == "bwv66.6")
    soprano = [chorales.note_name(pitch) for pitch in entry.grid[0, :10].tolist()]
    assert soprano == ["C#5", "B4", "A4", "A4", "B4", "B4", "C#5", "C#5", "E5", "E5"]


def test_whole_families_are_held_out():
    parts = chorales.split()
    assert sum(map(len, parts)) == 364 and min(map(len, parts)) > 25
    families = [{entry.family for entry in part} for part in parts]
    assert len(set().union(*families)) == sum(map(len, families)) > 200

    def intervals(part):
        for entry in part:
            notes = entry.grid[0][entry.grid[0] > 0]
            steps = np.diff(notes)
            steps = steps[steps != 0].tolist()
            yield from (tuple(steps[i : i + 14]) for i in range(len(steps) - 13))

    held_out = set(intervals(parts.validation)) | set(intervals(parts.test))
    assert held_out and not held_out & set(intervals(parts.train))


@pytest.mark.seconds
@given(GRIDS)
def test_both_forms_give_the_grid_again(grid):
    ids = chorales.encode(grid)
    assert ids.shape == (grid.size,)
    np.testing.assert_array_equal(chorales.decode(ids), grid)
    np.testing.assert_array_equal(chorales.decode([*ids, chorales.END, 3]), grid)
    np.testing.assert_array_equal(chorales.from_text(chorales.to_text(grid)), grid)


def test_ids_go_column_by_column():
    grid = [[60, 62], [0, 57], [50, 50], [36, 81]]
    assert chorales.encode(grid).tolist() == [25, 0, 15, 1, 27, 22, 15, 46]
    assert chorales.to_text(grid) == "C4 - D3 C2\nD4 A3 D3 A5\n"
    assert chorales.decode([25]).tolist() == [[60], [0], [0], [0]]
    assert chorales.SIZE == 48 and chorales.END == 47


def test_transposed():
    grid = chorales.chorales()[0].grid
    higher = chorales.transposed(grid, 2)
    np.testing.assert_array_equal(higher[grid > 0], grid[grid > 0] + 2)
    np.testing.assert_array_equal(higher[grid == 0], 0)
    np.testing.assert_array_equal(chorales.transposed(higher, -2), grid)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: chorales.split(validation=10), "validation: wanted a whole number"),
        (lambda: chorales.split(test=9), "test: wanted another digit than validation, got 9"),
        (lambda: chorales.encode([[60] * 2] * 3), "grid: wanted shape (4, T)"),
        (lambda: chorales.encode([[35]] * 4), "grid: wanted pitches from 36 to 81"),
        (lambda: chorales.encode([[60.5]] * 4), "grid: wanted integer"),
        (lambda: chorales.transposed([[81]] * 4, 1), "got 82"),
        (lambda: chorales.transposed([[60]] * 4, 0.5), "semitones: wanted a whole number"),
        (lambda: chorales.decode([48]), "ids: wanted a whole number"),
        (lambda: chorales.from_text("C4 C4 C4\n"), "text, line 1: wanted four notes"),
        (lambda: chorales.from_text("C4 C4 C4 C4\nC4 E# - -"), "text, line 2: wanted a note"),
        (lambda: chorales.from_text("C4 C4 C4 C1"), "grid: wanted pitches"),
        (lambda: chorales.from_text(b"C4"), "text: wanted lines of four notes"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize("cut", [0, 1000, -7])
def test_a_damaged_file_is_refused(other_file, cut):
    other_file(chorales.FILE.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"chorales\.xz: wanted "):
        chorales.chorales()


def test_a_changed_file_is_refused(other_file):
    text = lzma.decompress(chorales.FILE.read_bytes())
    other_file(lzma.compress(text.replace(b"4a", b"4b", 1)))
    with pytest.raises(InputError, match="SHA-256"):
        chorales.chorales()


# --- the script -----------------------------------------------------------------------------------


def test_families_do_not_depend_on_the_key():
    melody = [60, 60, 62, 0, 64, 65, 67, 69, 67, 65, 64, 62, 60, 64, 67, 72, 71, 72]
    higher = [pitch + 5 if pitch else 0 for pitch in melody]
    assert make_chorales.families([melody, melody[:9] + melody[:9], higher]) == [0, 1, 0]


def test_the_script_makes_the_shipped_text():
    """Where MOE_NP_MUSIC21 names the wheel."""
    wheel = os.environ.get("MOE_NP_MUSIC21")
    if not wheel:
        pytest.skip("MOE_NP_MUSIC21 is not set")
    text = make_chorales.chorales_text(pathlib.Path(wheel))
    assert text.encode() == lzma.decompress(chorales.FILE.read_bytes())


def test_usage(capsys):
    assert make_chorales.main([]) == 2
    assert "usage" in capsys.readouterr().err
