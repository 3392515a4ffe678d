"""Does an assignment grade right? Its bank of right and wrong answers says so.

Every answer stands once in the place of the solution, among the solutions of all other questions: a
right one must leave full marks, a wrong one must lose its own question and no other.
"""

import dataclasses
from typing import NamedTuple

from moe_np.coursework import grading


class Row(NamedTuple):
    question: str
    kind: str  # "right", "wrong"
    name: str  # what is wrong; "1", "2" for right answers
    lost: tuple  # questions that did not get their points
    message: str  # what the student would read

    @property
    def as_wanted(self):
        return self.lost == (() if self.kind == "right" else (self.question,))


def with_answer(assignment, question, source):
    """The solved notebook's cells with another answer to one question."""
    name = f"{question}_answer"
    if not any(c.grade_id == name for c in assignment.cells):
        raise KeyError(f"{assignment.name} has no cell {name}")
    return [
        c._replace(source=source.strip("\n")) if c.grade_id == name else c for c in assignment.cells
    ]


def answers(bank):
    """(question, kind, name, source) of all that a bank holds."""
    for question, kinds in bank.items():
        for number, source in enumerate(kinds["right"], start=1):
            yield question, "right", str(number), source
        for name, source in kinds["wrong"].items():
            yield question, "wrong", name, source


def prove(assignment, bank, sandbox, drawn):
    """Grade every answer of the bank. Yields a Row each. Answers share a child, each in an empty
    notebook.
    """
    child = None
    try:
        for question, kind, name, source in answers(bank):
            cells = grading.runnable(assignment, with_answer(assignment, question, source))
            session = grading.Session(sandbox, cells, child=child)
            marks = [grading.mark(session, q, drawn, ()) for q in _asked(assignment, question)]
            child = session.child
            lost = tuple(m.name for m in marks if m.earned != m.points)
            message = next((m.message for m in marks if m.name == question), "")
            yield Row(question, kind, name, lost, message)
    finally:
        if child is not None:
            child.kill()


def _asked(assignment, question):
    """The questions to mark. Only the answer under proof is raced: the other solutions' speed it
    cannot change.
    """
    functions = [q for q in assignment.questions if q.function]
    return [q if q.name == question else dataclasses.replace(q, baseline=None) for q in functions]


def table(rows):
    """The rows as Markdown."""
    lines = ["| question | answer | loses | says |", "|---|---|---|---|"]
    for row in rows:
        lost = ", ".join(row.lost) or "nothing"
        mark = "" if row.as_wanted else " **not as wanted**"
        lines.append(f"| {row.question} | {row.kind}: {row.name} | {lost}{mark} | {row.message} |")
    return "\n".join(lines)
