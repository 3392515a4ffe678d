"""Which names of a notebook depend on the cell that was run last: what breaks when a learner runs
an earlier cell again.

A name that a cell reads should be bound by one cell alone. If two cells bind it, a learner who goes
back to the first and then goes on with a cell after the second sees the wrong value. Bound twice
with the same import or the same function is fine.
"""

import ast
import symtable


def bindings(text):
    """{name: what it is bound to} at the top level of a cell; None where that may differ."""
    table = symtable.symtable(text, "cell", "exec")
    names = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    found = dict.fromkeys(names)
    for node in ast.parse(text).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                module = getattr(node, "module", None)
                found[(alias.asname or alias.name).partition(".")[0]] = f"{module}.{alias.name}"
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = ast.dump(node)
    return found


class TopLevelReads(ast.NodeVisitor):
    """The names that the top level of a cell reads before it binds them, in the order of running.

    Functions are left out: `read_in_functions` has theirs.
    """

    def __init__(self):
        self.bound = set()
        self.read = set()

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Load):
            if node.id not in self.bound:
                self.read.add(node.id)
        else:
            self.bound.add(node.id)

    def visit_Assign(self, node):
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AugAssign(self, node):
        self.visit(node.value)
        if isinstance(node.target, ast.Name) and node.target.id not in self.bound:
            self.read.add(node.target.id)
        self.visit(node.target)

    def visit_For(self, node):
        for part in (node.iter, node.target, *node.body, *node.orelse):
            self.visit(part)

    def visit_FunctionDef(self, node):
        for part in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            if part is not None:
                self.visit(part)
        self.bound.add(node.name)

    def visit_ExceptHandler(self, node):
        if node.name:
            self.bound.add(node.name)
        self.generic_visit(node)

    def visit_ClassDef(self, node):
        self.bound.add(node.name)

    def visit_Lambda(self, node):
        for part in node.args.defaults:
            self.visit(part)

    def visit_comprehension_of(self, node):
        local = {
            n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)
        }
        inner = TopLevelReads()
        inner.bound = self.bound | local
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.comprehension):
                for part in (child.iter, *child.ifs):
                    inner.visit(part)
            else:
                inner.visit(child)
        self.read |= inner.read

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_comprehension_of

    def visit_Import(self, node):
        self.bound |= {(a.asname or a.name).partition(".")[0] for a in node.names}

    visit_ImportFrom = visit_Import


def read_at_top_level(text):
    reader = TopLevelReads()
    reader.visit(ast.parse(text))
    return reader.read


def read_in_functions(text):
    """The global names that functions of a cell read, lambdas included."""
    found = set()

    def look(table):
        for child in table.get_children():
            if child.get_type() == "function" and child.get_name() not in COMPREHENSIONS:
                symbols = child.get_symbols()
                found.update(s.get_name() for s in symbols if s.is_global() and s.is_referenced())
            look(child)

    look(symtable.symtable(text, "cell", "exec"))
    return found


COMPREHENSIONS = ("listcomp", "setcomp", "dictcomp", "genexpr")


def dependent_names(cells):
    """(cell, name that it reads, cells that bind it), where the order of running matters.

    Either several cells bind the name, or the cell itself does after it has read it.
    """
    bound = [bindings(text) for text in cells]
    found = []
    for number, text in enumerate(cells):
        for name in sorted(read_at_top_level(text) | read_in_functions(text)):
            binders = [n for n, names in enumerate(bound) if name in names]
            values = {bound[n][name] for n in binders}
            differ = len(binders) > 1 and (len(values) > 1 or None in values)
            itself = binders == [number] and name in read_at_top_level(text)
            if differ or itself:
                found.append((number, name, binders))
    return found
