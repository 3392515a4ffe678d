"""The MIDI file: read back by a small reader, it has the notes of the grid."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_np.base.checks import InputError
from moe_np.data.music import chorales, midi


def read(raw):
    """{channel: [(pitch, first tick, last tick)]}, and the microseconds per quarter note."""
    assert raw[:4] == b"MThd"
    size, form, n_tracks, _ = struct.unpack(">IHHH", raw[4:14])
    assert (size, form) == (6, 1)
    at = 14
    notes = {}
    tempo = None
    for _ in range(n_tracks):
        assert raw[at : at + 4] == b"MTrk"
        end = at + 8 + int.from_bytes(raw[at + 4 : at + 8], "big")
        at += 8
        now = 0
        while at < end:
            ticks = 0
            while True:
                byte = raw[at]
                at += 1
                ticks = ticks << 7 | byte & 0x7F
                if byte < 0x80:
                    break
            now += ticks
            status = raw[at]
            if status == 0xFF:
                if raw[at + 1] == 0x51:
                    tempo = int.from_bytes(raw[at + 3 : at + 6], "big")
                at += 3 + raw[at + 2]
            else:
                row = notes.setdefault(status & 15, [])
                if status & 0xF0 == 0x90:
                    row.append([raw[at + 1], now, None])
                else:
                    assert row[-1][0] == raw[at + 1]
                    row[-1][2] = now
                at += 3
        assert raw[end - 3 : end] == b"\xff\x2f\x00"
    assert at == len(raw)
    return notes, tempo


def test_the_notes_are_those_of_the_grid(tmp_path):
    grid = chorales.chorales()[3].grid
    path = tmp_path / "chorale.mid"
    midi.save(path, grid, tempo=60)
    notes, tempo = read(path.read_bytes())
    assert tempo == 1_000_000
    again = np.zeros_like(grid)
    for voice, row in notes.items():
        for pitch, first, last in row:
            again[voice, first:last] = pitch
    np.testing.assert_array_equal(again, grid)


@given(st.integers(0, 2**28 - 1))
def test_numbers_of_variable_length(ticks):
    raw = midi.ticks_bytes(ticks)
    assert sum((byte & 0x7F) << 7 * i for i, byte in enumerate(reversed(raw))) == ticks
    assert all(byte >= 0x80 for byte in raw[:-1]) and raw[-1] < 0x80


@pytest.mark.parametrize("bad", [{"tempo": 0}, {"tempo": "fast"}, {"grid": [[1]] * 4}])
def test_bad_arguments(bad):
    arguments = {"grid": [[60]] * 4} | bad
    with pytest.raises(InputError, match=next(iter(bad))):
        midi.midi_bytes(arguments.pop("grid"), **arguments)


def test_mido_reads_the_same_notes(tmp_path):
    mido = pytest.importorskip("mido")
    grid = chorales.chorales()[7].grid
    midi.save(tmp_path / "chorale.mid", grid, tempo=60)
    file = mido.MidiFile(tmp_path / "chorale.mid")
    again = np.zeros_like(grid)
    for voice, track in enumerate(file.tracks[1:]):
        now = 0
        for message in track:
            if message.type == "note_off":
                again[voice, now : now + message.time] = message.note
            now += message.time
    assert (again == grid).all() and file.type == 1
    sounding = np.flatnonzero((grid > 0).any(axis=0))[-1] + 1
    assert file.length == pytest.approx(sounding / midi.TICKS)  # seconds, at 60 per minute
