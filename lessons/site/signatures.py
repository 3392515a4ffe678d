"""Signatures and types of the reference, read from the source.

A type has the name that the source gives it, `ArrayND` and not what it stands for. For Sphinx it is
written with the module that defines it, moe_np.base.types.ArrayND: Sphinx links it and shows the
last part.
"""

import ast
import copy
import functools
import re

from moe_np.experiments.common import sources


@functools.cache
def syntax(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(sources.file_of(module).read_text(encoding="utf-8"))


# --- types ----------------------------------------------------------------------------------------


def written(node: ast.expr) -> str:
    """A type or value as it is written, with `Array['N, D']` for an annotated array."""
    return _axes_only(ast.unparse(_Types(None).visit(copy.deepcopy(node))))


def linked(node: ast.expr, module: str) -> str:
    """A type with the modules of its names, as seen in `module`."""
    return _axes_only(ast.unparse(_Types(module).visit(copy.deepcopy(node))))


def _axes_only(text):
    return re.sub(r"Annotated\[[\w.]+, ('[^']*')\]", r"Array[\1]", text)


class _Types(ast.NodeTransformer):
    """No quotation marks around types; with a module, names of the package in full."""

    def __init__(self, module):
        self.module = module

    def visit_Constant(self, node):
        is_type = isinstance(node.value, str)
        return self.visit(ast.parse(node.value, mode="eval").body) if is_type else node

    def visit_Subscript(self, node):  # the axes of an annotated array are no type
        return node if ast.unparse(node.value) == "Annotated" else self.generic_visit(node)

    def visit_Attribute(self, node):
        name = ast.unparse(node)
        if self.module is None or not re.fullmatch(r"[\w.]+", name):
            return node
        return ast.parse(home(self.module, name), mode="eval").body

    visit_Name = visit_Attribute


@functools.cache
def home(module: str, name: str) -> str:
    """A name with the module of the package that defines it; other names as they are.

    `Routing` and `contract.Routing` become moe_np.routing.contract.Routing.
    """
    head, _, rest = name.partition(".")
    if not rest and name in types(module):
        return f"{module}.{name}"
    imported = imports(module).get(head)
    return (_imported_home(*imported, rest) if imported else None) or name


@functools.cache
def imports(module: str) -> dict[str, tuple[str, str]]:
    """{name: (source, its name there)} of what a module imports with `from source import`."""
    names: dict[str, tuple[str, str]] = {}
    for node in ast.walk(syntax(module)):
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            names.setdefault(alias.asname or alias.name, (node.module, alias.name))
    return names


def _imported_home(source, name, rest):
    """`home` of `name.rest` after `from source import name`; None where it is left as it is."""
    if source.startswith("matplotlib"):
        return f"{source}.{name}"  # Axes is also the name of types of the package
    if not source.startswith("moe_np"):
        return None
    if not rest:
        return home(source, name)
    submodule = f"{source}.{name}"
    return home(submodule, rest) if sources.file_of(submodule) else None


@functools.cache
def types(module: str) -> frozenset[str]:
    """The names of the classes and types that a module defines."""
    names = {node.name for node in syntax(module).body if isinstance(node, ast.ClassDef)}
    names |= {node_name for node in syntax(module).body if (node_name := type_name(node))}
    return frozenset(names)


def type_name(node: ast.stmt) -> str | None:
    """The name that a statement gives to a type, as `Params = dict[str, np.ndarray]`; or None."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    is_declared = isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias"
    name = targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else ""
    is_type = re.fullmatch(r"[A-Z]\w*[a-z]\w*|Array[A-Z0-9]*", name) and node.value is not None
    is_expression = is_type and isinstance(node.value, (ast.Subscript, ast.BinOp, ast.Attribute))
    return name if is_declared or is_expression else None


# --- arguments ------------------------------------------------------------------------------------


def signature(node: ast.FunctionDef, module: str, *, is_bound: bool = False) -> str:
    """The arguments of a function and its result; without the first argument if it is bound."""
    result = f" -> {linked(node.returns, module)}" if node.returns else ""
    parts = arguments(node.args, module)
    return f"({', '.join(parts[1:] if is_bound else parts)}){result}"


def arguments(args: ast.arguments, module: str) -> list[str]:
    """Each argument as text, with * and / in their places."""
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    parts = [_argument(a, module, d) for a, d in zip(positional, defaults, strict=True)]
    if args.posonlyargs:
        parts.insert(len(args.posonlyargs), "/")
    if args.vararg:
        parts.append("*" + _argument(args.vararg, module))
    elif args.kwonlyargs:
        parts.append("*")
    pairs = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    parts += [_argument(argument, module, default) for argument, default in pairs]
    if args.kwarg:
        parts.append("**" + _argument(args.kwarg, module))
    return parts


def _argument(node, module, default=None):
    """One argument: its name, type and default."""
    typed = f"{node.arg}: {linked(node.annotation, module)}" if node.annotation else node.arg
    equals = " = " if node.annotation else "="
    return typed if default is None else f"{typed}{equals}{ast.unparse(default)}"
