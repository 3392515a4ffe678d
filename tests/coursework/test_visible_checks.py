"""Visible checks accept what grading accepts, and look at every output."""

import pytest

from tests.support import answers, coursework

COMPILED = ("4_dispatch", "q7_places")  # each answer is compiled


def marks_of(name, question, marks):
    return [*marks, pytest.mark.slow] if (name, question) == COMPILED else marks


QUESTIONS = [
    pytest.param(
        *(name, question.name),
        id=f"{name}-{question.name}",
        marks=marks_of(name, question.name, parameter.marks),
    )
    for parameter in coursework.PARAMETERS
    for name in parameter.values
    for question in coursework.assignment(name).questions
    if question.function
]
every_question = pytest.mark.parametrize(("name", "question"), QUESTIONS)

# "Float32 will do" everywhere but in these questions: linear systems are solved, or the last bit of
# a sum is asked for
FLOAT64 = {
    ("7_ranks", "q4_home"),
    ("2_em", "q4_regressions"),
    ("2_em", "q7_gate_step"),
    ("2_em", "q8_em"),
}

OTHER_DRESS = """
_function = {function}


def _each(change, value):
    if isinstance(value, dict):
        return {{key: _each(change, part) for key, part in value.items()}}
    if isinstance(value, (tuple, list)):
        return tuple(_each(change, part) for part in value)
    return change(value)


def _float32(value):
    is_float = np.asarray(value).dtype == np.float64
    return np.asarray(value, np.float32) if is_float else value


def _lists(value):
    return value.tolist() if isinstance(value, np.ndarray) else value


def {function}(*inputs):
    {body}
"""
RETURN = {
    "float32 results": "return _each(_float32, _function(*inputs))",
    "float32 throughout": "return _function(*_each(_float32, inputs))",
    "lists": "return _each(_lists, _function(*inputs))",
    "lists of outputs": "got = _function(*inputs)\n"
    "    return list(got) if isinstance(got, tuple) else got",
}


def dressed(assignment, question, dress):
    function = answers.question_of(assignment, question).function
    source = OTHER_DRESS.format(function=function, body=RETURN[dress])
    return answers.solution(assignment, question) + source


@every_question
@pytest.mark.parametrize("dress", RETURN)
def test_checks_and_grading_accept_the_solution_in_another_dress(name, question, dress):
    if "float32" in dress and (name, question) in FLOAT64:
        pytest.skip("the assignment asks for float64 here")
    assignment = coursework.assignment(name)
    source = dressed(assignment, question, dress)
    for seed in range(3):
        drawn = coursework.drawn_one(name, question, seed)
        graded = answers.grade(assignment, question, source, drawn)
        assert graded.passed, graded.message
    assert answers.check(assignment, question, source) == ""


@every_question
def test_right_answers_of_the_bank_pass_the_visible_checks(name, question):
    assignment = coursework.assignment(name)
    for source in coursework.bank(name)[question]["right"]:
        assert answers.check(assignment, question, source) == ""


@pytest.mark.slow
@every_question
def test_what_passes_the_visible_checks_is_not_worth_nothing_when_it_is_graded(name, question):
    """Of the bank's wrong answers. Those that are only too slow are seen by races alone."""
    assignment = coursework.assignment(name)
    asked = answers.question_of(assignment, question)
    for what, source in coursework.bank(name)[question]["wrong"].items():
        if what.startswith("right, but") or answers.check(assignment, question, source):
            continue
        drawn = coursework.drawn_one(name, question, 0)
        verdict = answers.grade(assignment, question, source, drawn, count=True)
        assert asked.earned(verdict) > 0, (what, verdict)


CHANGED = """
_function = {function}


def {function}(*inputs):
    got = _function(*inputs)
    parts = list(got) if isinstance(got, tuple) else [got]
    places = [(i, key) for i, part in enumerate(parts) for key in _keys(part)]
    _place, _key = places[{number}]
    if _key is None:
        parts[_place] = _other(parts[_place])
    else:
        parts[_place] = {{**parts[_place], _key: _other(parts[_place][_key])}}
    return tuple(parts) if isinstance(got, tuple) else parts[0]


def _keys(part):
    return list(part) if isinstance(part, dict) else [None]


def _other(value):
    if isinstance(value, (list, tuple)):
        return [_other(part) for part in value]
    value = np.asarray(value)
    if value.dtype == bool:
        return ~value
    return {change}
"""
CHANGES = {
    "zero": "np.zeros_like(value)",
    "reversed": "value[::-1] if value.ndim else value + 1",
    "10 % larger": "value * 1.1",
}


@every_question
def test_checks_look_at_every_output(name, question):
    """With one output replaced, others right. A change that changes nothing must pass."""
    assignment = coursework.assignment(name)
    function = answers.question_of(assignment, question).function
    solution = answers.solution(assignment, question)
    drawn = coursework.drawn_one(name, question, 0)
    for number in range(count_outputs(drawn[0].wanted)):
        for change, expression in CHANGES.items():
            fields = {"function": function, "number": number, "change": expression}
            source = solution + CHANGED.format(**fields)
            assert not answers.grade(assignment, question, source, drawn).passed
            message = answers.check(assignment, question, source)
            assert message, f"output {number}, {change}: the visible checks do not see it"


def count_outputs(wanted):
    parts = wanted if isinstance(wanted, tuple) else (wanted,)
    return sum(len(part) if isinstance(part, dict) else 1 for part in parts)
