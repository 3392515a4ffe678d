"""One submission: texts of students, answers in words."""

from moe_np.coursework import grading, notebook
from moe_np.coursework.question import Question
from tests.support import coursework


def test_what_students_write_is_made_safe():
    assert grading.clean_text("a\x1b[31mb\nc\ud800") == "a [31mb c?"
    assert len(grading.clean_text("x" * 10_000)) < 600


def test_a_text_answer_is_found_and_an_untouched_cell_is_none():
    metadata = {"nbgrader": {"grade_id": "q9", "grade": True, "solution": True}}
    cell = notebook.Cell("markdown", "my words", metadata)
    question = Question("q9", None, 3)
    assert grading.text_answer(question, [cell]) == "my words"
    untouched = notebook.without_solution(cell)
    assert grading.text_answer(question, [untouched]) == ""


def test_a_module_that_is_not_there_is_explained():
    message = grading.explain_import("No module named 'moe_np.layers'", coursework.assignment())
    assert message.endswith(
        "of moe_np this assignment allows " + ", ".join(coursework.assignment().allowed)
    )
    message = grading.explain_import("No module named 'torch'", coursework.assignment())
    assert message.endswith("besides Python's own this assignment allows numpy, matplotlib")
