"""Make chorales.xz from the scores that the package music21 carries.

    pip download --no-deps music21==10.5.1
    python -m moe_np.data.music.make_chorales music21-10.5.1-py3-none-any.whl chorales.xz

The wheel has 408 scores in `music21/corpus/bach` as compressed MusicXML. music21 itself is not
used: a score is a zip file with an XML file in it. From it come only the pitches and when they
sound, facts of works that are in the public domain; no engraving, no text, no analysis. (The
wheel's licence for the corpus: the encodings are distributed with the permission of the encoders,
and some may not be used commercially; none of the Bach scores has an entry of rights.)

A score is taken if it has four parts and is shorter than 500 quarter notes: 364 of them.
"""

import io
import itertools
import lzma
import math
import pathlib
import re
import sys
import zipfile
from collections.abc import Sequence
from xml.etree import ElementTree

FOLDER = "music21/corpus/bach/"
SEMITONE = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
STEP = 0.5  # quarter notes
LONGEST = 500  # quarter notes
FAMILY_LENGTH = 14  # intervals that two melodies of a family share

Voice = dict[int, int]  # {step: MIDI number}


def scores(wheel: pathlib.Path) -> dict[str, ElementTree.Element]:
    """{catalogue number: score} of all compressed scores, in the order of the numbers."""
    roots = {}
    with zipfile.ZipFile(wheel) as archive:
        for path in archive.namelist():
            if path.startswith(FOLDER) and path.endswith(".mxl"):
                name = path.removeprefix(FOLDER).removesuffix(".mxl")
                with zipfile.ZipFile(io.BytesIO(archive.read(path))) as inner:
                    (score,) = (
                        n for n in inner.namelist() if re.fullmatch(r"[^/]*\.(music)?xml", n)
                    )
                    roots[name] = ElementTree.fromstring(inner.read(score))
    return dict(sorted(roots.items(), key=lambda item: by_number(item[0])))


def by_number(name: str) -> list[tuple[int, str]]:
    """A key that puts bwv2.6 before bwv10.7."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def voice(part: ElementTree.Element) -> tuple[float, Voice]:
    """(length in quarter notes, {step: pitch that sounds at its beginning}) of one part."""
    sounding: Voice = {}
    divisions = 1  # per quarter note
    start = 0.0
    for measure in part.iter("measure"):
        now = start
        end = start
        for element in measure:
            divisions = int(element.findtext("divisions", str(divisions)))
            duration = float(element.findtext("duration", "0")) / divisions
            if element.tag == "backup":
                now -= duration
            elif element.tag == "forward":
                now += duration
            elif element.tag == "note" and not is_ornament(element):
                sound(sounding, element.find("pitch"), now, now + duration)
                now += duration
            end = max(end, now)
        start = end
    return start, sounding


def is_ornament(note: ElementTree.Element) -> bool:
    """Whether a note takes no time: a grace note, or a further note of a chord."""
    return note.find("grace") is not None or note.find("chord") is not None


def sound(sounding: Voice, pitch: ElementTree.Element | None, start: float, end: float) -> None:
    """Write a note into `sounding`, at each step whose beginning lies in it. No pitch: a rest."""
    if pitch is not None:
        octave = int(pitch.findtext("octave", ""))
        alter = round(float(pitch.findtext("alter", "0")))
        number = 12 * (octave + 1) + SEMITONE[pitch.findtext("step", "")] + alter
        for step in range(first_step(start), first_step(end)):
            sounding[step] = number


def first_step(time: float) -> int:
    """The first step that begins at `time` or later; what rounding may have added is ignored."""
    return math.ceil(time / STEP - 1e-6)


def grid(score: ElementTree.Element) -> list[list[int]] | None:
    """Soprano, alto, tenor, bass, a pitch per step, 0 for a rest. None for other scores."""
    voices = [voice(part) for part in score.findall("part")]
    length = max((length for length, _ in voices), default=0)
    if len(voices) != 4 or length >= LONGEST:
        return None
    steps = range(round(length / STEP))
    return [[sounding.get(step, 0) for step in steps] for _, sounding in voices]


def families(melodies: Sequence[Sequence[int]]) -> list[int]:
    """A number per melody: the same for two that share 14 successive intervals, in any key.

    Bach set many a melody several times. A family is connected: a melody that shares intervals with
    two families joins them. Rests and repeated notes are left out.
    """
    leader = list(range(len(melodies)))

    def first_of(i):
        while leader[i] != i:
            i = leader[i]
        return i

    seen: dict[tuple[int, ...], int] = {}
    for i, melody in enumerate(melodies):
        notes = [pitch for pitch, _ in itertools.groupby(pitch for pitch in melody if pitch)]
        intervals = [after - before for before, after in itertools.pairwise(notes)]
        for j in range(len(intervals) - FAMILY_LENGTH + 1):
            k = first_of(seen.setdefault(tuple(intervals[j : j + FAMILY_LENGTH]), i))
            first, second = sorted((k, first_of(i)))
            leader[second] = first
    numbers: dict[int, int] = {}
    return [numbers.setdefault(first_of(i), len(numbers)) for i in range(len(melodies))]


def text_file(grids: dict[str, list[list[int]]]) -> str:
    """The text of chorales.xz: per chorale a line with name and family, and four lines of pitches,
    two hexadecimal digits per step.
    """
    lines: list[str] = []
    melodies = [voices[0] for voices in grids.values()]
    for (name, voices), family in zip(grids.items(), families(melodies), strict=True):
        lines += [f"{name} {family}", *(bytes(pitches).hex() for pitches in voices)]
    return "\n".join(lines) + "\n"


def chorales_text(wheel: pathlib.Path) -> str:
    """The text of chorales.xz from the wheel of music21."""
    grids = {name: grid(score) for name, score in scores(wheel).items()}
    return text_file({name: voices for name, voices in grids.items() if voices is not None})


def main(arguments: Sequence[str]) -> int:
    """Write the file that the last argument names; return an exit status."""
    if len(arguments) != 2:
        wanted = "MUSIC21_WHEEL FILE.xz"
        print(f"usage: python -m moe_np.data.music.make_chorales {wanted}", file=sys.stderr)
        return 2
    wheel, target = map(pathlib.Path, arguments)
    text = chorales_text(wheel)
    target.write_bytes(lzma.compress(text.encode("ascii"), preset=9 | lzma.PRESET_EXTREME))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
