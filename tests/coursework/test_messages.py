"""Messages say which cell, and where a name got lost."""

from moe_np.coursework import messages
from moe_np.coursework.grading import grade
from moe_np.coursework.notebook import Cell, released
from tests.support import coursework


def test_a_cell_is_named_by_its_first_line_of_code():
    cells = [(4, "# mine\n\ndef Softmax(s):\n    return s"), (5, "x = " + "1" * 99), (6, "")]
    assert messages.cell_name(4, cells) == "cell 4 (def Softmax(s):)"
    assert messages.cell_name(5, cells) == f"cell 5 (x = {'1' * 36}...)"
    assert messages.cell_name(6, cells) == messages.cell_name(7, cells)[:5] + "6"


def test_a_name_that_was_written_into_a_given_cell_is_explained():
    given = Cell("code", "import numpy as np", {"nbgrader": {"locked": True, "grade_id": "setup"}})
    changed = given._replace(source="import numpy as np\ndef helper(): pass")
    words = messages.words_of_changed_given([given], [changed])
    assert "helper" in words and "numpy" not in words
    text = "NameError: name 'helper' is not defined"
    assert messages.explain_given(text, words).endswith("put it in a new cell")
    assert messages.explain_given("NameError: name 'np' is not defined", words).endswith("defined")
    assert messages.words_of_changed_given([given], [given]) == set()


def test_a_graded_notebook_says_it():
    assignment = coursework.assignment()
    simulated = coursework.simulate_class()
    source = "def softmax(s):\n    return helper(s)"
    cells = simulated.solved(assignment, {"q1_softmax": source})
    setup = next(c for c in released(assignment.cells) if c.nbgrader.get("locked"))
    changed = f"{setup.source}\ndef helper(s): return s"
    cells = [c._replace(source=changed) if c.grade_id == setup.grade_id else c for c in cells]
    cells = simulated.with_first(cells, "import Nothing")
    raw = coursework.notebook_bytes(cells)
    with coursework.sandbox_of() as sandbox:
        graded = grade(assignment, coursework.drawn(), sandbox, raw)
    assert graded.marks[0].message.endswith("put it in a new cell")
    assert "(import Nothing): " in graded.problems[0] and graded.problems[0].startswith("Cell ")
