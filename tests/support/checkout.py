"""A copy of the checkout in which a test adds files and runs commands."""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUPPORT = pathlib.Path(__file__).resolve().parent
PARTS = (".github", "figures", "lessons", "moe_np", "tests", "README.md", "pyproject.toml")
MADE = ("__pycache__", "out", "build", "jupyter_execute", ".*_cache", "*.nbi", "*.nbc")


class Checkout:
    """A copy of what is tracked, in a folder that is there; what commands make is left out."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns(*MADE))
            else:
                shutil.copy(source, folder / part)
        self.before = self.files()

    def files(self) -> dict[str, bytes]:
        """{relative path: bytes} of everything but what commands make."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        names = {path.relative_to(self.folder): path for path in paths}
        return {
            name.as_posix(): path.read_bytes()
            for name, path in names.items()
            if not {"__pycache__", "out"} & set(name.parts) and name.parts[0] in PARTS
        }

    def changed(self) -> set[str]:
        """The files that were added or changed since the copy was made."""
        return {name for name, text in self.files().items() if self.before.get(name) != text}

    def read(self, name: str) -> str:
        """The text of a file."""
        return (self.folder / name).read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        """Write a file; folders are made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")

    def replace(self, name: str, *changes: tuple[str, str]) -> None:
        """Replace pieces of a file, each of which stands there once."""
        text = self.read(name)
        for old, new in changes:
            assert text.count(old) == 1, f"{name} has {text.count(old)} times {old!r}"
            text = text.replace(old, new)
        self.write(name, text)

    def add(self, name: str) -> None:
        """Put the files of `additions/NAME` into their places."""
        for path in (SUPPORT / "additions" / name).rglob("*.py"):
            place = path.relative_to(SUPPORT / "additions" / name).as_posix()
            self.write(place, path.read_text(encoding="utf-8"))

    def add_router(self) -> None:
        """The router of cosine.py, and its test."""
        self.add("router")
        text = (SUPPORT / "cosine.py").read_text(encoding="utf-8")
        self.write("moe_np/routing/cosine.py", text)

    def run(self, *arguments: str) -> str:
        """The output of `python ...` in the copy, with the NumPy kernels: nothing is compiled."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "MOE_NP_KERNELS": "numpy"}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def test(self, *arguments: str) -> str:
        """The report of `pytest -v ...` in the copy, in one process."""
        return self.run("-m", "pytest", "-v", "-p", "no:cacheprovider", "-n", "0", *arguments)
