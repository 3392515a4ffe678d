"""Grade one submission: run its cells in a child, call its functions on hidden inputs, compare.

A cell that fails costs what it would have defined. A cell or a call that does not end, kills its
process or fills the memory is left out; the child is started again, and the other questions are
graded.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from moe_np.base.checks import InputError
from moe_np.coursework import messages, notebook
from moe_np.coursework.assignments import Assignment
from moe_np.coursework.comparison import equal_values
from moe_np.coursework.messages import (
    LONGEST_TEXT,
    cell_name,
    clean_text,
    explain_given,
    explain_import,
    words_of_changed_given,
)
from moe_np.coursework.notebook import Cell
from moe_np.coursework.own_lines import argument_names, inputs_in_words, own_lines
from moe_np.coursework.question import Case, InputsChanged, Question, examine
from moe_np.coursework.sandbox import Child, ChildError, Refused, Sandbox, TimedOut
from moe_np.coursework.text_answers import gather, text_answer
from moe_np.coursework.turns import Turns

CELLS_SECONDS = 20.0  # for all cells of a notebook together
MOST_HANGING = 3  # if this many cells do not end, the rest of the notebook is not run
NOT_ANSWERED = "not answered yet"
_TURNS = Turns()


class Mark(NamedTuple):
    """The points of one question."""

    name: str
    points: float
    earned: float | None  # None: to be marked by hand
    message: str  # "" if right
    text: str = ""  # the answer to a question that is marked by hand
    right: int = 0  # inputs that were answered right, of those that count; 0 of 0: not counted
    counted: int = 0
    kind: str = ""  # of the input that the message is about
    inputs: str = ""  # what that input was like, in words
    lines: str = ""  # of the student's own function


@dataclasses.dataclass
class GradedNotebook:
    """The marks of one submission."""

    marks: list[Mark]
    problems: list[str]  # what was wrong with the notebook as a whole, in sentences

    @property
    def total(self) -> float:
        """The points earned."""
        return sum(mark.earned or 0 for mark in self.marks)

    @property
    def is_graded(self) -> bool:
        """Whether every question has points, or an answer that waits for points by hand."""
        return all(mark.earned is not None or mark.text for mark in self.marks)

    @property
    def is_complete(self) -> bool:
        """Whether every question has its points, so that the total is final."""
        return all(mark.earned is not None for mark in self.marks)


class Allowed(messages.Allowed, Protocol):
    """What cells are run by: an Assignment, or the Notebook that students check."""

    cells: tuple[Cell, ...]


# --- Which cells are run --------------------------------------------------------------------------


def runnable_cells(assignment: Allowed, cells: Iterable[Cell]) -> list[tuple[int, str]]:
    """[(number, source)] of a student's cells that define answers.

    Given cells run as they were handed out. Tests and cells with the tag "look" are left out. In a
    notebook that lost its metadata, cells are recognised by their content.
    """
    handed_out = notebook.released(assignment.cells)
    by_id = {cell.grade_id: cell for cell in handed_out if cell.grade_id}
    by_source = {cell.source.strip(): cell for cell in handed_out if cell.kind == "code"}
    run = []
    present = set()
    for number, cell in enumerate(cells, start=1):
        original = by_id.get(cell.grade_id) or by_source.get(cell.source.strip())
        role = _role(original or cell)
        if cell.kind != "code" or role == "skip":
            continue
        if role == "given" and original is not None:
            cell = original
            present.add(original.grade_id)
        run.append((number, cell.source))
    missing = [
        (0, cell.source)
        for cell in handed_out
        if _role(cell) == "given" and cell.kind == "code" and cell.grade_id not in present
    ]
    return missing + run


def _role(cell):
    graded = cell.nbgrader.get("grade") and not cell.nbgrader.get("solution")
    if "look" in cell.tags or graded:
        return "skip"
    return "given" if cell.nbgrader.get("locked") else "student"


# --- A notebook in a child ------------------------------------------------------------------------


class Session:
    """A notebook that is run in a child, and run again without the cells that broke it.

    child   one that runs already, for the first time; others are started when needed
    """

    def __init__(self, sandbox: Sandbox, cells: list[tuple[int, str]], child: Child | None = None):
        self.sandbox = sandbox
        self.cells = cells
        self.child = None
        self._first_child = child
        self.failed = {}  # number of a cell -> message of the last run
        self.left_out = {}  # number of a cell -> why it is not run any more
        self.disturbed = set()  # questions that load on the machine can have cost

    def start(self) -> None:
        """Make sure that there is a child in which all cells have run that can."""
        while self.child is None:
            self.child = self._first_child or self.sandbox.child().__enter__()
            self._first_child = None
            self.failed = {}
            self.child.clear()
            self._run_cells()

    def _run_cells(self):
        """Run the cells; stop, without a child, at one that does not end or ends the child."""
        seconds = CELLS_SECONDS
        for number, source in self.cells:
            if number in self.left_out:
                continue
            start = time.monotonic()
            try:
                self.child.cell(number, source, max(seconds, 0.01))
            except Refused as error:
                self.failed[number] = str(error)
            except TimedOut:
                total = f"{CELLS_SECONDS:g} s"
                return self._leave_out(number, f"did not end; all cells together have {total}")
            except ChildError as error:
                return self._leave_out(number, str(error))
            seconds -= time.monotonic() - start

    def _leave_out(self, number, message):
        self.close()
        self.left_out[number] = message
        if len(self.left_out) >= MOST_HANGING:
            rest = [n for n, _ in self.cells if n not in self.left_out and n > number]
            self.left_out |= dict.fromkeys(rest, "not run: too many cells before it did not end")

    def answer(self, question: Question) -> Callable[..., Any]:
        """The student's function as a function. All its calls share the question's time."""
        spent = 0.0

        def call(*inputs):
            nonlocal spent
            seconds = max(question.seconds - spent, 0.01)
            start = time.monotonic()
            try:
                self.start()
                start = time.monotonic()
                value, inputs_after = self.child.call(question.function, inputs, seconds)
            except Refused as error:
                raise Refused(self.explain(str(error))) from None
            except ChildError as error:
                self.disturbed.add(question.name)
                self.close()
                if not isinstance(error, TimedOut):
                    raise
                # the whole time, not what was left of it: the message is then always the same
                raise TimedOut(f"no answer within {question.seconds:g} s") from None
            spent += time.monotonic() - start
            if not equal_values(inputs, inputs_after):
                raise InputsChanged
            return value

        call.paused = lambda: self.child.paused()
        return call

    def explain(self, message: str) -> str:
        """The message of an error in words for the student."""
        if message.startswith("NotImplementedError"):
            return NOT_ANSWERED
        if "there is no function" not in message:
            return message
        text = message.removeprefix("NameError: ")
        if message.startswith("NameError: there is no function") and (self.failed or self.left_out):
            number, reason = next(iter({**self.left_out, **self.failed}.items()))
            return f"{text}; {cell_name(number, self.cells)} failed: {reason}"
        return text

    def close(self) -> None:
        """End the child."""
        if self.child is not None:
            self.child.kill()
            self.child = None


# --- Marks ----------------------------------------------------------------------------------------


def grade(
    assignment: Assignment, drawn: Mapping[str, Sequence[Case]], sandbox: Sandbox, raw: bytes
) -> GradedNotebook:
    """Grade the bytes of a notebook. It raises nothing for what a student did.

    What may be lost by chance, because the machine was busy (no answer in time, a lost race, a
    process that ended), is tried a second time while nothing else is graded.

    drawn   what `assignments.draw_all` returned
    """
    try:
        cells, _ = notebook.read(raw)
    except InputError as error:
        marks = [no_points(question) for question in assignment.questions]
        return GradedNotebook(marks, [f"The notebook cannot be read: {error}."])
    run = runnable_cells(assignment, cells)
    moved = words_of_changed_given(notebook.released(assignment.cells), cells)

    def explain(message):
        return explain_given(explain_import(message, assignment), moved)

    cells = gather(assignment, cells)
    if any("matplotlib" in source for _, source in run):
        sandbox.find_fonts()
    with _TURNS.together():
        marks, broken, repeats = _grade_questions(assignment, drawn, Session(sandbox, run), cells)
    if repeats:
        repeated = assignment._replace(questions=repeats)
        with _TURNS.alone():
            new, broken_again, _ = _grade_questions(repeated, drawn, Session(sandbox, run), cells)
        by_name = {mark.name: mark for mark in new}
        marks = [by_name.get(mark.name, mark) for mark in marks]
        broken = broken_again
    problems = [
        clean_text(f"C{cell_name(number, run)[1:]}: {explain(reason)}.")
        for number, reason in sorted(broken.items())
    ]
    return GradedNotebook([_cleaned(mark, explain) for mark in marks], problems)


def _cleaned(mark, explain):
    return mark._replace(
        message=clean_text(explain(mark.message)),
        text=clean_text(mark.text, LONGEST_TEXT, "\n"),
        lines=clean_text(mark.lines, LONGEST_TEXT, "\n"),
    )


def _grade_questions(assignment, drawn, session, cells):
    """(marks, {number of a cell: why it failed}, questions that may be lost by chance)."""
    try:
        marks = [grade_question(session, q, drawn, cells) for q in assignment.questions]
        broken = {**session.failed, **session.left_out}
    finally:
        session.close()
    lost = {mark.name for mark in marks if mark.earned is not None and mark.earned < mark.points}
    if not session.left_out:  # a cell that is left out may have cost any of them
        lost &= session.disturbed
    repeats = tuple(q for q in assignment.questions if q.function and q.name in lost)
    return marks, broken, repeats


def grade_question(
    session: Session,
    question: Question,
    drawn: Mapping[str, Sequence[Case]],
    cells: Sequence[Cell],
    *,
    count: bool = True,
) -> Mark:
    """Grade one question of a session.

    cells   the notebook's, for what is marked by hand, and for the student's own lines
    count   try all cases, for points by case; otherwise stop at the first that is wrong
    """
    if question.function is None:
        text = text_answer(question, cells)
        if not text:
            return no_points(question, NOT_ANSWERED)
        return Mark(question.name, question.points, None, "", text)
    cases = drawn[question.name]
    verdict = examine(question, session.answer(question), None, drawn=cases, count=count)
    if verdict.too_slow:
        session.disturbed.add(question.name)
    mark = Mark(question.name, question.points, question.earned(verdict), verdict.message)
    if verdict.passed or verdict.message == NOT_ANSWERED:
        return mark
    name = f"{question.name}_answer"
    answer = next((cell for cell in cells if cell.grade_id == name), None)
    mark = mark._replace(
        right=verdict.right,
        counted=verdict.counted,
        lines=own_lines(question, session.cells, answer, verdict.message),
    )
    if verdict.first_wrong is None:
        return mark
    case = cases[verdict.first_wrong]
    names = argument_names(question.function, session.cells, len(case.inputs))
    return mark._replace(kind=case.kind, inputs=inputs_in_words(names, case.inputs))


def no_points(question: Question, message: str = "no answer") -> Mark:
    """The mark of a question that was not answered, or could not be graded."""
    return Mark(question.name, question.points, 0, message)
