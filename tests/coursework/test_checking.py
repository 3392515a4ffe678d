"""The visible checks, as a student runs them."""

import json

import pytest

from moe_np.coursework import checking
from tests.support import coursework
from tests.support.coursework import moe_np

simulated = coursework.simulate_class()


@pytest.mark.seconds
def test_check_tells_by_name_what_is_right(tmp_path, capsys):
    assignment = coursework.assignment()
    path = tmp_path / "student.ipynb"

    def write(cells):
        path.write_bytes(simulated.notebook_bytes(assignment, cells))

    answers = {"q1_softmax": coursework.bank()["q1_softmax"]["wrong"]["wrong axis"]}
    write(simulated.solved(assignment, answers))
    assert moe_np("check", path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("q1_softmax: not yet. AssertionError: exp(s) shared out by rows")
    assert lines[1:-1] == [f"{question.name}: right" for question in assignment.questions[1:]]

    assert assignment.cells[1].grade_id == "setup"
    write(
        [
            cell._replace(source="import math") if cell.grade_id == "setup" else cell
            for cell in simulated.solved(assignment)
        ]
    )
    assert moe_np("check", path) == 0, "given cells are run as they were handed out, as in grading"
    capsys.readouterr()
    path.write_text("{}")
    assert moe_np("check", path) == 2
    assert capsys.readouterr().err.startswith(f"moe-np: error: {path}: wanted a Jupyter notebook")


def test_no_check_says_right_of_an_answer_that_is_graded_on_faults_not_shown(tmp_path, capsys):
    assignment = coursework.assignment("6_block")
    path = tmp_path / "student.ipynb"
    path.write_bytes(simulated.notebook_bytes(assignment, simulated.solved(assignment)))
    assert moe_np("check", path) == 0
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines()[:-1])
    assert lines.pop("q8_audit") == "finds what is given, graded on others"
    assert set(lines.values()) == {"right"}


def test_a_notebook_that_was_not_released_is_refused(tmp_path):
    path = tmp_path / "other.ipynb"
    path.write_bytes(coursework.notebook_bytes([]))
    with pytest.raises(ValueError, match="wanted a notebook made by `moe-np coursework release`"):
        checking.read(path)
    with pytest.raises(ValueError, match="wanted a notebook, got No such file"):
        checking.read(tmp_path / "none.ipynb")


@pytest.mark.parametrize("library", ["evil.x", "this.x", 5, "moe_np"])
def test_what_a_notebook_names_as_a_library_is_not_run(tmp_path, monkeypatch, capsys, library):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text("print('this code was run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "student.ipynb"
    assignment = coursework.assignment()
    raw = simulated.notebook_bytes(assignment, simulated.solved(assignment))
    content = json.loads(raw)
    content["metadata"]["moe_np"]["libraries"] = [library]
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert moe_np("check", path) == 2
    output = capsys.readouterr()
    assert output.out == "" and "wanted names of libraries without a dot" in output.err


@pytest.mark.slow
@coursework.every_assignment
def test_the_solution_passes_the_visible_checks_by_the_names_of_grading(name, tmp_path):
    assignment = coursework.assignment(name)
    path = tmp_path / f"{name}.ipynb"
    path.write_bytes(simulated.notebook_bytes(assignment, simulated.solved(assignment)))
    checked = list(checking.check(checking.read(path)))
    assert [result.name for result in checked] == [q.name for q in assignment.questions]
    assert all(result.passed is not False for result in checked), checked


def test_check_names_cells_by_what_stands_in_them(tmp_path):
    """Jupyter shows no numbers of cells."""
    cells = [(4, "# a comment\n\ndef softmax(s):\n    return s / 0\n"), (6, "x = 1")]
    message = checking.name_cells("ZeroDivisionError: no (cell 4, line 4)", cells)
    assert message.endswith("(line 4 of the cell that begins with 'def softmax(s):')")
    assert checking.name_cells("no (cell 5, line 2)", cells) == "no (line 2 of its checks)"
    assignment = coursework.assignment()
    source = "def softmax(s):\n    return np.zeros(3)[s.size]\n"
    path = tmp_path / "student.ipynb"
    cells = simulated.solved(assignment, {"q1_softmax": source})
    path.write_bytes(simulated.notebook_bytes(assignment, cells))
    first = next(checking.check(checking.read(path)))
    assert first.message.startswith("IndexError") and "(cell" not in first.message
    assert "the cell that begins with 'def softmax(s):'" in first.message
