"""Make peterson_barney.csv from the table that Praat carries.

    pip install praat-parselmouth
    python -m moe_np.data.speech.make_peterson_barney peterson_barney.csv

Parselmouth is Praat as a Python package (P. Boersma and D. Weenink, Praat: doing phonetics by
computer; Y. Jadoul, B. Thompson and B. de Boer 2018, Introducing Parselmouth, Journal of Phonetics
71:1-15). The frequencies are copied without a change. The form is changed (women "f" instead of
"w", upper-case ARPAbet), and so are the IPA signs, which Praat writes as backslash codes; the word
and the repetition are added.
"""

import csv
import io
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Sequence

from moe_np.data.speech.vowels import VOWELS, VowelTable


def praat_rows() -> list[dict[str, str]]:
    """The rows of Praat's table: Type, Sex, Speaker, Vowel, IPA, F0, F1, F2, F3, all as text."""
    from parselmouth.praat import call

    table = call("Create formant table (Peterson & Barney 1952)")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "table.csv")
        call(table, "Save as comma-separated file...", str(path))
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def csv_text(rows: Iterable[dict[str, str]]) -> str:
    """The text of peterson_barney.csv. Two rows that follow each other are the two repetitions."""
    lines = [",".join(VowelTable._fields)]
    for i, row in enumerate(rows):
        vowel = row["Vowel"].upper()
        ipa, word = VOWELS[vowel]
        speaker_type = {"w": "f"}.get(row["Type"], row["Type"])
        cells = [row["Speaker"], speaker_type, row["Sex"], vowel, ipa, word, str(i % 2 + 1)]
        lines.append(",".join(cells + [row[f] for f in ("F0", "F1", "F2", "F3")]))
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the table to the file that `arguments` names; return an exit status."""
    if len(arguments) != 1:
        print("usage: python -m moe_np.data.speech.make_peterson_barney FILE.csv", file=sys.stderr)
        return 2
    try:
        rows = praat_rows()
    except ModuleNotFoundError:
        print("praat-parselmouth is not installed: pip install praat-parselmouth", file=sys.stderr)
        return 1
    pathlib.Path(arguments[0]).write_text(csv_text(rows), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
