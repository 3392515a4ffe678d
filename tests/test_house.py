"""Imports point downwards only, and `import moe_np` brings nothing with it."""

import ast
import pathlib
import subprocess
import sys

import pytest

import moe_np

ROOT = pathlib.Path(moe_np.__file__).resolve().parent

# from the top of the house to its ground; a file may import what stands in a later row, and its own
# package
ROWS = (
    ("__main__",),
    ("cli",),
    ("coursework",),
    ("experiments",),
    ("show",),
    ("plots",),
    ("models",),
    ("training",),
    ("layers",),
    ("mixtures",),
    ("routing",),
    ("accounting",),
    ("kernels",),
    ("data",),
    ("base",),
)
LEVEL = {name: level for level, row in enumerate(ROWS) for name in row}


def imported_by(path):
    """The top-level names under moe_np that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 or path.name == "__init__.py", f"{path}: relative import"
            module = node.module or ""
            names = (
                [f"moe_np.{alias.name}" for alias in node.names] if module == "moe_np" else [module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            assert parts[0] not in ("figures", "tests", "lessons"), f"{path} imports {name}"
            if parts[0] == "moe_np" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_imports_point_downwards(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts == ("__init__",):
        assert not list(imported_by(path)), "import moe_np must stay free"
        return
    own = parts[0]
    assert own in LEVEL, f"{own} has no place in the house: add it to ROWS"
    for other in imported_by(path):
        assert other == own or LEVEL[other] > LEVEL[own], (
            f"{own} imports {other}, which stands above it"
        )


def test_importing_the_package_imports_no_library():
    code = "import sys, moe_np; print([m for m in ('numpy', 'numba', 'scipy', 'matplotlib') if sys.modules.get(m)])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "[]"
    )


def test_the_command_line_starts_without_numba_and_matplotlib():
    code = "import sys, moe_np.cli; print([m for m in ('numba', 'scipy', 'matplotlib') if sys.modules.get(m)])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "[]"
    )
