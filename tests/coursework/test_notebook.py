"""Cells: from py:percent text to notebooks, with roles, without solutions and hidden tests."""

import json
import re
import tracemalloc

import pytest

from moe_np.coursework import notebook
from tests.support import coursework


@coursework.every_assignment
def test_the_release_holds_no_solution_and_no_hidden_test(name):
    assignment = coursework.assignment(name)
    released = notebook.released(assignment.cells)
    text = "\n".join(cell.source for cell in released)
    assert "SOLUTION" not in text and "HIDDEN" not in text and "hidden_test" not in text
    for cell, handed_out in zip(assignment.cells, released, strict=True):
        solutions = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", cell.source, re.S)
        assert bool(solutions) == bool(cell.nbgrader.get("solution")), cell.grade_id
        lines = [line for solution in solutions for line in solution.splitlines() if line.strip()]
        for line in lines:
            assert line not in handed_out.source.splitlines(), cell.grade_id


def nbgrader(grade_id, **changes):
    metadata = {"grade": False, "grade_id": grade_id, "locked": False, "schema_version": 3}
    return {**metadata, "solution": False, "task": False, **changes}


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        ('given="setup"', nbgrader("setup", locked=True)),
        ('answer="q1"', nbgrader("q1_answer", solution=True)),
        ('test="q1"', nbgrader("q1", grade=True, locked=True, points=2)),
        ('[markdown] by_hand="q2"', nbgrader("q2", grade=True, points=4, solution=True)),
    ],
)
def test_a_role_becomes_the_metadata_of_nbgrader(head, wanted):
    (cell,) = notebook.with_roles(notebook.parse(f'# %% {head} tags=["x"]'), {"q1": 2, "q2": 4})
    assert cell.nbgrader == wanted and cell.tags == ["x"]
    assert list(cell.metadata) == ["tags", "nbgrader"]
    assert list(cell.nbgrader) == sorted(cell.nbgrader), "as nbgrader itself writes it"


def test_metadata_that_is_written_in_full_stays():
    text = '# %% nbgrader={"grade_id": "x", "locked": true}'
    (cell,) = notebook.with_roles(notebook.parse(text), {})
    assert cell.nbgrader == {"grade_id": "x", "locked": True}


def test_a_release_is_valid_for_nbformat(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    coursework.moe_np("release", coursework.NAME, tmp_path)
    path = tmp_path / f"{coursework.NAME}.ipynb"
    nbformat.validate(nbformat.read(path, as_version=4))


@coursework.every_assignment
def test_jupytext_reads_the_source_as_we_do(name):
    jupytext = pytest.importorskip("jupytext")
    path = coursework.FOLDER / name / "assignment.py"
    theirs = jupytext.read(path).cells
    parsed = notebook.parse(path.read_text(encoding="utf-8"))
    assert [cell.source for cell in theirs] == [cell.source for cell in parsed]
    metadata = [{**cell.metadata} for cell in theirs]
    for values in metadata:
        values.pop("lines_to_next_cell", None)  # of Jupytext itself
    assert metadata == [cell.metadata for cell in parsed]


@coursework.every_assignment
def test_jupytext_keeps_the_metadata_of_nbgrader(name):
    """Through a notebook and back to text, as a teacher may do it."""
    jupytext = pytest.importorskip("jupytext")
    cells = coursework.assignment(name).cells
    text = jupytext.writes(jupytext.reads(notebook.write(cells), "ipynb"), "py:percent")
    written = jupytext.reads(text, "py:percent").cells
    ours = [{**c.nbgrader, "cell_type": c.kind} if c.nbgrader else {} for c in cells]
    assert [cell.metadata.get("nbgrader", {}) for cell in written] == ours


def in_json(cells=(), **more):
    return json.dumps({"cells": list(cells), "nbformat": 4, **more})


CODE = {"cell_type": "code", "source": "x = 1", "metadata": {}}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"[" + b'{"a":0},' * 500_000 + b"1]", "at most 500,000 values; clear the outputs"),
        (b"[" * 600_000, "at most 500,000 values"),
        (in_json([CODE] * 1001).encode(), "at most 1000 cells, got more"),
        (in_json([{**CODE, "source": "x" * 3_000_001}]).encode(), "3,000,000 characters of code"),
        (in_json([CODE]).encode("utf-16"), "a Jupyter notebook in UTF-8, got one in UTF-16"),
        (in_json(worksheets=[]).encode(), "of format 4, got one of format 3 or older"),
        (b" " * 20_000_001, "at most 20 MB, got more"),
        (in_json([{**CODE, "source": [1]}]).encode(), "got something else (TypeError)"),
        (b"\xff\xfe\x00", "in UTF-8"),
    ],
)
def test_what_is_no_notebook_is_refused_within_bounds(raw, words):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=re.escape(words)):
            notebook.read(raw)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_large_outputs_and_empty_cells_are_read():
    picture = {"output_type": "display_data", "data": {"image/png": "A" * 15_000_000}}
    table = {"output_type": "display_data", "data": {"x": [1.5] * 100_000}}
    cells = [{**CODE, "outputs": [picture, table]}, {**CODE, "source": None}]
    raw = in_json(cells).encode("utf-8-sig")
    assert [cell.source for cell in notebook.read(raw)[0]] == ["x = 1", ""]


def test_a_solution_that_does_not_end_is_refused():
    cell = notebook.Cell("code", "### BEGIN SOLUTION\nx", {"nbgrader": {"solution": True}})
    with pytest.raises(ValueError, match="BEGIN SOLUTION without an END"):
        notebook.without_solution(cell)
    twice = cell._replace(source="### BEGIN SOLUTION\n### BEGIN SOLUTION")
    with pytest.raises(ValueError, match="twice without an END"):
        notebook.without_solution(twice)
