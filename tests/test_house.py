"""The rules of the house that a program can check: imports, names, docstrings, types, words."""

import ast
import collections
import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import pytest

import moe_np
from moe_np.experiments.common import registry, sources

PACKAGE = pathlib.Path(moe_np.__file__).resolve().parent
CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
MODULES = sorted(PACKAGE.rglob("*.py"))
PYTHON = sorted(
    path
    for folder in ("moe_np", "tests", "figures")
    for path in (CHECKOUT / folder).rglob("*.py")
    if "out" not in path.relative_to(CHECKOUT).parts
)

# from the top of the house to its ground: a file imports from its own room and from rooms below it
ROOMS = (
    "__main__",
    "cli",
    "coursework",
    "experiments",
    "show",
    "plots",
    "models",
    "training",
    "layers",
    "mixtures",
    "routing",
    "accounting",
    "kernels",
    "data",
    "base",
)
LEVEL = {room: level for level, room in enumerate(ROOMS)}

# pronouns, adverbs and verdicts: they say nothing of the subject
FORBIDDEN = {
    *("own", "found", "one", "more", "theirs", "mine", "there", "says", "wrong", "above", "each"),
    *("everyone", "everybody", "still", "plain", "nothing", "about", "how", "said", "better"),
    *("nearest", "others", "again", "ours_", "asked", "told", "seen_"),
}


def relative(path):
    return path.relative_to(PACKAGE).as_posix()


