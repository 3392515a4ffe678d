"""One submission: its cells run in a child, its functions called on hidden inputs, what came back
compared here.

A cell that fails costs what it would have defined. A cell or a call that hangs, kills its process
or fills the memory is left out; the child is started again and the other questions are graded.
"""

import dataclasses
import hashlib
import time
from typing import NamedTuple

import moe_np
from moe_np.base.checks import InputError
from moe_np.coursework import percent, wire
from moe_np.coursework.process import ChildError, Refused, TimedOut
from moe_np.coursework.question import InputsChanged, examine, same

CELLS = 20.0  # seconds for all cells of a notebook together
HUNG = 3  # so many cells may hang before the rest of the notebook is left alone
NOT_YET = "not answered yet"


class Mark(NamedTuple):
    name: str
    points: float
    earned: float | None  # None: to be marked by hand
    message: str  # "" if right
    text: str = ""  # the answer to a question that is marked by hand


@dataclasses.dataclass
class Marked:
    """A graded submission."""

    marks: list
    problems: list  # what was wrong with the notebook as a whole, in sentences

    @property
    def total(self):
        return sum(mark.earned or 0 for mark in self.marks)


# --- Which cells are run --------------------------------------------------------------------------


def runnable(assignment, cells):
    """[(number, source)] of a student's cells that define answers. Given cells run as they were
    handed out.

    Tests and cells tagged "look" are left out. A notebook that lost its metadata on the way is
    matched by content.
    """
    handed_out = percent.released(assignment.cells)
    by_id = {c.grade_id: c for c in handed_out if c.grade_id}
    by_source = {c.source.strip(): c for c in handed_out if c.kind == "code"}
    out, seen = [], set()
    for number, cell in enumerate(cells, start=1):
        original = by_id.get(cell.grade_id) or by_source.get(cell.source.strip())
        role = _role(original or cell)
        if cell.kind != "code" or role == "skip":
            continue
        if role == "given" and original is not None:
            cell = original
            seen.add(original.grade_id)
        out.append((number, cell.source))
    lost = [
        (0, c.source)
        for c in handed_out
        if _role(c) == "given" and c.grade_id not in seen and c.kind == "code"
    ]
    return lost + out


def _role(cell):
    if "look" in cell.tags or (cell.nbgrader.get("grade") and not cell.nbgrader.get("solution")):
        return "skip"
    return "given" if cell.nbgrader.get("locked") else "own"


def by_hand(question, cells):
    """The text of an answer that is marked by hand."""
    found = [c.source for c in cells if c.grade_id == question.name]
    text = found[0].strip() if found else ""
    return "" if text == percent.TEXT_STUB else text


# --- A notebook in a child ------------------------------------------------------------------------


class Session:
    """A notebook that is run, and run again without what broke it."""

    def __init__(self, sandbox, cells, child=None):
        self.sandbox, self.cells = sandbox, cells
        self.child = None
        self._lent = child  # one that is already there, to begin with
        self.failed = {}  # number -> message of the last run
        self.left_out = {}  # number -> why it is not run any more

    def start(self):
        """A child in which all cells have run that can."""
        while self.child is None:
            self.child, self.failed, self._lent = (
                self._lent or self.sandbox.child().__enter__(),
                {},
                None,
            )
            self.child.fresh()
            left = CELLS
            for number, source in self.cells:
                if number in self.left_out:
                    continue
                begin = time.monotonic()
                try:
                    self.child.cell(number, source, max(left, 0.01))
                except Refused as error:
                    self.failed[number] = str(error)
                except ChildError as error:
                    late = f"did not end; all cells together have {CELLS:g} s"
                    self._leave_out(number, late if isinstance(error, TimedOut) else str(error))
                    break
                left -= time.monotonic() - begin

    def _leave_out(self, number, message):
        self.close()
        self.left_out[number] = message
        if len(self.left_out) >= HUNG:
            after = [n for n, _ in self.cells if n not in self.left_out and n > number]
            self.left_out |= dict.fromkeys(after, "not run: too many cells before it did not end")

    def answer(self, question):
        """The student's function as a function: its calls share the question's time."""
        spent = 0.0

        def call(*inputs):
            nonlocal spent
            self.start()
            begin = time.monotonic()
            try:
                value, after = self.child.call(
                    question.function, inputs, max(question.seconds - spent, 0.01)
                )
            except Refused as error:
                raise Refused(self.explained(str(error))) from None
            except ChildError as error:
                self.close()
                late = f"no answer within {question.seconds:g} s"  # not what was left of them: the same every time
                raise TimedOut(late) if isinstance(error, TimedOut) else error from None
            spent += time.monotonic() - begin
            if not same(inputs, after):
                raise InputsChanged
            return value

        call.still = lambda: self.child.still()
        return call

    def explained(self, message):
        if message.startswith("NotImplementedError"):
            return NOT_YET
        if message.startswith("NameError: there is no function") and (self.failed or self.left_out):
            number, why = next(iter({**self.left_out, **self.failed}.items()))
            return f"{message.removeprefix('NameError: ')}; cell {number} failed: {why}"
        return message.removeprefix("NameError: ") if "there is no function" in message else message

    def close(self):
        if self.child is not None:
            self.child.kill()
            self.child = None


