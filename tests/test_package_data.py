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
    source = (".py", ".pyc", ".md")
    files = {p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix not in source}
    assert files == named
    assert {"py.typed", "peterson_barney.csv"} <= {path.name for path in files}
