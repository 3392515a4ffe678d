"""py:percent text as cells, and cells as a notebook: just what nbgrader's assignments and their
release need.

    # %% [markdown] key=json ...      a cell of text, its lines commented with "# "
    # %% key=json ...                 a cell of code

A value is JSON; keys become the cell's metadata, as in Jupytext. What stands before the first
marker is no cell.
"""

import hashlib
import json
import re
from typing import NamedTuple

from moe_np.base.checks import InputError

MARK = re.compile(r"^# %%(?P<rest>.*)$")
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"  # nbgrader's own words
TEXT_STUB = "YOUR ANSWER HERE"


class Cell(NamedTuple):
    kind: str  # "code", "markdown"
    source: str
    metadata: dict

    @property
    def nbgrader(self):
        return self.metadata.get("nbgrader") or {}

    @property
    def grade_id(self):
        return self.nbgrader.get("grade_id", "")

    @property
    def tags(self):
        return self.metadata.get("tags") or []


def parse(text):
    """The cells of a py:percent file."""
    cells, lines, head = [], [], None
    for number, line in enumerate([*text.splitlines(), "# %%"], start=1):
        mark = MARK.match(line)
        if not mark:
            lines.append(line)
            continue
        if head is not None:
            cells.append(_cell(*head, lines))
        head, lines = _head(mark["rest"], number), []
    return cells


def _head(rest, number):
    """Kind and metadata from what follows "# %%"."""
    rest = rest.strip()
    kind = "code"
    if rest.startswith("[markdown]"):
        kind, rest = "markdown", rest.removeprefix("[markdown]").strip()
    metadata, decoder = {}, json.JSONDecoder()
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


# --- Taking out what students are not to see ------------------------------------------------------


def without_hidden_tests(cell):
    return cell._replace(source=_cut(cell.source, "HIDDEN TESTS", None))


def without_solution(cell):
    """The cell with each solution replaced by nbgrader's stub, at the solution's indentation."""
    stub = STUB if cell.kind == "code" else TEXT_STUB
    if not cell.nbgrader.get("solution"):
        return cell
    if "### BEGIN SOLUTION" not in cell.source:
        return cell._replace(source=stub)
    return cell._replace(source=_cut(cell.source, "SOLUTION", stub))


def _cut(source, what, stub):
    out, inside = [], False
    for line in source.split("\n"):
        if line.strip() == f"### BEGIN {what}":
            if inside:
                raise InputError(f"### BEGIN {what} twice without an END")
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            out += [indent + s for s in stub.split("\n")] if stub else []
        elif line.strip() == f"### END {what}":
            inside = False
        elif not inside:
            out.append(line)
    if inside:
        raise InputError(f"### BEGIN {what} without an END")
    return "\n".join(out).rstrip("\n")


def released(cells):
    """The cells as students get them."""
    return [without_solution(without_hidden_tests(cell)) for cell in cells]


def as_script(cells):
    """The code of all cells as one plain Python text."""
    return "\n\n\n".join(cell.source for cell in cells if cell.kind == "code") + "\n"


# --- Notebooks ------------------------------------------------------------------------------------


def to_notebook(cells, metadata=None):
    """Notebook format 4.5, without outputs; the same cells give the same bytes."""
    return {
        "cells": [_to_json(cell, number) for number, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            **(metadata or {}),
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _to_json(cell, number):
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


def write_notebook(notebook):
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


LARGEST, MOST = (
    20_000_000,
    1000,
)  # bytes and cells of a notebook; pictures in outputs are the bulk of it


def read_notebook(raw):
    """(cells, metadata) of a notebook's bytes, outputs left aside. InputError if it is none."""
    if len(raw) > LARGEST:
        raise InputError(f"wanted a notebook of at most {LARGEST // 10**6} MB, got more")
    try:
        notebook = json.loads(raw.decode("utf-8-sig"))
        cells = [_from_json(cell) for cell in notebook["cells"][:MOST]]
        metadata = notebook.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise TypeError("metadata")
        return cells, metadata
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"wanted a Jupyter notebook, got something else ({type(error).__name__})"
        ) from None


def _from_json(cell):
    source = cell["source"]
    source = source if isinstance(source, str) else "".join(source)
    metadata = cell.get("metadata") or {}
    nbgrader = metadata.get("nbgrader") or {}
    tags = metadata.get("tags") or []
    if (
        not isinstance(nbgrader, dict)
        or not isinstance(tags, list)
        or not isinstance(nbgrader.get("grade_id", ""), str)
    ):
        raise TypeError("metadata")
    return Cell(str(cell["cell_type"]), source, {"nbgrader": nbgrader, "tags": tags})
