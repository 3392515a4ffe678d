"""What the README shows is true: its example runs, its files exist, its commands are commands."""

import pathlib
import re
import runpy

import numpy as np
import pytest

from moe_np import cli

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    names = {}
    exec(code, names)
    assert names["out"].shape == names["dx"].shape == names["dx_router"].shape == (6, 4)
    assert all(
        np.isfinite(g).all() for g in (*names["grads"].values(), *names["router_grads"].values())
    )


def test_files_exist():
    paths = [
        *re.findall(r"`((?:moe_np|figures|lessons)/[\w./]*)`", TEXT),
        *re.findall(r"\]\(([\w./]+)\)", TEXT),
    ]
    paths = [p for p in paths if not p.startswith("figures/out")]
    assert len(paths) > 5
    for path in paths:
        assert (ROOT / path).exists(), path


def test_commands_are_commands(capsys):
    launcher = runpy.run_path(str(ROOT / "run.py"))
    shown = re.findall(r"^python3 run\.py (\S+)", TEXT, re.M)
    assert set(shown) == set(launcher["COMMANDS"])
    for line in re.findall(r"^python3 run\.py moe-np (.*?)(?:#.*)?$", TEXT, re.M):
        with pytest.raises(SystemExit) as stop:
            cli.main([*line.split(), "--help"])
        assert stop.value.code == 0


def test_it_is_short():
    assert len(TEXT.split()) <= 600
