"""Cells and notebooks: py:percent text as cells, cells as a Jupyter notebook, and back.

    # %% [markdown] key=json ...      a cell of text, its lines commented with "# "
    # %% key=json ...                 a cell of code

A value is JSON; keys become the cell's metadata, as in Jupytext. What stands before the first
marker is no cell. Four keys say what a cell is for; `with_roles` makes nbgrader's metadata of them:

    given="NAME"      code that students get and cannot change
    answer="NAME"     their answer to the question NAME, with the solution
    test="NAME"       the visible and hidden checks of the question NAME: what is graded
    by_hand="NAME"    a text answer that is marked by hand, with the model answer
"""

import codecs
import hashlib
import json
import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from moe_np.base.checks import InputError

MARKER = re.compile(r"^# %%(?P<rest>.*)$")
CODE_STUB = "# YOUR CODE HERE\nraise NotImplementedError()"  # nbgrader's own words
TEXT_STUB = "YOUR ANSWER HERE"
ROLES = ("given", "answer", "test", "by_hand")
LARGEST = 20_000_000  # bytes of a notebook, most of which are pictures in outputs
MOST_CELLS = 1000
MOST_VALUES = 500_000  # lists, dicts and what follows a comma, in a notebook with its outputs
LONGEST_CODE = 3_000_000  # characters of all cells of code

_ONE_AT_A_TIME = threading.Lock()  # notebooks are parsed, for the sake of memory


class Cell(NamedTuple):
    """One cell of a notebook, without its outputs."""

    kind: str  # "code", "markdown"
    source: str
    metadata: dict

    @property
    def nbgrader(self) -> dict:
        """nbgrader's part of the metadata."""
        return self.metadata.get("nbgrader") or {}

    @property
    def grade_id(self) -> str:
        """nbgrader's name of the cell, "" for a cell of no name."""
        return self.nbgrader.get("grade_id", "")

    @property
    def tags(self) -> list:
        """The cell's tags; "look" is for what is not run in grading."""
        return self.metadata.get("tags") or []


# --- From py:percent ------------------------------------------------------------------------------


def parse(text: str) -> list[Cell]:
    """The cells of a py:percent file. Raises InputError for metadata that is not key=JSON."""
    cells = []
    lines = []
    head = None
    for number, line in enumerate([*text.splitlines(), "# %%"], start=1):
        marker = MARKER.match(line)
        if not marker:
            lines.append(line)
            continue
        if head is not None:
            cells.append(_cell(*head, lines))
        head = _parse_head(marker["rest"], number)
        lines = []
    return cells


def _parse_head(rest, number):
    """Kind and metadata from what follows "# %%" in line `number`."""
    rest = rest.strip()
    kind = "code"
    if rest.startswith("[markdown]"):
        kind = "markdown"
        rest = rest.removeprefix("[markdown]").strip()
    metadata = {}
    decoder = json.JSONDecoder()
    while rest:
        key, equals, value = rest.partition("=")
        try:
            if not equals or not key.isidentifier():
                raise ValueError(f"no key=value in {rest!r}")
            metadata[key], end = decoder.raw_decode(value)
        except ValueError as error:
            raise InputError(f"line {number}: wanted metadata as key=JSON, got {error}") from None
        rest = value[end:].strip()
    return kind, metadata


def _cell(kind, metadata, lines):
    if kind == "markdown":
        lines = [re.sub(r"^# ?", "", line) for line in lines]
    return Cell(kind, "\n".join(lines).strip("\n"), metadata)


def with_roles(cells: Iterable[Cell], points: Mapping[str, float]) -> list[Cell]:
    """The cells with nbgrader's metadata in the place of the four keys. points: {question: points}.

    Metadata of nbgrader that is written in full stays as it is. Raises InputError for a test of a
    question that is not in `points`.
    """
    return [_with_role(cell, points) for cell in cells]


def _with_role(cell, points):
    roles = [key for key in ROLES if key in cell.metadata]
    if not roles:
        return cell
    role = roles[0]
    name = cell.metadata[role]
    graded = role in ("test", "by_hand")
    if len(roles) > 1 or not isinstance(name, str) or (graded and name not in points):
        questions = ", ".join(points)
        raise InputError(f'wanted one role and a question of {questions}, got {role}="{name}"')
    nbgrader = {
        "grade": graded,
        "grade_id": f"{name}_answer" if role == "answer" else name,
        "locked": role in ("given", "test"),
        **({"points": points[name]} if graded else {}),
        "schema_version": 3,
        "solution": role in ("answer", "by_hand"),
        "task": False,
    }
    other = {key: value for key, value in cell.metadata.items() if key not in ROLES}
    return cell._replace(metadata={**other, "nbgrader": nbgrader})


