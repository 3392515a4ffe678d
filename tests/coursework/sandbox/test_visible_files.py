"""What a child can see: libraries are found without running anything, and nothing is left."""

import sys
import tempfile

import pytest

from moe_np.coursework.sandbox import Sandbox, visible_files
from moe_np.coursework.sandbox.visible_files import VisibleFiles, library_paths


def test_a_library_is_found_without_its_code_and_not_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text("raise SystemExit('this code was run')")
    (tmp_path / "evil" / "x.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as `python -m` does
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert library_paths(["evil"]) == {}
    assert list(library_paths(["numpy", "evil"])) == ["numpy"]
    for name in ("evil.x", "numpy.linalg", "this.x", "moe_np", "../evil", ""):
        with pytest.raises(ValueError, match="wanted names of libraries without a dot"):
            library_paths([name])
    assert "evil" not in sys.modules and "this" not in sys.modules


@pytest.mark.parametrize(
    ("allowed", "libraries"),
    [
        (["moe_np.no_such_module"], ["numpy"]),
        (["moe_np./etc/passwd"], ["numpy"]),
        (["check"], ["numpy"]),
        ([], ["numpy.x"]),
    ],
)
def test_a_mistake_leaves_no_folder(tmp_path, monkeypatch, allowed, libraries):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="wanted"):
        VisibleFiles(allowed, libraries)
    assert not list(tmp_path.iterdir())
    with VisibleFiles(["moe_np.base.checks"], ["numpy"]) as files:
        assert list(tmp_path.iterdir()) == [files.base]
    assert not list(tmp_path.iterdir())


@pytest.mark.seconds
def test_fonts_are_looked_for_by_the_installed_matplotlib(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    (tmp_path / "matplotlib.py").write_text("open('this_code_was_run', 'w').close()")
    monkeypatch.chdir(tmp_path)
    with Sandbox((), ("numpy", "matplotlib")) as sandbox:
        sandbox.find_fonts()
        assert any((sandbox.files.base / "fonts").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["matplotlib.py"]


def test_the_programs_of_the_sandbox_are_all_there():
    for name in visible_files.PROGRAMS:
        assert visible_files.module_files(name)[0].is_file()
