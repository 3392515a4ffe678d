"""The modules that a run reaches by import, and the fingerprint that keys its stored result."""

import shutil

import pytest

from moe_np.experiments.common import sources

ROUTER = "moe_np.routing.top_k"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package whose files a test may change, with nothing remembered."""
    root = tmp_path / "moe_np"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(sources.ROOT, root, ignore=ignored)
    monkeypatch.setattr(sources, "ROOT", root)
    forget()
    yield root
    forget()


def forget():
    for function in (sources.modules, sources.imports, sources.fingerprint, sources._code):
        function.cache_clear()


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    forget()


def test_names_and_files_belong_together():
    for name in sources.modules():
        assert sources.name_of(sources.file_of(name)) == name
    assert sources.file_of("moe_np.routing.nothing") is None
    assert sources.file_of("numpy") is None


def test_a_router_reaches_its_kernel_and_not_the_command_line():
    reached = sources.reached([ROUTER])
    assert {ROUTER, "moe_np.kernels.top_k", "moe_np.base.numerics"} <= set(reached)
    assert "moe_np.cli" not in reached and "moe_np.routing.switch" not in reached


def test_code_that_is_reached_counts(copy):
    before = sources.fingerprint(ROUTER)
    edit(copy / "base" / "numerics.py", "def softmax(", "softmax_changed = 1\n\n\ndef softmax(")
    assert sources.fingerprint(ROUTER) != before


@pytest.mark.seconds
def test_docstrings_comments_and_other_modules_do_not_count(copy):
    before = sources.fingerprint(ROUTER)
    edit(copy / "base" / "numerics.py", '"""', '"""Other words. ')
    edit(copy / "base" / "numerics.py", "import numpy as np", "import numpy as np  # a comment")
    edit(copy / "cli.py", "import argparse", "import argparse as parsing\nimport argparse")
    (copy / "routing" / "new_router.py").write_text("CAUSAL = True\n")
    forget()
    assert sources.fingerprint(ROUTER) == before


def test_a_table_beside_a_module_counts(copy):
    vowels = "moe_np.data.speech.vowels"
    before = sources.fingerprint(vowels)
    table = copy / "data" / "speech" / "peterson_barney.csv"
    table.write_bytes(table.read_bytes() + b"\n")
    forget()
    assert sources.fingerprint(vowels) != before
