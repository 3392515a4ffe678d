"""A grid of pitches as a MIDI file, to listen to it.

MIDI Manufacturers Association 1996, Standard MIDI files 1.0: a chunk "MThd" with format, number of
tracks and ticks per quarter note, then a chunk "MTrk" per track with events, each after a number of
ticks.
"""

import itertools
import os
import pathlib
import struct

from moe_np.base.checks import number
from moe_np.data.music.chorales import REST, Grid, checked

TICKS = 2  # per quarter note: one per eighth note
VELOCITY = 80
NOTE_ON = 0x90
NOTE_OFF = 0x80


def midi_bytes(grid: Grid, *, tempo: float = 80.0) -> bytes:
    """The file: a track with the tempo (quarter notes per minute), and a track per voice.

    Equal pitches that follow each other are one long note. Raises InputError for a grid that is
    none, and for a tempo outside 4 to 1000.
    """
    grid = checked(grid)
    microseconds = round(60e6 / number("tempo", tempo, minimum=4, maximum=1000))
    tracks = [b"\x00\xff\x51\x03" + microseconds.to_bytes(3, "big")]
    tracks += [voice_events(row.tolist(), channel) for channel, row in enumerate(grid)]
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, len(tracks), TICKS)
    return header + b"".join(map(track_chunk, tracks))


def save(path: str | os.PathLike, grid: Grid, *, tempo: float = 80.0) -> None:
    """Write a grid as a MIDI file. Raises OSError, and InputError as `midi_bytes` does."""
    pathlib.Path(path).write_bytes(midi_bytes(grid, tempo=tempo))


def voice_events(pitches: list[int], channel: int) -> bytes:
    """The notes of one voice: on and off, each after the ticks since the event before."""
    events = b""
    silence = 0
    for pitch, group in itertools.groupby(pitches):
        ticks = len(list(group))
        if pitch == REST:
            silence += ticks
            continue
        events += ticks_bytes(silence) + bytes([NOTE_ON | channel, pitch, VELOCITY])
        events += ticks_bytes(ticks) + bytes([NOTE_OFF | channel, pitch, 0])
        silence = 0
    return events


def track_chunk(events: bytes) -> bytes:
    """A track: its length, its events, and the event of its end."""
    events += b"\x00\xff\x2f\x00"
    return struct.pack(">4sI", b"MTrk", len(events)) + events


def ticks_bytes(ticks: int) -> bytes:
    """A number of variable length: seven bits per byte, the high bit set on all but the last."""
    digits = [ticks & 0x7F]
    while ticks := ticks >> 7:
        digits.append(0x80 | ticks & 0x7F)
    return bytes(reversed(digits))
