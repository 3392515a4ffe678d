"""Does an assignment grade right? Its bank of right and wrong answers is graded to find out.

Every answer stands once in the place of the solution, among the solutions of all other questions. A
right one must leave full marks; a wrong one must lose the points of its question and of no other.
A teacher's own answers, in files, are graded in the same way.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from moe_np.base.checks import InputError
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
    seeds: tuple[int, ...] = ()  # of the hidden inputs on which it was not graded as wanted

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
        right = kinds["right"]
        if not isinstance(right, Mapping):
            right = {str(number): source for number, source in enumerate(right, start=1)}
        for name, source in right.items():
            yield question, "right", name, source
        for name, source in kinds["wrong"].items():
            yield question, "wrong", name, source


FILE_NAME = re.compile(r"(?P<question>.+?)__(?P<kind>right|wrong)__(?P<name>.+)\.py")


def read_answers(folder: str | os.PathLike, assignment: Assignment) -> dict[str, dict]:
    """A bank from the files QUESTION__right__WHAT.py and QUESTION__wrong__WHAT.py of a folder.

    Each holds the source of one answer cell. Right answers have names here, as wrong ones have.
    Raises InputError for a name of another form, a question that is not in the assignment, a file
    that cannot be read, and a folder without answers.
    """
    questions = [question.name for question in assignment.questions if question.function]
    bank = {}
    try:
        paths = sorted(pathlib.Path(folder).iterdir())
        for path in paths:
            if path.name.startswith(".") or path.suffix != ".py":
                continue
            match = FILE_NAME.fullmatch(path.name)
            if not match:
                wanted = "QUESTION__right__WHAT.py or QUESTION__wrong__WHAT.py"
                raise InputError(f"{path}: wanted a name such as {wanted}")
            if match["question"] not in questions:
                wanted = ", ".join(questions)
                raise InputError(f"{path}: wanted one of {wanted}, got {match['question']!r}")
            kinds = bank.setdefault(match["question"], {"right": {}, "wrong": {}})
            kinds[match["kind"]][match["name"]] = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{error.filename}: wanted answers, got {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: wanted text in UTF-8") from None
    if not bank:
        raise InputError(f"{folder}: wanted files with answers, got none")
    return bank


def prove_on_seeds(
    assignment: Assignment,
    bank: Mapping[str, Mapping],
    sandbox: Sandbox,
    draws: Mapping[int, Mapping[str, Sequence[Case]]],
) -> list[Row]:
    """Grade every answer of the bank on the hidden inputs of several seeds: one Row for each.

    A row is that of the first seed on which the answer was not graded as wanted, and names all such
    seeds; if there are none, it is that of the first seed.

    draws   {seed: what `assignments.draw_all` returned}
    """
    by_seed = [list(prove(assignment, bank, sandbox, drawn)) for drawn in draws.values()]
    rows = []
    for same_answer in zip(*by_seed, strict=True):
        pairs = list(zip(draws, same_answer, strict=True))
        failed = [(seed, row) for seed, row in pairs if not row.as_wanted]
        row = failed[0][1] if failed else same_answer[0]
        rows.append(row._replace(seeds=tuple(seed for seed, _ in failed)))
    return rows


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
                grading.grade_question(session, other, drawn, (), count=False)
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
        seeds = f" (seeds {', '.join(map(str, row.seeds))})" if row.seeds else ""
        remark = "" if row.as_wanted else f" **not as wanted**{seeds}"
        cells = (row.question, f"{row.kind}: {row.name}", f"{lost}{remark}", row.message)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def facts(assignment: Assignment, seeds: Iterable[int], rows: Sequence[Row]) -> dict[str, Any]:
    """The rows as JSON holds them."""
    answers = [{**row._asdict(), "as_wanted": row.as_wanted} for row in rows]
    not_as_wanted = sum(not row.as_wanted for row in rows)
    head = {"assignment": assignment.name, "seeds": list(seeds), "not_as_wanted": not_as_wanted}
    return {**head, "answers": answers}


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
