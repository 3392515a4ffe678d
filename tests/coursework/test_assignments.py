"""Every assignment agrees with itself: questions, cells, introduction, what may be imported."""

import ast
import inspect
import re

import pytest

from moe_np.coursework import assignments
from tests.support import coursework

COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@coursework.every_assignment
def test_the_first_cell_is_the_introduction(name):
    assignment = coursework.assignment(name)
    assert assignment.cells[0].source.startswith(f"# {assignment.title}")
    assert 5 <= len(assignment.questions) <= 8


def introduction(name):
    """The first cell's number of functions, its sum of points, and the points that it lists."""
    text = " ".join(coursework.assignment(name).cells[0].source.split())
    functions = re.search(r"(\w+) functions have a body to write", text)[1]
    total, listed = re.search(r"(\d+) points: (.*?)\.", text).groups()
    points = [int(number) for number in re.findall(r"\b\d+\b", listed)]
    return COUNTS.index(functions.lower()), int(total), points


@coursework.every_assignment
def test_the_introduction_counts_functions_and_points_as_the_questions_do(name):
    questions = coursework.assignment(name).questions
    functions, total, points = introduction(name)
    assert functions == sum(question.function is not None for question in questions)
    assert points == [question.points for question in questions]
    assert total == sum(points)


@coursework.every_assignment
def test_the_headings_have_the_points_of_the_questions(name):
    assignment = coursework.assignment(name)
    text = "\n".join(cell.source for cell in assignment.cells if cell.kind == "markdown")
    headings = re.findall(r"^## (\d+)\. .*\((\d+) points.*\)$", text, re.MULTILINE)
    wanted = [
        (number, question.points) for number, question in enumerate(assignment.questions, start=1)
    ]
    assert [(int(number), int(points)) for number, points in headings] == wanted


@coursework.every_assignment
def test_the_introduction_names_what_may_be_imported(name):
    assignment = coursework.assignment(name)
    for module in assignment.allowed:
        parents = {module.rpartition(".")[0] for module in assignment.allowed}
        assert f"`{module}`" in assignment.cells[0].source or module in parents, module


@pytest.mark.slow
@coursework.every_assignment
def test_what_may_be_imported_can_be_and_holds_no_answer(name):
    assignment = coursework.assignment(name)
    imports = "\n".join(f"import {name}" for name in (*assignment.allowed, *assignment.libraries))
    functions = {question.function for question in assignment.questions if question.function}
    with coursework.sandbox_of(name) as sandbox, sandbox.child() as child:
        child.cell(1, imports)
        for forbidden in ("moe_np.coursework", "moe_np.mixtures.jacobs1991"):
            if forbidden not in assignment.allowed:
                with pytest.raises(Exception, match="No module named"):
                    child.cell(2, f"import {forbidden}")
    for allowed in assignment.allowed:
        module = __import__(allowed, fromlist=["x"])
        defined = {
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == allowed
        }
        assert not defined & functions, f"{allowed} holds an answer by its name"


# --- Files that contradict each other -------------------------------------------------------------

QUESTIONS = """
from moe_np.coursework import Question
TITLE, ALLOWED = "One question", ()
QUESTIONS = (Question("q1", "f", 2, lambda rng: [(1.0,)], lambda x: x),)
"""


def written(folder, cells):
    (folder / "7_own").mkdir()
    (folder / "7_own" / "questions.py").write_text(QUESTIONS)
    (folder / "7_own" / "assignment.py").write_text(cells)
    return folder


def test_points_of_the_cells_come_from_the_questions(tmp_path):
    loaded = assignments.load("7_own", written(tmp_path, '# %% test="q1"\nassert f(1) == 1\n'))
    assert [cell.nbgrader["points"] for cell in loaded.cells] == [2]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ("# %%\nx = 1\n", "questions.py has {'q1': 2}, the graded cells of assignment.py {}"),
        ('# %% test="q2"\nx = 1\n', 'got test="q2"'),
        ('# %% test="q1" given="setup"\nx = 1\n', "wanted one role"),
        ('# %% nbgrader={"grade": true, "grade_id": "q1", "points": 3}\n', "{'q1': 3}"),
        ("# %% test=q1\nx = 1\n", "line 1: wanted metadata as key=JSON"),
    ],
)
def test_cells_that_contradict_the_questions_are_refused(cells, words, tmp_path):
    with pytest.raises(ValueError, match=r"^7_own: ") as error:
        assignments.load("7_own", written(tmp_path, cells))
    assert words in str(error.value)


def test_words_for_feedback_are_those_of_its_questions(tmp_path):
    folder = written(tmp_path, '# %% test="q1"\nassert f(1) == 1\n')
    path = folder / "7_own" / "feedback.toml"
    path.write_text('[q1]\nlesson = "07_sparse"\nkinds = ["a number"]\n')
    (question,) = assignments.load("7_own", folder).questions
    assert (question.lesson, question.kinds, question.outputs) == ("07_sparse", ("a number",), ())
    for text, words in (
        ("[q2]\n", "wanted names of questions, got ['q2']"),
        ("q1 = 3\n", "wanted tables of questions"),
        ("[q1\n", "wanted tables of questions"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"feedback\.toml: ") as error:
            assignments.load("7_own", folder)
        assert words in str(error.value)


@coursework.every_assignment
def test_a_hidden_test_names_its_own_question(name):
    """The hidden part of a cell of checks is the same for all: one call, with its own names."""
    assignment = coursework.assignment(name)
    functions = {question.name: question.function for question in assignment.questions}
    for cell in assignment.cells:
        if cell.nbgrader.get("grade") and not cell.nbgrader.get("solution"):
            calls = [
                node
                for node in ast.walk(ast.parse(cell.source))
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "hidden_test"
            ]
            wanted = [repr(name), repr(cell.grade_id), functions[cell.grade_id]]
            assert [[ast.unparse(a) for a in call.args] for call in calls] == [wanted]
