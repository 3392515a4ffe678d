"""Every assignment grades right: its solution, its release, and each answer of its bank."""

import json

import pytest

from moe_np.base.checks import InputError
from moe_np.coursework import bank, grading, notebook
from tests.support import answers, coursework
from tests.support.coursework import moe_np


@pytest.fixture(scope="module", params=coursework.PARAMETERS)
def setup(request):
    """(assignment, drawn, sandbox), with one sandbox for all tests of an assignment."""
    name = request.param
    with coursework.sandbox_of(name) as sandbox:
        yield coursework.assignment(name), coursework.drawn(name), sandbox


def lost(graded):
    return [m.name for m in graded.marks if m.earned != m.points and m.earned is not None]


@pytest.mark.slow
def test_the_solution_gets_full_marks_and_the_release_none(setup):
    assignment, drawn, sandbox = setup
    raw = coursework.notebook_bytes(assignment.cells)
    solved = grading.grade(assignment, drawn, sandbox, raw)
    assert lost(solved) == [] and solved.problems == [], solved
    raw = coursework.notebook_bytes(notebook.released(assignment.cells))
    handed_out = grading.grade(assignment, drawn, sandbox, raw)
    assert handed_out.total == 0 and handed_out.problems == []
    assert {mark.message for mark in handed_out.marks} == {grading.NOT_ANSWERED}


@coursework.every_assignment
def test_the_bank_has_enough_answers(name):
    answers = coursework.bank(name)
    questions = coursework.assignment(name).questions
    assert set(answers) == {question.name for question in questions if question.function}
    for question, kinds in answers.items():
        assert len(set(kinds["right"])) >= 2, question
        assert len(set(kinds["wrong"].values())) >= 4, question


@pytest.mark.slow
def test_right_answers_pass_and_each_wrong_answer_loses_its_question_only(setup):
    assignment, drawn, sandbox = setup
    rows = list(bank.prove(assignment, coursework.bank(assignment.name), sandbox, drawn))
    failed = [row for row in rows if not row.as_wanted]
    assert not failed, bank.table(failed)
    assert all(row.message for row in rows if row.kind == "wrong"), "a student reads why"


def test_an_answer_to_a_question_that_is_not_there_is_refused():
    with pytest.raises(KeyError, match="1_mixture has no cell q9_answer"):
        bank.with_answer(coursework.assignment(), "q9", "")


# --- Seeds ----------------------------------------------------------------------------------------


@pytest.mark.slow
@coursework.every_assignment
def test_no_seed_of_the_hidden_inputs_is_easier_than_another(name):
    """Without races and without a sandbox, so that five seeds take seconds."""
    assignment = coursework.assignment(name)
    for question, kind, label, source in bank.answers(coursework.bank(name)):
        if label.startswith("right, but"):
            continue  # only the race tells
        for seed in range(5):
            drawn = coursework.drawn_one(name, question, seed)
            passed = answers.grade(assignment, question, source, drawn).passed
            assert passed == (kind == "right"), f"{question}, {kind}: {label}, seed {seed}"


def test_a_row_of_several_seeds_names_those_on_which_it_is_not_as_wanted(monkeypatch):
    def prove(assignment, answers, sandbox, drawn):
        lost = ("q1",) if drawn == "hard" else ()
        yield bank.Row("q1", "wrong", "a guess", lost, "a message" if lost else "")
        yield bank.Row("q1", "right", "1", (), "")

    monkeypatch.setattr(bank, "prove", prove)
    draws = {4: "hard", 5: "easy", 6: "hard", 7: "easy"}
    guess, right = bank.prove_on_seeds(None, {}, None, draws)
    assert guess.seeds == (5, 7) and guess.lost == () and not guess.as_wanted
    assert right.seeds == () and right.as_wanted
    assert "| nothing **not as wanted** (seeds 5, 7) |" in bank.table([guess])


# --- Answers of a teacher's own -------------------------------------------------------------------


def write_answers(folder):
    """A right answer, a wrong one, and a right one that is called wrong."""
    solution = answers.solution(coursework.assignment(), "q1_softmax")
    wrong = coursework.bank()["q1_softmax"]["wrong"]["sigmoid"]
    (folder / "q1_softmax__right__the_solution.py").write_text(solution, encoding="utf-8")
    (folder / "q1_softmax__wrong__sigmoid.py").write_text(wrong, encoding="utf-8")
    (folder / "q1_softmax__wrong__no_mistake.py").write_text(solution, encoding="utf-8")
    (folder / "._q1_softmax__wrong__sigmoid.py").write_bytes(b"\0\5\x16\7")  # of a Mac
    (folder / "notes.txt").write_text("not an answer", encoding="utf-8")


@pytest.mark.slow
def test_prove_grades_answers_in_files_and_exits_with_the_number_not_as_wanted(tmp_path, capsys):
    write_answers(tmp_path)
    options = ("--answers", tmp_path, "--seed", 7, "--seeds", 2, "--json")
    assert moe_np("prove", coursework.NAME, *options) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["seeds"] == [7, 8] and facts["not_as_wanted"] == 1
    wanted = {
        "the_solution": (True, []),
        "no_mistake": (False, []),
        "sigmoid": (True, ["q1_softmax"]),
    }
    graded = {row["name"]: (row["as_wanted"], row["lost"]) for row in facts["answers"]}
    assert graded == wanted
    assert {row["name"]: row["seeds"] for row in facts["answers"]}["no_mistake"] == [7, 8]
    (tmp_path / "q1_softmax__wrong__no_mistake.py").unlink()
    assert moe_np("prove", coursework.NAME, "--answers", tmp_path) == 0
    assert capsys.readouterr().out.count("\n| q1_softmax |") == 2


def test_files_that_are_no_answers_are_refused(tmp_path):
    assignment = coursework.assignment()
    with pytest.raises(InputError, match="wanted files with answers, got none"):
        bank.read_answers(tmp_path, assignment)
    with pytest.raises(InputError, match="none: wanted answers, got No such file"):
        bank.read_answers(tmp_path / "none", assignment)
    write_answers(tmp_path)
    read = bank.read_answers(tmp_path, assignment)
    assert list(read["q1_softmax"]["wrong"]) == ["no_mistake", "sigmoid"]
    for name, message in (
        ("q1_softmax_right_a.py", "wanted a name such as QUESTION__right__WHAT.py"),
        ("q9_other__right__a.py", "wanted one of q1_softmax, .*, got 'q9_other'"),
    ):
        (tmp_path / name).write_text("")
        with pytest.raises(InputError, match=message):
            bank.read_answers(tmp_path, assignment)
        (tmp_path / name).unlink()
    (tmp_path / "q1_softmax__wrong__latin.py").write_bytes("é".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.py: wanted text in UTF-8"):
        bank.read_answers(tmp_path, assignment)
