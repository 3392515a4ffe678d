"""The student's own lines, and the inputs in words."""

import numpy as np

from moe_np.coursework import Question
from moe_np.coursework.notebook import Cell
from moe_np.coursework.own_lines import argument_names, inputs_in_words, own_lines

QUESTION = Question("q1", "f", 1)
FIRST = "def f(x):\n    return 0\n"
LAST = "import math\n\n@cached\ndef f(x):\n    y = x + 1\n    return y / 0\n\nf(2)\n"
CELLS = [(2, FIRST), (5, LAST), (7, "def g(x): pass")]


def test_the_last_definition_is_shown_with_the_line_of_the_error():
    lines = own_lines(QUESTION, CELLS, None, "ZeroDivisionError: no (cell 5, line 6)").split("\n")
    assert lines == ["   @cached", "   def f(x):", "       y = x + 1", "->     return y / 0"]
    assert "->" not in own_lines(QUESTION, CELLS, None, "no (cell 4, line 6)")
    assert own_lines(QUESTION, [], None, "no") == ""


def test_a_long_function_is_cut_around_the_line_of_the_error():
    source = "def f(x):\n" + "".join(f"    x{i} = {i}\n" for i in range(500))
    lines = own_lines(QUESTION, [(1, source)], None, "no (cell 1, line 300)").split("\n")
    assert len(lines) < 70 and any(line.startswith("->     x298") for line in lines)


def test_of_a_function_in_a_given_cell_the_cell_of_the_answer_is_shown():
    answer = Cell("code", "def audit(route):\n    pass", {})
    cells = [(1, "def f(x):\n    return audit(x)"), (2, answer.source)]
    shown = own_lines(QUESTION, cells, answer, "AssertionError: no (cell 2, line 2)")
    assert shown == "   def audit(route):\n->     pass"


def test_a_source_is_not_parsed():
    """Python's parser takes gigabytes for some sources, and may end the process for others."""
    hostile = "def f(x):\n    return " + "(" * 1_000_000 + "\n" + "def f(x): pass\n" * 100_000
    assert own_lines(QUESTION, [(1, hostile), (2, "-" * 1_000_000)], None, "no")
    assert argument_names("f", [(1, hostile)], 1) == ["x"]


def test_names_of_arguments():
    source = "def f(\n    x: list,\n    *, k=2\n):\n    return x\ny = 1"
    assert argument_names("f", [(1, source)], 2) == ["argument 1", "argument 2"]
    source = source.replace("*, k=2", "k: int = 2,")
    assert argument_names("f", [(1, source)], 2) == ["x", "k"]
    assert own_lines(QUESTION, [(1, source)], None, "no").endswith("return x")
    assert argument_names("f", CELLS, 1) == ["x"]
    assert argument_names("f", CELLS, 2) == ["argument 1", "argument 2"]
    assert argument_names("h", CELLS, 1) == ["argument 1"]


def test_inputs_in_words_say_what_is_special_and_no_values():
    hidden = np.array([[0.123, -902.4], [np.nan, np.inf]])
    inputs = (hidden, np.array([True, False]), 2, None, 0.5, "cubic", "x" * 99)
    words = inputs_in_words(["x", "valid", "k", "noise", "lr", "kind", "source"], inputs)
    assert words == (
        "x (2, 2), with nan, with infinity, up to 902 in size; valid (2,), 1 of 2 True; k = 2; "
        "noise = None; lr = 0.5; kind = 'cubic'"
    )
    lists = ([np.zeros((0, 3)), np.array([4, 7])], {"w": 1e-3 * np.ones(2)}, [3, 0])
    lists += ([({"w": np.ones(2)}, 7)],)
    words = inputs_in_words(["x", "params", "n", "parts"], lists)
    assert words == (
        "x, a list of 2: (0, 3), empty, (2,), from 4 to 7; params with w (2,), at most 0.001 in "
        "size; n = [3, 0]; parts, a list of 1: a list of 2: w (2,), 7"
    )
