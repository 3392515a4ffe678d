"""Tricks of clever students, beyond the cheats of `simulate_class.py`: none earns a point."""

import dataclasses
import pathlib
import sys
import time

import numpy as np
import pytest

from moe_np.coursework import grading, notebook
from moe_np.coursework.question import compare_result
from moe_np.coursework.sandbox.jail import descendants
from tests.support import coursework

simulated = coursework.simulate_class()


@pytest.fixture(scope="module")
def sandbox():
    with coursework.sandbox_of() as working:
        yield working


def graded(sandbox, cells, first=True):
    """The marks of a notebook's cells. first: of the first question only."""
    assignment = coursework.assignment()
    if first:
        assignment = assignment._replace(questions=assignment.questions[:1])
    raw = coursework.notebook_bytes(cells)
    return grading.grade(assignment, coursework.drawn(), sandbox, raw)


FRAME = """
import os, struct
import numpy as np
def send(tree, blobs=b""):
    body = struct.pack("<Q", len(tree)) + tree + blobs
    for fd in range(3, 9):
        try:
            os.write(fd, b"moe\\x01" + struct.pack("<Q", len(body)) + body)
        except OSError:
            pass
"""
REPLY = b'{"dict": [["id", {"array": ["<f8", [3]]}], ["ok", true]]}'
LATER_REPLY = b'{"dict": [["id", {"int": "%d"}], ["ok", true], ["value", true], ["inputs", null]]}'