# --- Without what students must not see -----------------------------------------------------------


def without_hidden_tests(cell: Cell) -> Cell:
    """The cell without its hidden tests."""
    return cell._replace(source=_cut(cell.source, "HIDDEN TESTS", None))


def without_solution(cell: Cell) -> Cell:
    """The cell with nbgrader's stub, indented alike, in the place of each solution."""
    stub = CODE_STUB if cell.kind == "code" else TEXT_STUB
    if not cell.nbgrader.get("solution"):
        return cell
    if "### BEGIN SOLUTION" not in cell.source:
        return cell._replace(source=stub)
    return cell._replace(source=_cut(cell.source, "SOLUTION", stub))


def _cut(source, part, stub):
    """The source with `stub`, or nothing, for what stands from BEGIN to END of a part."""
    kept = []
    inside = False
    for line in source.split("\n"):
        if line.strip() == f"### BEGIN {part}":
            if inside:
                raise InputError(f"### BEGIN {part} twice without an END")
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            kept += [indent + text for text in stub.split("\n")] if stub else []
        elif line.strip() == f"### END {part}":
            inside = False
        elif not inside:
            kept.append(line)
    if inside:
        raise InputError(f"### BEGIN {part} without an END")
    return "\n".join(kept).rstrip("\n")


def released(cells: Iterable[Cell]) -> list[Cell]:
    """The cells as students get them."""
    return [without_solution(without_hidden_tests(cell)) for cell in cells]


# --- Notebooks ------------------------------------------------------------------------------------


def write(cells: Iterable[Cell], metadata: Mapping[str, Any] | None = None) -> str:
    """The text of a notebook, format 4.5, without outputs; the same cells give the same text."""
    notebook = {
        "cells": [_cell_to_json(cell, number) for number, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            **(metadata or {}),
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _cell_to_json(cell, number):
    name = cell.grade_id or f"{number}"
    out = {
        "cell_type": cell.kind,
        "id": hashlib.sha256(name.encode()).hexdigest()[:8],
        "metadata": dict(cell.metadata),
        "source": cell.source.splitlines(keepends=True),
    }
    if cell.nbgrader:
        out["metadata"]["nbgrader"] = {**cell.nbgrader, "cell_type": cell.kind}
    return {**out, "execution_count": None, "outputs": []} if cell.kind == "code" else out


def read(raw: bytes) -> tuple[list[Cell], dict]:
    """(cells, metadata) of a notebook's bytes, without outputs. Raises InputError if it is none."""
    if len(raw) > LARGEST:
        raise InputError(f"wanted a notebook of at most {LARGEST // 10**6} MB, got more")
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError("wanted a Jupyter notebook in UTF-8, got one in UTF-16")
    # before it is parsed: what takes much memory and time is many values, not many bytes
    if sum(raw.count(mark) for mark in (b"{", b"[", b",")) > MOST_VALUES:
        wanted = f"at most {MOST_VALUES:,} values; clear the outputs"
        raise InputError(f"wanted a notebook of {wanted}")
    try:
        with _ONE_AT_A_TIME:
            notebook = json.loads(raw.decode("utf-8-sig"))
        if isinstance(notebook, dict) and "worksheets" in notebook:
            raise InputError("wanted a Jupyter notebook of format 4, got one of format 3 or older")
        if len(notebook["cells"]) > MOST_CELLS:
            raise InputError(f"wanted a notebook of at most {MOST_CELLS} cells, got more")
        cells = [_cell_from_json(cell) for cell in notebook["cells"]]
        metadata = notebook.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise TypeError("metadata")
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"something else ({type(error).__name__})"
        raise InputError(f"wanted a Jupyter notebook, got {what}") from None
    if sum(len(cell.source) for cell in cells if cell.kind == "code") > LONGEST_CODE:
        raise InputError(f"wanted at most {LONGEST_CODE:,} characters of code, got more")
    return cells, metadata


def _cell_from_json(cell):
    source = cell["source"] or ""
    source = source if isinstance(source, str) else "".join(source)
    metadata = cell.get("metadata") or {}
    nbgrader = metadata.get("nbgrader") or {}
    tags = metadata.get("tags") or []
    if not isinstance(nbgrader, dict) or not isinstance(tags, list):
        raise TypeError("metadata")
    if not isinstance(nbgrader.get("grade_id", ""), str):
        raise TypeError("grade_id")
    return Cell(str(cell["cell_type"]), source, {"nbgrader": nbgrader, "tags": tags})