# --- Marks ----------------------------------------------------------------------------------------


def grade(assignment, drawn, sandbox, raw):
    """Grade the bytes of a notebook. drawn: of `assignments.draw_all`. Never raises for what a
    student did.
    """
    try:
        cells, _ = percent.read_notebook(raw)
    except InputError as error:
        return Marked(
            [nothing(q) for q in assignment.questions], [f"The notebook cannot be read: {error}."]
        )
    run = runnable(assignment, cells)
    if any("matplotlib" in source for _, source in run):
        sandbox.with_fonts()
    session = Session(sandbox, run)
    try:
        marks = [mark(session, q, drawn, cells) for q in assignment.questions]
        broken = {**session.failed, **session.left_out}
    finally:
        session.close()
    problems = [
        plain(f"Cell {number}: {about(why, assignment)}.") for number, why in sorted(broken.items())
    ]
    marks = [
        m._replace(message=plain(about(m.message, assignment)), text=plain(m.text, 20_000, "\n"))
        for m in marks
    ]
    return Marked(marks, problems)


def plain(text, longest=500, kept=""):
    """Text that came from a student, fit for a file and a terminal: one line, no control
    characters, not too long.
    """
    text = text.encode("utf-8", "replace").decode()
    text = "".join(c if c.isprintable() or c in kept else " " for c in text)
    return text if len(text) <= longest else text[:longest] + " ..."


def nothing(question, message="no answer"):
    return Mark(question.name, question.points, 0, message)


def mark(session, question, drawn, cells):
    """Grade one question of a session. cells: the notebook's, for what is marked by hand."""
    if question.function is None:
        text = by_hand(question, cells)
        return Mark(
            question.name, question.points, None if text else 0, "" if text else NOT_YET, text
        )
    verdict = examine(question, session.answer(question), None, drawn=drawn[question.name])
    return Mark(
        question.name, question.points, question.points if verdict.passed else 0, verdict.message
    )


def about(message, assignment):
    """A module that is not there is one that was not allowed: say so."""
    if "No module named 'moe_np" in message:
        return f"{message}; of moe_np this assignment allows {', '.join(assignment.allowed)}"
    if "No module named" in message:
        return f"{message}; besides Python's own this assignment allows {', '.join(assignment.libraries)}"
    return message


def key(assignment, drawn, seed, raw):
    """What determines a submission's marks, as a hash: the notebook, the questions, the hidden
    inputs and answers.
    """
    about = (moe_np.__version__, assignment.name, assignment.fingerprint, seed)
    digest = hashlib.sha256(repr(about).encode())
    for name in sorted(drawn):
        for case in drawn[name]:
            digest.update(wire.frame([list(case.inputs), _plain(case.wanted)]))
    digest.update(raw)
    return digest.hexdigest()[:24]


def _plain(value):
    """Named tuples and the like as what the wire knows."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value
