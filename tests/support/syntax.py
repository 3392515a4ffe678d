"""Syntax trees of files, parsed once per process: for the tests that read the code."""

import ast
import functools
import pathlib


@functools.cache
def syntax(path: pathlib.Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def nodes(path: pathlib.Path) -> tuple[ast.AST, ...]:
    """All nodes of a file's syntax tree."""
    return tuple(ast.walk(syntax(path)))


def nodes_of(path: pathlib.Path, *kinds: type) -> list:
    """The nodes of these kinds, which are classes of `ast`."""
    return [node for node in nodes(path) if isinstance(node, kinds)]
