"""CSV files that spreadsheets and learning platforms write and read.

A table keeps its separator and its byte order mark, so that the program that wrote it can read
what is written back. What is not understood is an error: nobody's work is passed over.
"""

import csv
import io
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from moe_np.base.checks import InputError
from moe_np.base.files import write_atomically

SEPARATORS = (",", ";", "\t", "|")
# where a program with any separator would begin a cell, before what makes it a formula
FORMULA = re.compile(r"(^(?=[\t\r])|(?:^|[;,\t\r\n|])(?=[ \"]*[=+\-@]))")


class Table(NamedTuple):
    """A CSV file: its columns, and each row as {column: text}."""

    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    separator: str = ","
    mark: str = ""  # the byte order mark, which Excel needs to read UTF-8


def cell(text: str) -> str:
    """A text as a spreadsheet may safely show it: no part of it becomes a formula."""
    return FORMULA.sub(r"\1'", text)


def read(path: pathlib.Path, wanted: Sequence[str]) -> Table:
    """The Table of a file, whatever separator and encoding a spreadsheet chose.

    wanted   columns that it must have

    Raises InputError for a file that cannot be read or understood, FileNotFoundError if there is
    none.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path}: wanted a CSV file, got {error.strerror}") from None
    text = _decode(path, raw)
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    lines = text.removeprefix("\ufeff")
    named = re.match(r"sep=(.)\r?\n", lines)  # a line that Excel understands
    lines = lines[named.end() :] if named else lines
    for separator in SEPARATORS:
        rows = _parse(path, lines, separator)
        columns = [name.strip() for name in rows[0]] if rows else []
        if set(wanted) <= set(columns):
            return Table(tuple(columns), _as_dicts(path, columns, rows[1:]), separator, mark)
    first = lines.splitlines()[0][:80] if lines.strip() else ""
    names = ", ".join(wanted)
    raise InputError(f"{path}: wanted a CSV file with the columns {names}, got {first!r}")


def _decode(path, raw):
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = raw.decode("utf-16", "replace")
        return "\ufeff" + text  # it is written back as UTF-8
    if b"\0" in raw:
        raise InputError(f"{path}: wanted a CSV file in UTF-8, got zero bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")  # every byte is a character of it


def _parse(path, text, separator):
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise InputError(f"{path}: wanted a CSV file, got {error}") from None


def _as_dicts(path, columns, rows):
    if len(set(columns)) < len(columns):
        raise InputError(f"{path}: wanted different columns, got {', '.join(columns)}")
    dicts = []
    for number, row in enumerate(rows, start=2):
        if not any(text.strip() for text in row):
            continue
        if any(text.strip() for text in row[len(columns) :]):
            raise InputError(
                f"{path}: row {number}: wanted {len(columns)} cells, got {len(row)}: "
                f"{', '.join(row)[:80]!r}"
            )
        row = [*row, *[""] * len(columns)][: len(columns)]
        dicts.append(dict(zip(columns, row, strict=True)))
    return dicts


def text_of(table: Table) -> str:
    """The text of the table's file."""
    rows = ([row.get(column, "") for column in table.columns] for row in table.rows)
    return table.mark + text_of_rows([table.columns, *rows], table.separator)


def text_of_rows(rows: Iterable[Sequence[str]], separator: str = ",") -> str:
    """The text of a CSV file of these rows."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", delimiter=separator).writerows(rows)
    return text.getvalue()


def write(path: pathlib.Path, table: Table) -> None:
    """Write the table's file."""
    write_atomically(path, text_of(table))