def syntax(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(name):
    return name.split(".")[1]


every_module = pytest.mark.parametrize("path", MODULES, ids=relative)


# --- imports --------------------------------------------------------------------------------------


@every_module
def test_imports_point_downwards(path):
    name = sources.name_of(path)
    if name == "moe_np":
        assert not sources.imports(name), "`import moe_np` must stay free"
        return
    room = room_of(name)
    assert room in LEVEL, f"{room} has no place in the house: add it to ROOMS"
    for imported in sources.imports(name):
        other = room_of(imported) if imported != "moe_np" else room
        assert other == room or LEVEL[other] > LEVEL[room], f"{name} imports {imported}, above it"


def test_there_is_no_circle_of_imports():
    """Of modules, lazy imports included. A package that presents its modules imports them."""
    waiting, finished = set(), set()

    def visit(name, path):
        assert name not in waiting, "circle: " + " -> ".join([*path[path.index(name) :], name])
        if name in finished:
            return
        waiting.add(name)
        for imported in sorted(sources.imports(name)):
            visit(imported, [*path, name])
        waiting.remove(name)
        finished.add(name)

    for name in sources.modules():
        visit(name, [])


def test_nothing_in_the_package_imports_what_lies_outside():
    for path in MODULES:
        for node in ast.walk(syntax(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"figures", "tests", "lessons"}, path
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"


@pytest.mark.parametrize("module", ["moe_np", "moe_np.cli"])
def test_it_starts_without_the_large_libraries(module):
    large = ("numba", "scipy", "matplotlib", *(("numpy",) if module == "moe_np" else ()))
    code = f"import sys, {module}; print([m for m in {large} if sys.modules.get(m)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_no_private_name_is_used_outside_its_file():
    for path in [
        *MODULES,
        *(CHECKOUT / "lessons").rglob("*.py"),
        *(CHECKOUT / "figures").rglob("*.py"),
    ]:
        tree = syntax(path)
        imported = {alias.asname or alias.name for alias in _aliases(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("moe_np"):
                private = [a.name for a in node.names if re.match(r"_[a-z]", a.name)]
                assert not private, f"{path} imports {private}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                private = re.match(r"_[a-z]", node.attr) and node.value.id in imported
                allowed = node.attr in ("_asdict", "_replace", "_fields", "_make")
                assert not private or allowed, f"{path}: {node.value.id}.{node.attr}"


def _aliases(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("moe_np"):
            yield from node.names


# --- places ---------------------------------------------------------------------------------------


def test_a_kernel_has_the_name_of_its_twin():
    twins = {path.stem for path in (PACKAGE / "kernels").glob("*.py")} - {"__init__"}
    homes = {
        path.stem
        for room in ("routing", "layers", "mixtures", "models")
        for path in (PACKAGE / room).rglob("*.py")
    }
    assert twins <= homes, f"{twins - homes} have no NumPy twin of their name"


def test_two_modules_share_a_name_only_where_they_belong_together():
    """Twins in kernels, walks, the parts of an experiment, and the command lines of the rooms."""
    parts = {"__init__", "experiment", "runs", "report", "sensitivity", "cli", "bench", "replay"}
    places = collections.defaultdict(set)
    for path in MODULES:
        room = relative(path).split("/")[0]
        if path.stem not in parts and room != "kernels" and "walk" not in path.parts:
            places[path.stem].add(relative(path))
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert set(shared) <= {"em", "experts", "__main__"}, shared


@every_module
def test_a_file_has_at_most_350_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGER.get(relative(path), 350)


LONGER = {}  # file -> its lines, each with a reason


def test_tests_lie_where_their_module_lies():
    """tests/ROOM/test_NAME.py tests moe_np/ROOM/NAME.py, or has a subject that is no module."""
    for path in (CHECKOUT / "tests").rglob("test_*.py"):
        place = path.parent.relative_to(CHECKOUT / "tests")
        if place.parts and place.parts[0] not in (
            "parity",
            "lessons",
            "figures",
            "browser",
            "support",
        ):
            assert (PACKAGE / place).is_dir(), f"{path}: moe_np/{place} is not there"


@every_module
def test_a_module_is_named_by_a_test(path):
    """A test file of its name, or a test that imports it."""
    if path.name in ("__init__.py", "__main__.py") or path.stem.startswith("make_"):
        return
    name = sources.name_of(path)
    if (CHECKOUT / "tests" / path.relative_to(PACKAGE)).with_name(f"test_{path.stem}.py").exists():
        return
    assert name in _imported_by_tests(), f"no test imports {name}"


def _imported_by_tests(names=[]):  # noqa: B006 - read once
    if not names:
        for path in (CHECKOUT / "tests").rglob("*.py"):
            for node in ast.walk(syntax(path)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("moe_np"):
                    names.append(node.module)
                    names.extend(f"{node.module}.{alias.name}" for alias in node.names)
        names.extend(sources.reached(CLIS))
        names.extend(m for n in registry.summaries() for m in _folder(n))
    return names


CLIS = [sources.name_of(path) for path in PACKAGE.rglob("cli.py")]


def _folder(name):
    return sources.reached([f"moe_np.experiments.{name}"])


# --- names, docstrings, types ---------------------------------------------------------------------


@every_module
def test_names_say_what_is_meant(path):
    for node in ast.walk(syntax(path)):
        name = None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            name = node.name
        elif isinstance(node, ast.arg):
            name = node.arg
        assert name not in FORBIDDEN, f"{relative(path)}:{node.lineno}: {name}"


@every_module
def test_assignments_are_not_packed(path):
    """`a, b = x, y` is for swaps, and for values that belong together: at most a few per file."""
    packed = [
        node.lineno
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
        and not any(isinstance(value, ast.Starred) for value in node.value.elts)
    ]
    assert len(packed) <= 6, f"{relative(path)}: lines {packed}"


def functions(path):
    """The public functions of a module, methods of public classes included: (name, node)."""
    for node in syntax(path).body:
        members = [node] if isinstance(node, ast.FunctionDef) else []
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            members = [n for n in node.body if isinstance(n, ast.FunctionDef)]
        for member in members:
            if not member.name.startswith("_"):
                yield member.name, member


def jitted(node):
    return any("jit" in ast.unparse(d) or "compiled" in ast.unparse(d) for d in node.decorator_list)


@every_module
def test_public_functions_are_documented_and_typed(path):
    missing = []
    for name, node in functions(path):
        if jitted(node):
            continue
        arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        untyped = [
            a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")
        ]
        if untyped or node.returns is None:
            missing.append(f"{name}: types of {untyped or 'the result'}")
        if not ast.get_docstring(node):
            missing.append(f"{name}: docstring")
    assert not missing, f"{relative(path)}: {missing}"


@every_module
def test_functions_have_at_most_eight_positional_parameters(path):
    for name, node in functions(path):
        if not jitted(node):
            count = len(node.args.posonlyargs) + len(node.args.args)
            assert count <= 8, f"{relative(path)}: {name} has {count}"


@every_module
def test_a_module_says_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{relative(path)}"


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: p.relative_to(CHECKOUT).as_posix())
def test_lines_have_at_most_100_columns(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    wide = [i for i, line in enumerate(lines, 1) if len(line) > 100]
    assert not wide, f"lines {wide}"


# --- words ----------------------------------------------------------------------------------------

GLOSSARY = CHECKOUT / "lessons" / "site" / "glossary.md"


def terms():
    """(term, file) of the glossary: an entry ends with the file that owns the term."""
    text = GLOSSARY.read_text(encoding="utf-8")
    return re.findall(r"^\*\*(.+?)\*\*.*?`(moe_np/[\w/]+\.py)`", text, re.MULTILINE)


def test_the_glossary_has_the_words_that_people_search_for():
    names = {term.lower() for term, _ in terms()}
    wanted = {
        *("gating network", "router", "load-balancing loss", "auxiliary loss", "capacity factor"),
        *("learning rate", "top-k gating", "responsibility", "mixture weight", "backpropagation"),
        *("initialisation", "expert parallelism", "hierarchical mixture of experts (hme)"),
        *("weight decay", "expectation-maximisation (em)", "z-loss", "expert choice"),
    }
    assert not wanted - names


@pytest.mark.parametrize(("term", "file"), terms() if GLOSSARY.exists() else [])
def test_a_term_stands_in_the_docstring_of_the_file_that_owns_it(term, file):
    docstrings = " ".join(
        ast.get_docstring(node) or ""
        for node in ast.walk(syntax(CHECKOUT / file))
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))
    )
    words = re.sub(r"\s+", " ", docstrings).lower().replace("-", " ")
    term = re.sub(r" \(.*\)", "", term).lower().replace("-", " ")
    assert term in words, f"{file} does not say {term!r}"


def test_the_package_shows_itself():
    names = set(dir(moe_np))
    assert set(ROOMS) - {"__main__", "cli"} <= names
    assert len(inspect.getdoc(moe_np).splitlines()) <= 40, "one screen"
    for room in ROOMS[2:]:
        assert room in moe_np.__doc__
        assert inspect.ismodule(getattr(moe_np, room))


def test_help_of_the_package_names_only_what_is_there():
    for name in re.findall(r"moe_np(?:\.\w+)+", moe_np.__doc__):
        importlib.import_module(name)
