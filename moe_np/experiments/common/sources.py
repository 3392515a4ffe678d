"""Which modules of the package a module reaches by its imports, and a fingerprint of their source.

A stored run is keyed by this fingerprint: it changes with code that can change the result, and with
nothing else. Imports are read from the syntax tree, wherever in a file they stand, so nothing is
imported to find them. Docstrings, comments and layout do not count.
"""

import ast
import functools
import hashlib
import pathlib
from collections.abc import Iterable, Iterator

import moe_np

ROOT = pathlib.Path(moe_np.__file__).resolve().parent


def file_of(name: str) -> pathlib.Path | None:
    """The file of a module of the package by its dotted name; None if there is no such module."""
    head, *parts = name.split(".")
    if head != "moe_np":
        return None
    path = ROOT.joinpath(*parts)
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if parts and candidate.is_file():
            return candidate
    return ROOT / "__init__.py" if not parts else None


def name_of(path: pathlib.Path) -> str:
    """The dotted name of the module in a file of the package."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules() -> tuple[str, ...]:
    """The dotted names of all modules of the package."""
    return tuple(name_of(path) for path in sorted(ROOT.rglob("*.py")))


@functools.cache
def imports(name: str) -> frozenset[str]:
    """The modules of the package that a module imports by itself, lazy imports included.

    `from moe_np import kernels` with `kernels.top_k.forward(...)` below it imports `kernels` and
    `kernels.top_k`. The packages around an imported module do not count, since their `__init__`
    only presents what lies in them.
    """
    path = file_of(name)
    if path is None:
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = dict(_imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            submodule = f"{modules.get(node.value.id, '')}.{node.attr}"
            if file_of(submodule):
                modules[submodule] = submodule
    return frozenset(modules.values()) - {name}


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(name in the file, module of the package) of every import statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parent = node.module or ""
            for alias in node.names if parent.startswith("moe_np") else ():
                submodule = f"{parent}.{alias.name}"
                yield alias.asname or alias.name, submodule if file_of(submodule) else parent
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("moe_np."):
                    yield alias.asname or alias.name, alias.name


def reached(names: Iterable[str]) -> list[str]:
    """All modules of the package that these modules reach by import, themselves included."""
    waiting = list(names)
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in seen and file_of(name):
            seen.add(name)
            waiting.extend(imports(name))
    return sorted(seen)


@functools.cache
def fingerprint(*names: str) -> str:
    """A hash of the code that these modules reach, and of the tables that lie beside it."""
    digest = hashlib.sha256()
    folders = set()
    for name in reached(names):
        path = file_of(name)
        assert path is not None  # `reached` returns modules that have a file
        digest.update(name.encode() + b"\0" + _code(path))
        folders.add(path.parent)
    for table in sorted(table for folder in folders for table in folder.glob("*.csv")):
        digest.update(table.name.encode() + b"\0" + table.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def _code(path: pathlib.Path) -> bytes:
    """The syntax tree of a file without its docstrings, as text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return ast.dump(tree).encode()
