"""Notebooks under other extensions and in archives; what is none is none."""

import json
import zipfile

import pytest

from moe_np.coursework import notebook, notebook_files

TEXT = json.dumps({"cells": [], "metadata": {}})


def archive(path, names):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, TEXT)
    return path


@pytest.mark.parametrize(
    "name", ["a.ipynb", "a.IPYNB", "a.ipynb.txt", "a.json", "a", "a.ipynb.zip_"]
)
def test_a_notebook_by_its_content(name, tmp_path):
    path = tmp_path / name
    path.write_text(TEXT)
    assert notebook_files.find(path) == "" and notebook_files.read(path) == TEXT.encode()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cells": 3}', "words"])
def test_what_is_no_notebook(text, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert notebook_files.find(path) is None


def test_the_only_notebook_of_an_archive(tmp_path):
    names = ("w/1.ipynb", "w/.ipynb_checkpoints/1.ipynb", "__MACOSX/w/._1.ipynb", "w/notes.txt")
    path = archive(tmp_path / "a.zip", names)
    assert notebook_files.find(path) == "w/1.ipynb"
    assert notebook_files.read(path, "w/1.ipynb") == TEXT.encode()
    assert notebook_files.find(archive(tmp_path / "b.zip", ("1.ipynb", "2.ipynb"))) is None
    broken = tmp_path / "c.zip"
    broken.write_bytes(path.read_bytes()[:80])
    assert notebook_files.find(broken) is None and notebook_files.read(broken, "x") == b""


def test_an_archive_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "LARGEST", 1000)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.ipynb", b" " * 10**6)
    assert path.stat().st_size > 1000 and notebook_files.find(path) is None
    assert len(notebook_files.read(path, "a.ipynb")) == 1001
