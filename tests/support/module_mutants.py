"""Mutants of the modules of the package: every small change of their code, and the same code with
one of them made.

A mutant changes a comparison, an operator of arithmetic, a number, a flag, a default, an axis or a
condition, swaps two arguments, or drops a statement. Docstrings, annotations, messages, imports and
the options that a router shows as its EXAMPLE, of which others are as good, stay as they are.
"""

import ast
import contextlib
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

BINARY = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
}
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.Is: (ast.IsNot,),
}
COMMUTATIVE = {  # a swap of their arguments changes nothing
    *("maximum", "minimum", "max", "min", "add", "multiply", "logaddexp", "array_equal"),
    *("allclose", "gcd", "hypot", "shares_memory", "may_share_memory", "result_type"),
}
ALL_BINARY = BINARY | {
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.BitOr: (ast.BitAnd,),
}
ALL_COMPARISONS = COMPARISONS | {
    ast.NotEq: (ast.Eq,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
FLOWS = (ast.Raise, ast.Continue, ast.Break, ast.AugAssign, ast.Expr, ast.Delete)


class Mutant(NamedTuple):
    """A change of one node."""

    function: str  # "route", "Gaussian.fit", a class, or "" for what stands in neither
    before: str  # the first line of the statement, written by `ast.unparse`
    after: str
    node: ast.AST  # is changed:
    field: str  # its field
    place: int | None  # the place in the field, where that is a list
    value: Any  # what comes there

    @property
    def change(self) -> str:
        """The change, as the lists of survivors name it."""
        return f"{self.before}  ->  {self.after}"


def mutants(tree: ast.Module) -> Iterator[Mutant]:
    """All mutants of a module."""
    for statement in tree.body:
        yield from _of_statement(statement, "", None)


@contextlib.contextmanager
def changed(mutant: Mutant) -> Iterator[None]:
    """The tree with this change, for a while."""
    node, field, place = mutant.node, mutant.field, mutant.place
    if place is None:
        before = getattr(node, field)
        setattr(node, field, mutant.value)
    else:
        before = getattr(node, field)[place]
        getattr(node, field)[place] = mutant.value
    try:
        yield
    finally:
        if place is None:
            setattr(node, field, before)
        else:
            getattr(node, field)[place] = before


def code_objects(code: CodeType) -> Iterator[CodeType]:
    """The code of a module's functions and classes, and of those inside them."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from code_objects(constant)


# --- Statements -----------------------------------------------------------------------------------


def _of_statement(statement, function, assigned):
    """The mutants of a statement and of those inside it. `assigned` holds the names that the
    function has set before it; it is None outside of functions.
    """
    if isinstance(statement, (ast.Import, ast.ImportFrom, ast.Assert, ast.Global, ast.Nonlocal)):
        return
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return  # a docstring
    if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "EXAMPLE":
        return
    changes = list(_changes(statement))
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)) and assigned is None:
        function = f"{function}.{statement.name}".strip(".")
    if isinstance(statement, ast.FunctionDef):
        arguments = [node.arg for node in ast.walk(statement.args) if isinstance(node, ast.arg)]
        assigned = {*(assigned or ()), *arguments}
    for node, field, place, value in changes:
        if assigned is not None or field != "args":  # a swap of texts in a table tells nothing
            yield _mutant(function, statement, node, field, place, value)
    for block in ("body", "orelse", "finalbody"):
        for place, inner in enumerate(getattr(statement, block, [])):
            if assigned is not None and _can_be_dropped(inner, assigned):
                rest = ast.copy_location(ast.Pass(), inner)
                yield _mutant(function, inner, statement, block, place, rest)
            yield from _of_statement(inner, function, assigned)
            if assigned is not None:
                assigned |= _names_set_by(inner)


def _can_be_dropped(statement, assigned):
    """Whether the code is still complete without the statement: every name that it sets has been
    set before.
    """
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return False
    if isinstance(statement, FLOWS):
        return True
    if isinstance(statement, ast.If):
        return not statement.orelse and _names_set_by(statement) <= assigned
    if isinstance(statement, ast.Assign):
        return _names_set_by(statement) <= assigned
    return False


def _names_set_by(statement):
    return {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _mutant(function, statement, node, field, place, value):
    before = _first_line(statement)
    mutant = Mutant(function, before, "", node, field, place, value)
    if isinstance(value, ast.Pass):
        return mutant._replace(after="removed")
    with changed(mutant):
        return mutant._replace(after=_first_line(statement))


def _first_line(statement):
    """The statement without the block below it, as one line."""
    lines = ast.unparse(_without_block(statement)).splitlines()
    lines = [line for line in lines if not line.startswith("@")]
    return lines[0].strip()


def _without_block(statement):
    """The statement with nothing in its block."""
    if not hasattr(statement, "body"):
        return statement
    fields = dict(ast.iter_fields(statement))
    fields |= {"body": [ast.Pass()]}
    fields |= {name: [] for name in ("orelse", "finalbody", "handlers") if name in fields}
    if isinstance(statement, ast.Try):
        fields |= {"finalbody": [ast.Pass()]}
    return ast.copy_location(type(statement)(**fields), statement)


# --- Expressions ----------------------------------------------------------------------------------


def _changes(statement):
    """(node, field, place in it, new value) of the expressions that belong to this statement."""
    if isinstance(statement, (ast.If, ast.While)):
        yield from _negated(statement, "test")
    for node in _expressions(statement):
        yield from _of_node(node)


def _expressions(node):
    """The nodes of a statement that are not in statements below it, messages or annotations."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "keywords") and not isinstance(
            node, ast.Call
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, (ast.stmt, ast.JoinedStr)):
                continue
            if isinstance(child, ast.keyword) and child.arg == "copy":
                continue  # of memory: no value depends on it
            if _is_reshape(node) and isinstance(child, ast.UnaryOp):
                continue  # -1 and every other negative number are the same
            yield child
            yield from _expressions(child)


def _is_reshape(node):
    return isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "reshape"


def _of_node(node):
    if isinstance(node, (ast.BinOp, ast.AugAssign)):
        for operator in ALL_BINARY.get(type(node.op), ()):
            yield node, "op", None, operator()
    elif isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in ALL_COMPARISONS[type(operator)]:
                yield node, "ops", place, other()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node, "op", None, ast.UAdd()
    elif isinstance(node, ast.BoolOp):
        yield node, "op", None, ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.IfExp):
        yield from _negated(node, "test")
    elif isinstance(node, ast.Constant):
        for value in _constants(node.value):
            yield node, "value", None, value
    elif isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.comprehension):
        for place, condition in enumerate(node.ifs):
            yield node, "ifs", place, _negation(condition)


def _negated(node, field):
    """The condition turned round, where no comparison in it has the same mutant."""
    condition = getattr(node, field)
    if isinstance(condition, ast.Compare) and isinstance(
        condition.ops[0], (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
    ):
        return
    yield node, field, None, _negation(condition)


def _negation(condition):
    if isinstance(condition, ast.UnaryOp) and isinstance(condition.op, ast.Not):
        return condition.operand
    turned = ast.UnaryOp(ast.Not(), condition)
    return ast.fix_missing_locations(ast.copy_location(turned, condition))


def _constants(value):
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (0, 2) if value == 1 else (value + 1,)
    if isinstance(value, float):
        return (2 * value,) if value else (1.0,)
    return ()


def _of_call(call):
    """The first two neighbours among the positional arguments swapped that are not constants."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    pairs = zip(call.args, call.args[1:], strict=False)
    for place, (first, second) in enumerate(pairs):
        fixed = any(isinstance(node, (ast.Starred, ast.Constant)) for node in (first, second))
        if name not in COMMUTATIVE and not fixed and ast.dump(first) != ast.dump(second):
            swapped = [*call.args[:place], second, first, *call.args[place + 2 :]]
            yield call, "args", None, swapped
            return
