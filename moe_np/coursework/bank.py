"""Does an assignment grade right? Its bank of right and wrong answers is graded to find out.

Every answer stands once in the place of the solution, among the solutions of all other questions. A
right one must leave full marks; a wrong one must lose the points of its question and of no other.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from moe_np.coursework import grading
from moe_np.coursework.assignments import Assignment
from moe_np.coursework.notebook import Cell
from moe_np.coursework.question import Case
from moe_np.coursework.sandbox import Sandbox


class Row(NamedTuple):
    """How one answer of the bank was graded."""

    question: str
    kind: str  # "right", "wrong"
    name: str  # of a wrong answer: what is wrong; of right ones: "1", "2"
    lost: tuple[str, ...]  # questions that did not get their points
    message: str  # what the student would read

    @property
    def as_wanted(self) -> bool:
        """Whether it lost what it should lose, and nothing else."""
        return self.lost == (() if self.kind == "right" else (self.question,))


def with_answer(assignment: Assignment, question: str, source: str) -> list[Cell]:
    """The cells of the solved notebook with another answer to one question.

    Raises KeyError if the assignment has no such question.
    """
    name = f"{question}_answer"
    if not any(cell.grade_id == name for cell in assignment.cells):
        raise KeyError(f"{assignment.name} has no cell {name}")
    answer = source.strip("\n")
    return [
        cell._replace(source=answer) if cell.grade_id == name else cell for cell in assignment.cells
    ]


def answers(bank: Mapping[str, Mapping]) -> Iterator[tuple[str, str, str, str]]:
    """(question, kind, name, source) of all answers of a bank."""
    for question, kinds in bank.items():
        for number, source in enumerate(kinds["right"], start=1):
            yield question, "right", str(number), source
        for name, source in kinds["wrong"].items():
            yield question, "wrong", name, source


def prove(
    assignment: Assignment,
    bank: Mapping[str, Mapping],
    sandbox: Sandbox,
    drawn: Mapping[str, Sequence[Case]],
) -> Iterator[Row]:
    """Grade every answer of the bank and yield a Row for each.

    The answers share a child, in which each finds an empty notebook.
    """
    child = None
    try:
        for question, kind, name, source in answers(bank):
            cells = grading.runnable_cells(assignment, with_answer(assignment, question, source))
            session = grading.Session(sandbox, cells, child=child)
            marks = [
                grading.grade_question(session, other, drawn, ())
                for other in _questions(assignment, question)
            ]
            child = session.child
            lost = tuple(mark.name for mark in marks if mark.earned != mark.points)
            message = next((mark.message for mark in marks if mark.name == question), "")
            yield Row(question, kind, name, lost, message)
    finally:
        if child is not None:
            child.kill()


def _questions(assignment, tried):
    """The questions to grade. Only the answer that is tried is raced against its baseline.

    It cannot change the speed of the other solutions.
    """
    functions = [question for question in assignment.questions if question.function]
    return [
        question if question.name == tried else dataclasses.replace(question, baseline=None)
        for question in functions
    ]


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| question | answer | loses | message |", "|---|---|---|---|"]
    for row in rows:
        lost = ", ".join(row.lost) or "nothing"
        remark = "" if row.as_wanted else " **not as wanted**"
        cells = (row.question, f"{row.kind}: {row.name}", f"{lost}{remark}", row.message)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# --- Writing a bank: answers that differ in a line ------------------------------------------------


def changed(source: str, *changes: tuple[str, str]) -> str:
    """The source with `new` in the place of `old` for each change (old, new).

    Raises ValueError where `old` is not in the source.
    """
    for old, new in changes:
        if old not in source:
            raise ValueError(f"wanted a part of the source to change, got {old!r}")
        source = source.replace(old, new)
    return source


def template(text: str, **parts: str) -> Callable[..., str]:
    """A function that fills the fields {name} of `text`, with `parts` or what it gets instead."""

    def fill(**replaced: str) -> str:
        return text.format(**{**parts, **replaced})

    return fill