TRICKS = {
    "a number for a reply": (FRAME, 'send(b"5")'),
    "a reply for any question": (FRAME, f"send({REPLY!r}, bytes(24))"),
    "a reply before the question": (FRAME + f"send({REPLY!r}, bytes(24))", "return s"),
    "replies to questions to come": (
        FRAME + f"REPLY = {LATER_REPLY!r}",
        """for i in range(2, 99):
        send(REPLY % i)""",
    ),
    "an array that lies": (
        """
import numpy as np
class Lie(np.ndarray):
    dtype = np.dtype(object)
    def __array__(self, *a, **k): return np.full(self.shape, 0.5)
    def __eq__(self, other): return np.ones(self.shape, bool)
    def tobytes(self, *a): return bytes(8 * self.size)
""",
        "return np.ones(s.shape).view(Lie)",
    ),
    "a number that lies": (
        """
class Lie(float):
    def hex(self): return "nan"
    def __eq__(self, other): return True
""",
        "return Lie(0.5)",
    ),
    "a generator": ("", "return (row for row in s)"),
    "an object array": ("import numpy as np", "return np.array([object()])"),
    "a dict without end": ("", "d = {}\n    d['a'] = d\n    return d"),
    "an input that is changed afterwards": (
        "import threading, time",
        """def later():
        time.sleep(0.01)
        s[...] = 0.5
    threading.Thread(target=later, daemon=True).start()
    return s""",
    ),
    "answers found in memory": (
        "import gc, sys",
        """for thing in [*gc.get_objects(), sys._getframe(1).f_locals, sys._getframe(2).f_locals]:
        if isinstance(thing, dict) and "wanted" in thing:
            return thing["wanted"]
        if type(thing).__name__ in ("Case", "Question"):
            return thing[1]""",
    ),
    "a reply at the end": (
        "import atexit, os\natexit.register(lambda: os.write(4, b'moe\\x01' + bytes(8)))",
        "raise SystemExit(0)",
    ),
    "poisoned libraries": (
        """
import builtins, json, sys, types
sys.modules["numpy.testing"] = types.ModuleType("x")
json.dumps = lambda *a, **k: "null"
builtins.isinstance = lambda a, b: True
""",
        "return 0",
    ),
    "nan": ("import numpy as np", "return np.full(s.shape, np.nan)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_earns_no_points(sandbox, trick, monkeypatch):
    monkeypatch.setattr(grading, "CELLS_SECONDS", 1.0)
    before, body = TRICKS[trick]
    source = f"{before}\ndef softmax(s):\n    {body}"
    cells = simulated.replacing(coursework.assignment(), source)
    (mark,) = graded(sandbox, cells).marks
    assert mark.earned == 0 and mark.message and "Traceback" not in mark.message
    faults_of_ours = mark.message.startswith("AttributeError") or "truth value" in mark.message
    assert not faults_of_ours, mark.message


def solved():
    return simulated.solved(coursework.assignment())


@pytest.mark.slow
def test_of_two_answers_the_last_is_graded_and_given_cells_are_as_they_were(sandbox):
    cells = solved()
    ids = [cell.grade_id for cell in cells]
    answer = ids.index("q1_softmax_answer")
    mistake = cells[answer]._replace(source="def softmax(s):\n    return s")
    assert graded(sandbox, [*cells[:answer], mistake, *cells[answer:]]).total == 2
    assert graded(sandbox, [*cells[: answer + 1], mistake, *cells[answer + 1 :]]).total == 0
    given = ids.index("setup")
    before = cells[:given]
    after = cells[given + 1 :]
    exits = cells[given]._replace(source="import os\nos._exit(0)")
    for attempt in ([*before, exits, *after], [*before, *after, exits]):
        marked = graded(sandbox, attempt, first=False)
        assert marked.total == 20 and not marked.problems


@pytest.mark.slow
def test_the_points_in_the_notebook_do_not_count(sandbox):
    for cells, total in ((notebook.released(coursework.assignment().cells), 0), (solved(), 20)):
        rich = [c._replace(metadata={"nbgrader": {**c.nbgrader, "points": 99}}) for c in cells]
        assert graded(sandbox, rich, first=False).total == total


BUSY = """
import os
def attack():
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            while True:
                pass
    return 1
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="what is left running is stopped on Linux only: TEACHING.md"
)
@pytest.mark.parametrize("mode", ["namespaces", "process"])
def test_nothing_of_the_child_runs_while_a_baseline_is_timed(mode):
    try:
        working = coursework.sandbox_of(mode=mode)
    except ValueError as error:
        pytest.skip(str(error))
    with working, working.child() as child:
        child.cell(1, BUSY)
        child.call("attack", ())

        def states():
            paths = [f"/proc/{pid}/stat" for pid in descendants(child.process.pid)]
            texts = [pathlib.Path(path).read_text() for path in paths]
            return [text.rpartition(")")[2].split()[0] for text in texts]

        with child.paused():
            until = time.monotonic() + 2
            while set(states()) != {"T"} and time.monotonic() < until:
                time.sleep(0.01)
            assert states() == ["T"] * 3
        assert child.call("attack", ())[0] == 1, "and then it continues"


# --- What a comparison takes ----------------------------------------------------------------------


def leaves(value, path=()):
    """(path, array) of all arrays of a result."""
    if isinstance(value, (dict, tuple, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for key, part in pairs for leaf in leaves(part, (*path, key))]
    return [(path, np.asarray(value))]


def with_leaf(value, path, new):
    """The result with another value at a path."""
    if not path:
        return new
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    parts = {key: with_leaf(part, path[1:], new) if key == path[0] else part for key, part in pairs}
    return parts if isinstance(value, dict) else tuple(parts.values())


def with_nan(a):
    changed = a.astype(float)
    changed.flat[:1] = np.nan
    return changed


def a_little_off(a):
    """Not by the same amount everywhere: some answers are right up to a constant."""
    return 1.02 * a.astype(float) + 0.02 * (1 + np.arange(a.size) % 2).reshape(a.shape)


NOT_RIGHT = {
    "nan": with_nan,
    "infinities": lambda a: np.full(a.shape, np.inf),
    "complex": lambda a: a + 1j,
    "text": lambda a: a.astype(str).tolist(),
    "None": lambda a: None,
    "one axis more": lambda a: a[None],
    "one row, to be broadcast": lambda a: a[:1] if a.ndim and len(a) > 1 else a[..., None],
    "a little off": a_little_off,
}


@pytest.mark.slow
@coursework.every_assignment
def test_no_comparison_takes_what_is_not_right(name):
    assignment, drawn = coursework.assignment(name), coursework.drawn(name)
    functions = [question for question in assignment.questions if question.function]
    cases = [(q, case) for q in functions for case in drawn[q.name] if not case.timed]
    for question, case in cases:
        inputs, wanted = case.inputs, case.wanted
        assert not question.compare(wanted, wanted, inputs)
        for path, leaf in leaves(wanted):
            for what, new in NOT_RIGHT.items() if 0 < leaf.size < 9999 else ():
                got = with_leaf(wanted, path, new(leaf))
                assert compare_result(question, wanted, got, inputs), (question.name, path, what)


@pytest.mark.slow
@coursework.every_assignment
def test_no_answer_is_the_same_in_every_grading(name):
    other = coursework.drawn(name, 1)
    for question, cases in coursework.drawn(name).items():
        pairs = zip(cases, other[question], strict=True)
        differ = [repr(first.wanted) != repr(second.wanted) for first, second in pairs]
        assert any(differ), f"{question}: its answers could be learnt by heart"


BY_DIFFERENCES = """
import numpy as np
from moe_np.base.gradcheck import slope
def {name}(dp, x, U, p):
    s, out = np.log(p), []
    def loss(moved):
        e = np.exp(s + (moved["x"] - x) @ U + x @ (moved["U"] - U) + moved["c"])
        return (dp * e / e.sum(axis=1, keepdims=True)).sum()
    start = {"x": x, "U": U, "c": np.zeros(U.shape[1])}
    for name, value in start.items():
        out.append(np.zeros(value.shape))
        for i in range(value.size):
            unit = np.zeros(value.shape)
            unit.flat[i] = 1
            out[-1].flat[i] = slope(lambda v: loss({**start, name: v}), value, unit)
    return tuple(out)
"""


@pytest.mark.slow
def test_a_gradient_by_differences_takes_too_long(sandbox):
    assignment = coursework.assignment()
    question = dataclasses.replace(assignment.questions[1], seconds=0.6)
    source = BY_DIFFERENCES.replace("{name}", question.function)
    cells = simulated.solved(assignment, {question.name: source})
    raw = coursework.notebook_bytes(cells)
    short = assignment._replace(questions=(question,))
    drawn = coursework.drawn()[question.name]
    for cases, message in ((drawn[:-1], ""), (drawn, "no answer within 0.6 s")):
        (mark,) = grading.grade(short, {question.name: cases}, sandbox, raw).marks
        assert mark.message == message
