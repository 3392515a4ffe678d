"""Answers in words are found, and whole, in whatever other programs make of a notebook."""

import pytest

from moe_np.coursework import notebook
from moe_np.coursework.notebook import Cell
from moe_np.coursework.text_answers import NOT_FOUND, gather
from tests.support import coursework

ASSIGNMENT = coursework.assignment("5_clusters")
RELEASED = notebook.released(ASSIGNMENT.cells)
(PLACE,) = [i for i, cell in enumerate(RELEASED) if cell.grade_id == "q8_explain"]


def answered(*texts, metadata=True):
    """The notebook with these cells in the place of the text answer."""
    kept = RELEASED[PLACE].metadata if metadata else {}
    cells = [Cell("markdown", text, kept) for text in texts]
    return [*RELEASED[:PLACE], *cells, *RELEASED[PLACE + 1 :]]


def bare(cells):
    """The cells without metadata."""
    return [cell._replace(metadata={}) for cell in cells]


def text_of(cells):
    (cell,) = gather(ASSIGNMENT, cells)
    assert cell.grade_id == "q8_explain"
    return "" if cell.source == notebook.TEXT_STUB else cell.source


@pytest.mark.parametrize("lost", [False, True], ids=["metadata", "no metadata"])
@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (("My words.",), "My words."),
        (("First half.", "Second half."), "First half.\n\nSecond half."),
        (("My words.", "My words."), "My words."),
        ((notebook.TEXT_STUB, "My words."), "My words."),
        ((notebook.TEXT_STUB,), ""),
        (("", notebook.TEXT_STUB), ""),
    ],
)
def test_an_answer_is_found_and_whole(texts, wanted, lost):
    cells = answered(*texts)
    assert text_of(bare(cells) if lost else cells) == wanted


def test_a_copy_elsewhere_belongs_to_the_answer():
    cells = answered("First half.")
    last = RELEASED[PLACE]._replace(source="Second half.")
    assert text_of([last, *cells]) == "Second half.\n\nFirst half."


def test_words_of_the_student_between_other_cells_are_no_answer():
    cells = answered("My words.")
    assert text_of([Cell("markdown", "# My notes", {}), *cells]) == "My words."
    assert text_of([*cells[:3], Cell("markdown", "# My notes", {}), *cells[3:]]) == "My words."


def test_a_cell_that_is_gone_is_shown_to_the_teacher():
    code = Cell("code", "'my words'", {})
    assert text_of([*answered(), code]) == NOT_FOUND
    assert text_of(answered()) == "", "nothing was written"
    assert text_of([]) == ""
    assert text_of([Cell("markdown", "All cells made anew", {}), code]) == "All cells made anew"
