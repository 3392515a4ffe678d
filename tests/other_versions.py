"""The source distribution on another Python, or on the lowest versions that the metadata allows.

    python tests/other_versions.py --lowest
    python tests/other_versions.py --python python3.13
    python tests/other_versions.py --python python3.13 --everything -- -x -k em

Builds the source distribution, unpacks it in a temporary folder, installs it into an environment of
its own, and runs the quick tests that came with it; further arguments, after `--`, go to pytest.
Without `--everything` these are the tests of the arithmetic: kernels, routers, layers, mixtures and
models. Needs the network, and a minute to install; the tests take some minutes more.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
ARITHMETIC = ("base", "kernels", "routing", "layers", "mixtures", "models")
MADE = ("__pycache__", "out", "*.egg-info", ".venv", ".git", "*_cache", "*.nbi", "*.nbc")
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"


def lowest_versions(project: dict) -> list[str]:
    """The lowest versions of the dependencies and of what the tests need, as constraints of pip."""
    requirements = project["dependencies"] + project["optional-dependencies"]["test"]
    lowest = [re.match(r"([\w-]+)>=([\d.]+)", requirement) for requirement in requirements]
    assert all(lowest), requirements
    return sorted(f"{name}=={version}" for name, version in (found.groups() for found in lowest))


def main() -> int:
    """Build, install, test; the exit status is that of pytest."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="the Python; default: this one")
    parser.add_argument("--lowest", action="store_true", help="the lowest versions allowed")
    parser.add_argument("--everything", action="store_true", help="all quick tests")
    parser.add_argument("pytest", nargs="*", help="further arguments for pytest")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moe_np_versions_") as folder:
        return test_in(pathlib.Path(folder), options)


def test_in(folder: pathlib.Path, options: argparse.Namespace) -> int:
    """The same, in a folder that exists."""
    subprocess.run([options.python, "-m", "venv", folder / "env"], check=True)
    python = folder / ("env/Scripts/python.exe" if os.name == "nt" else "env/bin/python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "setuptools>=69"], check=True)
    source = unpacked_distribution(folder, python)
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(lowest_versions(project) if options.lowest else []))
    subprocess.run([*pip, "-c", constraints, f"{source}[test]"], check=True)
    paths = ["tests"] if options.everything else [f"tests/{room}" for room in ARITHMETIC]
    command = [python, "-m", "pytest", "-q", "-n", "2", "-m", "not slow", *paths, *options.pytest]
    return subprocess.run(command, cwd=source).returncode


def unpacked_distribution(folder: pathlib.Path, python: pathlib.Path) -> pathlib.Path:
    """Build the source distribution from a copy of the project and unpack it."""
    copy = folder / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*MADE))
    subprocess.run([python, "-c", BUILD, folder], cwd=copy, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("moe_np-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return source


if __name__ == "__main__":
    sys.exit(main())
