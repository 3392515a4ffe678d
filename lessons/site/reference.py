"""The reference: a page for each module, made from its source without importing it.

Docstrings come as they stand, since their tables are aligned for the eye.
"""

import ast
import functools
import inspect
import pathlib
import re
from typing import NamedTuple

from lessons.site import course, links
from lessons.site.signatures import linked, signature, syntax, type_name, written
from moe_np.experiments.common import sources

LONGEST_VALUE = 72  # of a constant, in characters: a longer one is not shown


def summary(module: str) -> str:
    """The first paragraph of a module's docstring."""
    return " ".join(ast.get_docstring(syntax(module)).partition("\n\n")[0].split())


def package(module: str) -> str:
    """The package that a module lies in, or is."""
    is_package = sources.file_of(module).name == "__init__.py"
    return module if is_package else module.rpartition(".")[0]


# --- what a module has ----------------------------------------------------------------------------


class Entry(NamedTuple):
    """A public name of a module, as a directive of Sphinx."""

    directive: str  # "py:function:: route(params, x)"
    options: tuple[str, ...]  # ":value: 8"
    text: str  # the docstring, or the comment beside a constant
    fields: tuple[tuple[str, str, str], ...] = ()  # (name, type, comment) of a NamedTuple


def public(module: str) -> list[Entry]:
    """The public functions, classes with their methods, types and constants, as they come."""
    lines = sources.file_of(module).read_text(encoding="utf-8").splitlines()
    entries = []
    for node in syntax(module).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            entries += of_assignment(node, module, lines)
        elif getattr(node, "name", "_").startswith("_"):
            continue
        elif isinstance(node, ast.FunctionDef):
            directive = f"py:function:: {node.name}{signature(node, module)}"
            entries.append(Entry(directive, (), ast.get_docstring(node) or ""))
        elif isinstance(node, ast.ClassDef):
            entries += of_class(node, module, lines)
    return entries


def of_class(node: ast.ClassDef, module: str, lines: list[str]) -> list[Entry]:
    """A class with the fields that it declares, and its documented methods."""
    declared = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    fields = [(part.target.id, written(part.annotation), comment(part, lines)) for part in declared]
    text = ast.get_docstring(node) or ""
    entries = [Entry(f"py:class:: {node.name}", (), text, tuple(fields))]
    for part in node.body:
        text = ast.get_docstring(part) if isinstance(part, ast.FunctionDef) else None
        if text and not part.name.startswith("_"):
            entries.append(Entry(of_method(part, node.name, module), (), text))
    return entries


def of_method(node: ast.FunctionDef, owner: str, module: str) -> str:
    """The directive of a method or property."""
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    if "property" in decorators:
        return f"py:property:: {owner}.{node.name}"
    shown = signature(node, module, is_bound="staticmethod" not in decorators)
    return f"py:method:: {owner}.{node.name}{shown}"


def of_assignment(node: ast.Assign | ast.AnnAssign, module: str, lines: list[str]) -> list[Entry]:
    """A type, or constants: names with a capital, as `RELU` or `ERRORS`."""
    if name := type_name(node):
        options = (f":canonical: {linked(node.value, module)}",)
        return [Entry(f"py:type:: {name}", options, comment(node, lines))]
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    parts = target.elts if isinstance(target, ast.Tuple) else [target]
    names = [n.id for n in parts if isinstance(n, ast.Name) and re.match("[A-Z]", n.id)]
    value = ast.unparse(node.value) if node.value and len(parts) == 1 else ""
    options = (f":value: {value}",) if 0 < len(value) <= LONGEST_VALUE else ()
    return [Entry(f"py:data:: {name}", options, comment(node, lines)) for name in names]


def comment(node: ast.stmt, lines: list[str]) -> str:
    """The comment that ends the line on which a statement ends."""
    rest = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
    return rest.partition("#")[2].strip()


@functools.cache
def source(module: str) -> tuple[str, dict[str, tuple[str, int, int]]]:
    """The text of a module, and {name: ("def" or "class", first line, last line)} in it."""
    places = {}
    for node in syntax(module).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            places[node.name] = place(node)
        for part in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(part, ast.FunctionDef):
                places[f"{node.name}.{part.name}"] = place(part)
    return sources.file_of(module).read_text(encoding="utf-8"), places


def place(node: ast.FunctionDef | ast.ClassDef) -> tuple[str, int, int]:
    """What a definition is, and its first line, which may be a decorator, and its last."""
    first = node.decorator_list[0] if node.decorator_list else node
    kind = "class" if isinstance(node, ast.ClassDef) else "def"
    return kind, first.lineno, node.end_lineno


# --- pages ----------------------------------------------------------------------------------------


def page(module: str, topic: tuple[str, str] | None = None) -> str:
    """The page of a module as reStructuredText.

    topic  (document, title) of the topic page that the module belongs to
    """
    title = module.removeprefix("moe_np.")
    lines = [title, "=" * len(title), "", f".. py:module:: {module}", ""]
    if topic:
        lines += [f"Topic: :doc:`{topic[1]} </{topic[0]}>`", ""]
    if numbers := course.lessons_with(module):
        names = links.lesson_names()
        lines += [
            "In the lessons: " + ", ".join(f":doc:`{n} </lessons/{names[n]}>`" for n in numbers)
        ]
        lines += [""]
    lines += described(ast.get_docstring(syntax(module)), 0, package(module))
    for entry in public(module):
        lines += entry_lines(entry, package(module))
    return "\n".join(lines) + "\n"


def entry_lines(entry: Entry, where: str) -> list[str]:
    """A public name as reStructuredText; `where` as in `described`."""
    lines = ["", f".. {entry.directive}", *(f"   {option}" for option in entry.options), ""]
    if entry.text:
        lines += described(entry.text, 3, where)
    if entry.fields:
        rows = (f"      {row}" for row in aligned(entry.fields))
        lines += ["   .. code-block:: text", "", *rows, ""]
    return lines


def aligned(fields: tuple[tuple[str, str, str], ...]) -> list[str]:
    """The fields of a NamedTuple in columns: name, type, comment."""
    widths = [max(len(field[column]) for field in fields) for column in (0, 1)]
    return [f"{n:{widths[0]}}  {kind:{widths[1]}}  {text}".rstrip() for n, kind, text in fields]


def described(text: str, indent: int, where: str) -> list[str]:
    """A docstring as reStructuredText: prose as prose, what is aligned or indented as it stands.

    where  the package of its module, for links to neighbours
    """
    lines = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        parts = block.splitlines()
        if any(line.startswith(" ") or "  " in line for line in parts):
            lines += ["", ".. code-block:: text", "", *("   " + line for line in parts), ""]
        else:
            lines += ["", links.in_rst(" ".join(parts), where), ""]
    return [(" " * indent + line).rstrip() for line in lines]


def write(folder: pathlib.Path, topics: dict[str, tuple[str, str]]) -> None:
    """The pages of all modules, into `folder`; topics {module: (document, title)}."""
    folder.mkdir(parents=True, exist_ok=True)
    for module in links.documented():
        (folder / f"{module}.rst").write_text(page(module, topics.get(module)), encoding="utf-8")
