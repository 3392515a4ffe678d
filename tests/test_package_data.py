"""The files of the package that are neither Python nor Markdown: its wheel contains them all."""

import pathlib
import tomllib

import moe_np

PACKAGE = pathlib.Path(moe_np.__file__).resolve().parent
PYPROJECT = PACKAGE.parent / "pyproject.toml"


def test_package_data_names_every_data_file():
    settings = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]
    named = {
        path
        for package, globs in patterns.items()
        for pattern in globs
        for path in PACKAGE.parent.joinpath(*package.split(".")).glob(pattern)
    }
    files = {p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    files = {p for p in files if p.suffix not in (".py", ".md")}
    assert files == named
    assert {"py.typed", "peterson_barney.csv"} <= {path.name for path in files}
