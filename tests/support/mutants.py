"""Mutants of the solutions of coursework: does any wrong answer of one small change get full marks?

A mutant is the solution of a question with one operator, axis, constant, comparison, function,
keyword or statement changed. One that is graded right on the hidden inputs of any seed is alive:
it is either equivalent to the solution or shows that a case is missing. By hand, for all of them:

    .venv/bin/python -m tests.support.mutants [ASSIGNMENT [QUESTION]] [--seeds 5]
"""

import argparse
import ast
import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from moe_np.coursework.assignments import Assignment
from tests.support import answers, coursework
from tests.support.module_mutants import BINARY, COMPARISONS

SECONDS = 5.0  # for one mutant on the cases of one seed

FUNCTIONS = {
    "max": ("min", "sum"),
    "min": ("max",),
    "sum": ("mean",),
    "mean": ("sum",),
    "argmax": ("argmin",),
    "maximum": ("minimum",),
    "ceil": ("floor", "round"),
    "zeros": ("ones",),
    "zeros_like": ("ones_like",),
    "ones_like": ("zeros_like",),
    "log1p": ("log",),
    "abs": ("negative",),
}


class Mutant(NamedTuple):
    """A changed solution."""

    before: str  # the line that is changed, without indentation
    after: str
    source: str

    @property
    def name(self) -> str:
        """The change, as survivors are listed by."""
        return f"{self.before}  ->  {self.after}"


def mutants(source: str) -> Iterator[Mutant]:
    """All mutants of a source, in the order of its lines."""
    tree = ast.parse(source)
    original = ast.unparse(tree)
    seen = {original}
    for number, _ in enumerate(ast.walk(tree)):
        for change in range(_count_changes(tree, number)):
            changed = copy.deepcopy(tree)
            _changes(changed, list(ast.walk(changed))[number])[change]()
            try:
                text = ast.unparse(ast.fix_missing_locations(changed))
            except ValueError:
                continue
            if text in seen:
                continue
            seen.add(text)
            yield Mutant(*_changed_lines(original, text), text)


def _count_changes(tree, number):
    return len(_changes(tree, list(ast.walk(tree))[number]))


def _changed_lines(before, after):
    """The first line that differs, before and after."""
    old = before.splitlines()
    new = after.splitlines()
    for a, b in zip(old, new, strict=False):
        if a != b:
            return a.strip(), b.strip() if len(old) == len(new) else "removed"
    return old[-1].strip(), "removed"


def _changes(tree, node):
    """Functions without arguments, each of which changes a node of the tree."""
    if isinstance(node, ast.BinOp):
        return [_setter(node, "op", new()) for new in BINARY.get(type(node.op), ())]
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        new = COMPARISONS.get(type(node.ops[0]), ())
        return [_setter(node, "ops", [operator()]) for operator in new]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Invert, ast.Not)):
        return [_setter(node, "op", ast.UAdd())] if isinstance(node.op, ast.USub) else []
    if isinstance(node, ast.Constant):
        return [_setter(node, "value", value) for value in _constants(node.value)]
    if isinstance(node, ast.AugAssign):
        new = BINARY.get(type(node.op), ())
        return [_setter(node, "op", operator()) for operator in new]
    if isinstance(node, ast.Attribute):
        return [_setter(node, "attr", name) for name in FUNCTIONS.get(node.attr, ())]
    if isinstance(node, ast.Name) and node.id in ("max", "min"):
        return [_setter(node, "id", FUNCTIONS[node.id][0])]
    if isinstance(node, ast.IfExp):
        values = (ast.Constant(True), ast.Constant(False))
        return [_setter(node, "test", value) for value in values]
    if isinstance(node, ast.If):
        return [_setter(node, "test", ast.Constant(value)) for value in (True, False)]
    if isinstance(node, ast.Call):
        return [_remover(node.keywords, i) for i in range(len(node.keywords))]
    return _removed_statements(node)


def _constants(value):
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (value + 1, value - 1)
    if isinstance(value, float):
        return (2 * value, value / 2)
    return ()


def _removed_statements(node):
    changes = []
    for field in ("body", "orelse"):
        statements = getattr(node, field, None)
        if isinstance(statements, list) and not isinstance(node, ast.Module):
            for i, statement in enumerate(statements):
                is_text = isinstance(statement, ast.Expr) and isinstance(
                    statement.value, ast.Constant
                )
                if not is_text and not isinstance(statement, ast.Return):
                    changes.append(_item_setter(statements, i, ast.Pass()))
    return changes


def _setter(node, field, value):
    return lambda: setattr(node, field, value)


def _item_setter(items, i, value):
    return lambda: items.__setitem__(i, value)


def _remover(items, i):
    return lambda: items.pop(i)


# --- Which are alive ------------------------------------------------------------------------------


def survivors(
    assignment: Assignment, question: str, seeds: Sequence[int], sample: slice = slice(None)
) -> Iterator[tuple[Mutant, int]]:
    """(mutant, seed) of the mutants that are graded right on the hidden inputs of a seed."""
    source = answers.solution(assignment, question).replace("@njit\n", "")
    for mutant in list(mutants(source))[sample]:
        for seed in seeds:
            drawn = coursework.drawn_one(assignment.name, question, seed)
            if answers.grade(assignment, question, mutant.source, drawn, SECONDS).passed:
                yield mutant, seed
                break


def main() -> None:
    """Print the mutants that are alive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?")
    parser.add_argument("question", nargs="?", default="")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    for name in [args.name] if args.name else coursework.NAMES:
        assignment = coursework.assignment(name)
        for question in assignment.questions:
            if not question.function or not question.name.startswith(args.question):
                continue
            count = len(list(mutants(answers.solution(assignment, question.name))))
            print(f"## {name} {question.name}: {count} mutants", flush=True)
            for mutant, seed in survivors(assignment, question.name, range(args.seeds)):
                print(f"alive (seed {seed}): {mutant.name}", flush=True)


if __name__ == "__main__":
    main()
